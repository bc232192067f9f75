package corelog.clients;

import static corelog.clients.Broker.bytes;
import static corelog.clients.Broker.text;

import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.stream.IntStream;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.errors.InvalidTimestampException;
import org.apache.kafka.common.errors.RecordTooLargeException;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.internals.RecordHeader;
import org.apache.kafka.common.record.TimestampType;

/** The Java producer. */
final class ProducerTests {
    /** max.message.bytes less what a batch of one record without key or headers needs. */
    private static final int LARGEST_VALUE = 1048588 - 72;

    private ProducerTests() {}

    static void register(Main.Tests tests) {
        for (String codec : List.of("none", "gzip", "snappy", "lz4", "zstd")) {
            tests.add("producer " + codec, () -> codec(codec));
        }
        for (String acks : List.of("0", "1", "all")) {
            tests.add("producer acks=" + acks, () -> acks(acks));
        }
        tests.add("producer idempotence with many in flight", ProducerTests::idempotence);
        tests.add("producer headers and nulls", ProducerTests::headersAndNulls);
        tests.add("producer timestamps", ProducerTests::timestamps);
        tests.add("producer large records", ProducerTests::large);
        tests.add("producer to a topic that is not there", ProducerTests::autoCreation);
    }

    private static void codec(String codec) throws Exception {
        String t = Broker.topic("codec", 1);
        List<ProducerRecord<byte[], byte[]>> records = new ArrayList<>();
        for (int i = 0; i < 3000; i++) {
            records.add(new ProducerRecord<>(t, bytes("k" + i), bytes(("value " + i + " ").repeat(i % 30))));
        }
        try (KafkaProducer<byte[], byte[]> producer = Broker.producer("compression.type", codec, "batch.size", 65536)) {
            List<RecordMetadata> acked = Broker.send(producer, records);
            Check.equal(2999L, acked.get(2999).offset());
            // Something that does not get smaller.
            byte[] noise = new byte[500_000];
            new java.util.Random(1).nextBytes(noise);
            records.add(new ProducerRecord<>(t, noise));
            Broker.send(producer, records.subList(3000, 3001));
        }
        List<ConsumerRecord<byte[], byte[]>> got = Broker.readAll(t, 0, 3001);
        for (int i = 0; i < got.size(); i++) {
            Check.equal((long) i, got.get(i).offset());
            Check.equal(text(records.get(i).key()), text(got.get(i).key()));
            Check.that(java.util.Arrays.equals(records.get(i).value(), got.get(i).value()), "value of " + i);
        }
    }

    private static void acks(String acks) throws Exception {
        String t = Broker.topic("acks", 1);
        try (KafkaProducer<byte[], byte[]> producer = Broker.producer("acks", acks, "enable.idempotence", false)) {
            Broker.send(producer, IntStream.range(0, 500).mapToObj(i -> new ProducerRecord<byte[], byte[]>(t, bytes("" + i))).toList());
        }
        Check.equal("499", text(Broker.readAll(t, 0, 500).get(499).value()));
    }

    private static void idempotence() throws Exception {
        String t = Broker.topic("idempotent", 4);
        try (KafkaProducer<byte[], byte[]> a = Broker.producer("enable.idempotence", true, "batch.size", 500, "linger.ms", 0);
             KafkaProducer<byte[], byte[]> b = Broker.producer("enable.idempotence", true, "batch.size", 500, "linger.ms", 0)) {
            for (int i = 0; i < 8000; i++) {
                a.send(new ProducerRecord<>(t, i % 4, bytes("a"), bytes("" + i)));
                b.send(new ProducerRecord<>(t, i % 4, bytes("b"), bytes("" + i)));
            }
        }
        for (int p = 0; p < 4; p++) {
            Map<String, Integer> next = new java.util.HashMap<>(Map.of("a", p, "b", p));
            for (ConsumerRecord<byte[], byte[]> r : Broker.readAll(t, p, 4000)) {
                int expected = next.get(text(r.key()));
                Check.equal("" + expected, text(r.value()));
                next.put(text(r.key()), expected + 4);
            }
        }
    }

