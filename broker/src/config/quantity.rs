//! Sizes and durations as people write them: `512MiB`, `1.5GiB`, `90s`, `7d`.
//!
//! Only start-up accepts these; over the wire Kafka's plain numbers are the rule.

/// Parses a size: a number with an optional unit `B`, `KiB`, `MiB`, `GiB`, `TiB` (powers of 1024) or `KB`,
/// `MB`, `GB`, `TB` (powers of 1000), case-insensitive, with or without a space. The result is in bytes.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let (number, unit) = split(text)?;
    let scale: u64 = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        "tib" => 1 << 40,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        // A bare K, M or G means 1000 to some and 1024 to others.
        _ => return Err(format!("unknown size unit '{unit}': use B, KiB, MiB, GiB, TiB, KB, MB, GB or TB")),
    };
    scaled(number, scale, "bytes")
}

/// Parses a duration: a number with a unit `ms`, `s`, `m`, `h`, `d` or `w`. The result is in milliseconds.
pub fn parse_duration_ms(text: &str) -> Result<u64, String> {
    let (number, unit) = split(text)?;
    let scale: u64 = match unit.to_ascii_lowercase().as_str() {
        "ms" => 1,
        "s" => 1_000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        "w" => 604_800_000,
        "" => return Err("a duration needs a unit: ms, s, m, h, d or w".to_owned()),
        _ => return Err(format!("unknown duration unit '{unit}': use ms, s, m, h, d or w")),
    };
    scaled(number, scale, "milliseconds")
}

/// A size in the largest binary unit that divides it: `536870912` is `512MiB`.
pub fn format_size(bytes: u64) -> String {
    const UNITS: [(&str, u32); 4] = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];
    for (unit, shift) in UNITS {
        if bytes >= 1 << shift && bytes.is_multiple_of(1 << shift) {
            return format!("{}{unit}", bytes >> shift);
        }
    }
    format!("{bytes}B")
}

/// A duration in the largest unit that divides it: `604800000` is `7d`.
pub fn format_duration_ms(ms: u64) -> String {
    const UNITS: [(&str, u64); 4] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000)];
    for (unit, scale) in UNITS {
        if ms >= scale && ms.is_multiple_of(scale) {
            return format!("{}{unit}", ms / scale);
        }
    }
    format!("{ms}ms")
}

fn split(text: &str) -> Result<(&str, &str), String> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    if number.is_empty() {
        return Err(format!("'{text}' does not begin with a number"));
    }
    Ok((number, unit.trim_start()))
}

/// `number * scale`, exactly: a fraction must come out whole (`1.5KiB` is 1536, `0.3KiB` is refused).
fn scaled(number: &str, scale: u64, of: &str) -> Result<u64, String> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if fraction.contains('.') || (whole.is_empty() && fraction.is_empty()) || fraction.len() > 18 {
        return Err(format!("'{number}' is not a number"));
    }
    let too_large = || format!("{number} times {scale} is more than 2^64-1 {of}");
    let parse = |digits: &str| -> Result<u128, String> {
        if digits.is_empty() { Ok(0) } else { digits.parse::<u128>().map_err(|_| too_large()) }
    };
    let denominator = 10u128.pow(fraction.len() as u32);
    let digits = parse(whole)?
        .checked_mul(denominator)
        .and_then(|n| n.checked_add(parse(fraction).ok()?))
        .ok_or_else(too_large)?;
    let product = digits.checked_mul(u128::from(scale)).ok_or_else(too_large)?;
    if product % denominator != 0 {
        return Err(format!("{number} times {scale} is not a whole number of {of}"));
    }
    u64::try_from(product / denominator).map_err(|_| too_large())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sizes() {
        for (text, expected) in [
            ("0", 0),
            ("512MiB", 512 << 20),
            ("512 mib", 512 << 20),
            ("1.5GiB", 3 << 29),
            ("1.5KiB", 1536),
            (".5KiB", 512),
            ("2KB", 2000),
            ("18446744073709551615", u64::MAX),
        ] {
            assert_eq!(parse_size(text), Ok(expected), "{text}");
        }
        for (text, what) in [
            ("", "does not begin with a number"),
            ("MiB", "does not begin with a number"),
            ("-1", "does not begin with a number"),
            ("1M", "unknown size unit 'M'"),
            ("1.1.1B", "is not a number"),
            (".", "is not a number"),
            ("0.3KiB", "not a whole number"),
            ("18446744073709551616", "more than 2^64-1"),
            ("999999999999999999999999999999999999999999TiB", "more than 2^64-1"),
            ("0.0000000000000000000000001TiB", "is not a number"),
        ] {
            let error = parse_size(text).unwrap_err();
            assert!(error.contains(what), "{text}: {error}");
        }
    }

    #[test]
    fn durations() {
        for (text, expected) in [("0ms", 0), ("7d", 604_800_000), ("1.5h", 5_400_000), ("90 s", 90_000)] {
            assert_eq!(parse_duration_ms(text), Ok(expected), "{text}");
        }
        assert!(parse_duration_ms("7").unwrap_err().contains("needs a unit"));
        assert!(parse_duration_ms("7y").unwrap_err().contains("unknown duration unit 'y'"));
    }

    proptest! {
        #[test]
        fn a_written_size_reads_back(bytes in any::<u64>()) {
            prop_assert_eq!(parse_size(&format_size(bytes)), Ok(bytes));
        }

        #[test]
        fn a_written_duration_reads_back(ms in any::<u64>()) {
            prop_assert_eq!(parse_duration_ms(&format_duration_ms(ms)), Ok(ms));
        }

        #[test]
        fn whole_units_scale(n in 0u64..1 << 20, shift in prop::sample::select(vec![("KiB", 10), ("MiB", 20), ("GiB", 30), ("TiB", 40)])) {
            prop_assert_eq!(parse_size(&format!("{n}{}", shift.0)), Ok(n << shift.1));
        }

        #[test]
        fn any_text_is_parsed_or_refused(text in ".{0,40}") {
            let _ = parse_size(&text);
            let _ = parse_duration_ms(&text);
        }
    }
}
