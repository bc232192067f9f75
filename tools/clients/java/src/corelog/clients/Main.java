package corelog.clients;

import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.LinkedHashMap;
import java.util.Map;

/** Runs every registered test in order against the broker at $BOOTSTRAP; verdicts go to $RESULTS. Arguments: parts of test names. */
public final class Main {
    public interface Body {
        void run() throws Exception;
    }

    /** Where each class of tests registers them. A null body is one that this broker cannot be asked for, with the reason. */
    public static final class Tests {
        private final Map<String, Body> bodies = new LinkedHashMap<>();

        public void add(String name, Body body) {
            if (bodies.put(name, body) != null) {
                throw new IllegalArgumentException("two tests named " + name);
            }
        }
    }

    private Main() {}

    public static void main(String[] wanted) throws Exception {
        Tests tests = new Tests();
        TopicTools.register(tests);
        ConsoleTools.register(tests);
        GroupTools.register(tests);
        LoadTools.register(tests);
        ProducerTests.register(tests);
        ConsumerTests.register(tests);
        GroupTests.register(tests);
        UnbuiltTests.register(tests);

        int failed = 0;
        for (Map.Entry<String, Body> test : tests.bodies.entrySet()) {
            String name = test.getKey();
            if (wanted.length > 0 && java.util.Arrays.stream(wanted).noneMatch(name::contains)) {
                continue;
            }
            System.out.println("== " + name);
            long start = System.nanoTime();
            try {
                test.getValue().run();
                note("passed", name, "");
            } catch (Throwable e) {
                failed++;
                e.printStackTrace(System.out);
                note("failed", name, e.toString());
            }
            System.out.printf("-- %.1f s%n", (System.nanoTime() - start) / 1e9);
        }
        Broker.close();
        System.exit(failed == 0 ? 0 : 1);
    }

    private static void note(String verdict, String test, String why) throws Exception {
        String oneLine = why.replaceAll("\\s+", " ");
        String line = verdict + "\t" + test + "\t" + oneLine.substring(0, Math.min(300, oneLine.length())) + "\n";
        Files.writeString(Path.of(System.getenv("RESULTS")), line, StandardOpenOption.CREATE, StandardOpenOption.APPEND);
    }
}
