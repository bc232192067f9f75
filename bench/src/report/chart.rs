//! Line charts as SVG.

use std::fmt::Write;

/// Of one colour, through points.
pub struct Line {
    pub name: String,
    pub points: Vec<(f64, f64)>,
    /// A place in the palette: lines that belong together share one.
    pub colour: usize,
    /// One of several of its colour, told apart by dashes.
    pub dash: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Scale {
    /// From 0.
    Linear,
    Logarithmic,
}

/// How values of the horizontal axis are written and spread.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Horizontal {
    Seconds,
    /// Quantiles, spread by how rare what is beyond them is: 90 %, 99 %, 99.9 % at equal distances.
    Quantiles,
}

pub struct Chart {
    pub title: String,
    /// What is on the vertical axis.
    pub unit: &'static str,
    pub horizontal: Horizontal,
    pub vertical: Scale,
    pub lines: Vec<Line>,
}

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 16.0;
const BOTTOM: f64 = 40.0;
/// Told apart also by those who see few colours.
const PALETTE: [&str; 8] =
    ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#999999"];
const DASHES: [&str; 4] = ["", "6 3", "2 3", "8 3 2 3"];

impl Horizontal {
    fn place(self, x: f64) -> f64 {
        match self {
            Horizontal::Seconds => x,
            Horizontal::Quantiles => -(1.0 - x).max(1e-9).log10(),
        }
    }

    /// Places and what is written there.
    fn marks(self, (from, to): (f64, f64)) -> Vec<(f64, String)> {
        match self {
            Horizontal::Seconds => steps(from, to).into_iter().map(|at| (at, format!("{at} s"))).collect(),
            Horizontal::Quantiles => [0.0, 0.9, 0.99, 0.999, 0.9999, 0.99999, 0.999999]
                .into_iter()
                .map(|quantile| (self.place(quantile), format!("{} %", short(quantile * 100.0))))
                .filter(|(at, _)| *at <= to + 1e-9)
                .collect(),
        }
    }
}

/// About six round numbers between the two.
fn steps(from: f64, to: f64) -> Vec<f64> {
    let raw = (to - from).max(1e-12) / 6.0;
    let magnitude = 10f64.powf(raw.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].map(|it| it * magnitude).into_iter().find(|step| *step >= raw);
    let step = step.unwrap_or(10.0 * magnitude);
    let first = (from / step).ceil() as i64;
    (first..)
        .map(|at| (at as f64 * step * 1e9).round() / 1e9)
        .take_while(|at| *at <= to + step * 1e-6)
        .collect()
}

