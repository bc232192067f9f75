//! Structured logs, written by a thread of their own, with levels that change while the broker runs.
//!
//! Code logs with `tracing`'s macros; a target is the module's path. A line is formatted on the thread that logs
//! it and handed over through a bounded queue: when the writer can't keep up (a blocked terminal), lines are
//! dropped and counted, and no core ever waits for standard error.
//!
//! Levels are bytes in a fixed table, read without a lock; tracing caches per call site whether it is enabled, so
//! that a disabled line costs a load and a branch.
//!
//! What a client can cause at will is told sparingly ([`Shard::sparingly`](crate::shard::Shard::sparingly)).

pub mod sparing;

use std::io::{IsTerminal, Write};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use tracing::level_filters::LevelFilter;
use tracing::subscriber::{Interest, SetGlobalDefaultError, set_global_default};
use tracing::{Level, Metadata, Subscriber};
use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

use crate::config::alter::Refusal;
use crate::config::nearest::nearest;

/// The loggers whose level can be set: `root`, and module paths with all below them. Sorted.
pub const LOGGERS: &[&str] = &[
    "corelog_broker",
    "corelog_broker::admin",
    "corelog_broker::api",
    "corelog_broker::audit",
    "corelog_broker::controller",
    "corelog_broker::groups",
    "corelog_broker::net",
    "corelog_io",
    "corelog_storage",
    "corelog_wire",
    ROOT,
];
const ROOT: &str = "root";

/// Lines that may wait for the writer. At some 200 bytes each, about 3 MiB.
const QUEUE_LINES_MAX: usize = 16_384;

/// A logger's level as a byte, so that it can be read while it changes.
const INHERIT: u8 = 0;
static LEVELS: [AtomicU8; LOGGERS.len()] = [const { AtomicU8::new(INHERIT) }; LOGGERS.len()];

/// The names of levels by their byte, as Kafka and Log4j write them.
const NAMES: [&str; 7] = ["", "OFF", "ERROR", "WARN", "INFO", "DEBUG", "TRACE"];
const INFO: u8 = 4;

