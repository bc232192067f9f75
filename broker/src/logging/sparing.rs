//! Lines about what clients can cause at will: one a minute of each kind, with how many were left out since the last.

use std::cell::RefCell;
use std::collections::HashMap;
use std::time::Duration;

use corelog_io::Instant;

/// Between two lines of a kind.
const PAUSE: Duration = Duration::from_secs(60);

/// When a line of each kind was last written. Kinds are names in the code, so that there are few.
#[derive(Default)]
pub struct Sparing {
    kinds: RefCell<HashMap<&'static str, Written>>,
}

struct Written {
    /// The first of the lines since the last pause.
    at: Instant,
    lines: u32,
    left_out: u64,
}

impl Sparing {
    /// Whether a line of this kind is due: then how many were left out since the last one, `before` of them elsewhere.
    pub fn turn(&self, kind: &'static str, before: u64, now: Instant) -> Option<u64> {
        self.turn_of(kind, 1, before, now)
    }

    /// The same for a kind that may have so many lines a minute.
    pub fn turn_of(&self, kind: &'static str, lines_max: u32, before: u64, now: Instant) -> Option<u64> {
        let mut kinds = self.kinds.borrow_mut();
        let written = kinds.entry(kind).or_insert(Written { at: now, lines: 0, left_out: 0 });
        if now.since(written.at) >= PAUSE {
            (written.at, written.lines) = (now, 0);
        }
        if written.lines == lines_max {
            written.left_out += before + 1;
            return None;
        }
        written.lines += 1;
        Some(std::mem::take(&mut written.left_out) + before)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_a_minute_of_each_kind_and_the_rest_is_counted() {
        let sparing = Sparing::default();
        let at = |seconds: u64| Instant::from_nanos(seconds * 1_000_000_000);
        assert_eq!(sparing.turn("a", 0, at(5)), Some(0));
        assert_eq!(sparing.turn("b", 0, at(6)), Some(0));
        for second in 6..65 {
            assert_eq!(sparing.turn("a", 0, at(second)), None);
        }
        // What another core left out before its line came here counts too.
        assert_eq!(sparing.turn("a", 3, at(64)), None);
        assert_eq!(sparing.turn("a", 2, at(65)), Some(59 + 4 + 2));
        assert_eq!(sparing.turn("a", 0, at(126)), Some(0));
    }
    #[test]
    fn a_kind_may_have_more_lines_a_minute() {
        let sparing = Sparing::default();
        let at = |seconds: u64| Instant::from_nanos(seconds * 1_000_000_000);
        let told: Vec<_> = (0..130).filter_map(|second| sparing.turn_of("a", 3, 0, at(second))).collect();
        assert_eq!(told, [0, 0, 0, 57, 0, 0, 57, 0, 0]);
    }
}
