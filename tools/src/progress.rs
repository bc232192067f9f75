//! Progress of long work, on standard error, where a person looks at it.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::{IsTerminal, stderr, stdout};
use std::time::Duration;

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
