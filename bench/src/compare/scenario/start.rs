//! From exec to ready. A broker is ready when it answers, and serves when every partition tells its end.

use super::partitions::MANY;
use super::{Options, Outcome, Running, Subjects, less, plan_for};
use crate::load::plan::Plan;
use crate::load::stage::Stage;
use crate::progress::Progress;
use anyhow::{Context, Result, bail};
use std::time::Instant;

pub fn turn(
    subjects: &Subjects,
    running: &mut Running,
    options: &Options,
    progress: &Progress,
) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    let ready = |running: &Running| -> Result<f64> { Ok(running.broker()?.ready.as_secs_f64() * 1e3) };
    outcome.figures.push(less("ready, empty", "ms", ready(running)?));
    let stage = Stage::create("start", &Plan { partitions: MANY, ..plan_for(running, options)? })?;
    let ledger = stage.fill(options.data_bytes, progress)?;
    let topic = stage.topic.clone();
    drop(stage);
    for (how, what) in [(Stop::Clean, "after a clean stop"), (Stop::Kill, "after kill -9")] {
        progress.say(&format!("starting {what}"));
        match how {
            Stop::Clean => running.stop()?,
            Stop::Kill => running.kill()?,
        }
        let started = Instant::now();
        subjects.restart(running)?;
        outcome.figures.push(less(format!("ready {what}"), "ms", ready(running)?));
        let (_, counts) =
            Stage::existing(&topic, &plan_for(running, options)?).context("partitions did not come back")?;
        outcome.figures.push(less(
            format!("all partitions {what}"),
            "ms",
            started.elapsed().as_secs_f64() * 1e3,
        ));
        let (is, was): (u64, u64) = (counts.iter().sum(), ledger.total());
        if is != was {
            bail!("{was} records were acknowledged, and {is} are there {what}");
        }
    }
    Ok(outcome)
}

enum Stop {
    Clean,
    Kill,
}
