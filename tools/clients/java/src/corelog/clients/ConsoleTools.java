package corelog.clients;

import static corelog.clients.Tool.run;

import java.util.List;
import java.util.stream.Collectors;
import java.util.stream.IntStream;
import org.apache.kafka.tools.ConsoleProducer;
import org.apache.kafka.tools.consumer.ConsoleConsumer;

/** kafka-console-producer and kafka-console-consumer. */
final class ConsoleTools {
    private ConsoleTools() {}

    static void register(Main.Tests tests) {
        for (String codec : List.of("none", "gzip", "snappy", "lz4", "zstd")) {
            tests.add("console " + codec, () -> codec(codec));
        }
        tests.add("console keys, headers and nulls", ConsoleTools::everything);
        tests.add("console group", ConsoleTools::group);
        tests.add("console partition and offset", ConsoleTools::partitionAndOffset);
        tests.add("console acks and auto-creation", ConsoleTools::acks);
        tests.add("console several topics", ConsoleTools::include);
    }

    /** What the tool printed, without its closing remark. */
    private static String consume(int count, String... args) throws Exception {
        List<String> all = new java.util.ArrayList<>(List.of(args));
        // An end by the count, and a failure by the clock if there are fewer.
        all.addAll(List.of("--max-messages", String.valueOf(count), "--timeout-ms", "15000"));
        return run(ConsoleConsumer::main, all.toArray(new String[0])).ok().replaceAll("Processed a total of \\d+ messages?\\n", "");
    }

    private static void codec(String codec) throws Exception {
        String t = Broker.topic("console", 1);
        String lines = IntStream.range(0, 2000).mapToObj(i -> "line " + i + " of some text\n").collect(Collectors.joining());
        run(lines, ConsoleProducer::main, "--topic", t, "--compression-codec", codec).ok();
        Check.equal(lines, consume(2000, "--topic", t, "--from-beginning"));
    }

    private static void everything() throws Exception {
        String t = Broker.topic("console", 1);
        run("h1:v1,h2:v2\tkey\tvalue\nNULL\tNULL\tonly value\nh3:NULL\tonly key\tNULL\n", ConsoleProducer::main, "--topic", t,
            "--reader-property", "parse.key=true", "--reader-property", "parse.headers=true", "--reader-property", "null.marker=NULL").ok();
        String out = consume(3, "--topic", t, "--from-beginning",
            "--formatter-property", "print.key=true", "--formatter-property", "print.headers=true",
            "--formatter-property", "print.partition=true", "--formatter-property", "print.offset=true",
            "--formatter-property", "null.literal=(none)", "--formatter-property", "key.separator=|");
        Check.equal("Partition:0|Offset:0|h1:v1,h2:v2|key|value\n"
            + "Partition:0|Offset:1|NO_HEADERS|(none)|only value\n"
            + "Partition:0|Offset:2|h3:(none)|only key|(none)\n", out);
    }

    private static void group() throws Exception {
        String t = Broker.topic("console", 3);
        Broker.fill(t, 3, 30);
        String group = Broker.name("console-group");
        String first = consume(30, "--topic", t, "--group", group, "--from-beginning");
        Check.equal(30L, first.lines().distinct().count());
        Broker.fill(t, 3, 3);
        Check.equal(List.of("0", "1", "2"), consume(3, "--topic", t, "--group", group).lines().sorted().toList());
    }

    private static void partitionAndOffset() throws Exception {
        String t = Broker.topic("console", 2);
        Broker.fill(t, 2, 20);
        Check.equal("15\n17\n19\n", consume(3, "--topic", t, "--partition", "1", "--offset", "7"));
    }

    private static void acks() throws Exception {
        String t = Broker.name("created-by-console");
        for (String acks : List.of("0", "1", "all")) {
            run("with " + acks + "\n", ConsoleProducer::main, "--topic", t, "--request-required-acks", acks, "--sync").ok();
        }
        Check.equal("with 0\nwith 1\nwith all\n", consume(3, "--topic", t, "--from-beginning"));
    }

    private static void include() throws Exception {
        String stem = Broker.name("several");
        for (String suffix : List.of("a", "b")) {
            run(suffix + "\n", ConsoleProducer::main, "--topic", stem + suffix).ok();
        }
        Check.equal(List.of("a", "b"), consume(2, "--include", stem + "[ab]", "--from-beginning").lines().sorted().toList());
    }
}