/// Keeps the writer going; dropping it writes what is queued.
#[must_use = "logging ends when this is dropped"]
pub struct Logging(#[allow(dead_code)] WorkerGuard);

static DROPPED: OnceLock<ErrorCounter> = OnceLock::new();

/// Lines dropped so far because the writer could not keep up.
pub fn dropped_lines() -> usize {
    DROPPED.get().map_or(0, ErrorCounter::dropped_lines)
}

/// Starts logging to standard error with these levels (in the form of `corelog.log.level`), and makes a panic on
/// any thread the end of the process. Fails when something else has taken over the process's logging.
pub fn init(levels: &str, json: bool) -> Result<Logging, SetGlobalDefaultError> {
    set_levels(levels).expect("checked levels");
    let (writer, guard) = NonBlockingBuilder::default()
        .buffered_lines_limit(QUEUE_LINES_MAX)
        .lossy(true)
        .thread_name("log")
        .finish(std::io::stderr());
    let dropped = writer.error_counter();
    let registry = tracing_subscriber::registry().with(Levels);
    let format = tracing_subscriber::fmt::layer().with_writer(writer);
    if json {
        set_global_default(registry.with(format.json().flatten_event(true)))?;
    } else {
        let unwanted = std::env::var_os("NO_COLOR").is_some_and(|it| !it.is_empty());
        let colours = !unwanted && std::io::stderr().is_terminal();
        set_global_default(registry.with(format.with_ansi(colours)))?;
    }
    let _ = DROPPED.set(dropped);
    end_process_on_panic(json);
    Ok(Logging(guard))
}

/// Makes a panic end the process at once with one last line that says so: a shard that lost a task would hold
/// locks on nothing but go on with broken promises (and glommio aborts on most of them anyway, with less to read).
fn end_process_on_panic(json: bool) {
    std::panic::set_hook(Box::new(move |panic| {
        let thread = std::thread::current();
        let thread = thread.name().unwrap_or("unnamed").to_owned();
        let place = panic.location().map_or_else(|| "unknown".to_owned(), ToString::to_string);
        let message = panic.payload_as_str().unwrap_or("no message").to_owned();
        let trace = std::backtrace::Backtrace::capture();
        // What is queued goes first, so that this is the last line.
        std::thread::sleep(Duration::from_millis(100));
        let mut out = std::io::stderr().lock();
        if trace.status() == std::backtrace::BacktraceStatus::Captured {
            let _ = writeln!(out, "{trace}");
        }
        let _ = if json {
            let line = serde_json::json!({
                "level": "ERROR", "message": "corelog ends: panic", "panic": message, "at": place, "thread": thread,
            });
            writeln!(out, "{line}")
        } else {
            writeln!(out, "corelog ends: panic on thread {thread} at {place}: {}", message.replace('\n', " "))
        };
        let _ = out.flush();
        std::process::abort();
    }));
}

/// Checks `corelog.log.level` and gives it in lower case: a level for all, and `LOGGER=LEVEL` for some.
pub fn canonical_levels(text: &str) -> Result<String, String> {
    let parts: Vec<String> = parse_levels(text)?
        .into_iter()
        .map(|(logger, level)| {
            let level = NAMES[usize::from(level)].to_ascii_lowercase();
            if LOGGERS[logger] == ROOT { level } else { format!("{}={level}", LOGGERS[logger]) }
        })
        .collect();
    Ok(parts.join(","))
}

fn parse_levels(text: &str) -> Result<Vec<(usize, u8)>, String> {
    let mut levels: Vec<(usize, u8)> = Vec::new();
    for part in text.split(',') {
        let (logger, level) = part.split_once('=').unwrap_or((ROOT, part));
        let logger = logger.trim();
        let logger = index(logger).ok_or_else(|| match nearest(logger, LOGGERS.iter().copied()) {
            Some(near) => format!("there is no logger {logger}; the nearest one is {near}"),
            None => format!("there is no logger {logger}; there are {}", LOGGERS.join(", ")),
        })?;
        let level = level_byte(level.trim()).ok_or_else(|| {
            format!("'{}' is not a level: use error, warn, info, debug, trace or off", level.trim())
        })?;
        if levels.iter().any(|(other, _)| *other == logger) {
            return Err(format!("{} is given a level twice", LOGGERS[logger]));
        }
        levels.push((logger, level));
    }
    // The level for all stands first, whatever the order it was written in.
    levels.sort_by_key(|(logger, _)| (LOGGERS[*logger] != ROOT, *logger));
    Ok(levels)
}

fn index(logger: &str) -> Option<usize> {
    LOGGERS.iter().position(|known| *known == logger)
}

/// The level of this name. Log4j's FATAL is no level of tracing's: errors are the nearest.
fn level_byte(name: &str) -> Option<u8> {
    if name.eq_ignore_ascii_case("FATAL") {
        return level_byte("ERROR");
    }
    let found = NAMES.iter().skip(1).position(|known| known.eq_ignore_ascii_case(name))?;
    Some(found as u8 + 1)
}

/// Sets all levels: those not named inherit, root is info.
fn set_levels(text: &str) -> Result<(), String> {
    let levels = parse_levels(text)?;
    for (logger, level) in LEVELS.iter().enumerate() {
        let given = levels.iter().find(|(named, _)| *named == logger).map(|(_, level)| *level);
        let default = if LOGGERS[logger] == ROOT { INFO } else { INHERIT };
        level.store(given.unwrap_or(default), Ordering::Relaxed);
    }
    tracing::callsite::rebuild_interest_cache();
    Ok(())
}

/// The level in effect for a target: its own logger's, that of the nearest module around it, or root's.
fn effective(target: &str) -> u8 {
    let around = |logger: &str| {
        target.strip_prefix(logger).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
    };
    // The longest path comes last among those around a target, since the table is sorted.
    for (logger, level) in LOGGERS.iter().zip(&LEVELS).rev() {
        let level = level.load(Ordering::Relaxed);
        if level != INHERIT && around(logger) {
            return level;
        }
    }
    match LEVELS[LOGGERS.len() - 1].load(Ordering::Relaxed) {
        INHERIT => INFO,
        level => level,
    }
}

/// The loggers and the levels in effect, as the resource BROKER_LOGGER describes them.
pub fn levels() -> Vec<(&'static str, String)> {
    LOGGERS.iter().map(|logger| (*logger, NAMES[usize::from(effective(logger))].to_owned())).collect()
}

/// Alters loggers (KIP-412): checks all changes, then makes them unless `validate_only`. They last until the process
/// ends. `op` is the number of an [`Op`](crate::config::alter::Op).
pub fn alter_levels(
    changes: &[crate::config::alter::Change<'_>],
    validate_only: bool,
) -> Result<(), Refusal> {
    use crate::config::alter::{Op, check_changes};
    check_changes(changes)?;
    let mut checked = Vec::new();
    for change in changes {
        let op = match Op::from_wire(change.op) {
            Some(op @ (Op::Set | Op::Delete)) => op,
            Some(op) => {
                return Err(Refusal::Request(format!(
                    "{} operation is not allowed for the BROKER_LOGGER resource",
                    op.name()
                )));
            }
            None => {
                return Err(Refusal::Request(format!(
                    "Unknown operation type {} is not allowed for the BROKER_LOGGER resource",
                    change.op
                )));
            }
        };
        let logger = index(change.name).ok_or_else(|| {
            let near = nearest(change.name, LOGGERS.iter().copied());
            let near = near.map_or_else(String::new, |near| format!(" (the nearest one is {near})"));
            Refusal::Config(format!("Logger {} does not exist!{near}", change.name))
        })?;
        let level = match op {
            Op::Set => {
                let value = change.value.unwrap_or_default();
                level_byte(value.trim()).ok_or_else(|| {
                    Refusal::Config(format!(
                        "Cannot set the log level of {} to {value} as it is not a supported log level. \
                         Valid log levels are DEBUG, ERROR, FATAL, INFO, TRACE, WARN",
                        change.name
                    ))
                })?
            }
            _ if change.name == ROOT => {
                return Err(Refusal::Request(
                    "Removing the log level of the root logger is not allowed".to_owned(),
                ));
            }
            _ => INHERIT,
        };
        checked.push((logger, level));
    }
    if !validate_only {
        for (logger, level) in checked {
            LEVELS[logger].store(level, Ordering::Relaxed);
        }
        tracing::callsite::rebuild_interest_cache();
    }
    Ok(())
}

/// The layer that enables what the levels let through. Tracing asks once per call site and level change.
struct Levels;

fn lets_through(metadata: &Metadata<'_>) -> bool {
    let rank = match *metadata.level() {
        Level::ERROR => 2,
        Level::WARN => 3,
        Level::INFO => 4,
        Level::DEBUG => 5,
        Level::TRACE => 6,
    };
    rank <= effective(metadata.target())
}

impl<S: Subscriber> Layer<S> for Levels {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if lets_through(metadata) { Interest::always() } else { Interest::never() }
    }

    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        lets_through(metadata)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        let most = LOGGERS.iter().map(|logger| effective(logger)).max().unwrap_or(INFO);
        Some(match most {
            1 => LevelFilter::OFF,
            2 => LevelFilter::ERROR,
            3 => LevelFilter::WARN,
            4 => LevelFilter::INFO,
            5 => LevelFilter::DEBUG,
            _ => LevelFilter::TRACE,
        })
    }
}

