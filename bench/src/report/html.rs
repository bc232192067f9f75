//! One page that needs nothing else: tables, charts, and all that is needed to make the figures again.

use super::chart::{Chart, Horizontal, Line, Scale, escape};
use super::terminal::{micros, number};
use super::{Report, RunReport};
use crate::ceilings;
use crate::compare::scenario::{Results, Turn};
use crate::compare::tables;
use crate::stats::summary::{Point, Summary};

const STYLE: &str = "
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem; padding: 0 1rem; color: #1a1a1a; background: #fff }
h1, h2, h3 { line-height: 1.2 } h2 { margin-top: 2.5rem; border-bottom: 1px solid #ccc }
table { border-collapse: collapse; margin: 1rem 0 } th, td { padding: .2rem .8rem .2rem 0; text-align: right; font-variant-numeric: tabular-nums }
th { border-bottom: 1px solid #888 } th:first-child, td:first-child, td.text { text-align: left }
figure { margin: 1.2rem 0 } figcaption { font-weight: 600 } svg { width: 100%; height: auto } svg text { font-size: 11px; fill: #444 }
svg .grid { stroke: #e3e3e3 } .legend span { margin-right: 1.2rem; font-size: 13px } svg.key { width: 24px; height: 8px; margin-right: .4rem }
pre { background: #f4f4f4; padding: .6rem; overflow-x: auto } .bad { color: #b00020; font-weight: 600 } .remark { color: #7a5c00 }
details { margin: .6rem 0 }
";

pub fn page(report: &Report) -> String {
    let mut body = format!("<h1>corebench, {}</h1>\n", escape(&report.started));
    body += &format!("<pre>{}</pre>\n", escape(&report.command.join(" ")));
    body += &machine(report);
    for results in &report.comparisons {
        body += &comparison(results);
    }
    for run in &report.runs {
        body += &format!("<h2>{}</h2>\n", escape(&run.name));
        body += &single(run);
    }
    if let Some(ceilings) = &report.ceilings {
        body +=
            &format!("<h2>Ceilings of this machine</h2>\n<pre>{}</pre>\n", escape(&ceilings::text(ceilings)));
    }
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>corebench {}</title><style>{STYLE}</style></head>\n<body>\n{body}</body></html>\n",
        escape(&report.started)
    )
}

fn machine(report: &Report) -> String {
    let machine = &report.machine;
    let mut rows = vec![
        ("corebench", report.corebench.to_owned()),
        ("CPU", format!("{} x {}", machine.cpus, machine.cpu)),
        ("memory", format!("{} GiB", number(machine.memory as f64 / (1u64 << 30) as f64))),
        ("kernel", machine.kernel.clone()),
    ];
    if let Some(disk) = &machine.disk {
        let optional = |value: &Option<String>| value.clone().unwrap_or_else(|| "?".to_owned());
        rows.push((
            "disk",
            format!(
                "{}, model {}, write cache {}",
                disk.device,
                optional(&disk.model),
                optional(&disk.write_cache)
            ),
        ));
        rows.push(("file system", format!("{} ({})", disk.file_system, disk.options)));
        rows.push(("I/O scheduler", optional(&disk.scheduler)));
    }
    rows.extend(machine.governor.clone().map(|it| ("CPU governor", it)));
    rows.extend(machine.transparent_huge_pages.clone().map(|it| ("transparent huge pages", it)));
    table(&[], rows.into_iter().map(|(name, value)| vec![name.to_owned(), value]).collect())
}

/// Cells of the first column are text, and so are all of a table with two.
fn table(titles: &[String], rows: Vec<Vec<String>>) -> String {
    let row = |cells: &[String], tag: &str| {
        let class = if cells.len() == 2 { " class=\"text\"" } else { "" };
        let cells = cells.iter().map(|cell| format!("<{tag}{class}>{}</{tag}>", escape(cell)));
        format!("<tr>{}</tr>\n", cells.collect::<String>())
    };
    let head = if titles.is_empty() { String::new() } else { row(titles, "th") };
    format!("<table>\n{head}{}</table>\n", rows.iter().map(|cells| row(cells, "td")).collect::<String>())
}

fn comparison(results: &Results) -> String {
    let mut text = format!("<h2>{}</h2>\n<p>{}.</p>\n", results.scenario.name(), escape(&results.about));
    let (titles, rows) = tables::cells(results);
    text += &table(&titles, rows);
    for problem in results.problems() {
        text += &format!("<p class=\"bad\">No figure: {}</p>\n", escape(&problem));
    }
    for remark in results.remarks() {
        text += &format!("<p class=\"remark\">{}</p>\n", escape(&remark));
    }
    // All runs in one chart: a colour for each broker, dashes for each round.
    type Side = fn(&RunReport) -> Option<&Summary>;
    let sides: [(&str, Side); 2] =
        [("produce", |run| run.produced.as_ref()), ("consume", |run| run.consumed.as_ref())];
    for (side, of) in sides {
        let lines = |points: fn(&Summary) -> Vec<(f64, f64)>| -> Vec<Line> {
            let line = |turn: &Turn, run: &RunReport| {
                let summary = of(run).filter(|_| run.problems.is_empty())?;
                let name = format!("{} {}, {}", turn.kind.title(), turn.round + 1, run.name);
                Some(Line { name, points: points(summary), colour: turn.kind as usize, dash: turn.round })
            };
            results
                .turns
                .iter()
                .flat_map(|turn| turn.runs.iter().filter_map(move |run| line(turn, run)))
                .collect()
        };
        text += &percentiles(format!("{side}: latency by percentile"), lines(curve));
        text += &latency_course(
            format!("{side}: p99 over time"),
            lines(|side| course(side, |it| it.p99_us / 1e3)),
        );
        text += &throughput(format!("{side}: throughput over time"), lines(|side| course(side, megabytes)));
    }
    for turn in &results.turns {
        for run in &turn.runs {
            text += &format!(
                "<details><summary>{} in round {}: {}</summary>\n{}</details>\n",
                turn.kind.title(),
                turn.round + 1,
                escape(&run.name),
                single(run)
            );
        }
    }
    text
}

fn course(summary: &Summary, of: impl Fn(&Point) -> f64) -> Vec<(f64, f64)> {
    summary.course.iter().map(|point| (point.seconds, of(point))).collect()
}

fn megabytes(point: &Point) -> f64 {
    point.bytes_per_second / 1e6
}

fn curve(summary: &Summary) -> Vec<(f64, f64)> {
    let curve = summary.latency.iter().flat_map(|latency| &latency.curve);
    curve.map(|(quantile, us)| (*quantile, us / 1e3)).collect()
}

fn percentiles(title: String, lines: Vec<Line>) -> String {
    let (horizontal, vertical) = (Horizontal::Quantiles, Scale::Logarithmic);
    Chart { title, unit: "ms", horizontal, vertical, lines }.figure()
}

fn latency_course(title: String, lines: Vec<Line>) -> String {
    let (horizontal, vertical) = (Horizontal::Seconds, Scale::Logarithmic);
    Chart { title, unit: "ms", horizontal, vertical, lines }.figure()
}

fn throughput(title: String, lines: Vec<Line>) -> String {
    linear_course(title, "MB/s", lines)
}

fn linear_course(title: String, unit: &'static str, lines: Vec<Line>) -> String {
    let (horizontal, vertical) = (Horizontal::Seconds, Scale::Linear);
    Chart { title, unit, horizontal, vertical, lines }.figure()
}

fn line(name: &str, points: Vec<(f64, f64)>, colour: usize) -> Line {
    Line { name: name.to_owned(), points, colour, dash: 0 }
}

fn cpus(run: &RunReport) -> String {
    let course = &run.cost.course;
    let broker = course.iter().filter_map(|point| Some((point.seconds, point.broker?))).collect();
    let client = course.iter().map(|point| (point.seconds, point.client)).collect();
    let mut lines = vec![line("broker", broker, 0), line("client", client, 1)];
    // The broker may run elsewhere.
    lines.retain(|line| !line.points.is_empty());
    linear_course("CPUs in use over time, from the start of the warm-up".to_owned(), "CPUs", lines)
}

fn single(run: &RunReport) -> String {
    let mut text = String::new();
    for problem in &run.problems {
        text += &format!("<p class=\"bad\">No figure: {}</p>\n", escape(problem));
    }
    for remark in run.remarks() {
        text += &format!("<p class=\"remark\">{}</p>\n", escape(&remark));
    }
    if run.produced.is_some() {
        text += &format!("<p>{}</p>\n", escape(&super::terminal::course_of(run)));
    }
    let mut rates = Vec::new();
    let mut curves = Vec::new();
    let sides = [("produced", &run.produced), ("consumed", &run.consumed), ("committed", &run.committed)];
    for (colour, (side, summary)) in sides.into_iter().enumerate() {
        let Some(summary) = summary else { continue };
        let rate = number(summary.records_per_second);
        if side == "committed" {
            text += &format!("<h3>{side}: {rate} transactions/s</h3>\n");
        } else {
            let megabytes_per_second = number(summary.bytes_per_second / 1e6);
            text += &format!("<h3>{side}: {rate} records/s, {megabytes_per_second} MB/s</h3>\n");
            rates.push(line(side, course(summary, megabytes), colour));
        }
        let Some(latency) = &summary.latency else { continue };
        let titles = ["mean", "p50", "p90", "p99", "p99.9", "p99.99", "max"].map(str::to_owned);
        let values = [
            latency.mean_us,
            latency.p50_us,
            latency.p90_us,
            latency.p99_us,
            latency.p999_us,
            latency.p9999_us,
            latency.max_us,
        ];
        text += &table(&titles, vec![values.map(micros).to_vec()]);
        curves.push(line(side, curve(summary), colour));
        let over_time = vec![
            line("p50", course(summary, |it| it.p50_us / 1e3), 0),
            line("p99", course(summary, |it| it.p99_us / 1e3), 1),
            line("p99.9", course(summary, |it| it.p999_us / 1e3), 2),
            line("max", course(summary, |it| it.max_us / 1e3), 3),
        ];
        text += &latency_course(format!("{side}: latency over time"), over_time);
    }
    text += &percentiles("latency by percentile".to_owned(), curves);
    text += &throughput("throughput over time, from the start of the warm-up".to_owned(), rates);
    text += &cpus(run);
    text += &format!("<pre>{}</pre>\n", escape(&super::terminal::cost(run)));
    text +=
        &table(&[], run.parameters.iter().map(|(name, value)| vec![name.clone(), value.clone()]).collect());
    text
}
