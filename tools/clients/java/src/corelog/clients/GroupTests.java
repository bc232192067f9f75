package corelog.clients;

import static corelog.clients.Broker.text;

import java.time.Duration;
import java.util.ArrayList;
import java.util.Collection;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeSet;
import java.util.regex.Pattern;
import java.util.stream.Collectors;
import org.apache.kafka.clients.admin.MemberToRemove;
import org.apache.kafka.clients.admin.RemoveMembersFromConsumerGroupOptions;
import org.apache.kafka.clients.consumer.ConsumerRebalanceListener;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.FencedInstanceIdException;
import org.apache.kafka.common.errors.UnknownMemberIdException;

/** Consumer groups of the Java client, by the classic protocol. */
final class GroupTests {
    private GroupTests() {}

    static void register(Main.Tests tests) {
        for (String assignor : List.of("RangeAssignor", "RoundRobinAssignor", "StickyAssignor", "CooperativeStickyAssignor")) {
            tests.add("group " + assignor, () -> rebalance(assignor));
        }
        tests.add("group cooperative keeps what stays", GroupTests::cooperative);
        tests.add("group static members", GroupTests::staticMembers);
        tests.add("group static member fenced", GroupTests::fenced);
        tests.add("group static member removed by admin", GroupTests::removed);
        tests.add("group commits", GroupTests::commits);
        tests.add("group by pattern", GroupTests::pattern);
        tests.add("group sees new partitions", GroupTests::newPartitions);
        tests.add("group member dies", GroupTests::dies);
    }

    /** A consumer of a group, and what its listener was told. */
    private static final class Member implements AutoCloseable, ConsumerRebalanceListener {
        final KafkaConsumer<byte[], byte[]> consumer;
        final List<ConsumerRecord<byte[], byte[]>> got = new ArrayList<>();
        final Set<TopicPartition> revoked = new java.util.HashSet<>();
        int rebalances;

        Member(String group, String topic, Object... config) {
            Object[] all = new Object[config.length + 2];
            System.arraycopy(config, 0, all, 2, config.length);
            all[0] = "group.id";
            all[1] = group;
            consumer = Broker.consumer(all);
            consumer.subscribe(List.of(topic), this);
        }

        @Override
        public void onPartitionsAssigned(Collection<TopicPartition> partitions) {
            rebalances++;
        }

        @Override
        public void onPartitionsRevoked(Collection<TopicPartition> partitions) {
            revoked.addAll(partitions);
        }

        void poll() {
            consumer.poll(Duration.ofMillis(20)).forEach(got::add);
        }

        @Override
        public void close() {
            consumer.close();
        }
    }

    /** Poll all until their counts of partitions are these. */
    private static void settle(List<Member> members, Integer... counts) throws Exception {
        Check.eventually("assignment of " + List.of(counts), Duration.ofSeconds(30), () -> {
            members.forEach(Member::poll);
            return members.stream().map(m -> m.consumer.assignment().size()).toList().equals(List.of(counts));
        });
    }

    private static void rebalance(String assignor) throws Exception {
        String t = Broker.topic("rebalance", 6);
        String group = Broker.name("g");
        Object[] config = {"partition.assignment.strategy", "org.apache.kafka.clients.consumer." + assignor};
        List<Member> members = new ArrayList<>();
        try {
            members.add(new Member(group, t, config));
            settle(members, 6);
            members.add(new Member(group, t, config));
            settle(members, 3, 3);
            members.add(new Member(group, t, config));
            settle(members, 2, 2, 2);
            Broker.fill(t, 6, 600);
            Check.eventually("600 records", () -> {
                members.forEach(Member::poll);
                return members.stream().mapToInt(m -> m.got.size()).sum() >= 600;
            });
            Set<String> values = new TreeSet<>();
            members.forEach(m -> m.got.forEach(r -> values.add(text(r.value()))));
            Check.equal(600, values.size());
            members.forEach(m -> m.consumer.commitSync());
            members.remove(0).close();
            settle(members, 3, 3);
            members.remove(0).close();
            settle(members, 6);
            Check.equal(600, members.get(0).consumer.committed(members.get(0).consumer.assignment()).values().stream()
                .mapToInt(o -> (int) o.offset()).sum());
        } finally {
            members.forEach(Member::close);
        }
    }

    private static void cooperative() throws Exception {
        String t = Broker.topic("cooperative", 4);
        String group = Broker.name("g");
        Object[] config = {"partition.assignment.strategy", "org.apache.kafka.clients.consumer.CooperativeStickyAssignor"};
        try (Member a = new Member(group, t, config)) {
            settle(List.of(a), 4);
            try (Member b = new Member(group, t, config)) {
                settle(List.of(a, b), 2, 2);
                Check.equal(2, a.revoked.size());
                Check.equal(b.consumer.assignment(), a.revoked);
            }
        }
    }

    private static void staticMembers() throws Exception {
        String t = Broker.topic("static", 4);
        String group = Broker.name("g");
        try (Member a = new Member(group, t, "group.instance.id", "a")) {
            Set<TopicPartition> before;
            int rebalances;
            try (Member b = new Member(group, t, "group.instance.id", "b")) {
                settle(List.of(a, b), 2, 2);
                before = b.consumer.assignment();
                rebalances = a.rebalances;
            }
            // b is back before its session ends, and nobody else notices.
            try (Member b = new Member(group, t, "group.instance.id", "b")) {
                settle(List.of(a, b), 2, 2);
                Check.equal(before, b.consumer.assignment());
                Check.equal(rebalances, a.rebalances);
                Set<String> instances = Broker.admin().describeConsumerGroups(List.of(group)).all().get().get(group).members().stream()
                    .map(m -> m.groupInstanceId().orElseThrow()).collect(Collectors.toSet());
                Check.equal(Set.of("a", "b"), instances);
            }
        }
    }

