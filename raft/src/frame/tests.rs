use proptest::prelude::*;

use super::*;
use crate::ids::{RaftIndex, ReplicaId, Term};
use crate::log::{Entry, EntryKind};
use crate::membership::Membership;
use crate::message::*;

fn whole(frame: &Frame) -> (Prefix, Bytes, Bytes) {
    let prefix = Prefix::parse(frame.head[..PREFIX_BYTES].try_into().unwrap()).unwrap();
    assert_eq!(frame.head.len(), PREFIX_BYTES + prefix.header as usize);
    let body: Bytes = frame.body.concat().into();
    assert_eq!(body.len(), prefix.body as usize);
    (prefix, frame.head.slice(PREFIX_BYTES..), body)
}

fn read(frame: &Frame) -> Result<Content, BadFrame> {
    let (prefix, header, body) = whole(frame);
    decode(prefix, &header, body)
}

fn group() -> impl Strategy<Value = GroupId> {
    (any::<u128>(), any::<i32>()).prop_map(|(topic, partition)| GroupId { topic, partition })
}

fn addressed(body: impl Strategy<Value = Body>) -> impl Strategy<Value = (GroupId, Message)> {
    (group(), any::<u64>(), any::<u64>(), any::<i32>(), body).prop_map(|(group, from, to, term, body)| {
        (group, Message { from: ReplicaId(from), to: ReplicaId(to), term: Term(term), body })
    })
}

fn index() -> impl Strategy<Value = RaftIndex> {
    any::<u64>().prop_map(RaftIndex)
}

fn term() -> impl Strategy<Value = Term> {
    any::<i32>().prop_map(Term)
}

fn tick() -> impl Strategy<Value = Tick> {
    any::<u64>().prop_map(Tick)
}

fn small() -> impl Strategy<Value = Body> {
    let beat = || (index(), tick(), any::<bool>());
    let membership = prop::collection::btree_set(1..u64::MAX, 1..5)
        .prop_map(|ids| Membership::of_voters(&ids.into_iter().map(ReplicaId).collect::<Vec<_>>()));
    prop_oneof![
        beat().prop_map(|(committed, sent, rest)| Body::Heartbeat(Heartbeat { committed, sent, rest })),
        beat().prop_map(|(committed, sent, rest)| {
            Body::HeartbeatAnswer(HeartbeatAnswer { committed, sent, rest })
        }),
        (index(), index()).prop_map(|(committed, end)| {
            Body::AppendAnswer(AppendAnswer { committed, outcome: Outcome::Matched { end } })
        }),
        (index(), index(), index(), term()).prop_map(|(committed, start, hint, hint_term)| {
            let outcome = Outcome::Mismatch { start, hint, hint_term };
            Body::AppendAnswer(AppendAnswer { committed, outcome })
        }),
        (any::<(bool, bool)>(), index(), index(), term(), term()).prop_map(
            |((pre, forced), end, committed, last_term, committed_term)| {
                Body::Vote(Vote { pre, forced, end, last_term, committed, committed_term })
            }
        ),
        (any::<(bool, bool)>(), index(), term()).prop_map(|((pre, granted), committed, committed_term)| {
            Body::VoteAnswer(VoteAnswer { pre, granted, committed, committed_term })
        }),
        tick().prop_map(|sent| Body::TimeoutNow { sent }),
        Just(Body::Removed),
        (index(), term(), membership).prop_map(|(end, term, membership)| {
            Body::SnapshotOffer(SnapshotOffer { end, term, membership })
        }),
    ]
}

fn append() -> impl Strategy<Value = Body> {
    let kind = prop_oneof![Just(EntryKind::Batch), Just(EntryKind::TermStart), Just(EntryKind::Membership)];
    let entry = (term(), kind, prop::collection::vec(any::<u8>(), 0..40));
    (0..1_u64 << 60, index(), term(), prop::collection::vec(entry, 0..6)).prop_map(
        |(start, committed, term_before, entries)| {
            let entries = entries.into_iter().enumerate().map(|(at, (term, kind, bytes))| Entry {
                index: RaftIndex(start + at as u64),
                term,
                kind,
                bytes: bytes.into(),
            });
            let (start, entries) = (RaftIndex(start), entries.collect());
            Body::Append(Append { start, term_before, committed, entries })
        },
    )
}

