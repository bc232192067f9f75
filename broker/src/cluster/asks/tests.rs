//! Questions of segments and their answers: what is said is heard, and what is neither is refused.

use proptest::prelude::*;

use super::*;

fn what() -> impl Strategy<Value = What> {
    prop_oneof![
        any::<u64>().prop_map(|from| What::Segments { from: RaftIndex(from) }),
        any::<(i64, u64)>().prop_map(|(base_offset, position)| What::Piece { base_offset, position }),
        any::<i64>().prop_map(|above| What::State { above }),
        Just(What::Entries),
    ]
}

fn ask() -> impl Strategy<Value = Ask> {
    (any::<[u8; 16]>(), any::<i32>(), any::<u64>(), what()).prop_map(|(topic, partition, replica, what)| {
        Ask { log: LogId { topic: Uuid(topic), partition }, replica: ReplicaId(replica), what }
    })
}

/// Segments of so many entries and records each.
fn list(start: (u32, u32, i32), each: Vec<(u8, u8, u64, i32)>) -> SegmentList {
    let start = LogStart { index: RaftIndex(start.0.into()), offset: start.1.into(), term: start.2 };
    let mut end = (start.offset, start.index, start.term);
    let segments = each.into_iter().map(|(entries, records, bytes, last_term)| {
        let (base_offset, base_index, term_before) = end;
        end = (base_offset + i64::from(records), RaftIndex(base_index.0 + u64::from(entries)), last_term);
        let (next_offset, next_index, _) = end;
        SegmentInfo { base_offset, base_index, term_before, next_offset, next_index, last_term, bytes }
    });
    SegmentList { start, segments: segments.collect() }
}

fn told() -> impl Strategy<Value = Told> {
    let bytes = || prop::collection::vec(any::<u8>(), 0..300).prop_map(Bytes::from);
    let listed = (any::<(u32, u32, i32)>(), prop::collection::vec(any::<(u8, u8, u64, i32)>(), 0..50));
    prop_oneof![
        (listed, bytes())
            .prop_map(|((start, each), state)| Told::Segments { list: list(start, each), state }),
        bytes().prop_map(Told::Piece),
        (bytes(), prop::option::of(0..=i64::MAX))
            .prop_map(|(bytes, more_above)| Told::State(LogState { bytes, more_above })),
        Just(Told::Noted),
        Just(Told::Nothing),
    ]
}

fn hear(frame: &Frame) -> Result<Told, BadAsk> {
    decode_told(&frame.head, frame.body.concat().into())
}

fn changed(bytes: &[u8], changes: &[(u16, u8)]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let length = bytes.len();
    changes.iter().for_each(|(at, value)| bytes[usize::from(*at) % length] = *value);
    bytes
}

fn changes() -> impl Strategy<Value = Vec<(u16, u8)>> {
    prop::collection::vec(any::<(u16, u8)>(), 1..6)
}

proptest! {
    #[test]
    fn questions_are_heard(ask in ask()) {
        prop_assert_eq!(decode_ask(&encode_ask(&ask)), Ok(ask));
    }

    #[test]
    fn answers_are_heard(told in told()) {
        prop_assert_eq!(hear(&encode_told(told.clone())), Ok(told));
    }

    #[test]
    fn changed_questions_are_refused_or_make_sense(ask in ask(), changes in changes()) {
        if let Ok(heard) = decode_ask(&changed(&encode_ask(&ask), &changes)) {
            prop_assert_eq!(decode_ask(&encode_ask(&heard)), Ok(heard));
        }
    }

    /// Each segment follows the one before, whatever was changed.
    #[test]
    fn changed_answers_are_refused_or_make_sense(told in told(), changes in changes()) {
        let Frame { head, body } = encode_told(told);
        let frame = Frame { head: changed(&head, &changes).into(), body };
        if let Ok(heard) = hear(&frame) {
            if let Told::Segments { list, .. } = &heard {
                let bounds = list.segments.iter().flat_map(|of| [of.base_index, of.next_index]);
                prop_assert!([list.start.index].into_iter().chain(bounds).is_sorted());
            }
            prop_assert_eq!(hear(&encode_told(heard.clone())), Ok(heard));
        }
    }

    #[test]
    fn any_bytes_are_no_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = decode_ask(&bytes);
        let _ = decode_told(&bytes, Bytes::new());
    }
}

#[test]
fn the_longest_answers_fit_a_call() {
    let longest = |count| list((0, 0, -1), vec![(1, 1, u64::MAX, 5); count]);
    let state = Bytes::from(vec![1; CALL_BYTES_MAX - HEAD_BYTES_MAX]);
    let frame = encode_told(Told::Segments { list: longest(LISTED_MAX), state });
    assert!(frame.head.len() <= HEAD_BYTES_MAX && frame.bytes() <= CALL_BYTES_MAX);
    assert!(matches!(hear(&frame), Ok(Told::Segments { list, .. }) if list == longest(LISTED_MAX)));
    let more = encode_told(Told::Segments { list: longest(LISTED_MAX + 1), state: Bytes::new() });
    assert!(matches!(hear(&more), Err(BadAsk::Senseless(_))));
    let piece = |bytes| encode_told(Told::Piece(vec![0; bytes].into()));
    assert!(piece(PIECE_BYTES).bytes() <= CALL_BYTES_MAX && hear(&piece(PIECE_BYTES)).is_ok());
    assert!(matches!(hear(&piece(PIECE_BYTES + 1)), Err(BadAsk::Senseless(_))));
}

#[test]
fn what_no_broker_says_is_refused() {
    let sound = || list((5, 5, 1), vec![(3, 3, 100, 1), (3, 3, 100, 1)]);
    let refused = |change: fn(&mut SegmentList)| {
        let mut list = sound();
        change(&mut list);
        let told = Told::Segments { list, state: Bytes::new() };
        assert!(matches!(hear(&encode_told(told)), Err(BadAsk::Senseless(_))));
    };
    refused(|list| list.segments[1].base_index = RaftIndex(9));
    refused(|list| list.segments[1].base_offset = 7);
    refused(|list| list.segments[1].next_index = RaftIndex(7));
    refused(|list| list.segments[1].next_offset = i64::MIN);
    refused(|list| list.start.index = RaftIndex(6));
    refused(|list| list.start.offset = -1);
    let Frame { head, .. } = encode_told(Told::Noted);
    assert!(matches!(decode_told(&head, Bytes::from_static(b"x")), Err(BadAsk::Senseless(_))));
}
