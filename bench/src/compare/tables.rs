//! Comparisons on the terminal.

use super::scenario::{Figure, Results};
use super::subject::Kind;
use crate::host::machine::Machine;
use crate::report::terminal::{bar, number, table};
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
    let (titles, rows) = cells(results);
    let titles: Vec<&str> = titles.iter().map(String::as_str).collect();
    text += &table(&titles, rows);
    text += &bars(results);
    for problem in results.problems() {
        text += &format!("\nNO FIGURE: {problem}");
    }
    for remark in results.remarks() {
        text += &format!("\nnote: {remark}");
    }
    text
}

fn kinds(results: &Results) -> Vec<Kind> {
    let mut kinds: Vec<Kind> = results.turns.iter().map(|turn| turn.kind).collect();
    kinds.sort();
    kinds.dedup();
    kinds
}

fn figures(results: &Results) -> Vec<Figure> {
    let mut figures: Vec<Figure> = Vec::new();
    for figure in results.turns.iter().flat_map(|turn| &turn.figures) {
        if !figures.iter().any(|known| known.name == figure.name) {
            figures.push(figure.clone());
        }
    }
    figures
}

/// Titles and rows: figures by broker, and ratios.
pub fn cells(results: &Results) -> (Vec<String>, Vec<Vec<String>>) {
    let kinds = kinds(results);
    let has_corelog = kinds.contains(&Kind::Corelog);
    let baselines = kinds.iter().copied().filter(|kind| has_corelog && *kind != Kind::Corelog);
    let baselines: Vec<Kind> = baselines.collect();
    let mut titles = vec![String::new(), String::new()];
    titles.extend(kinds.iter().map(|kind| kind.title().to_owned()));
    titles.extend(baselines.iter().map(|kind| format!("Corelog / {}", kind.title())));
    let row = |figure: Figure| {
        let values = results.values(&figure.name);
        let of = |kind: &Kind| values.get(kind).and_then(|rounds| Spread::of(rounds.values().copied()));
        let mut row = vec![figure.name.clone(), figure.unit.to_owned()];
        row.extend(kinds.iter().map(|kind| of(kind).map_or("-".to_owned(), |spread| spread_text(&spread))));
        let ratio = |kind: &Kind| ratios(results, &figure.name, *kind);
        row.extend(
            baselines.iter().map(|kind| ratio(kind).map_or("-".to_owned(), |it| spread_text(&it) + "x")),
        );
        row
    };
    (titles, figures(results).into_iter().map(row).collect())
}

/// The figure by which one sees at a glance who is ahead: the first throughput or p99, else the first of all.
fn bars(results: &Results) -> String {
    const WIDTH: usize = 40;
    let figures = figures(results);
    let first = figures.iter().find(|figure| figure.unit == "MB/s" || figure.name.starts_with("p99"));
    let Some(figure) = first.or(figures.first()) else { return String::new() };
    let values = results.values(&figure.name);
    let medians: Vec<(Kind, f64)> = kinds(results)
        .into_iter()
        .filter_map(|kind| Some((kind, Spread::of(values.get(&kind)?.values().copied())?.median)))
        .collect();
    let max = medians.iter().map(|(_, median)| *median).fold(0.0, f64::max);
    let line = |(kind, median): &(Kind, f64)| {
        format!("\n  {:<18} {} {}", kind.title(), bar(*median, max, WIDTH), number(*median))
    };
    let better = if figure.more_is_better { "more" } else { "less" };
    let lines: String = medians.iter().map(line).collect();
    format!("\n\n  {}, {} ({better} is better){lines}", figure.name, figure.unit)
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
