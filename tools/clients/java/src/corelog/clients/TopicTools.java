package corelog.clients;

import static corelog.clients.Tool.run;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.nio.file.Files;
import java.nio.file.Path;
import org.apache.kafka.tools.BrokerApiVersionsCommand;
import org.apache.kafka.tools.ClusterTool;
import org.apache.kafka.tools.ConfigCommand;
import org.apache.kafka.tools.DeleteRecordsCommand;
import org.apache.kafka.tools.GetOffsetShell;
import org.apache.kafka.tools.LogDirsCommand;
import org.apache.kafka.tools.TopicCommand;

/** kafka-topics, kafka-configs, kafka-get-offsets, kafka-delete-records, kafka-log-dirs, kafka-broker-api-versions, kafka-cluster. */
final class TopicTools {
    private TopicTools() {}

    static void register(Main.Tests tests) {
        tests.add("kafka-topics", TopicTools::topics);
        tests.add("kafka-topics refusals", TopicTools::topicRefusals);
        tests.add("kafka-configs topics", TopicTools::topicConfigs);
        tests.add("kafka-configs brokers", TopicTools::brokerConfigs);
        tests.add("kafka-get-offsets", TopicTools::getOffsets);
        tests.add("kafka-delete-records", TopicTools::deleteRecords);
        tests.add("kafka-log-dirs", TopicTools::logDirs);
        tests.add("kafka-broker-api-versions", TopicTools::apiVersions);
        tests.add("kafka-cluster", TopicTools::cluster);
    }

    private static void topics() throws Exception {
        String t = Broker.name("tools");
        Check.contains(run(TopicCommand::main, "--create", "--topic", t, "--partitions", "3", "--replication-factor", "1",
            "--config", "retention.ms=3600000", "--config", "max.message.bytes=200000").ok(), "Created topic " + t);
        run(TopicCommand::main, "--create", "--if-not-exists", "--topic", t).ok();
        Check.matches(run(TopicCommand::main, "--list").ok(), "^" + t + "$");
        Check.equal("", run(TopicCommand::main, "--list", "--topic", "nothing-.*").ok().strip());

        String described = run(TopicCommand::main, "--describe", "--topic", t).ok();
        Check.matches(described, "^Topic: " + t + "\\s+TopicId: [A-Za-z0-9_-]{22}\\s+PartitionCount: 3\\s+ReplicationFactor: 1\\s+Configs: .*");
        Check.contains(described, "max.message.bytes=200000");
        Check.contains(described, "retention.ms=3600000");
        for (int p = 0; p < 3; p++) {
            Check.matches(described, "Partition: " + p + "\\s+Leader: (\\d+)\\s+Replicas: \\1\\s+Isr: \\1");
        }
        Check.contains(run(TopicCommand::main, "--describe", "--topics-with-overrides").ok(), "Topic: " + t);
        for (String nothing : new String[] {"--under-replicated-partitions", "--unavailable-partitions", "--under-min-isr-partitions"}) {
            Check.equal("", run(TopicCommand::main, "--describe", nothing).ok().strip());
        }

        run(TopicCommand::main, "--alter", "--topic", t, "--partitions", "5").ok();
        Check.contains(run(TopicCommand::main, "--describe", "--topic", t).ok(), "PartitionCount: 5");
        run(TopicCommand::main, "--delete", "--topic", t).ok();
        Check.eventually("the topic is gone", () -> !run(TopicCommand::main, "--list").ok().contains(t));
    }

    private static void topicRefusals() throws Exception {
        String t = Broker.topic("taken", 2);
        Check.contains(run(TopicCommand::main, "--create", "--topic", t).refused(), "already exists");
        Check.contains(run(TopicCommand::main, "--alter", "--topic", t, "--partitions", "1").refused(), "would not be an increase");
        Check.contains(run(TopicCommand::main, "--create", "--topic", "wide", "--replication-factor", "7").refused(),
            "eplication factor");
        Check.contains(run(TopicCommand::main, "--create", "--topic", "odd", "--config", "retention.ms=never").refused(), "retention.ms");
        Check.contains(run(TopicCommand::main, "--describe", "--topic", "nobody").refused(), "does not exist as expected");
        Check.contains(run(TopicCommand::main, "--delete", "--topic", "nobody").refused(), "does not exist as expected");
    }

    private static void topicConfigs() throws Exception {
        String t = Broker.topic("configs", 1);
        String[] entity = {"--entity-type", "topics", "--entity-name", t};
        Check.contains(run(ConfigCommand::main, args(entity, "--alter", "--add-config", "retention.ms=7200000,cleanup.policy=[delete]")).ok(),
            "Completed updating config for topic " + t);
        Check.eventually("the change shows", () -> {
            String all = run(ConfigCommand::main, args(entity, "--describe")).ok();
            return all.contains("retention.ms=7200000 sensitive=false synonyms={DYNAMIC_TOPIC_CONFIG:retention.ms=7200000");
        });
        String all = run(ConfigCommand::main, args(entity, "--describe", "--all")).ok();
        Check.contains(all, "segment.bytes=1073741824 sensitive=false synonyms={DEFAULT_CONFIG:log.segment.bytes=1073741824}");
        Check.contains(all, "max.message.bytes=1048588");
        Check.contains(all, "compression.type=producer");
        run(ConfigCommand::main, args(entity, "--alter", "--delete-config", "retention.ms")).ok();
        Check.eventually("the default is back", () -> !run(ConfigCommand::main, args(entity, "--describe")).ok().contains("retention.ms"));
        Check.contains(run(ConfigCommand::main, args(entity, "--alter", "--add-config", "retention.mss=1")).refused(), "retention.mss");
        Check.contains(run(ConfigCommand::main, args(entity, "--alter", "--add-config", "min.insync.replicas=0")).refused(), "min.insync.replicas");
    }

