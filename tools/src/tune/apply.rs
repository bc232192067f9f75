//! Changing the machine: former values are kept first, and every value is read again after it was written.

use super::check::{self, Checked};
use super::item::{Change, Verdict, holds, value_in};
use super::machine::Machine;
use super::state::{Entry, State};
use crate::output::Output;
use crate::table::Table;
use anyhow::Result;
use serde_json::{Value, json};
use std::process::ExitCode;

/// Writes all changes. Fails if a value could not be written or did not hold, or an item still differs that should not.
pub fn run(machine: &Machine, state: &mut State, checked: &[Checked], out: &Output) -> Result<ExitCode> {
    let planned: Vec<(&str, &Change)> =
        checked.iter().flat_map(|it| it.changes().into_iter().map(|change| (it.item.name, change))).collect();
    for (item, change) in &planned {
        if let Ok(former) = machine.read(&change.path) {
            let (item, path, applied) = (item.to_string(), change.path.clone(), change.value.clone());
            state.keep(Entry { item, path, former: value_in(&former), applied });
        }
    }
    if !planned.is_empty() {
        state.save()?;
    }
    let mut code = ExitCode::SUCCESS;
    let mut table = Table::new(&[
        ("item", "item"),
        ("file", "path"),
        ("before", "before"),
        ("after", "after"),
        ("", "outcome"),
    ]);
    for (item, change) in &planned {
        let before = machine.read(&change.path).map(|text| value_in(&text)).ok();
        let outcome = match write(machine, change) {
            Ok(()) => "applied".to_owned(),
            Err(why) => {
                code = ExitCode::FAILURE;
                why
            }
        };
        let after = machine.read(&change.path).map(|text| value_in(&text)).ok();
        if let (Some(after), Some(kept)) =
            (&after, state.entries.iter_mut().find(|kept| kept.path == change.path))
        {
            kept.applied.clone_from(after);
        }
        table.row([json!(item), json!(change.path), json!(before), json!(after), json!(outcome)]);
    }
    if !planned.is_empty() {
        // What could not be changed needs no giving back.
        state.entries.retain(|kept| kept.former != kept.applied);
        state.save()?;
    }
    let changed: Vec<&Checked> = checked.iter().filter(|it| !it.changes().is_empty()).collect();
    let again = check::all(machine, &changed.iter().map(|it| it.item).collect::<Vec<_>>());
    let remaining: Vec<Value> = again
        .iter()
        .flat_map(|it| it.findings.iter().map(move |finding| (it.item.name, finding)))
        .filter(|(_, finding)| finding.verdict == Verdict::Differs)
        .map(|(item, finding)| json!({"item": item, "subject": finding.subject, "now": finding.now, "note": finding.note}))
        .collect();
    if !remaining.is_empty() {
        code = ExitCode::FAILURE;
    }
    let by_hand: Vec<&str> = checked
        .iter()
        .filter(|it| {
            it.changes().is_empty() && it.findings.iter().any(|found| found.verdict == Verdict::Differs)
        })
        .map(|it| it.item.name)
        .collect();
    if out.json {
        out.value(&json!({"changes": table.to_json(), "still_differ": remaining, "by_hand": by_hand}))?;
        return Ok(code);
    }
    if planned.is_empty() {
        out.say("nothing to change")?;
    } else {
        out.say(table.to_text())?;
        let (items, left) = (changed.len(), remaining.len());
        out.say(format!("\nchecked again: {items} items, {left} findings still differ; `corectl tune undo` gives the former values back"))?;
    }
    for item in by_hand {
        out.say(format!("{item} differs and cannot be changed from here: `corectl tune explain {item}`"))?;
    }
    Ok(code)
}

/// Writes one value and reads it again; what went wrong.
pub fn write(machine: &Machine, change: &Change) -> Result<(), String> {
    machine.write(&change.path, &change.value).map_err(|error| format!("failed: {error}"))?;
    match machine.read(&change.path) {
        Ok(text) if holds(&text, &change.value) => Ok(()),
        Ok(text) => {
            Err(format!("did not hold: {:?} was written, it reads {:?}", change.value, value_in(&text)))
        }
        Err(error) => Err(format!("written, but cannot be read again: {error}")),
    }
}
