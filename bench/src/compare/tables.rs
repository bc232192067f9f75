//! Comparisons on the terminal.

use super::scenario::{Figure, Results};
use super::subject::Kind;
use crate::host::machine::Machine;
use crate::report::terminal::{number, table};
use crate::stats::spread::Spread;

pub fn machine(machine: &Machine) -> String {
    let disk = machine.disk.as_ref().map_or("unknown disk".to_owned(), |disk| {
        let model = disk.model.as_deref().unwrap_or(&disk.device);
        format!("{model} with {} ({})", disk.file_system, disk.options)
    });
    format!(
        "{} x {}, {} GiB, {}, {disk}",
        machine.cpus,
        machine.cpu,
        number(machine.memory as f64 / (1u64 << 30) as f64),
        machine.kernel
    )
}

pub fn scenario(results: &Results) -> String {
    let mut text = format!("\n{}: {}\n", results.scenario.name(), results.about);
    let mut kinds: Vec<Kind> = results.turns.iter().map(|turn| turn.kind).collect();
    kinds.sort();
    kinds.dedup();
    let mut figures: Vec<Figure> = Vec::new();
    for figure in results.turns.iter().flat_map(|turn| &turn.figures) {
        if !figures.iter().any(|known| known.name == figure.name) {
            figures.push(figure.clone());
        }
    }
    let titles: Vec<&str> = ["", ""].into_iter().chain(kinds.iter().map(|kind| kind.title())).collect();
    let mut titles = titles;
    let baselines: Vec<Kind> = kinds
        .iter()
        .copied()
        .filter(|kind| *kind != Kind::Corelog && kinds.contains(&Kind::Corelog))
        .collect();
    let against: Vec<String> = baselines.iter().map(|kind| format!("Corelog / {}", kind.title())).collect();
    titles.extend(against.iter().map(String::as_str));
    let mut rows = Vec::new();
    for figure in &figures {
        let values = results.values(&figure.name);
        let mut row = vec![figure.name.clone(), figure.unit.to_owned()];
        for kind in &kinds {
            let spread = values.get(kind).and_then(|rounds| Spread::of(rounds.values().copied()));
            row.push(spread.map_or("no figure".to_owned(), |spread| spread_text(&spread)));
        }
        for baseline in &baselines {
            row.push(
                ratios(results, &figure.name, *baseline).map_or("-".to_owned(), |it| spread_text(&it) + "x"),
            );
        }
        rows.push(row);
    }
    text += &table(&titles, rows);
    for problem in results.problems() {
        text += &format!("\nNO FIGURE: {problem}");
    }
    text
}

/// Corelog's figure by the other's, round by round.
pub fn ratios(results: &Results, name: &str, baseline: Kind) -> Option<Spread> {
    let values = results.values(name);
    let (ours, theirs) = (values.get(&Kind::Corelog)?, values.get(&baseline)?);
    Spread::of(ours.iter().filter_map(|(round, ours)| Some(ours / theirs.get(round)?)))
}

fn spread_text(spread: &Spread) -> String {
    match spread.runs {
        1 => number(spread.median),
        _ => format!("{} ({} - {})", number(spread.median), number(spread.min), number(spread.max)),
    }
}
