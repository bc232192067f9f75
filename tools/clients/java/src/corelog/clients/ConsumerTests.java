package corelog.clients;

import static corelog.clients.Broker.bytes;
import static corelog.clients.Broker.text;

import java.time.Duration;
import java.util.Collection;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.stream.IntStream;
import org.apache.kafka.clients.admin.AlterConfigOp;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.admin.NewPartitions;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.admin.RecordsToDelete;
import org.apache.kafka.clients.admin.TopicDescription;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndTimestamp;
import org.apache.kafka.clients.consumer.OffsetOutOfRangeException;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.Uuid;
import org.apache.kafka.common.config.ConfigResource;

/** The Java consumer without groups, and the admin client where no tool reaches. */
final class ConsumerTests {
    private ConsumerTests() {}

    static void register(Main.Tests tests) {
        tests.add("consumer positions and seeks", ConsumerTests::seeks);
        tests.add("consumer offsets for times", ConsumerTests::times);
        tests.add("consumer out of range", ConsumerTests::outOfRange);
        tests.add("consumer many partitions in one session", ConsumerTests::sessions);
        tests.add("consumer waits for min bytes", ConsumerTests::minBytes);
        tests.add("consumer of a topic made again", ConsumerTests::madeAgain);
        tests.add("admin describes topics", ConsumerTests::describe);
        tests.add("admin list offsets", ConsumerTests::listOffsets);
        tests.add("admin append and subtract configs", ConsumerTests::configs);
    }

    private static void seeks() throws Exception {
        String t = Broker.topic("seeks", 2);
        Broker.fill(t, 2, 100);
        TopicPartition p0 = new TopicPartition(t, 0);
        TopicPartition p1 = new TopicPartition(t, 1);
        try (KafkaConsumer<byte[], byte[]> consumer = Broker.consumer()) {
            consumer.assign(List.of(p0, p1));
            Check.equal(Map.of(p0, 0L, p1, 0L), consumer.beginningOffsets(List.of(p0, p1)));
            Check.equal(Map.of(p0, 50L, p1, 50L), consumer.endOffsets(List.of(p0, p1)));
            Broker.take(consumer, 100);
            Check.equal(50L, consumer.position(p0));
            consumer.seek(p1, 45);
            Check.equal(5, Broker.take(consumer, 5).size());
            consumer.pause(List.of(p0));
            consumer.seekToBeginning(List.of(p0, p1));
            Check.that(Broker.take(consumer, 50).stream().allMatch(r -> r.partition() == 1), "paused partition was read");
            consumer.resume(List.of(p0));
            Broker.take(consumer, 50);
            consumer.seekToEnd(List.of(p0));
            Check.equal(50L, consumer.position(p0));
            Check.equal(2, consumer.partitionsFor(t).size());
            Check.that(consumer.listTopics().containsKey(t), "listTopics");
        }
    }

    private static void times() throws Exception {
        String t = Broker.topic("times", 1);
        long base = System.currentTimeMillis() - 1_000_000;
        try (KafkaProducer<byte[], byte[]> producer = Broker.producer()) {
            Broker.send(producer, IntStream.range(0, 100).mapToObj(i -> Broker.at(t, base + i * 10, bytes("" + i))).toList());
        }
        TopicPartition p = new TopicPartition(t, 0);
        try (KafkaConsumer<byte[], byte[]> consumer = Broker.consumer()) {
            for (int i = 0; i < 100; i += 9) {
                OffsetAndTimestamp found = consumer.offsetsForTimes(Map.of(p, base + i * 10 - 5)).get(p);
                Check.equal((long) i, found.offset());
                Check.equal(base + i * 10, found.timestamp());
            }
            Check.equal(null, consumer.offsetsForTimes(Map.of(p, base + 10_000)).get(p));
        }
    }