#[cfg(test)]
mod tests {
    use crate::config::alter::Change;

    use super::*;

    #[test]
    fn level_texts() {
        assert!(LOGGERS.windows(2).all(|pair| pair[0] < pair[1]), "loggers are sorted");
        assert_eq!(LOGGERS.last(), Some(&ROOT));
        for (text, expected) in [
            ("info", "info"),
            ("WARN", "warn"),
            ("corelog_storage=debug,error", "error,corelog_storage=debug"),
            (" trace , corelog_io = off ", "trace,corelog_io=off"),
            ("corelog_wire=debug", "corelog_wire=debug"),
        ] {
            assert_eq!(canonical_levels(text).unwrap(), expected);
            assert_eq!(canonical_levels(expected).unwrap(), expected);
        }
        for (text, part) in [
            ("", "'' is not a level"),
            ("verbose", "'verbose' is not a level: use error, warn"),
            ("corelog_storag=debug", "the nearest one is corelog_storage"),
            ("kafka.server=debug", "there is no logger kafka.server; there are corelog_broker"),
            ("info,debug", "root is given a level twice"),
        ] {
            let why = canonical_levels(text).unwrap_err();
            assert!(why.contains(part), "{text}: {why}");
        }
    }

    /// Run by the next test in a process of its own, which it ends.
    #[test]
    #[ignore = "ends the process"]
    fn child_that_panics() {
        let Ok(format) = std::env::var("LOGGING_CHILD") else { return };
        let _logging = init("info", format == "json").unwrap();
        tracing::info!(lines = 1, "before");
        let shard = std::thread::Builder::new().name("shard-0".to_owned());
        let _ = shard.spawn(|| panic!("first line\nsecond line")).unwrap().join();
        println!("not reached");
    }

