//! Reports as tables on the terminal.

use super::RunReport;
use crate::stats::summary::{Latency, Summary};
use comfy_table::{Cell, CellAlignment, ContentArrangement, Table, presets};

/// Whole, or with as many decimals as three digits need.
pub fn number(value: f64) -> String {
    // Divided by what was too little to be measured.
    if !value.is_finite() {
        return "?".to_owned();
    }
    let decimals = match value.abs() {
        it if it >= 100.0 || it == 0.0 => 0,
        it if it >= 10.0 => 1,
        it if it >= 0.1 => 2,
        _ => 4,
    };
    let text = format!("{value:.decimals$}");
    let (whole, fraction) = text.split_once('.').map_or((text.as_str(), None), |(a, b)| (a, Some(b)));
    let digits = whole.trim_start_matches('-');
    let mut grouped = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            grouped.push(' ');
        }
        grouped.push(digit);
    }
    let sign = if whole.starts_with('-') { "-" } else { "" };
    match fraction {
        Some(fraction) => format!("{sign}{grouped}.{fraction}"),
        None => format!("{sign}{grouped}"),
    }
}

/// Microseconds in a unit that suits them.
pub fn micros(us: f64) -> String {
    match us {
        us if us >= 1e6 => format!("{} s", number(us / 1e6)),
        us if us >= 1e3 => format!("{} ms", number(us / 1e3)),
        us => format!("{} us", number(us)),
    }
}

/// A table without frames; numbers on the right.
pub fn table(titles: &[&str], rows: Vec<Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_content_arrangement(ContentArrangement::Disabled);
    if !titles.is_empty() {
        table.set_header(titles.iter().map(Cell::new));
    }
    for row in rows {
        table.add_row(row);
    }
    for (at, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 2));
        if at > 0 {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
}

/// A bar of eighths of a character, for `value` of `max`.
pub fn bar(value: f64, max: f64, width: usize) -> String {
    if !(max > 0.0 && value > 0.0) {
        return String::new();
    }
    let eighths = ((value / max).min(1.0) * (width * 8) as f64).round() as usize;
    let mut bar = "█".repeat(eighths / 8);
    if !eighths.is_multiple_of(8) {
        bar.push(['▏', '▎', '▍', '▌', '▋', '▊', '▉'][eighths % 8 - 1]);
    }
    bar
}

/// When the window began, and whether the load stood.
pub fn course_of(report: &RunReport) -> String {
    let steady = &report.steady;
    format!(
        "all partitions served after {} s; measured for {} s after a warm-up of {} s; {}steady: pieces up to {:.0} % apart",
        number(report.ready_s),
        number(report.window_s),
        number(steady.warm_up_s),
        if steady.reached { "" } else { "not " },
        steady.spread * 100.0,
    )
}

/// One run.
pub fn run(report: &RunReport) -> String {
    let mut text = String::new();
    if report.produced.is_some() {
        text += &(course_of(report) + "\n");
    }
    for (side, summary) in [("produced", &report.produced), ("consumed", &report.consumed)] {
        let Some(summary) = summary else { continue };
        text += &format!(
            "{side}: {} records/s, {} MB/s\n",
            number(summary.records_per_second),
            number(summary.bytes_per_second / 1e6)
        );
        if let Some(latency) = &summary.latency {
            text += &latencies(side, latency);
        }
        text += &course(summary);
        text.push('\n');
    }
    if let Some(summary) = &report.committed {
        text += &format!("committed: {} transactions/s\n", number(summary.records_per_second));
        if let Some(latency) = &summary.latency {
            text += &latencies("committed", latency);
        }
        text.push('\n');
    }
    text += &cost(report);
    if let Some(back) = &report.read_back {
        text += &format!(
            "read back afterwards: {} MB at {} MB/s\n",
            number(back.bytes as f64 / 1e6),
            number(back.bytes as f64 / 1e6 / back.seconds)
        );
    }
    text += &match report.problems.as_slice() {
        // Against an endpoint that keeps nothing.
        [] if report.verdict.read == 0 => String::new(),
        [] if report.verdict.counted => {
            format!("counted: {} records, as many as there are\n", number(report.verdict.read as f64))
        }
        [] => format!("checked: {} records, all as sent\n", number(report.verdict.acknowledged as f64)),
        problems => format!("NO FIGURE: {}\n", problems.join("; ")),
    };
    for remark in report.remarks() {
        text += &format!("note: {remark}\n");
    }
    text
}

