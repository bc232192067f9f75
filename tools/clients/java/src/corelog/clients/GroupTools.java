package corelog.clients;

import static corelog.clients.Tool.run;

import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.List;
import java.util.Map;
import org.apache.kafka.clients.admin.ListConsumerGroupOffsetsSpec;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.tools.GroupsCommand;
import org.apache.kafka.tools.consumer.ConsoleConsumer;
import org.apache.kafka.tools.consumer.group.ConsumerGroupCommand;

/** kafka-consumer-groups, kafka-groups, and the offsets topic as the console consumer's formatters read it. */
final class GroupTools {
    private GroupTools() {}

    static void register(Main.Tests tests) {
        tests.add("kafka-consumer-groups live group", GroupTools::live);
        tests.add("kafka-consumer-groups reset", GroupTools::reset);
        tests.add("kafka-consumer-groups delete", GroupTools::delete);
        tests.add("kafka-groups", GroupTools::groups);
        tests.add("__consumer_offsets formatters", GroupTools::formatters);
    }

    private static void live() throws Exception {
        String t = Broker.topic("lag", 2);
        String group = Broker.name("live");
        Broker.fill(t, 2, 20);
        try (KafkaConsumer<byte[], byte[]> consumer = Broker.consumer("group.id", group, "client.id", "the-client")) {
            consumer.subscribe(List.of(t));
            Broker.take(consumer, 20);
            consumer.commitSync(Map.of(new TopicPartition(t, 0), new OffsetAndMetadata(10), new TopicPartition(t, 1), new OffsetAndMetadata(4)));

            String offsets = run(ConsumerGroupCommand::main, "--describe", "--group", group).ok();
            Check.matches(offsets, group + "\\s+" + t + "\\s+0\\s+10\\s+10\\s+0\\s+the-client-\\S+\\s+/127.0.0.1\\s+the-client");
            Check.matches(offsets, group + "\\s+" + t + "\\s+1\\s+4\\s+10\\s+6\\s+the-client-\\S+\\s+/127.0.0.1\\s+the-client");
            String members = run(ConsumerGroupCommand::main, "--describe", "--group", group, "--members", "--verbose").ok();
            Check.matches(members, group + "\\s+the-client-\\S+\\s+/127.0.0.1\\s+the-client\\s+2\\s+.*" + t + ":0,1");
            String state = run(ConsumerGroupCommand::main, "--describe", "--group", group, "--state").ok();
            Check.matches(state, group + "\\s+" + Broker.BOOTSTRAP + "\\s+\\(\\d+\\)\\s+range\\s+Stable\\s+1");
            Check.matches(run(ConsumerGroupCommand::main, "--list", "--state", "stable").ok(), group + "\\s+.*Stable");
            Check.that(!run(ConsumerGroupCommand::main, "--list", "--state", "empty").ok().contains(group), "listed as empty");
            Check.contains(run(ConsumerGroupCommand::main, "--delete", "--group", group).out(), "not empty");
            Check.contains(run(ConsumerGroupCommand::main, "--reset-offsets", "--to-earliest", "--execute", "--all-topics", "--group", group).out(),
                "Assignments can only be reset if the group '" + group + "' is inactive");
        }
        Check.contains(run(ConsumerGroupCommand::main, "--describe", "--group", group).ok(), "has no active members");
        Check.contains(run(ConsumerGroupCommand::main, "--describe", "--group", "nobody").out(), "nobody not found");
    }

    private static long committed(String group, String topic, int partition) throws Exception {
        OffsetAndMetadata found = Broker.admin().listConsumerGroupOffsets(Map.of(group, new ListConsumerGroupOffsetsSpec()))
            .partitionsToOffsetAndMetadata(group).get().get(new TopicPartition(topic, partition));
        return found == null ? -1 : found.offset();
    }

    /** A group that exists by its offsets alone. */
    private static String groupAt(String topic, int partitions, long offset) throws Exception {
        String group = Broker.name("settled");
        try (KafkaConsumer<byte[], byte[]> consumer = Broker.consumer("group.id", group)) {
            for (int p = 0; p < partitions; p++) {
                consumer.commitSync(Map.of(new TopicPartition(topic, p), new OffsetAndMetadata(offset)));
            }
        }
        return group;
    }

