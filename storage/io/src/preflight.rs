//! Checks before start-up, each with its remedy.

use std::fmt;
use std::path::Path;

/// Something that keeps the broker from running here, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub what: String,
    pub remedy: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.what, self.remedy)
    }
}

/// Checks io_uring, locked memory, open files (raising the soft limit to the hard one) and O_DIRECT in `data_dir`,
/// which must exist. Blocking: call it before the cores start.
pub fn preflight(_data_dir: &Path, _cores: usize) -> Result<(), Vec<Problem>> {
    unimplemented!()
}