/// The order in which a frame's messages come out: lists one after the other, each in its own order.
fn rank(message: &(GroupId, Message)) -> u8 {
    match message.1.body {
        Body::Vote(_) => 0,
        Body::VoteAnswer(_) => 1,
        Body::Heartbeat(_) => 2,
        Body::HeartbeatAnswer(_) => 3,
        Body::AppendAnswer(_) => 4,
        Body::TimeoutNow { .. } => 5,
        Body::Removed => 6,
        Body::SnapshotOffer(_) => 7,
        Body::Append(_) => 8,
    }
}

proptest! {
    #[test]
    fn what_is_said_is_heard(sent in tick(), echo in tick(), lapses: u64,
                             mut messages in prop::collection::vec(addressed(small()), 0..20)) {
        let frame = encode_messages(sent, echo, lapses, &messages);
        messages.sort_by_key(rank);
        prop_assert_eq!(read(&frame), Ok(Content::Messages(Messages { sent, echo, lapses, messages })));
    }

    #[test]
    fn entries_arrive_as_they_left((group, message) in addressed(append())) {
        prop_assert_eq!(read(&encode_append(group, &message)), Ok(Content::Append(group, message)));
    }

    #[test]
    fn hostile_headers_are_refused_or_make_sense(header in prop::collection::vec(any::<u8>(), 0..200),
                                                 body in prop::collection::vec(any::<u8>(), 0..40)) {
        let checksum = crc32c::crc32c(&header);
        let prefix = Prefix { header: header.len() as u32, body: body.len() as u32, checksum };
        let _ = decode(prefix, &header, body.into());
    }

    /// Nearly valid ones go deeper than random bytes do.
    #[test]
    fn changed_headers_are_refused_or_make_sense(messages in prop::collection::vec(addressed(small()), 1..6),
                                                 append in addressed(append()), which: bool,
                                                 changes in prop::collection::vec((any::<u16>(), any::<u8>()), 1..6)) {
        let frame = if which {
            encode_messages(Tick(1), Tick(2), 3, &messages)
        } else {
            encode_append(append.0, &append.1)
        };
        let (prefix, header, body) = whole(&frame);
        let mut header = header.to_vec();
        for (at, value) in changes {
            let at = usize::from(at) % header.len();
            header[at] = value;
        }
        let prefix = Prefix { checksum: crc32c::crc32c(&header), ..prefix };
        if let Ok(Content::Messages(messages)) = decode(prefix, &header, body) {
            prop_assert!(messages.messages.len() <= MESSAGES_MAX);
        }
    }
}

#[test]
fn claims_beyond_their_bounds_are_refused_before_a_byte_is_taken() {
    let prefix = |header: u32, body: u32| {
        let mut bytes = [0; PREFIX_BYTES];
        bytes[..4].copy_from_slice(&header.to_le_bytes());
        bytes[4..8].copy_from_slice(&body.to_le_bytes());
        Prefix::parse(bytes)
    };
    assert!(prefix(HEADER_BYTES_MAX as u32, BODY_BYTES_MAX as u32).is_ok());
    assert_eq!(
        prefix(1 + HEADER_BYTES_MAX as u32, 0),
        Err(BadFrame::HeaderTooLong(1 + HEADER_BYTES_MAX as u32))
    );
    assert_eq!(prefix(0, u32::MAX), Err(BadFrame::BodyTooLong(u32::MAX)));
}

#[test]
fn a_damaged_header_is_told_as_such() {
    let (prefix, header, body) = whole(&encode_messages(Tick(1), Tick(2), 3, &[]));
    let mut header = header.to_vec();
    header[9] ^= 1;
    assert!(matches!(decode(prefix, &header, body), Err(BadFrame::Checksum { .. })));
}

#[test]
fn the_fullest_frame_stays_within_its_bounds() {
    let (from, to, term) = (ReplicaId(1), ReplicaId(2), Term(3));
    let outcome = Outcome::Mismatch { start: RaftIndex(1), hint: RaftIndex(1), hint_term: Term(1) };
    let body = Body::AppendAnswer(AppendAnswer { committed: RaftIndex(1), outcome });
    let message = Message { from, to, term, body };
    let messages = vec![(GroupId { topic: 1, partition: 1 }, message); MESSAGES_MAX];
    let frame = encode_messages(Tick(1), Tick(1), 0, &messages);
    let Ok(Content::Messages(read)) = read(&frame) else { panic!("not read") };
    assert_eq!(read.messages.len(), MESSAGES_MAX);
}
