//! What shards ask each other of segments ([`corelog_replicas::Ask`]), as calls carry it. `schema/segments.fbs` has the layout.
//!
//! Nothing of it is believed before the FlatBuffers verifier has seen it. What segments hold is in a call's body, and nobody
//! copies it.

#[allow(clippy::all, dead_code, unused_imports, deprecated, mismatched_lifetime_syntaxes, unsafe_op_in_unsafe_fn)]
#[rustfmt::skip]
mod generated;
#[cfg(test)]
mod tests;

use bytes::Bytes;
use corelog_raft::ReplicaId;
use corelog_replicas::{Ask, LISTED_MAX, PIECE_BYTES, Told, What};
use corelog_storage::{LogId, LogStart, LogState, RaftIndex, SegmentInfo, SegmentList};
use corelog_wire::Uuid;
use flatbuffers::{FlatBufferBuilder, Follow, UnionWIPOffset, Verifiable, VerifierOptions, WIPOffset};

use self::generated::corelog::segments as fb;
use crate::peer::envelope::HEAD_BYTES_MAX;
use crate::peer::{CALL_BYTES_MAX, Frame};

const SEGMENT_BYTES: usize = 48;
/// Tables, offsets and alignment.
const FRAMING_BYTES: usize = 256;
const _: () = assert!(size_of::<fb::Segment>() == SEGMENT_BYTES);
const _: () = assert!(LISTED_MAX * SEGMENT_BYTES + FRAMING_BYTES <= HEAD_BYTES_MAX, "a list fits a head");
const _: () = assert!(PIECE_BYTES + FRAMING_BYTES <= CALL_BYTES_MAX, "a piece fits an answer");

/// Why what was received is no question of segments, or no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadAsk {
    #[error("it is no valid FlatBuffer of its schema: {0}")]
    Invalid(String),
    #[error("it says what no broker does: {0}")]
    Senseless(&'static str),
}

pub fn encode_ask(ask: &Ask) -> Bytes {
    let mut builder = FlatBufferBuilder::with_capacity(128);
    let (what_type, what) = match ask.what {
        What::Segments { from } => {
            (fb::What::List, union(fb::List::create(&mut builder, &fb::ListArgs { from: from.0 })))
        }
        What::Piece { base_offset, position } => {
            let args = fb::PieceArgs { base_offset, position };
            (fb::What::Piece, union(fb::Piece::create(&mut builder, &args)))
        }
        What::State { above } => {
            (fb::What::State, union(fb::State::create(&mut builder, &fb::StateArgs { above })))
        }
        What::Entries => (fb::What::Entries, union(fb::Entries::create(&mut builder, &fb::EntriesArgs {}))),
    };
    let topic = u128::from_be_bytes(ask.log.topic.0);
    let args = fb::AskArgs {
        topic_high: (topic >> 64) as u64,
        topic_low: topic as u64,
        partition: ask.log.partition,
        replica: ask.replica.0,
        what_type,
        what: Some(what),
    };
    let root = fb::Ask::create(&mut builder, &args);
    builder.finish(root, None);
    Bytes::copy_from_slice(builder.finished_data())
}

pub fn decode_ask(bytes: &[u8]) -> Result<Ask, BadAsk> {
    let root = root::<fb::Ask<'_>>(bytes)?;
    let what = if let Some(list) = root.what_as_list() {
        What::Segments { from: RaftIndex(list.from()) }
    } else if let Some(piece) = root.what_as_piece() {
        What::Piece { base_offset: piece.base_offset(), position: piece.position() }
    } else if let Some(state) = root.what_as_state() {
        What::State { above: state.above() }
    } else if root.what_as_entries().is_some() {
        What::Entries
    } else {
        return Err(BadAsk::Senseless("a question that this build does not know"));
    };
    let topic = u128::from(root.topic_high()) << 64 | u128::from(root.topic_low());
    let log = LogId { topic: Uuid(topic.to_be_bytes()), partition: root.partition() };
    Ok(Ask { log, replica: ReplicaId(root.replica()), what })
}

pub fn encode_told(told: Told) -> Frame {
    let mut builder = FlatBufferBuilder::with_capacity(FRAMING_BYTES);
    let (content_type, content, body) = match told {
        Told::Segments { list, state } => {
            (fb::Content::Listed, union(encode_list(&mut builder, &list)), Some(state))
        }
        Told::Piece(piece) => {
            let held = fb::PieceHeld::create(&mut builder, &fb::PieceHeldArgs {});
            (fb::Content::PieceHeld, union(held), Some(piece))
        }
        Told::State(LogState { bytes, more_above }) => {
            let args = fb::StateHeldArgs { more_above: more_above.unwrap_or(-1) };
            (fb::Content::StateHeld, union(fb::StateHeld::create(&mut builder, &args)), Some(bytes))
        }
        Told::Noted => (fb::Content::Noted, union(fb::Noted::create(&mut builder, &fb::NotedArgs {})), None),
        Told::Nothing => {
            (fb::Content::Nothing, union(fb::Nothing::create(&mut builder, &fb::NothingArgs {})), None)
        }
    };
    let root = fb::Told::create(&mut builder, &fb::ToldArgs { content_type, content: Some(content) });
    builder.finish(root, None);
    let head = Bytes::copy_from_slice(builder.finished_data());
    Frame { head, body: body.into_iter().collect() }
}