fn latencies(side: &str, latency: &Latency) -> String {
    let what = match side {
        "produced" => "acknowledged after",
        "committed" => "commits took",
        _ => "read after",
    };
    let rows = [
        ("p50", latency.p50_us),
        ("p90", latency.p90_us),
        ("p99", latency.p99_us),
        ("p99.9", latency.p999_us),
        ("p99.99", latency.p9999_us),
        ("max", latency.max_us),
    ];
    // Latencies span decades: bars are logarithmic, from 10 us.
    let decades = |us: f64| (us / 10.0).max(1.0).log10();
    let rows = rows.map(|(name, us)| {
        vec![format!("  {name}"), micros(us), bar(decades(us), decades(latency.max_us), 30)]
    });
    let mut text = format!("  {what} (mean {}):\n", micros(latency.mean_us));
    for [name, value, bar] in rows.map(|row| <[String; 3]>::try_from(row).expect("three cells")) {
        text += &format!("  {name:<8} {value:>10}  {bar}\n");
    }
    text += &format!(
        "  p99 in the first sixth of the window {}, in the last {}\n",
        micros(latency.p99_first_us),
        micros(latency.p99_last_us)
    );
    text
}

const COURSE_WIDTH: usize = 60;

/// Throughput over time, from the start of the warm-up.
fn course(summary: &Summary) -> String {
    let all: Vec<f64> = summary.course.iter().map(|point| point.bytes_per_second).collect();
    let groups = all.len().div_ceil(COURSE_WIDTH).max(1);
    let means: Vec<f64> =
        all.chunks(groups).map(|group| group.iter().sum::<f64>() / group.len() as f64).collect();
    let max = means.iter().copied().fold(0.0, f64::max);
    let level = |value: &f64| {
        const LEVELS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
        LEVELS[((value / max * 7.0).round() as usize).min(7)]
    };
    if max == 0.0 {
        return String::new();
    }
    format!(
        "  over time, with warm-up: {} up to {} MB/s\n",
        means.iter().map(level).collect::<String>(),
        number(max / 1e6)
    )
}

/// What it cost, a line for each who paid.
pub fn cost(report: &RunReport) -> String {
    let mut text = String::new();
    let cost = &report.cost;
    let gb = report.bytes() as f64 / 1e9;
    if let Some(broker) = &cost.broker {
        text += &format!(
            "broker: {} CPU s per GB ({} MB per CPU s), {} % of a CPU; {} in user mode\n",
            number(broker.cpu_s / gb),
            number(gb * 1e3 / broker.cpu_s),
            number(broker.cpu_s / cost.seconds * 100.0),
            number(broker.user_s / broker.cpu_s * 100.0) + " %",
        );
        text += &format!(
            "        resident {} MB (peak {}), {} context switches per MB\n",
            number(broker.resident as f64 / 1e6),
            number(broker.resident_peak as f64 / 1e6),
            number((broker.switches.voluntary + broker.switches.forced) as f64 / gb / 1e3),
        );
        if let Some(calls) = broker.counts.system_calls {
            text += &format!("        {} system calls per MB\n", number(calls as f64 / gb / 1e3));
        }
        if let Some(instructions) = broker.counts.instructions {
            text += &format!("        {} instructions per byte\n", number(instructions as f64 / gb / 1e9));
        }
        let produced = report.produced.as_ref().map_or(0, |side| side.bytes) as f64;
        if let Some(written) = broker.written.filter(|_| produced > 0.0) {
            let device = cost.device_written.map_or("?".into(), |it| number(it as f64 / produced));
            text += &format!(
                "        wrote {} bytes per byte produced; the device {device} in the same time\n",
                number(written as f64 / produced)
            );
        }
    }
    text += &format!(
        "machine less client: {} CPU s per GB; others took {} CPU s, the hypervisor {}\n",
        number(cost.machine_less_client_cpu_s / gb),
        number(cost.others_cpu_s),
        number(cost.stolen_cpu_s)
    );
    let busiest = cost.client_busiest_thread.as_ref();
    text += &format!(
        "client: {} CPU s per GB; busiest thread {} ({} % of a CPU); late by {} at p99\n",
        number(cost.client_cpu_s / gb),
        busiest.map_or("?", |(name, _)| name),
        busiest.map_or("?".into(), |(_, share)| number(share * 100.0)),
        micros(report.client.lag_p99_us),
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short_and_grouped() {
        for (value, text) in [
            (0.0, "0"),
            (1234567.8, "1 234 568"),
            (12.345, "12.3"),
            (0.01234, "0.0123"),
            (-1234.0, "-1 234"),
            (999.9, "1 000"),
            (1.0 / 0.0, "?"),
            (f64::NAN, "?"),
        ] {
            assert_eq!(number(value), text);
        }
        assert_eq!(micros(1500.0), "1.50 ms");
        assert_eq!(bar(0.5, 1.0, 4), "██");
        assert_eq!(bar(1.0 / 32.0, 1.0, 4), "▏");
    }
}
