//! Progress of long work, on standard error, where a person looks at it.

use crate::output::tell;
use anyhow::{Result, bail};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::{IsTerminal, stderr, stdout};
use std::time::{Duration, Instant};

/// Of so many records, or of an unknown number. Hidden unless standard error is a terminal, and standard output is not where the
/// records themselves are shown.
pub fn records(total: Option<u64>, shows_records: bool) -> ProgressBar {
    if !stderr().is_terminal() || (shows_records && stdout().is_terminal()) {
        return ProgressBar::hidden();
    }
    let (bar, template) = match total {
        Some(total) => {
            (ProgressBar::new(total), "{bar:30} {human_pos}/{human_len} records, {per_sec}, {eta} left")
        }
        None => (ProgressBar::new_spinner(), "{spinner} {human_pos} records in {elapsed}, {per_sec}"),
    };
    bar.set_draw_target(ProgressDrawTarget::stderr_with_hz(5));
    bar.set_style(ProgressStyle::with_template(template).expect("a constant"));
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

/// Of work that goes on elsewhere, and is looked at until it is done: where a person looks on, one line that changes; else a line
/// for each change, as for a log.
pub struct Watch {
    bar: ProgressBar,
    told: String,
    until: Option<Instant>,
}

/// How often it is looked.
const LOOK: Duration = Duration::from_millis(500);

impl Watch {
    /// Ends in an error after this time.
    pub fn new(within: Option<Duration>) -> Watch {
        let bar = match stderr().is_terminal() {
            true => ProgressBar::new_spinner(),
            false => ProgressBar::hidden(),
        };
        bar.set_draw_target(ProgressDrawTarget::stderr_with_hz(5));
        bar.enable_steady_tick(Duration::from_millis(200));
        Watch { bar, told: String::new(), until: within.map(|within| Instant::now() + within) }
    }

    /// Says how far it is, and waits until the next look.
    pub fn next(&mut self, state: String) -> Result<()> {
        if self.until.is_some_and(|until| Instant::now() >= until) {
            bail!("it was not done in the time that was given, and goes on: {state}");
        }
        if state != self.told {
            self.bar.set_message(state.clone());
            if self.bar.is_hidden() {
                tell!("{state}");
            }
            self.told = state;
        }
        std::thread::sleep(LOOK);
        Ok(())
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