    private static void brokerConfigs() throws Exception {
        String id = Broker.admin().describeCluster().controller().get().idString();
        String all = run(ConfigCommand::main, "--entity-type", "brokers", "--entity-name", id, "--describe", "--all").ok();
        Check.contains(all, "auto.create.topics.enable=true");
        Check.contains(all, "group.initial.rebalance.delay.ms=0");
        Check.contains(all, "message.max.bytes=1048588");
    }

    private static void getOffsets() throws Exception {
        String t = Broker.topic("offsets", 3);
        Broker.fill(t, 3, 31);
        Check.equal(t + ":0:11\n" + t + ":1:10\n" + t + ":2:10\n", run(GetOffsetShell::main, "--topic", t).ok());
        Check.equal(t + ":0:0\n" + t + ":1:0\n" + t + ":2:0\n", run(GetOffsetShell::main, "--topic", t, "--time", "earliest").ok());
        Check.equal(t + ":1:10\n", run(GetOffsetShell::main, "--topic-partitions", t + ":1", "--time", "-1").ok());
        Check.matches(run(GetOffsetShell::main, "--topic-partitions", t + ":2", "--time", "max-timestamp").ok(), "^" + t + ":2:\\d$");
        Check.equal(t + ":0:0\n", run(GetOffsetShell::main, "--topic-partitions", t + ":0", "--time", "1000").ok());
        run(GetOffsetShell::main, "--topic", "nobody").refused();
    }

    private static void deleteRecords() throws Exception {
        String t = Broker.topic("deleted", 2);
        Broker.fill(t, 2, 40);
        Path file = Path.of("delete-records.json");
        Files.writeString(file, ("{'version':1,'partitions':[{'topic':'T','partition':0,'offset':7},"
            + "{'topic':'T','partition':1,'offset':-1}]}").replace('\'', '"').replace("T", t));
        String out = run(DeleteRecordsCommand::main, "--offset-json-file", file.toString()).ok();
        Check.contains(out, "partition: " + t + "-0\tlow_watermark: 7");
        Check.contains(out, "partition: " + t + "-1\tlow_watermark: 20");
        Check.equal(t + ":0:7\n" + t + ":1:20\n", run(GetOffsetShell::main, "--topic", t, "--time", "-2").ok());
        Check.equal(7L, Broker.readAll(t, 0, 13).get(0).offset());
        Files.writeString(file, Files.readString(file).replace("\"offset\":7", "\"offset\":2000"));
        Check.contains(run(DeleteRecordsCommand::main, "--offset-json-file", file.toString()).ok(), "OffsetOutOfRange");
    }

    private static void logDirs() throws Exception {
        String t = Broker.topic("dirs", 2);
        Broker.fill(t, 2, 1000);
        JsonNode found = logDirs(t).at("/brokers/0/logDirs/0");
        Check.that(found.get("error").isNull(), found);
        Check.that(found.get("logDir").asText().startsWith("/"), found);
        Check.equal(2, found.get("partitions").size());
        for (JsonNode p : found.get("partitions")) {
            Check.that(p.get("size").asLong() > 500, p);
            Check.equal(0L, p.get("offsetLag").asLong());
            Check.equal(false, p.get("isFuture").asBoolean());
        }
        Check.equal(0, logDirs("nobody").at("/brokers/0/logDirs/0/partitions").size());
    }

    private static JsonNode logDirs(String topic) throws Exception {
        String out = run(LogDirsCommand::main, "--describe", "--topic-list", topic).ok();
        return new ObjectMapper().readTree(out.lines().filter(l -> l.startsWith("{")).findFirst().orElseThrow());
    }

    private static void apiVersions() throws Exception {
        String out = run(BrokerApiVersionsCommand::main).ok();
        Check.contains(out, Broker.BOOTSTRAP);
        for (String api : new String[] {"Produce(0): 0 to ", "Fetch(1): ", "Metadata(3): 0 to ", "JoinGroup(11): 0 to ", "InitProducerId(22): 0 to "}) {
            Check.contains(out, api);
        }
    }

    private static void cluster() throws Exception {
        String id = Broker.admin().describeCluster().clusterId().get();
        Check.contains(Tool.raw("", ClusterTool::main, "cluster-id", "--bootstrap-server", Broker.BOOTSTRAP).ok(), "Cluster ID: " + id);
    }

    private static String[] args(String[] first, String... then) {
        String[] all = java.util.Arrays.copyOf(first, first.length + then.length);
        System.arraycopy(then, 0, all, first.length, then.length);
        return all;
    }
}
