//! Which topic names are legal, by Kafka's rules.

/// Longest topic name, in bytes; file names of its logs derive from it.
pub const NAME_BYTES_MAX: usize = 249;

/// Why `name` is no topic name, in Kafka's words.
pub fn check(name: &str) -> Result<(), String> {
    if name.is_empty() {
        return Err("the empty string is not allowed".into());
    }
    if name == "." || name == ".." {
        return Err("'.' or '..' is not allowed".into());
    }
    if name.len() > NAME_BYTES_MAX {
        return Err(format!("the length of '{name}' is longer than the max allowed length {NAME_BYTES_MAX}"));
    }
    if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-')) {
        return Err(format!(
            "'{name}' contains one or more characters other than ASCII alphanumerics, '.', '_' and '-'"
        ));
    }
    Ok(())
}

/// A topic among `existing` whose metric name would be the same: '.' and '_' count as one there.
pub fn collision<'a>(name: &str, mut existing: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    if !name.contains(['.', '_']) {
        return None;
    }
    let folded = name.replace('.', "_");
    existing.find(|other| *other != name && other.len() == name.len() && other.replace('.', "_") == folded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for good in ["a", "A.b_c-9", "__consumer_offsets", &"x".repeat(249)] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for bad in ["", ".", "..", "a b", "a/b", "ä", &"x".repeat(250)] {
            assert!(check(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn collisions() {
        assert_eq!(collision("a.b", ["a_b", "c"].into_iter()), Some("a_b"));
        assert_eq!(collision("a.b", ["a.b", "a-b", "ab"].into_iter()), None);
        assert_eq!(collision("ab", ["a_b"].into_iter()), None);
    }
}
