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

/// A name with '.' or '_' as Kafka's metrics have it, where these are one: no two topics may have the same.
pub fn folded(name: &str) -> Option<String> {
    name.contains(['.', '_']).then(|| name.replace('.', "_"))
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
    fn dots_and_underscores_are_one() {
        assert_eq!(folded("a.b_c").as_deref(), Some("a_b_c"));
        assert_eq!(folded("a-b"), None);
    }
}
