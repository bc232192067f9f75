//! Giving former values back.

use super::apply;
use super::item::{Change, holds, value_in};
use super::items;
use super::machine::Machine;
use super::state::{Entry, State};
use crate::output::Output;
use crate::table::Table;
use anyhow::Result;
use serde_json::json;
use std::process::ExitCode;

pub struct Planned {
    pub entry: Entry,
    pub step: Step,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    Write,
    /// The file has its former value, or is no longer there: after a reboot, say.
    Nothing(&'static str),
    /// Somebody else wrote this there since; it is theirs.
    Leave(String),
}

/// What is to be done for the entries of these items, or of all; the last change first.
pub fn plan(machine: &Machine, state: &State, names: &[String]) -> Result<Vec<Planned>> {
    for name in names {
        items::named(name)?;
    }
    let chosen = state.entries.iter().rev().filter(|entry| names.is_empty() || names.contains(&entry.item));
    let step = |entry: &Entry| match machine.read(&entry.path) {
        Err(_) => Step::Nothing("no longer there"),
        Ok(now) if holds(&now, &entry.former) => Step::Nothing("had it already"),
        Ok(now) if holds(&now, &entry.applied) => Step::Write,
        Ok(now) => Step::Leave(value_in(&now)),
    };
    Ok(chosen.map(|entry| Planned { entry: entry.clone(), step: step(entry) }).collect())
}

/// Fails if a value could not be given back. What was given back is forgotten.
pub fn run(machine: &Machine, state: &mut State, planned: &[Planned], out: &Output) -> Result<ExitCode> {
    let mut code = ExitCode::SUCCESS;
    let mut table = Table::new(&[("item", "item"), ("file", "path"), ("now", "now"), ("", "outcome")]);
    for Planned { entry, step } in planned {
        let outcome = match step {
            Step::Nothing(why) => Ok((*why).to_owned()),
            Step::Write => {
                let change = Change { path: entry.path.clone(), value: entry.former.clone() };
                apply::write(machine, &change).map(|()| "given back".to_owned())
            }
            Step::Leave(now) => Err(format!(
                "left: it reads {now:?}, which is neither {:?} from here nor {:?} from before",
                entry.applied, entry.former
            )),
        };
        match &outcome {
            Ok(_) => state.entries.retain(|kept| kept != entry),
            Err(_) => code = ExitCode::FAILURE,
        }
        let now = machine.read(&entry.path).map(|text| value_in(&text)).ok();
        let (Ok(outcome) | Err(outcome)) = outcome;
        table.row([json!(entry.item), json!(entry.path), json!(now), json!(outcome)]);
    }
    state.save()?;
    if out.json || !table.is_empty() {
        out.table(&table)?;
    }
    Ok(code)
}
