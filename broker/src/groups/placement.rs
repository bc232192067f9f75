//! Which partition of `__consumer_offsets` coordinates a group.

/// The partition of `__consumer_offsets` (of `partitions` in all) whose leader coordinates `group_id`:
/// Java's `String.hashCode` over UTF-16 code units, sign bit cleared, modulo the partition count. Java clients,
/// Kafka's own tools and lag monitors compute the same number, so it can never change.
///
/// # Panics
/// When `partitions` is not positive: the topic has at least one partition wherever a group is looked up.
pub fn group_partition(group_id: &str, partitions: i32) -> i32 {
    assert!(partitions > 0, "__consumer_offsets has {partitions} partitions");
    let hash =
        group_id.encode_utf16().fold(0i32, |hash, unit| hash.wrapping_mul(31).wrapping_add(i32::from(unit)));
    (hash & i32::MAX) % partitions
}

#[cfg(test)]
mod tests {
    use super::group_partition;

    /// Hash codes as Java prints them for the same strings.
    #[test]
    fn follows_javas_string_hash_code() {
        for (group, hash) in [
            ("", 0i32),
            ("a", 97),
            ("group", 98_629_247),
            ("größe", 98_762_257),
            ("\u{1F600}", 1_772_899),
            // The most negative number has no positive counterpart: masking gives 0, where abs would overflow.
            ("polygenelubricants", i32::MIN),
        ] {
            assert_eq!(group_partition(group, i32::MAX), (hash & i32::MAX) % i32::MAX, "{group}");
            assert_eq!(group_partition(group, 50), (hash & i32::MAX) % 50, "{group}");
        }
    }
}