    private static void outOfRange() throws Exception {
        String t = Broker.topic("range", 1);
        Broker.fill(t, 1, 10);
        TopicPartition p = new TopicPartition(t, 0);
        Broker.admin().deleteRecords(Map.of(p, RecordsToDelete.beforeOffset(4))).all().get();
        for (long offset : new long[] {0, 3, 11, 1_000_000}) {
            try (KafkaConsumer<byte[], byte[]> consumer = Broker.consumer("auto.offset.reset", "none")) {
                consumer.assign(List.of(p));
                consumer.seek(p, offset);
                OffsetOutOfRangeException e = Check.fails(OffsetOutOfRangeException.class,
                    () -> Check.eventually("", () -> !consumer.poll(Duration.ofMillis(100)).isEmpty()));
                Check.equal(Map.of(p, offset), e.offsetOutOfRangePartitions());
            }
        }
        try (KafkaConsumer<byte[], byte[]> consumer = Broker.consumer()) {
            consumer.assign(List.of(p));
            consumer.seek(p, 0);
            Check.equal(4L, Broker.take(consumer, 6).get(0).offset());
        }
    }

    /** The Java consumer keeps a fetch session: partitions come into it and leave it while it lasts. */
    private static void sessions() throws Exception {
        String t = Broker.topic("session", 40);
        List<TopicPartition> all = IntStream.range(0, 40).mapToObj(i -> new TopicPartition(t, i)).toList();
        Broker.fill(t, 40, 4000);
        try (KafkaConsumer<byte[], byte[]> consumer = Broker.consumer("max.partition.fetch.bytes", 2000)) {
            consumer.assign(all);
            Broker.take(consumer, 4000);
            Broker.fill(t, 40, 40);
            Broker.take(consumer, 40);
            consumer.assign(all.subList(0, 3));
            Broker.fill(t, 40, 40);
            Check.equal(Set.of(0, 1, 2), Set.copyOf(Broker.take(consumer, 3).stream().map(r -> r.partition()).toList()));
            consumer.assign(all.subList(2, 20));
            Collection<TopicPartition> assigned = consumer.assignment();
            consumer.seekToBeginning(assigned);
            Broker.take(consumer, 18 * 102);
        }
    }

    private static void minBytes() throws Exception {
        String t = Broker.topic("wait", 1);
        TopicPartition p = new TopicPartition(t, 0);
        try (KafkaConsumer<byte[], byte[]> consumer = Broker.consumer("fetch.min.bytes", 100_000, "fetch.max.wait.ms", 1500)) {
            consumer.assign(List.of(p));
            Broker.fill(t, 1, 10);
            // Too little: it comes when the wait is over, and not before.
            long start = System.nanoTime();
            Check.eventually("records", () -> !consumer.poll(Duration.ofMillis(100)).isEmpty());
            double seconds = (System.nanoTime() - start) / 1e9;
            Check.that(seconds > 1.0 && seconds < 5, "answered after " + seconds + " s");
        }
        try (KafkaConsumer<byte[], byte[]> consumer = Broker.consumer("fetch.max.wait.ms", 5000)) {
            consumer.assign(List.of(p));
            consumer.seekToEnd(List.of(p));
            Check.equal(10L, consumer.position(p));
            consumer.poll(Duration.ofMillis(300));
            // The fetch is parked; what is written wakes it.
            Broker.fill(t, 1, 1);
            long start = System.nanoTime();
            Check.eventually("a record", () -> !consumer.poll(Duration.ofMillis(100)).isEmpty());
            double seconds = (System.nanoTime() - start) / 1e9;
            Check.that(seconds < 2, "woken after " + seconds + " s");
        }
    }

    private static Uuid topicId(String topic) throws Exception {
        return Broker.admin().describeTopics(List.of(topic)).allTopicNames().get().get(topic).topicId();
    }

    /** Topic ids tell the old topic from the new one of the same name. */
    private static void madeAgain() throws Exception {
        String t = Broker.topic("again", 1);
        Broker.fill(t, 1, 50);
        Uuid before = topicId(t);
        TopicPartition p = new TopicPartition(t, 0);
        try (KafkaConsumer<byte[], byte[]> consumer = Broker.consumer("metadata.max.age.ms", 500)) {
            consumer.assign(List.of(p));
            Broker.take(consumer, 50);
            Broker.admin().deleteTopics(List.of(t)).all().get();
            Check.eventually("the topic is gone", () -> !Broker.admin().listTopics().names().get().contains(t));
            Broker.admin().createTopics(List.of(new org.apache.kafka.clients.admin.NewTopic(t, 1, (short) 1))).all().get();
            Check.eventually("the topic is there", () -> Broker.admin().listTopics().names().get().contains(t));
            Check.that(!before.equals(topicId(t)), "the same topic id again");
            Broker.fill(t, 1, 5);
            consumer.seek(p, 0);
            Check.equal("4", text(Broker.take(consumer, 5).get(4).value()));
        }
    }

