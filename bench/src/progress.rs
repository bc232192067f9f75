//! Progress of a run, on standard error, where a person looks at it.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::cell::Cell;
use std::io::{IsTerminal, Write, stderr, stdout};
use std::time::Instant;

/// A line on standard output. Where nobody reads it any more (`| head`) it is lost: the run goes on, and its files are written.
pub fn say(text: impl std::fmt::Display) {
    let _ = writeln!(stdout().lock(), "{text}");
}

pub struct Progress {
    bar: ProgressBar,
    last: Cell<Option<(Instant, (u64, u64))>>,
}

impl Progress {
    /// Hidden unless standard error is a terminal.
    pub fn new(title: &str) -> Progress {
        let bar = ProgressBar::new(1000);
        bar.set_draw_target(match stderr().is_terminal() {
            true => ProgressDrawTarget::stderr_with_hz(5),
            false => ProgressDrawTarget::hidden(),
        });
        bar.set_style(ProgressStyle::with_template("{prefix} {bar:30} {msg}").expect("a constant"));
        bar.set_prefix(title.to_owned());
        Progress { bar, last: Cell::new(None) }
    }

    /// `bytes` produced and consumed so far.
    pub fn tick(&self, phase: &str, origin: Instant, to: Instant, bytes: (u64, u64)) {
        let now = Instant::now();
        let whole = to.saturating_duration_since(origin).as_secs_f64();
        let part = now.saturating_duration_since(origin).as_secs_f64() / whole;
        self.bar.set_position((part * 1000.0) as u64);
        if let Some((at, before)) = self.last.replace(Some((now, bytes))) {
            let seconds = (now - at).as_secs_f64();
            let rate = |now: u64, before: u64| now.saturating_sub(before) as f64 / seconds / 1e6;
            let (produced, consumed) = (rate(bytes.0, before.0), rate(bytes.1, before.1));
            self.bar.set_message(format!("{phase}: in {produced:.0} MB/s, out {consumed:.0} MB/s"));
        }
    }

    pub fn say(&self, what: &str) {
        self.bar.set_message(what.to_owned());
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
