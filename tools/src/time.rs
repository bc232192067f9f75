//! Times and durations as people write them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// `250ms`, `30s`, `5m`, `2h`, `1day`.
pub fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text)
        .map_err(|error| format!("{error}; write it as 250ms, 30s, 5m, 2h or 1day"))
}

/// A point in time, in milliseconds since 1970: `2026-11-21`, `2026-11-21T10:00:00Z`, `10m ago`, or the milliseconds, after an `@`.
pub fn point(text: &str) -> Result<i64, String> {
    let wrong = || {
        format!(
            "{text:?} is no time; write 2026-11-21, 2026-11-21T10:00:00 (both UTC), \"10m ago\", or @1795168800000"
        )
    };
    if let Some(millis) = text.strip_prefix('@') {
        return millis.parse().map_err(|_| wrong());
    }
    let time = match text.strip_suffix("ago") {
        Some(before) => {
            let before = duration(before.trim())?;
            SystemTime::now().checked_sub(before).ok_or_else(wrong)?
        }
        None => {
            let whole =
                if text.len() == "2026-11-21".len() { format!("{text}T00:00:00Z") } else { text.to_owned() };
            humantime::parse_rfc3339_weak(&whole).map_err(|_| wrong())?
        }
    };
    match time.duration_since(UNIX_EPOCH) {
        Ok(since) => Ok(since.as_millis() as i64),
        Err(_) => Err(wrong()),
    }
}

/// Milliseconds since 1970 as `2026-11-21T10:00:00.000Z`.
pub fn shown(millis: i64) -> String {
    match u64::try_from(millis).ok().and_then(|millis| UNIX_EPOCH.checked_add(Duration::from_millis(millis)))
    {
        // The library has no more digits for the year.
        Some(time) if millis < 253_402_300_800_000 => humantime::format_rfc3339_millis(time).to_string(),
        _ => millis.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points() {
        assert_eq!(point("1970-01-02"), Ok(86_400_000));
        assert_eq!(point("1970-01-01T00:00:01Z"), Ok(1000));
        assert_eq!(point("1970-01-01 00:00:01.5"), Ok(1500));
        assert_eq!(point("@-2"), Ok(-2));
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64;
        assert!((point("10m ago").unwrap() - now + 600_000).abs() < 1000);
        for wrong in ["", "yesterday", "1969-01-01", "@x", "10x ago", "2026-13-01"] {
            assert!(point(wrong).is_err(), "{wrong}");
        }
        assert_eq!(shown(1500), "1970-01-01T00:00:01.500Z");
        assert_eq!(shown(-1), "-1");
        assert_eq!(shown(i64::MAX), i64::MAX.to_string());
    }
}
