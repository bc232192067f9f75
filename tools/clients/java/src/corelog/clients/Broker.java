package corelog.clients;

import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Collection;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Future;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/** The broker under test and clients of it, with what the tests share. */
final class Broker {
    static final String BOOTSTRAP = System.getenv("BOOTSTRAP");
    private static final Admin ADMIN = Admin.create(Map.of("bootstrap.servers", BOOTSTRAP, "default.api.timeout.ms", "20000",
        "request.timeout.ms", "10000"));
    private static int topics;

    private Broker() {}

    static Admin admin() {
        return ADMIN;
    }

    static void close() {
        ADMIN.close();
    }

    static String name(String prefix) {
        return prefix + "-" + ++topics;
    }

    /** A new topic; config as name, value, name, value. */
    static String topic(String prefix, int partitions, String... config) throws Exception {
        Map<String, String> configs = new HashMap<>();
        for (int i = 0; i < config.length; i += 2) {
            configs.put(config[i], config[i + 1]);
        }
        String name = name(prefix);
        ADMIN.createTopics(List.of(new NewTopic(name, Optional.of(partitions), Optional.empty()).configs(configs))).all().get();
        // Kafka shows a topic before its leaders take requests, and an idempotent producer that is refused there for its first
        // batch and not for its second never recovers. Only a leader can answer this.
        Map<TopicPartition, OffsetSpec> ends = new HashMap<>();
        for (int p = 0; p < partitions; p++) {
            ends.put(new TopicPartition(name, p), OffsetSpec.latest());
        }
        Check.eventually("leaders of " + name, () -> {
            try {
                return ADMIN.listOffsets(ends).all().get() != null;
            } catch (ExecutionException e) {
                return false;
            }
        });
        return name;
    }

    private static Map<String, Object> with(Map<String, Object> base, Object... config) {
        Map<String, Object> all = new HashMap<>(base);
        for (int i = 0; i < config.length; i += 2) {
            all.put((String) config[i], config[i + 1]);
        }
        return all;
    }

    static KafkaProducer<byte[], byte[]> producer(Object... config) {
        return new KafkaProducer<>(with(Map.of("bootstrap.servers", BOOTSTRAP, "delivery.timeout.ms", 20000,
            "request.timeout.ms", 10000, "linger.ms", 5), config), new ByteArraySerializer(), new ByteArraySerializer());
    }

    static KafkaConsumer<byte[], byte[]> consumer(Object... config) {
        return new KafkaConsumer<>(with(Map.of("bootstrap.servers", BOOTSTRAP, "auto.offset.reset", "earliest",
            "enable.auto.commit", false, "heartbeat.interval.ms", 200, "session.timeout.ms", 10000,
            "fetch.max.wait.ms", 100, "default.api.timeout.ms", 20000, "request.timeout.ms", 19000), config),
            new ByteArrayDeserializer(), new ByteArrayDeserializer());
    }

    static byte[] bytes(String text) {
        return text == null ? null : text.getBytes(StandardCharsets.UTF_8);
    }

    static String text(byte[] bytes) {
        return bytes == null ? null : new String(bytes, StandardCharsets.UTF_8);
    }

    /** A record with a null key, for partition 0. */
    static ProducerRecord<byte[], byte[]> at(String topic, long timestamp, byte[] value) {
        return new ProducerRecord<>(topic, 0, timestamp, null, value);
    }

    /** Send all and wait until each is acknowledged. */
    static List<RecordMetadata> send(KafkaProducer<byte[], byte[]> producer, Collection<ProducerRecord<byte[], byte[]>> records)
        throws Exception {
        List<Future<RecordMetadata>> sent = new ArrayList<>();
        records.forEach(r -> sent.add(producer.send(r)));
        producer.flush();
        List<RecordMetadata> acked = new ArrayList<>();
        for (Future<RecordMetadata> s : sent) {
            acked.add(s.get());
        }
        return acked;
    }

    /** `count` records "0", "1", ... spread evenly over the topic's partitions. */
    static void fill(String topic, int partitions, int count) throws Exception {
        List<ProducerRecord<byte[], byte[]>> records = new ArrayList<>();
        for (int i = 0; i < count; i++) {
            records.add(new ProducerRecord<>(topic, i % partitions, null, bytes(String.valueOf(i))));
        }
        try (KafkaProducer<byte[], byte[]> producer = producer()) {
            send(producer, records);
        }
    }

    /** Exactly `count` records, and then none for a moment. */
    static List<ConsumerRecord<byte[], byte[]>> take(KafkaConsumer<byte[], byte[]> consumer, int count) throws Exception {
        List<ConsumerRecord<byte[], byte[]>> got = new ArrayList<>();
        Check.eventually("" + count + " records", () -> {
            consumer.poll(Duration.ofMillis(100)).forEach(got::add);
            return got.size() >= count;
        });
        consumer.poll(Duration.ofMillis(100)).forEach(got::add);
        Check.equal(count, got.size());
        return got;
    }

    /** The whole of one partition, which has `count` records. */
    static List<ConsumerRecord<byte[], byte[]>> readAll(String topic, int partition, int count, Object... config) throws Exception {
        try (KafkaConsumer<byte[], byte[]> consumer = consumer(config)) {
            TopicPartition p = new TopicPartition(topic, partition);
            consumer.assign(List.of(p));
            consumer.seekToBeginning(List.of(p));
            return take(consumer, count);
        }
    }
}
