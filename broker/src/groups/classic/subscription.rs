//! The topics a member of a `consumer` group subscribes to, out of the metadata it joins with.

use std::collections::BTreeSet;

use corelog_wire::Str;

/// Subscriptions are looked through as far as this, and what goes beyond is taken for one to everything.
pub const TOPICS_MAX: usize = 10_000;

/// What a topic that members subscribe to holds.
pub fn topic_cost(topic: &Str) -> usize {
    96 + topic.len()
}

/// Reads the topics of a ConsumerProtocolSubscription. Every version begins with what version 0 is: version (i16),
/// topics (array of string), user data (nullable bytes); what later versions add behind it is of no interest here.
/// `None` when the bytes are not that (the group may bear the protocol type `consumer` and still speak its own format), or
/// name more than [`TOPICS_MAX`].
pub fn subscribed_topics(metadata: &[u8]) -> Option<BTreeSet<Str>> {
    let mut rest = metadata;
    take::<2>(&mut rest)?;
    let count = i32::from_be_bytes(take(&mut rest)?);
    let mut topics = BTreeSet::new();
    for _ in 0..usize::try_from(count).ok().filter(|count| *count <= TOPICS_MAX)? {
        let length = usize::try_from(i16::from_be_bytes(take(&mut rest)?)).ok()?;
        let (topic, behind) = rest.split_at_checked(length)?;
        rest = behind;
        topics.insert(Str::from(std::str::from_utf8(topic).ok()?));
    }
    let user_data = i32::from_be_bytes(take(&mut rest)?);
    if user_data >= 0 {
        rest.split_at_checked(usize::try_from(user_data).ok()?)?;
    }
    Some(topics)
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (head, behind) = rest.split_first_chunk::<N>()?;
    *rest = behind;
    Some(*head)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_topics_whatever_the_version() {
        let v0 = b"\x00\x00\x00\x00\x00\x02\x00\x01a\x00\x02bc\xff\xff\xff\xff";
        let v1 = b"\x00\x01\x00\x00\x00\x01\x00\x01a\x00\x00\x00\x02xy\x00\x00\x00\x00";
        let topics =
            |names: &[&str]| Some(names.iter().map(|name| Str::from(*name)).collect::<BTreeSet<_>>());
        assert_eq!(subscribed_topics(v0), topics(&["a", "bc"]));
        assert_eq!(subscribed_topics(v1), topics(&["a"]));
    }

    #[test]
    fn anything_else_is_not_a_subscription() {
        for bytes in [
            &b""[..],
            b"\x00",
            b"\x00\x00\x7f\xff\xff\xff", // two thousand million topics in no bytes
            b"\x00\x00\xff\xff\xff\xff", // minus one topics
            b"\x00\x00\x00\x00\x00\x01\xff\xff", // a null topic
            b"\x00\x00\x00\x00\x00\x01\x00\x05a", // a topic cut short
            b"\x00\x00\x00\x00\x00\x00", // no user data
            b"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x09x", // user data cut short
            b"\x00\x00\x00\x00\x00\x01\x00\x01\xff\xff\xff\xff", // not UTF-8
        ] {
            assert_eq!(subscribed_topics(bytes), None, "{bytes:?}");
        }
    }
}
