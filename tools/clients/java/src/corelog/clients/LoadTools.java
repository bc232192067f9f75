package corelog.clients;

import static corelog.clients.Tool.run;

import java.util.ArrayList;
import java.util.List;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import org.apache.kafka.tools.BrokerApiVersionsCommand;
import org.apache.kafka.tools.ClientCompatibilityTest;
import org.apache.kafka.tools.ConsumerPerformance;
import org.apache.kafka.tools.EndToEndLatency;
import org.apache.kafka.tools.ProducerPerformance;
import org.apache.kafka.tools.VerifiableConsumer;
import org.apache.kafka.tools.VerifiableProducer;

/** VerifiableProducer and VerifiableConsumer, kafka-producer-perf-test, kafka-consumer-perf-test, EndToEndLatency, ClientCompatibilityTest. */
final class LoadTools {
    private LoadTools() {}

    static void register(Main.Tests tests) {
        tests.add("VerifiableProducer and VerifiableConsumer", LoadTools::verifiable);
        tests.add("VerifiableConsumer static member", LoadTools::verifiableStatic);
        for (String codec : List.of("none", "gzip", "snappy", "lz4", "zstd")) {
            tests.add("ProducerPerformance and ConsumerPerformance " + codec, () -> performance(codec));
        }
        tests.add("EndToEndLatency", LoadTools::latency);
        tests.add("ClientCompatibilityTest", LoadTools::compatibility);
    }

    private static List<String> found(String text, String regex) {
        List<String> all = new ArrayList<>();
        for (Matcher m = Pattern.compile(regex).matcher(text); m.find();) {
            all.add(m.group(1));
        }
        return all;
    }

    private static void verifiable() throws Exception {
        String t = Broker.topic("verifiable", 3);
        for (String acks : List.of("-1", "1")) {
            String sent = Tool.process(VerifiableProducer.class, "--topic", t, "--max-messages", "1000", "--acks", acks, "--value-prefix", "7",
                "--repeating-keys", "10").ok();
            Check.equal(1000, found(sent, "(\"name\":\"producer_send_success\")").size());
            Check.contains(sent, "\"acked\":1000");
        }
        String read = Tool.process(VerifiableConsumer.class, "--topic", t, "--group-id", Broker.name("verifiable"), "--max-messages", "2000",
            "--verbose").ok();
        List<String> values = found(read, "\"value\":\"7\\.(\\d+)\"");
        Check.equal(2000, values.size());
        Check.equal(1000L, values.stream().distinct().count());
        Check.matches(read, "\"name\":\"offsets_committed\".*\"success\":true");
        Check.that(!read.contains("\"success\":false"), "a commit failed");
    }

    private static void verifiableStatic() throws Exception {
        String t = Broker.topic("verifiable", 2);
        String group = Broker.name("verifiable-static");
        Broker.fill(t, 2, 100);
        for (int i = 0; i < 2; i++) {
            String read = Tool.process(VerifiableConsumer.class, "--topic", t, "--group-id", group, "--group-instance-id", "one", "--max-messages", "50",
                "--assignment-strategy", "org.apache.kafka.clients.consumer.RoundRobinAssignor").ok();
            Check.equal(50, found(read, "\"count\":(\\d+),\"minOffset\"").stream().mapToInt(Integer::parseInt).sum());
        }
    }

    private static void performance(String codec) throws Exception {
        String t = Broker.topic("perf", 4);
        String wrote = run(ProducerPerformance::main, "--topic", t, "--num-records", "20000", "--record-size", "1000", "--throughput", "-1",
            "--command-property", "acks=all", "compression.type=" + codec, "enable.idempotence=true").ok();
        Check.matches(wrote, "^20000 records sent, [\\d.]+ records/sec");
        String read = run(ConsumerPerformance::main, "--topic", t, "--num-records", "20000", "--hide-header", "--timeout", "15000").ok();
        // start, end, MB consumed, MB/s, records consumed, ...
        String[] fields = read.lines().filter(l -> l.startsWith("2")).findFirst().orElseThrow().split(", ");
        Check.equal("20000", fields[4]);
    }

    private static void latency() throws Exception {
        String t = Broker.topic("latency", 1);
        String out = run(EndToEndLatency::main, "--topic", t, "--num-records", "200", "--producer-acks", "all", "--record-size", "100").ok();
        Check.contains(out, "Percentiles: 50th = ");
    }

    private static void compatibility() throws Exception {
        // ACLs are asked for where the broker offers them.
        String acls = String.valueOf(run(BrokerApiVersionsCommand::main).ok().matches("(?s).*DescribeAcls\\(29\\): \\d.*"));
        String out = run(ClientCompatibilityTest::main, "--topic", Broker.topic("compatibility", 1), "--num-cluster-nodes", "1",
            "--offsets-for-times-supported", "true", "--cluster-id-supported", "true", "--expect-record-too-large-exception", "false",
            "--create-topics-supported", "true", "--describe-acls-supported", acls, "--describe-configs-supported", "true",
            "--idempotent-producer-supported", "true").ok();
        Check.contains(out, "SUCCESS");
    }
}