    private static void describe() throws Exception {
        String t = Broker.topic("described", 3);
        TopicDescription byName = Broker.admin().describeTopics(List.of(t)).allTopicNames().get().get(t);
        Check.equal(3, byName.partitions().size());
        Check.that(!byName.isInternal() && !byName.topicId().equals(Uuid.ZERO_UUID), byName);
        TopicDescription byId = Broker.admin().describeTopics(org.apache.kafka.common.TopicCollection.ofTopicIds(List.of(byName.topicId())))
            .allTopicIds().get().get(byName.topicId());
        Check.equal(t, byId.name());
        Broker.admin().createPartitions(Map.of(t, NewPartitions.increaseTo(6))).all().get();
        Check.eventually("six partitions", () -> Broker.admin().describeTopics(List.of(t)).allTopicNames().get().get(t).partitions().size() == 6);
        Broker.admin().deleteTopics(org.apache.kafka.common.TopicCollection.ofTopicIds(List.of(byName.topicId()))).all().get();
        Check.eventually("the topic is gone", () -> !Broker.admin().listTopics().names().get().contains(t));
    }

    private static void listOffsets() throws Exception {
        String t = Broker.topic("list", 1);
        TopicPartition p = new TopicPartition(t, 0);
        try (KafkaProducer<byte[], byte[]> producer = Broker.producer()) {
            for (long ts : new long[] {1000, 5000, 3000}) {
                Broker.send(producer, List.of(Broker.at(t, ts, null)));
            }
        }
        record Case(OffsetSpec spec, long offset, long timestamp) { }
        for (Case c : List.of(new Case(OffsetSpec.earliest(), 0, -1), new Case(OffsetSpec.latest(), 3, -1),
            new Case(OffsetSpec.maxTimestamp(), 1, 5000), new Case(OffsetSpec.forTimestamp(2000), 1, 5000),
            new Case(OffsetSpec.earliestLocal(), 0, -1), new Case(OffsetSpec.forTimestamp(6000), -1, -1))) {
            var found = Broker.admin().listOffsets(Map.of(p, c.spec())).all().get().get(p);
            Check.equal(List.of(c.offset(), c.timestamp()), List.of(found.offset(), found.timestamp()));
        }
    }

    private static void configs() throws Exception {
        ConfigResource topic = new ConfigResource(ConfigResource.Type.TOPIC, Broker.topic("listed", 1, "retention.ms", "1000"));
        Broker.admin().incrementalAlterConfigs(Map.of(topic, List.of(
            new AlterConfigOp(new ConfigEntry("leader.replication.throttled.replicas", "0:1"), AlterConfigOp.OpType.APPEND),
            new AlterConfigOp(new ConfigEntry("retention.ms", ""), AlterConfigOp.OpType.DELETE)))).all().get();
        Check.eventually("appended", () -> "0:1".equals(
            Broker.admin().describeConfigs(List.of(topic)).all().get().get(topic).get("leader.replication.throttled.replicas").value()));
        Broker.admin().incrementalAlterConfigs(Map.of(topic, List.of(
            new AlterConfigOp(new ConfigEntry("leader.replication.throttled.replicas", "0:1"), AlterConfigOp.OpType.SUBTRACT)))).all().get();
        Check.eventually("subtracted", () -> "".equals(
            Broker.admin().describeConfigs(List.of(topic)).all().get().get(topic).get("leader.replication.throttled.replicas").value()));
        Check.equal("604800000", Broker.admin().describeConfigs(List.of(topic)).all().get().get(topic).get("retention.ms").value());
    }
}