    private static void headersAndNulls() throws Exception {
        String t = Broker.topic("headers", 1);
        List<Header> headers = List.of(new RecordHeader("a", bytes("1")), new RecordHeader("a", bytes("2")), new RecordHeader("null", null),
            new RecordHeader("", new byte[0]), new RecordHeader("größe", new byte[10_000]));
        try (KafkaProducer<byte[], byte[]> producer = Broker.producer()) {
            Broker.send(producer, List.of(new ProducerRecord<byte[], byte[]>(t, 0, (byte[]) null, null, headers), new ProducerRecord<>(t, new byte[0], new byte[0]),
                new ProducerRecord<>(t, bytes("k"), null), new ProducerRecord<>(t, null, bytes("v"))));
        }
        List<ConsumerRecord<byte[], byte[]>> got = Broker.readAll(t, 0, 4);
        Check.equal(headers, List.of(got.get(0).headers().toArray()));
        Check.that(got.get(0).key() == null && got.get(0).value() == null, "null key and value");
        Check.that(got.get(1).key().length == 0 && got.get(1).value().length == 0, "empty key and value");
        Check.that(got.get(2).value() == null && got.get(3).key() == null, "one of both null");
    }

    private static void timestamps() throws Exception {
        String create = Broker.topic("create-time", 1);
        String append = Broker.topic("append-time", 1, "message.timestamp.type", "LogAppendTime");
        String strict = Broker.topic("strict-time", 1, "message.timestamp.before.max.ms", "60000", "message.timestamp.after.max.ms", "60000");
        long now = System.currentTimeMillis();
        try (KafkaProducer<byte[], byte[]> producer = Broker.producer()) {
            Check.equal(1234L, Broker.send(producer, List.of(Broker.at(create, 1234L, null))).get(0).timestamp());
            long appended = Broker.send(producer, List.of(Broker.at(append, 1234L, null))).get(0).timestamp();
            Check.that(Math.abs(appended - now) < 60_000, appended);
            ConsumerRecord<byte[], byte[]> got = Broker.readAll(append, 0, 1).get(0);
            Check.equal(TimestampType.LOG_APPEND_TIME, got.timestampType());
            Check.equal(appended, got.timestamp());
            Check.equal(TimestampType.CREATE_TIME, Broker.readAll(create, 0, 1).get(0).timestampType());
            Broker.send(producer, List.of(Broker.at(strict, now, null)));
            for (long bad : new long[] {now - 120_000, now + 120_000}) {
                Check.fails(InvalidTimestampException.class, () -> Broker.send(producer, List.of(Broker.at(strict, bad, null))));
            }
        }
        Broker.readAll(strict, 0, 1);
    }

    private static void large() throws Exception {
        String t = Broker.topic("large", 1);
        for (boolean idempotent : new boolean[] {true, false}) {
            try (KafkaProducer<byte[], byte[]> producer = Broker.producer("max.request.size", 4_000_000, "enable.idempotence", idempotent)) {
                Broker.send(producer, List.of(new ProducerRecord<>(t, new byte[LARGEST_VALUE])));
                Check.fails(RecordTooLargeException.class,
                    () -> Broker.send(producer, List.of(new ProducerRecord<>(t, new byte[LARGEST_VALUE + 1]))));
            }
            // After the refusal a new producer goes on.
            try (KafkaProducer<byte[], byte[]> producer = Broker.producer("enable.idempotence", idempotent)) {
                Broker.send(producer, List.of(new ProducerRecord<>(t, bytes("small"))));
            }
        }
        List<ConsumerRecord<byte[], byte[]>> got = Broker.readAll(t, 0, 4, "max.partition.fetch.bytes", 1000, "fetch.max.bytes", 1000);
        Check.equal(List.of(LARGEST_VALUE, 5, LARGEST_VALUE, 5), got.stream().map(r -> r.value().length).toList());
    }

    private static void autoCreation() throws Exception {
        String t = Broker.name("created-by-producer");
        try (KafkaProducer<byte[], byte[]> producer = Broker.producer()) {
            Check.equal(0L, Broker.send(producer, List.of(new ProducerRecord<>(t, bytes("first")))).get(0).offset());
        }
        Broker.readAll(t, 0, 1);
    }
}
