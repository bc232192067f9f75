//! The checks agree with what the other tests find here.

use corelog_io::preflight;
use std::path::Path;

#[test]
fn what_the_glommio_world_needs_is_found_to_be_there() {
    // The other tests run that world in this directory, so nothing fatal can be said of it.
    let problems = preflight(Path::new(env!("CARGO_TARGET_TMPDIR")), 2).err().unwrap_or_default();
    let fatal: Vec<String> =
        problems.iter().filter(|problem| problem.fatal).map(ToString::to_string).collect();
    assert!(fatal.is_empty(), "{fatal:?}");
}

#[test]
fn every_problem_is_told_at_once() {
    let problems = preflight(Path::new("/nonexistent"), 2).unwrap_err();
    assert!(problems.iter().any(|problem| problem.what.contains("/nonexistent")), "{problems:?}");
    assert!(problems.iter().all(|problem| !problem.remedy.is_empty()));
}
