//! Resident memory of a broker that has nothing to do.

use super::partitions::MANY;
use super::{Options, Outcome, Running, less, plan_for};
use crate::host::process::Usage;
use crate::load::plan::Plan;
use crate::load::stage::Stage;
use crate::progress::Progress;
use anyhow::Result;
use std::thread;
use std::time::Duration;

/// What a start or a new topic sets going is over by then.
const SETTLE: Duration = Duration::from_secs(10);

pub fn turn(running: &Running, options: &Options, progress: &Progress) -> Result<Outcome> {
    let pid = running.broker()?.pid();
    let resident = || -> Result<f64> {
        thread::sleep(SETTLE);
        Ok(Usage::of(pid)?.resident as f64 / 1e6)
    };
    let mut outcome = Outcome::default();
    outcome.settle("memory", running, options, progress)?;
    progress.say("idle and empty");
    outcome.figures.push(less("resident, empty", "MB", resident()?));
    progress.say("making partitions");
    let _stage = Stage::create("memory", &Plan { partitions: MANY, ..plan_for(running, options)? })?;
    progress.say("idle with partitions");
    outcome.figures.push(less(format!("resident, {MANY} partitions"), "MB", resident()?));
    Ok(outcome)
}