    private static void fenced() throws Exception {
        String t = Broker.topic("fenced", 1);
        String group = Broker.name("g");
        try (Member a = new Member(group, t, "group.instance.id", "same")) {
            settle(List.of(a), 1);
            try (Member b = new Member(group, t, "group.instance.id", "same")) {
                settle(List.of(b), 1);
                Check.fails(FencedInstanceIdException.class, () -> Check.eventually("fenced", () -> {
                    a.poll();
                    b.poll();
                    return false;
                }));
            }
        }
    }

    private static void removed() throws Exception {
        String t = Broker.topic("removed", 2);
        String group = Broker.name("g");
        try (Member a = new Member(group, t, "group.instance.id", "a")) {
            try (Member b = new Member(group, t, "group.instance.id", "b")) {
                settle(List.of(a, b), 1, 1);
            }
            Broker.admin().removeMembersFromConsumerGroup(group, new RemoveMembersFromConsumerGroupOptions(List.of(new MemberToRemove("b")))).all().get();
            settle(List.of(a), 2);
            Check.fails(UnknownMemberIdException.class, () -> Broker.admin().removeMembersFromConsumerGroup(group,
                new RemoveMembersFromConsumerGroupOptions(List.of(new MemberToRemove("nobody")))).memberResult(new MemberToRemove("nobody")).get());
        }
    }

    private static void commits() throws Exception {
        String t = Broker.topic("commits", 1);
        String group = Broker.name("g");
        TopicPartition p = new TopicPartition(t, 0);
        Broker.fill(t, 1, 20);
        try (Member a = new Member(group, t)) {
            settle(List.of(a), 1);
            Check.equal(java.util.Collections.singletonMap(p, null), a.consumer.committed(Set.of(p)));
            a.consumer.commitSync(Map.of(p, new OffsetAndMetadata(12, "a note")));
            OffsetAndMetadata found = a.consumer.committed(Set.of(p)).get(p);
            Check.equal(List.of(12L, "a note"), List.of(found.offset(), found.metadata()));
            boolean[] done = {false};
            a.consumer.commitAsync(Map.of(p, new OffsetAndMetadata(13)), (offsets, e) -> done[0] = e == null);
            Check.eventually("commitAsync", () -> {
                a.poll();
                return done[0];
            });
            Check.fails(org.apache.kafka.common.errors.OffsetMetadataTooLarge.class,
                () -> a.consumer.commitSync(Map.of(p, new OffsetAndMetadata(14, "x".repeat(4097)))));
        }
        try (Member b = new Member(group, t)) {
            Check.eventually("seven records", () -> {
                b.poll();
                return b.got.size() >= 7;
            });
            Check.equal("13", text(b.got.get(0).value()));
        }
        // A member that was thrown out may not commit.
        try (Member c = new Member(group, t, "max.poll.interval.ms", 1000, "session.timeout.ms", 6000)) {
            settle(List.of(c), 1);
            Thread.sleep(2000);
            Check.fails(org.apache.kafka.clients.consumer.CommitFailedException.class,
                () -> c.consumer.commitSync(Map.of(p, new OffsetAndMetadata(1))));
        }
    }

    private static void pattern() throws Exception {
        String stem = Broker.name("pattern");
        String first = Broker.topic(stem + "-x", 1);
        Broker.fill(first, 1, 5);
        try (KafkaConsumer<byte[], byte[]> consumer = Broker.consumer("group.id", Broker.name("g"), "metadata.max.age.ms", 500)) {
            consumer.subscribe(Pattern.compile(stem + "-.*"));
            Broker.take(consumer, 5);
            consumer.commitSync();
            // A topic that comes later belongs too.
            String second = Broker.topic(stem + "-y", 1);
            Broker.fill(second, 1, 7);
            Broker.take(consumer, 7);
        }
    }

    private static void newPartitions() throws Exception {
        String t = Broker.topic("grows", 1);
        try (Member a = new Member(Broker.name("g"), t, "metadata.max.age.ms", 500)) {
            settle(List.of(a), 1);
            Broker.admin().createPartitions(Map.of(t, org.apache.kafka.clients.admin.NewPartitions.increaseTo(3))).all().get();
            settle(List.of(a), 3);
        }
    }

    /** A member whose heartbeats end is gone after its session timeout. */
    private static void dies() throws Exception {
        String t = Broker.topic("dies", 2);
        String group = Broker.name("g");
        Member dead = new Member(group, t, "session.timeout.ms", 6000);
        try (Member a = new Member(group, t, "session.timeout.ms", 6000)) {
            settle(List.of(a, dead), 1, 1);
            // It closes without leaving, as a static member would, or a process that was killed.
            dead.consumer.close(org.apache.kafka.clients.consumer.CloseOptions.groupMembershipOperation(
                org.apache.kafka.clients.consumer.CloseOptions.GroupMembershipOperation.REMAIN_IN_GROUP));
            settle(List.of(a), 2);
        }
    }
}
