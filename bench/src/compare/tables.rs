//! Comparisons on the terminal.

use super::order::is_balanced;
use super::scenario::{Figure, Ratio, Results, Scenario, quick};
use super::subject::Kind;
use crate::host::machine::Machine;
use crate::host::settle::Settled;
use crate::report::RunReport;
use crate::report::terminal::{bar, number, table};
use crate::stats::spread::Spread;
use crate::stats::steady::Steady;
use std::collections::BTreeMap;

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
    let as_table = |titles: &[String], rows: Vec<Vec<String>>| {
        table(&titles.iter().map(String::as_str).collect::<Vec<_>>(), rows)
    };
    text += &as_table(&titles, rows);
    text += &bars(results);
    text += &format!("\n\n{}\n", order(results));
    let (titles, rows) = course(results);
    text += &as_table(&titles, rows);
    for problem in results.problems() {
        text += &format!("\nNO FIGURE: {problem}");
    }
    for remark in results.remarks() {
        text += &format!("\nnote: {remark}");
    }
    for line in verdict(results) {
        text += &format!("\n{line}");
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
        let of = |kind: &Kind| {
            values.get(kind).and_then(|rounds| Spread::of(rounds.values().map(|figure| figure.value)))
        };
        let mut row = vec![figure.name.clone(), figure.unit.to_owned()];
        row.extend(kinds.iter().map(|kind| of(kind).map_or("-".to_owned(), |spread| spread_text(&spread))));
        row.extend(baselines.iter().map(|kind| ratios(&values, *kind).text()));
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
    // A picture is a comparison too.
    if values.values().flat_map(BTreeMap::values).any(|figure| figure.ratio != Ratio::Told) {
        return String::new();
    }
    let medians: Vec<(Kind, f64)> = kinds(results)
        .into_iter()
        .filter_map(|kind| {
            Some((kind, Spread::of(values.get(&kind)?.values().map(|figure| figure.value))?.median))
        })
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
#[derive(Debug, PartialEq)]
pub struct Ratios {
    /// Of the rounds in which both may be compared.
    pub told: Option<Spread>,
    /// In which both have a figure, and who was not steady in those that are left out.
    pub rounds: usize,
    pub refused: Vec<(usize, String)>,
}

/// Of one figure's values.
pub fn ratios(values: &BTreeMap<Kind, BTreeMap<usize, &Figure>>, baseline: Kind) -> Ratios {
    let mut ratios = Ratios { told: None, rounds: 0, refused: Vec::new() };
    let (Some(ours), Some(theirs)) = (values.get(&Kind::Corelog), values.get(&baseline)) else {
        return ratios;
    };
    let mut told = Vec::new();
    for (round, ours) in ours {
        let Some(theirs) = theirs.get(round) else { continue };
        ratios.rounds += 1;
        let is_refused = |figure: &Figure| matches!(figure.ratio, Ratio::Refused(_));
        match (is_refused(ours), is_refused(theirs)) {
            _ if ours.ratio == Ratio::Circumstance => {}
            (false, false) => told.push(ours.value / theirs.value),
            (true, false) => ratios.refused.push((*round, Kind::Corelog.title().to_owned())),
            (false, true) => ratios.refused.push((*round, baseline.title().to_owned())),
            (true, true) => ratios.refused.push((*round, "both".to_owned())),
        }
    }
    ratios.told = Spread::of(told);
    ratios
}

impl Ratios {
    fn text(&self) -> String {
        match (&self.told, self.refused.as_slice()) {
            (None, []) => "-".to_owned(),
            (None, refused) => {
                let mut who: Vec<&str> = refused.iter().map(|(_, who)| who.as_str()).collect();
                who.sort_unstable();
                who.dedup();
                format!("none, not comparable: {}", who.join(", "))
            }
            (Some(spread), []) => spread_text(spread) + "x",
            (Some(spread), _) => {
                format!("{}x in {} of {} rounds", spread_text(spread), spread.runs, self.rounds)
            }
        }
    }
}

pub fn spread_text(spread: &Spread) -> String {
    match spread.runs {
        1 => number(spread.median),
        _ => format!("{} ({} - {})", number(spread.median), number(spread.min), number(spread.max)),
    }
}

/// Who was measured when.
pub fn order(results: &Results) -> String {
    let round = |order: &Vec<Kind>| order.iter().map(|kind| kind.title()).collect::<Vec<_>>().join(", ");
    let rounds: Vec<String> = results.order.iter().map(round).collect();
    let balance = match is_balanced(&results.order) {
        _ if results.order.iter().all(|order| order.len() < 2) => String::new(),
        true => " (each equally often at each place and after each other one)".to_owned(),
        false => " (NOT balanced: with so many rounds one was more often first, or after another)".to_owned(),
    };
    format!("order: {}{balance}", rounds.join(" | "))
}

/// Titles and rows: how each run came about.
pub fn course(results: &Results) -> (Vec<String>, Vec<Vec<String>>) {
    let titles = ["run", "round", "", "settled", "served after", "warm-up", "steady"];
    let rows = results.turns.iter().flat_map(|turn| {
        let mut taken = vec![false; turn.runs.len()];
        let row = move |(name, settled): &(String, Settled)| {
            let of = (0..turn.runs.len()).find(|at| !taken[*at] && turn.runs[*at].name == *name);
            if let Some(at) = of {
                taken[at] = true;
            }
            let run = of.map(|at| &turn.runs[at]);
            let tool = turn.tools.iter().find(|tool| tool.name == *name);
            let steadiness = run.map(|run| &run.steady).or(tool.map(|tool| &tool.steady));
            let seconds = |seconds: f64| format!("{} s", number(seconds));
            let is_quiet = if settled.quiet { "" } else { ", NOT QUIET" };
            vec![
                name.clone(),
                (turn.round + 1).to_string(),
                turn.kind.title().to_owned(),
                seconds(settled.seconds) + is_quiet,
                run.filter(|run| run.ready_s > 0.0).map_or("-".to_owned(), |run| seconds(run.ready_s)),
                steadiness.filter(|it| it.warm_up_s > 0.0).map_or("-".to_owned(), |it| seconds(it.warm_up_s)),
                steadiness.map_or("-".to_owned(), steady),
            ]
        };
        turn.settled.iter().map(row).collect::<Vec<_>>()
    });
    (titles.map(str::to_owned).to_vec(), rows.collect())
}

fn steady(steady: &Steady) -> String {
    let spread = format!("{:.0} % apart", steady.spread * 100.0);
    if steady.reached { spread } else { format!("NO: {spread}") }
}

/// What can be concluded of pairs of runs, and what cannot; nothing but for the quick comparison.
pub fn verdict(results: &Results) -> Vec<String> {
    if results.scenario != Scenario::Quick {
        return Vec::new();
    }
    let runs: Vec<&RunReport> = results.turns.iter().flat_map(|turn| &turn.runs).collect();
    let mut lines = vec![String::new()];
    for name in quick::TOLD {
        let values = results.values(name);
        let Some(more_is_better) =
            values.values().flat_map(BTreeMap::values).map(|it| it.more_is_better).next()
        else {
            lines.push(format!("{name}: no figure"));
            continue;
        };
        for kind in kinds(results).into_iter().filter(|kind| *kind != Kind::Corelog) {
            lines.push(conclusion(name, kind, more_is_better, &ratios(&values, kind)));
        }
    }
    let window_s = runs.iter().map(|run| run.window_s).fold(0.0, f64::max);
    lines.push(format!(
        "This is of this machine, in these minutes, with client and broker on the same CPUs, and of windows of {window_s:.0} s: what \
         happens less often than that, and how latencies grow towards a broker's limit, it does not show. Corelog syncs before it \
         acknowledges, Kafka as it ships does not. Records at the rate were read and checked; those of the saturated runs were not read."
    ));
    lines
}

/// One line of the verdict.
fn conclusion(name: &str, baseline: Kind, more_is_better: bool, ratios: &Ratios) -> String {
    let title = baseline.title();
    let refused = ratios.refused.len();
    let left_out = match refused {
        0 => String::new(),
        _ => format!(
            "; {refused} of {} pairs left out: a run was not steady, or others disturbed it",
            ratios.rounds
        ),
    };
    let Some(spread) = &ratios.told else {
        return match refused {
            0 => format!("{name}: no pair against {title}"),
            _ => format!("{name}: no ratio against {title}: no pair in which both can be compared{left_out}"),
        };
    };
    let pairs = spread.runs;
    let better = match (spread.min > 1.0, spread.max < 1.0) {
        _ if pairs == 1 => "nothing to be concluded",
        (false, false) => "which of them is better cannot be told",
        (is_more, _) if is_more == more_is_better => "Corelog is better in all of them",
        _ => "Corelog is worse in all of them",
    };
    // Half of all pairs are above their median: that so many fall on one side of it is as likely as a coin falling so.
    let chance = match pairs {
        1 => "one pair says nothing of how it varies".to_owned(),
        _ => format!(
            "the ratio's own median lies in that range with {:.0} %",
            (1.0 - 0.5f64.powi(pairs as i32 - 1)) * 100.0
        ),
    };
    format!(
        "{name}: Corelog / {title} {}x, median of {pairs} pair{}; {better}; {chance}{left_out}",
        spread_text(spread),
        if pairs == 1 { "" } else { "s" },
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::scenario::Turn;

    fn figure(value: f64, ratio: Ratio) -> Figure {
        Figure { name: "throughput".to_owned(), unit: "MB/s", value, more_is_better: true, ratio }
    }

    fn turn(round: usize, kind: Kind, value: f64, ratio: Ratio) -> Turn {
        Turn {
            round,
            kind,
            figures: vec![figure(value, ratio)],
            runs: Vec::new(),
            settled: Vec::new(),
            tools: Vec::new(),
        }
    }

    fn results(turns: Vec<Turn>) -> Results {
        let mut order: Vec<Vec<Kind>> = Vec::new();
        for turn in &turns {
            order.resize(order.len().max(turn.round + 1), Vec::new());
            order[turn.round].push(turn.kind);
        }
        Results { scenario: Scenario::Quick, about: String::new(), own_limits: Vec::new(), order, turns }
    }

    fn cold() -> Ratio {
        Ratio::Refused("throughput went 0.1 MB/s, 0.3 MB/s, 19.4 MB/s: 99 % apart".to_owned())
    }

    #[test]
    fn ratios_are_of_the_same_round_and_of_steady_runs_alone() {
        let all = results(vec![
            turn(0, Kind::Kafka, 100.0, Ratio::Told),
            turn(0, Kind::Corelog, 150.0, Ratio::Told),
            turn(1, Kind::Corelog, 2000.0, Ratio::Told),
            turn(1, Kind::Kafka, 10.0, cold()),
            turn(2, Kind::Kafka, 100.0, Ratio::Told),
            turn(2, Kind::Corelog, 170.0, Ratio::Told),
        ]);
        let (_, rows) = cells(&all);
        assert_eq!(rows[0].last().unwrap(), "1.60 (1.50 - 1.70)x in 2 of 3 rounds");
        let conclusion = verdict(&all)[1].clone();
        for part in ["median of 2 pairs", "Corelog is better in all", "with 50 %", "1 of 3 pairs left out"] {
            assert!(conclusion.contains(part), "{part}: {conclusion}");
        }
    }

    #[test]
    fn what_was_never_steady_has_no_ratio_and_no_bars() {
        let all = results(vec![
            turn(0, Kind::Kafka, 0.4, cold()),
            turn(0, Kind::Corelog, 23.9, Ratio::Told),
            turn(1, Kind::Corelog, 23.9, cold()),
            turn(1, Kind::Kafka, 0.4, cold()),
        ]);
        let text = scenario(&all);
        assert!(text.contains("none, not comparable: Kafka as it ships, both"), "{text}");
        assert!(text.contains("no pair in which both can be compared"), "{text}");
        assert!(!text.contains('█') && !text.contains("0x") && !text.contains("59"), "{text}");
    }

    #[test]
    fn a_verdict_says_what_cannot_be_told() {
        let pair = |round, ours| {
            [turn(round, Kind::Kafka, 100.0, Ratio::Told), turn(round, Kind::Corelog, ours, Ratio::Told)]
        };
        let said = |ours: &[f64]| {
            let turns = ours.iter().enumerate().flat_map(|(round, ours)| pair(round, *ours));
            verdict(&results(turns.collect()))[1].clone()
        };
        assert!(said(&[90.0, 130.0, 120.0, 110.0]).contains("cannot be told"));
        assert!(said(&[90.0, 80.0, 70.0, 95.0]).contains("worse in all of them"));
        assert!(said(&[120.0, 130.0, 140.0, 110.0]).contains("with 88 %"));
        assert!(said(&[120.0]).contains("nothing to be concluded; one pair says nothing"));
    }

    #[test]
    fn circumstances_are_not_divided() {
        let all = results(vec![
            turn(0, Kind::Kafka, 900.0, Ratio::Circumstance),
            turn(0, Kind::Corelog, 100.0, Ratio::Circumstance),
        ]);
        assert_eq!(cells(&all).1[0].last().unwrap(), "-");
    }

    #[test]
    fn an_order_that_favours_one_is_told() {
        let turns = |rounds: usize| {
            let both = |round: usize| {
                let mut kinds = [Kind::Kafka, Kind::Corelog];
                kinds.rotate_left(round % 2);
                kinds.map(|kind| turn(round, kind, 1.0, Ratio::Told))
            };
            results((0..rounds).flat_map(both).collect())
        };
        assert!(order(&turns(3)).contains("NOT balanced"));
        let balanced = order(&turns(4));
        assert!(
            balanced.contains("equally often")
                && balanced.contains("Kafka as it ships, Corelog | Corelog, Kafka")
        );
    }
}
