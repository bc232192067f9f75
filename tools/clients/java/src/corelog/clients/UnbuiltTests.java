package corelog.clients;

import java.time.Duration;
import java.util.List;
import java.util.Map;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.common.KafkaException;
import org.apache.kafka.common.errors.UnsupportedVersionException;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;

/** What Corelog does not have yet is refused at once, in words that reach the application. */
final class UnbuiltTests {
    private UnbuiltTests() {}

    static void register(Main.Tests tests) {
        if (System.getenv("BROKER").startsWith("kafka")) {
            return;
        }
        tests.add("unbuilt transactions", UnbuiltTests::transactions);
        tests.add("unbuilt consumer protocol", UnbuiltTests::consumerProtocol);
        tests.add("unbuilt compaction", UnbuiltTests::compaction);
    }

    private static void transactions() {
        try (KafkaProducer<byte[], byte[]> producer = Broker.producer("transactional.id", "unbuilt")) {
            KafkaException e = Check.fails(KafkaException.class, producer::initTransactions);
            Check.contains(e.toString(), "Corelog has no transactions yet");
        }
    }

    private static void consumerProtocol() throws Exception {
        String t = Broker.topic("unbuilt", 1);
        Map<String, Object> config = Map.of("bootstrap.servers", System.getenv("BOOTSTRAP"), "group.id", t, "group.protocol", "consumer");
        var bytes = new ByteArrayDeserializer();
        try (KafkaConsumer<byte[], byte[]> consumer = new KafkaConsumer<>(config, bytes, bytes)) {
            consumer.subscribe(List.of(t));
            UnsupportedVersionException e = Check.fails(UnsupportedVersionException.class, () -> {
                for (int i = 0; i < 20; i++) {
                    consumer.poll(Duration.ofSeconds(1));
                }
            });
            Check.contains(e.getMessage(), "group.protocol=classic");
        }
    }

    /** The answer has a remark beside its success. */
    private static void compaction() throws Exception {
        NewTopic topic = new NewTopic("compacted-" + System.nanoTime(), 1, (short) 1).configs(Map.of("cleanup.policy", "compact"));
        Broker.admin().createTopics(List.of(topic)).all().get();
    }
}
