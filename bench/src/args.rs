//! Values of the command line as people write them: sizes, rates, times, codecs.

use crate::load::payload::Sizes;
use serde::Serialize;
use std::time::Duration;

/// `250ms`, `30s`, `5m`.
pub fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|error| format!("{error}; write it as 250ms, 30s or 5m"))
}

/// `1000`, `64KiB`, `1.5MB`.
pub fn size(text: &str) -> Result<u64, String> {
    let (number, unit) = split(text)?;
    let scale = byte_scale(unit).ok_or_else(|| {
        format!("unknown unit {unit:?}: use none, KB, MB or GB (thousands), KiB, MiB or GiB (1024)")
    })?;
    Ok((number * scale) as u64)
}

fn split(text: &str) -> Result<(f64, &str), String> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let number = number.parse().map_err(|_| format!("{text:?} does not begin with a number"))?;
    Ok((number, unit.trim()))
}

fn byte_scale(unit: &str) -> Option<f64> {
    Some(match unit {
        "" | "B" => 1.0,
        "KB" | "kB" => 1e3,
        "MB" => 1e6,
        "GB" => 1e9,
        "KiB" => 1024.0,
        "MiB" => 1048576.0,
        "GiB" => 1073741824.0,
        _ => return None,
    })
}

/// How much is to be sent in a second.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Rate {
    Records(f64),
    Bytes(f64),
}

impl Rate {
    /// In records of this mean size.
    pub fn records_per_second(self, mean_bytes: f64) -> f64 {
        match self {
            Rate::Records(records) => records,
            Rate::Bytes(bytes) => bytes / mean_bytes,
        }
    }
}

/// `40000`, `40k`, `1.5M` records, or `40MB`, a second.
pub fn rate(text: &str) -> Result<Rate, String> {
    let (number, unit) = split(text.strip_suffix("/s").unwrap_or(text))?;
    let rate = match unit {
        "" => Rate::Records(number),
        "k" => Rate::Records(number * 1e3),
        "M" => Rate::Records(number * 1e6),
        unit => match byte_scale(unit) {
            Some(scale) => Rate::Bytes(number * scale),
            None => return Err(format!("unknown unit {unit:?}: use 40000, 40k or 1M records, or 40MB")),
        },
    };
    if number > 0.0 { Ok(rate) } else { Err("a rate is more than 0; leave it out to saturate".into()) }
}

/// `1000`, `100..2000`, `log:100..100000`, `mix:100=9,10000=1`.
pub fn sizes(text: &str) -> Result<Sizes, String> {
    let range = |text: &str| -> Result<(u64, u64), String> {
        let wrong = || format!("{text:?} is no range of sizes: write 100..2000");
        let (least, most) = text.split_once("..").ok_or_else(wrong)?;
        let (least, most) = (size(least)?, size(most)?);
        if least <= most { Ok((least, most)) } else { Err(wrong()) }
    };
    let sizes = if let Some(text) = text.strip_prefix("log:") {
        range(text).map(|(least, most)| Sizes::LogUniform { least, most })?
    } else if let Some(text) = text.strip_prefix("mix:") {
        let parts = text.split(',').map(|part| {
            let (of, weight) = part.split_once('=').ok_or_else(|| format!("{part:?} is no SIZE=WEIGHT"))?;
            let weight = weight.parse().map_err(|_| format!("{weight:?} is no whole number"))?;
            Ok((size(of)?, weight))
        });
        let parts: Vec<(u64, u32)> = parts.collect::<Result<_, String>>()?;
        if parts.iter().all(|(_, weight)| *weight == 0) {
            return Err("all weights are 0".into());
        }
        Sizes::Mix(parts)
    } else if text.contains("..") {
        range(text).map(|(least, most)| Sizes::Uniform { least, most })?
    } else {
        Sizes::Fixed(size(text)?)
    };
    sizes.check()?;
    Ok(sizes)
}

/// `name=value`.
pub fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err(format!("{text:?} is no NAME=VALUE")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_and_sizes() {
        assert_eq!(rate("40k"), Ok(Rate::Records(40_000.0)));
        assert_eq!(rate("40MB/s"), Ok(Rate::Bytes(40e6)));
        assert_eq!(rate("40MB").unwrap().records_per_second(1000.0), 40_000.0);
        assert!(rate("0").is_err() && rate("40q").is_err() && rate("").is_err());
        assert_eq!(size("64KiB"), Ok(65536));
        assert_eq!(sizes("100..200"), Ok(Sizes::Uniform { least: 100, most: 200 }));
        assert_eq!(sizes("mix:100=9,10KB=1"), Ok(Sizes::Mix(vec![(100, 9), (10_000, 1)])));
        for text in ["", "200..100", "8", "mix:100", "mix:100=0", "log:100"] {
            assert!(sizes(text).is_err(), "{text}");
        }
    }
}
