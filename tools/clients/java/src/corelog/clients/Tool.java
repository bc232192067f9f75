package corelog.clients;

import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.InputStream;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.TimeUnit;
import java.util.stream.Collectors;
import org.apache.kafka.common.utils.internals.Exit;

/** One of Kafka's command line tools, run in this JVM as its script would run it: arguments, standard input and output, exit status. */
final class Tool {
    interface EntryPoint {
        void main(String... args) throws Exception;
    }

    record Ran(int status, String out) {
        /** The tool must have succeeded; its output. */
        String ok() {
            Check.that(status == 0, "exit status " + status + ":\n" + out);
            return out;
        }

        /** The tool must have failed; its output. */
        String refused() {
            Check.that(status != 0, "exit status 0:\n" + out);
            return out;
        }
    }

    /** Thrown in place of the exit of the JVM. */
    private static final class Exited extends Error {
        static final String MARK = "(the tool exits here)";

        Exited() {
            super(MARK, null, false, false);
        }
    }

    /** How the tool ended. The first exit counts: a tool may catch what is thrown there and try again. */
    private static final class Outcome {
        private boolean ended;
        int status = -1;

        synchronized void exit(int code) {
            if (!ended) {
                ended = true;
                status = code;
            }
        }
    }

    private static final long LIMIT_MS = 60_000;

    private Tool() {}

    static Ran run(EntryPoint tool, String... args) throws Exception {
        return run("", tool, args);
    }

    /** Tools take `--bootstrap-server`, which is added. */
    static Ran run(String input, EntryPoint tool, String... args) throws Exception {
        List<String> all = new ArrayList<>(List.of("--bootstrap-server", Broker.BOOTSTRAP));
        all.addAll(List.of(args));
        return raw(input, tool, all.toArray(new String[0]));
    }

    static Ran raw(String input, EntryPoint tool, String... args) throws Exception {
        System.out.println("$ " + String.join(" ", args));
        ByteArrayOutputStream captured = new ByteArrayOutputStream();
        PrintStream stream = new PrintStream(captured, true, StandardCharsets.UTF_8);
        Outcome outcome = new Outcome();
        List<Runnable> hooks = new ArrayList<>();
        Exit.Procedure exit = (code, message) -> {
            outcome.exit(code);
            throw new Exited();
        };
        InputStream in = System.in;
        PrintStream out = System.out;
        PrintStream err = System.err;
        Exit.setExitProcedure(exit);
        Exit.setHaltProcedure(exit);
        Exit.setShutdownHookAdder((name, hook) -> hooks.add(hook));
        System.setIn(new ByteArrayInputStream(input.getBytes(StandardCharsets.UTF_8)));
        System.setOut(stream);
        System.setErr(stream);
        Thread thread = new Thread(() -> {
            try {
                tool.main(args);
                outcome.exit(0);
            } catch (Exited e) {
                // noted by the procedure
            } catch (Throwable e) {
                e.printStackTrace(stream);
                outcome.exit(1);
            }
            hooks.forEach(Runnable::run);
        }, "tool");
        try {
            thread.setDaemon(true);
            thread.start();
            thread.join(LIMIT_MS);
        } finally {
            System.setIn(in);
            System.setOut(out);
            System.setErr(err);
            Exit.resetExitProcedure();
            Exit.resetHaltProcedure();
            Exit.resetShutdownHookAdder();
        }
        // What a tool that catches the exit says of it is none of its output.
        String text = captured.toString(StandardCharsets.UTF_8).lines().filter(l -> !l.contains(Exited.MARK))
            .map(l -> l + "\n").collect(Collectors.joining());
        show(text);
        Check.that(!thread.isAlive(), "still running after " + LIMIT_MS + " ms");
        return new Ran(outcome.status, text);
    }

    /** A tool that closes in a shutdown hook of the JVM needs one of its own. */
    static Ran process(Class<?> tool, String... args) throws Exception {
        List<String> command = new ArrayList<>(List.of("java", "-Xmx128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1",
            "-Dlog4j2.configurationFile=" + System.getProperty("log4j2.configurationFile"), "-cp", System.getProperty("java.class.path"),
            tool.getName(), "--bootstrap-server", Broker.BOOTSTRAP));
        command.addAll(List.of(args));
        System.out.println("$ " + tool.getSimpleName() + " " + String.join(" ", args));
        Path out = Files.createTempFile(Path.of("."), "tool", ".out");
        Process process = new ProcessBuilder(command).redirectErrorStream(true).redirectOutput(out.toFile()).start();
        boolean ended = process.waitFor(LIMIT_MS, TimeUnit.MILLISECONDS);
        process.destroyForcibly();
        String text = Files.readString(out);
        show(text);
        Check.that(ended, "still running after " + LIMIT_MS + " ms");
        return new Ran(process.exitValue(), text);
    }

    private static void show(String text) {
        System.out.println(text.length() > 4000 ? text.substring(0, 4000) + "..." : text);
    }
}