    private static void reset() throws Exception {
        String t = Broker.topic("reset", 2);
        Broker.fill(t, 2, 20);
        String group = groupAt(t, 2, 5);
        record Step(long expected, String... how) { }
        Step[] steps = {
            new Step(0, "--to-earliest"), new Step(10, "--to-latest"), new Step(7, "--shift-by", "-3"), new Step(9, "--to-offset", "9"),
            new Step(0, "--to-datetime", "2001-01-01T00:00:00.000"), new Step(0, "--by-duration", "P1D"), new Step(0, "--to-current"),
        };
        for (Step step : steps) {
            List<String> args = new java.util.ArrayList<>(List.of("--reset-offsets", "--group", group, "--topic", t, "--execute"));
            args.addAll(List.of(step.how()));
            run(ConsumerGroupCommand::main, args.toArray(new String[0])).ok();
            for (int p = 0; p < 2; p++) {
                Check.equal(step.expected(), committed(group, t, p));
            }
        }
        // A dry run tells and changes nothing; its export can be executed later.
        String csv = run(ConsumerGroupCommand::main, "--reset-offsets", "--group", group, "--topic", t + ":1", "--to-latest", "--dry-run", "--export").ok();
        Check.contains(csv, t + ",1,10");
        Check.equal(0L, committed(group, t, 1));
        Path file = Path.of("reset.csv");
        Files.writeString(file, csv);
        run(ConsumerGroupCommand::main, "--reset-offsets", "--group", group, "--from-file", file.toString(), "--execute").ok();
        Check.equal(10L, committed(group, t, 1));
        Check.equal(0L, committed(group, t, 0));
    }

    private static void delete() throws Exception {
        String t = Broker.topic("delete", 2);
        String group = groupAt(t, 2, 0);
        Check.matches(run(ConsumerGroupCommand::main, "--delete-offsets", "--group", group, "--topic", t + ":0").ok(), t + "\\s+0\\s+Successful");
        Check.equal(-1L, committed(group, t, 0));
        Check.equal(0L, committed(group, t, 1));
        Check.contains(run(ConsumerGroupCommand::main, "--delete", "--group", group).ok(), "was successful");
        Check.that(!run(ConsumerGroupCommand::main, "--list").ok().contains(group), "still listed");
        Check.contains(run(ConsumerGroupCommand::main, "--delete", "--group", group).out(), "could not be deleted");
    }

    private static void groups() throws Exception {
        String group = groupAt(Broker.topic("groups", 1), 1, 0);
        String out = run(GroupsCommand::main, "--list").ok();
        Check.matches(out, "^" + group + "\\s+Classic");
    }

    private static void formatters() throws Exception {
        String t = Broker.topic("formatted", 1);
        String group = Broker.name("formatted-group");
        Broker.fill(t, 1, 3);
        try (KafkaConsumer<byte[], byte[]> consumer = Broker.consumer("group.id", group)) {
            consumer.subscribe(List.of(t));
            Broker.take(consumer, 3);
            consumer.commitSync(Duration.ofSeconds(10));
        }
        String offsets = run(ConsoleConsumer::main, "--topic", "__consumer_offsets", "--from-beginning", "--timeout-ms", "3000",
            "--formatter", "org.apache.kafka.tools.consumer.OffsetsMessageFormatter").out();
        Check.matches(offsets, "\"group\":\"" + group + "\",\"topic\":\"" + t + "\",\"partition\":0.*\"offset\":3");
        String metadata = run(ConsoleConsumer::main, "--topic", "__consumer_offsets", "--from-beginning", "--timeout-ms", "3000",
            "--formatter", "org.apache.kafka.tools.consumer.GroupMetadataMessageFormatter").out();
        Check.matches(metadata, "\"group\":\"" + group + "\".*\"protocolType\":\"consumer\"");
    }
}
