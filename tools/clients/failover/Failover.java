import java.time.Duration;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.concurrent.ConcurrentHashMap;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;

/** Produces and consumes until its input ends, on the Java client. What it is to do and to print: see test_failover.py. */
final class Failover {
    private static final int KEYS = 20;
    private static final int RATE = 300;
    private static final Duration READ_ALL = Duration.ofSeconds(60);

    private static final Map<String, Integer> ACKNOWLEDGED = new ConcurrentHashMap<>();
    private static final Map<String, Integer> READ = new ConcurrentHashMap<>();
    private static volatile boolean stopped;

    private Failover() {}

    public static void main(String[] args) throws Exception {
        String bootstrap = args[0];
        String topic = args[1];
        Thread producing = new Thread(() -> produce(bootstrap, topic));
        Thread consuming = new Thread(() -> consume(bootstrap, topic, producing));
        producing.start();
        consuming.start();
        System.in.readAllBytes();
        stopped = true;
        producing.join();
        consuming.join();
    }

    private static synchronized void say(Object... words) {
        StringBuilder line = new StringBuilder();
        for (Object word : words) {
            line.append(line.isEmpty() ? "" : " ").append(word);
        }
        System.out.println(line);
    }

    private static Properties config(String bootstrap) {
        Properties config = new Properties();
        config.put("bootstrap.servers", bootstrap);
        return config;
    }

    private static void produce(String bootstrap, String topic) {
        try (KafkaProducer<String, String> producer = new KafkaProducer<>(config(bootstrap), new StringSerializer(), new StringSerializer())) {
            for (int sent = 0; !stopped; sent++) {
                String key = "k" + sent % KEYS;
                int number = sent / KEYS;
                producer.send(new ProducerRecord<>(topic, key, "" + number), (metadata, error) -> {
                    if (error != null) {
                        say("error", "producer:", error);
                        return;
                    }
                    ACKNOWLEDGED.put(key, number + 1);
                    say("sent", key, number, metadata.partition(), metadata.offset());
                });
                Thread.sleep(1000 / RATE);
            }
        } catch (Exception error) {
            say("error", "producer:", error);
        }
    }

    private static void consume(String bootstrap, String topic, Thread producing) {
        Properties config = config(bootstrap);
        config.put("group.id", topic);
        config.put("auto.offset.reset", "earliest");
        config.put("session.timeout.ms", "10000");
        try (KafkaConsumer<String, String> consumer = new KafkaConsumer<>(config, new StringDeserializer(), new StringDeserializer())) {
            consumer.subscribe(List.of(topic));
            long until = Long.MAX_VALUE;
            while (System.nanoTime() < until) {
                if (stopped && !producing.isAlive()) {
                    until = until == Long.MAX_VALUE ? System.nanoTime() + READ_ALL.toNanos() : until;
                    if (ACKNOWLEDGED.entrySet().stream().allMatch(e -> READ.getOrDefault(e.getKey(), 0) >= e.getValue())) {
                        break;
                    }
                }
                for (ConsumerRecord<String, String> r : consumer.poll(Duration.ofMillis(200))) {
                    int number = Integer.parseInt(r.value());
                    READ.merge(r.key(), number + 1, Math::max);
                    say("read", r.key(), number, r.partition(), r.offset());
                }
            }
        } catch (Exception error) {
            say("error", "consumer:", error);
        }
    }
}