fn short(value: f64) -> String {
    let text = format!("{value:.6}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

impl Chart {
    /// None if there is nothing to draw.
    pub fn svg(&self) -> Option<String> {
        let place = |(x, y): &(f64, f64)| (self.horizontal.place(*x), *y);
        let drawable = |(x, y): &(f64, f64)| {
            x.is_finite() && y.is_finite() && (self.vertical == Scale::Linear || *y > 0.0)
        };
        let lines: Vec<Vec<(f64, f64)>> =
            self.lines.iter().map(|line| line.points.iter().map(place).filter(drawable).collect()).collect();
        let all = || lines.iter().flatten();
        let (min_x, max_x) = bounds(all().map(|point| point.0))?;
        let (min_y, max_y) = bounds(all().map(|point| point.1))?;
        let (low, high) = match self.vertical {
            Scale::Linear => (0.0, if max_y > 0.0 { max_y * 1.05 } else { 1.0 }),
            Scale::Logarithmic => {
                (min_y.log10().floor(), max_y.log10().ceil().max(min_y.log10().floor() + 1.0))
            }
        };
        let span = (max_x - min_x).max(1e-9);
        let at_x = |x: f64| LEFT + (x - min_x) / span * (WIDTH - LEFT - RIGHT);
        let at_y = |y: f64| {
            let y = if self.vertical == Scale::Logarithmic { y.log10() } else { y };
            HEIGHT - BOTTOM - (y - low) / (high - low) * (HEIGHT - TOP - BOTTOM)
        };
        let marks_y: Vec<f64> = match self.vertical {
            Scale::Linear => steps(low, high),
            Scale::Logarithmic => (low as i32..=high as i32).map(|power| 10f64.powi(power)).collect(),
        };

        let mut svg = format!(
            "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}\">\n",
            escape(&self.title)
        );
        for mark in marks_y {
            let y = at_y(mark);
            let _ = writeln!(
                svg,
                "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/><text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                WIDTH - RIGHT,
                LEFT - 6.0,
                y + 4.0,
                short(mark)
            );
        }
        for (mark, text) in self.horizontal.marks((min_x, max_x)) {
            let x = at_x(mark);
            let _ = writeln!(
                svg,
                "<line class=\"grid\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{TOP}\" y2=\"{}\"/><text x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{text}</text>",
                HEIGHT - BOTTOM,
                HEIGHT - BOTTOM + 18.0
            );
        }
        let _ = writeln!(svg, "<text x=\"6\" y=\"12\">{}</text>", escape(self.unit));
        for (line, points) in self.lines.iter().zip(&lines) {
            let path: String = points
                .iter()
                .enumerate()
                .map(|(at, (x, y))| {
                    format!("{}{:.1} {:.1}", if at == 0 { "M" } else { "L" }, at_x(*x), at_y(*y))
                })
                .collect();
            let _ = writeln!(
                svg,
                "<path d=\"{path}\" fill=\"none\" stroke=\"{}\" stroke-width=\"1.6\" stroke-dasharray=\"{}\"><title>{}</title></path>",
                PALETTE[line.colour % PALETTE.len()],
                DASHES[line.dash % DASHES.len()],
                escape(&line.name)
            );
        }
        svg += "</svg>\n";
        Some(svg)
    }

    /// The chart with title and legend; nothing if there is nothing to draw.
    pub fn figure(&self) -> String {
        let Some(svg) = self.svg() else { return String::new() };
        let legend: String = self
            .lines
            .iter()
            .map(|line| {
                format!(
                    "<span><svg class=\"key\" viewBox=\"0 0 24 8\"><line x1=\"0\" x2=\"24\" y1=\"4\" y2=\"4\" stroke=\"{}\" stroke-width=\"2\" stroke-dasharray=\"{}\"/></svg>{}</span>",
                    PALETTE[line.colour % PALETTE.len()],
                    DASHES[line.dash % DASHES.len()],
                    escape(&line.name)
                )
            })
            .collect();
        format!(
            "<figure><figcaption>{}</figcaption>\n{svg}<div class=\"legend\">{legend}</div></figure>\n",
            escape(&self.title)
        )
    }
}

fn bounds(values: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    values.fold(None, |bounds, value| match bounds {
        None => Some((value, value)),
        Some((min, max)) => Some((value.min(min), value.max(max))),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(points: Vec<(f64, f64)>, vertical: Scale, horizontal: Horizontal) -> Chart {
        let line = Line { name: "a <b>".into(), points, colour: 0, dash: 0 };
        Chart { title: "t".into(), unit: "ms", horizontal, vertical, lines: vec![line] }
    }

    #[test]
    fn lines_stay_inside_and_names_are_escaped() {
        for vertical in [Scale::Linear, Scale::Logarithmic] {
            let points = vec![(0.0, 0.5), (0.9, 3.0), (0.999, 800.0), (1.0, 0.0)];
            let figure = chart(points, vertical, Horizontal::Quantiles).figure();
            assert!(figure.contains("a &lt;b&gt;") && !figure.contains("NaN") && !figure.contains("inf"));
            let path = figure.split("<path d=\"M").nth(1).unwrap().split('"').next().unwrap();
            for number in path.split(['L', ' ']) {
                let number: f64 = number.parse().unwrap();
                assert!((0.0..=WIDTH).contains(&number), "{path}");
            }
        }
        assert_eq!(chart(Vec::new(), Scale::Linear, Horizontal::Seconds).figure(), "");
    }

    #[test]
    fn marks_are_round() {
        assert_eq!(steps(0.0, 10.0), [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]);
        assert_eq!(steps(0.0, 0.3), [0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3]);
        let marks = Horizontal::Quantiles.marks((0.0, 3.2));
        let texts: Vec<&str> = marks.iter().map(|mark| mark.1.as_str()).collect();
        assert_eq!(texts, ["0 %", "90 %", "99 %", "99.9 %"]);
    }
}
