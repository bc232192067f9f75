package corelog.clients;

import java.time.Duration;
import java.util.Objects;
import java.util.concurrent.Callable;
import java.util.concurrent.ExecutionException;

/** What tests assert with. */
final class Check {
    private Check() {}

    static void that(boolean condition, Object told) {
        if (!condition) {
            throw new AssertionError(String.valueOf(told));
        }
    }

    static void equal(Object expected, Object actual) {
        that(Objects.equals(expected, actual), "expected " + expected + " but was " + actual);
    }

    static void contains(String text, String part) {
        that(text.contains(part), "no '" + part + "' in:\n" + text);
    }

    static void matches(String text, String regex) {
        that(java.util.regex.Pattern.compile(regex, java.util.regex.Pattern.MULTILINE).matcher(text).find(),
            "nothing like /" + regex + "/ in:\n" + text);
    }

    /** The body must fail with this exception, itself or as the cause of an ExecutionException. */
    static <E extends Throwable> E fails(Class<E> kind, Main.Body body) {
        try {
            body.run();
        } catch (Throwable e) {
            Throwable cause = e instanceof ExecutionException ? e.getCause() : e;
            if (kind.isInstance(cause)) {
                return kind.cast(cause);
            }
            throw new AssertionError("expected " + kind.getSimpleName() + " but was " + cause, e);
        }
        throw new AssertionError("expected " + kind.getSimpleName() + " but nothing failed");
    }

    /** Poll until the condition holds. */
    static void eventually(String what, Callable<Boolean> condition) throws Exception {
        eventually(what, Duration.ofSeconds(20), condition);
    }

    static void eventually(String what, Duration limit, Callable<Boolean> condition) throws Exception {
        long deadline = System.nanoTime() + limit.toNanos();
        while (!condition.call()) {
            that(System.nanoTime() < deadline, "not in time: " + what);
            Thread.sleep(20);
        }
    }
}