    #[test]
    fn a_panic_ends_the_process_with_a_last_line() {
        for (format, expected) in [
            ("text", "corelog ends: panic on thread shard-0 at broker/src/logging.rs:"),
            ("json", "{\"at\":\"broker/src/logging.rs:"),
        ] {
            let child = std::process::Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "logging::tests::child_that_panics", "--ignored", "--nocapture"])
                .env("LOGGING_CHILD", format)
                .env("RUST_BACKTRACE", "0")
                .output()
                .unwrap();
            let signal = std::os::unix::process::ExitStatusExt::signal(&child.status);
            assert_eq!(signal, Some(libc::SIGABRT));
            assert!(!String::from_utf8_lossy(&child.stdout).contains("not reached"));
            let said = String::from_utf8_lossy(&child.stderr);
            let (before, last) = said.trim_end().rsplit_once('\n').unwrap();
            assert!(before.contains("before"), "what was logged comes first: {said}");
            assert!(last.starts_with(expected) && last.contains("second line"), "{last}");
            if format == "json" {
                for line in [before, last] {
                    let line: serde_json::Value = serde_json::from_str(line).unwrap();
                    assert!(line["message"].is_string() && line["level"].is_string());
                }
            }
        }
    }

    /// One test for all that changes the process's levels, since tests share them.
    #[test]
    fn levels_change_while_running() {
        let set = |name, level| alter_levels(&[Change { name, op: 0, value: Some(level) }], false);
        set_levels("warn,corelog_broker=info,corelog_broker::admin=trace").unwrap();
        for (target, expected) in [
            ("hyper::client", "WARN"),
            ("corelog_storage::journal", "WARN"),
            ("corelog_broker", "INFO"),
            ("corelog_broker::api::produce", "INFO"),
            ("corelog_broker::admin::http", "TRACE"),
            ("corelog_broker_else", "WARN"),
        ] {
            assert_eq!(NAMES[usize::from(effective(target))], expected, "{target}");
        }
        set("corelog_storage", "FATAL").unwrap();
        assert!(levels().contains(&("corelog_storage", "ERROR".to_owned())));
        alter_levels(&[Change { name: "corelog_storage", op: 1, value: None }], false).unwrap();
        assert!(levels().contains(&("corelog_storage", "WARN".to_owned())));
        alter_levels(&[Change { name: "root", op: 0, value: Some("debug") }], true).unwrap();
        assert!(levels().contains(&("root", "WARN".to_owned())), "validate only");
        // All or none.
        alter_levels(
            &[
                Change { name: "root", op: 0, value: Some("debug") },
                Change { name: "nosuch", op: 0, value: Some("debug") },
            ],
            false,
        )
        .unwrap_err();
        assert!(levels().contains(&("root", "WARN".to_owned())));

        for (name, op, value, expected) in [
            ("nosuch", 0, Some("DEBUG"), "40 Logger nosuch does not exist!"),
            (
                "root",
                0,
                Some("FOO"),
                "40 Cannot set the log level of root to FOO as it is not a supported log level. Valid log levels are DEBUG, ERROR, FATAL, INFO, TRACE, WARN",
            ),
            ("root", 1, None, "42 Removing the log level of the root logger is not allowed"),
            ("root", 2, Some("INFO"), "42 APPEND operation is not allowed for the BROKER_LOGGER resource"),
            (
                "root",
                7,
                Some("INFO"),
                "42 Unknown operation type 7 is not allowed for the BROKER_LOGGER resource",
            ),
        ] {
            let refusal = alter_levels(&[Change { name, op, value }], false).unwrap_err();
            assert_eq!(format!("{} {refusal}", refusal.code()), expected);
        }
        set_levels("info").unwrap();
    }
}