fn encode_list<'a>(builder: &mut FlatBufferBuilder<'a>, list: &SegmentList) -> WIPOffset<fb::Listed<'a>> {
    let segment = |of: &SegmentInfo| {
        fb::Segment::new(
            of.base_offset,
            of.base_index.0,
            of.next_offset,
            of.next_index.0,
            of.bytes,
            of.term_before,
            of.last_term,
        )
    };
    let segments = builder.create_vector_from_iter(list.segments.iter().map(segment));
    let LogStart { index, term, offset } = list.start;
    let args = fb::ListedArgs {
        start_index: index.0,
        start_offset: offset,
        start_term: term,
        segments: Some(segments),
    };
    fb::Listed::create(builder, &args)
}

pub fn decode_told(head: &[u8], body: Bytes) -> Result<Told, BadAsk> {
    let root = root::<fb::Told<'_>>(head)?;
    if let Some(listed) = root.content_as_listed() {
        return Ok(Told::Segments { list: decode_list(listed)?, state: body });
    }
    if root.content_as_piece_held().is_some() {
        return match body.len() <= PIECE_BYTES {
            true => Ok(Told::Piece(body)),
            false => Err(BadAsk::Senseless("a piece that is longer than pieces are")),
        };
    }
    if let Some(state) = root.content_as_state_held() {
        let more_above = Some(state.more_above()).filter(|id| *id >= 0);
        return Ok(Told::State(LogState { bytes: body, more_above }));
    }
    if !body.is_empty() {
        return Err(BadAsk::Senseless("a body that stands for nothing"));
    }
    match root.content_type() {
        fb::Content::Noted => Ok(Told::Noted),
        fb::Content::Nothing => Ok(Told::Nothing),
        _ => Err(BadAsk::Senseless("an answer that this build does not know")),
    }
}

/// Segments of which each begins where the one before ends, behind the log's start.
fn decode_list(listed: fb::Listed<'_>) -> Result<SegmentList, BadAsk> {
    let start = LogStart {
        index: RaftIndex(listed.start_index()),
        term: listed.start_term(),
        offset: listed.start_offset(),
    };
    if listed.segments().is_some_and(|segments| segments.len() > LISTED_MAX) {
        return Err(BadAsk::Senseless("more segments than one answer tells of"));
    }
    let segments: Vec<_> = listed.segments().into_iter().flatten().map(decode_segment).collect();
    let ends = |segment: &SegmentInfo| (segment.next_offset, segment.next_index);
    let begins = |segment: &SegmentInfo| (segment.base_offset, segment.base_index);
    let ascends = |of: &SegmentInfo| of.base_offset <= of.next_offset && of.base_index <= of.next_index;
    let follow = segments.windows(2).all(|two| ends(&two[0]) == begins(&two[1]));
    let is_behind = |of: &SegmentInfo| start.offset <= of.base_offset && start.index <= of.base_index;
    if start.offset < 0 || !segments.iter().all(ascends) || !follow || !segments.first().is_none_or(is_behind)
    {
        return Err(BadAsk::Senseless("segments that don't follow each other"));
    }
    Ok(SegmentList { start, segments })
}

fn decode_segment(of: &fb::Segment) -> SegmentInfo {
    SegmentInfo {
        base_offset: of.base_offset(),
        base_index: RaftIndex(of.base_index()),
        term_before: of.term_before(),
        next_offset: of.next_offset(),
        next_index: RaftIndex(of.next_index()),
        last_term: of.last_term(),
        bytes: of.bytes(),
    }
}

fn union<T>(offset: WIPOffset<T>) -> WIPOffset<UnionWIPOffset> {
    offset.as_union_value()
}

fn root<'a, T: 'a + Follow<'a> + Verifiable>(bytes: &'a [u8]) -> Result<T::Inner, BadAsk> {
    let options = VerifierOptions {
        max_depth: 4,
        max_tables: 4,
        max_apparent_size: HEAD_BYTES_MAX,
        ..VerifierOptions::default()
    };
    flatbuffers::root_with_opts::<T>(&options, bytes).map_err(|error| BadAsk::Invalid(error.to_string()))
}
