//! Frames from what is to be said.

use bytes::{BufMut, Bytes, BytesMut};
use flatbuffers::{FlatBufferBuilder, UnionWIPOffset, WIPOffset};

use crate::ids::{GroupId, Tick};
use crate::log::{Entry, EntryKind};
use crate::message::{Body, Message, Outcome, SnapshotOffer};

use super::generated::corelog as fb;
use super::{Frame, PREFIX_BYTES};

fn address(group: GroupId, message: &Message) -> fb::Address {
    let (high, low) = ((group.topic >> 64) as u64, group.topic as u64);
    fb::Address::new(high, low, message.from.0, message.to.0, group.partition, message.term.0)
}

fn finish(
    mut builder: FlatBufferBuilder<'_>,
    content_type: fb::Content,
    content: WIPOffset<UnionWIPOffset>,
    body: Vec<Bytes>,
) -> Frame {
    let args = fb::HeaderArgs { content_type, content: Some(content) };
    let root = fb::Header::create(&mut builder, &args);
    builder.finish(root, None);
    let header = builder.finished_data();
    let mut head = BytesMut::with_capacity(PREFIX_BYTES + header.len());
    head.put_u32_le(header.len() as u32);
    head.put_u32_le(body.iter().map(Bytes::len).sum::<usize>() as u32);
    head.put_u32_le(crc32c::crc32c(header));
    head.put_slice(header);
    Frame { head: head.freeze(), body }
}

/// `message` is an append; its entries' bytes are the body.
pub fn encode_append(group: GroupId, message: &Message) -> Frame {
    let Body::Append(append) = &message.body else { panic!("not an append: {message:?}") };
    let mut builder = FlatBufferBuilder::with_capacity(192 + 12 * append.entries.len());
    let kind = |entry: &Entry| match entry.kind {
        EntryKind::Batch => 0,
        EntryKind::TermStart => 1,
        EntryKind::Membership => 2,
    };
    let entry = |entry: &Entry| fb::Entry::new(entry.term.0, entry.bytes.len() as u32, kind(entry));
    let entries = append.entries.iter().map(entry);
    let entries = builder.create_vector_from_iter(entries);
    let address = address(group, message);
    let args = fb::AppendArgs {
        address: Some(&address),
        start: append.start.0,
        committed: append.committed.0,
        term_before: append.term_before.0,
        entries: Some(entries),
    };
    let content = fb::Append::create(&mut builder, &args).as_union_value();
    let bodies = append.entries.iter().filter(|entry| !entry.bytes.is_empty());
    let body = bodies.map(|entry| entry.bytes.clone()).collect();
    finish(builder, fb::Content::Append, content, body)
}

#[derive(Default)]
struct Lists<'a> {
    beats: Vec<fb::Beat>,
    beat_answers: Vec<fb::Beat>,
    answers: Vec<fb::Answer>,
    votes: Vec<fb::Vote>,
    vote_answers: Vec<fb::VoteAnswer>,
    timeouts: Vec<fb::TimeoutNow>,
    removals: Vec<fb::Address>,
    offers: Vec<(fb::Address, &'a SnapshotOffer)>,
}

impl<'a> Lists<'a> {
    fn put(&mut self, group: GroupId, message: &'a Message) {
        let address = &address(group, message);
        match &message.body {
            Body::Append(_) => panic!("an append has a frame of its own"),
            Body::Heartbeat(beat) => {
                self.beats.push(fb::Beat::new(address, beat.committed.0, beat.sent.0, beat.rest));
            }
            Body::HeartbeatAnswer(answer) => {
                let answer = fb::Beat::new(address, answer.committed.0, answer.sent.0, answer.rest);
                self.beat_answers.push(answer);
            }
            Body::AppendAnswer(answer) => {
                let (index, hint, hint_term, matched) = match answer.outcome {
                    Outcome::Matched { end } => (end.0, 0, 0, true),
                    Outcome::Mismatch { start, hint, hint_term } => (start.0, hint.0, hint_term.0, false),
                };
                let committed = answer.committed.0;
                self.answers.push(fb::Answer::new(address, committed, index, hint, hint_term, matched));
            }
            Body::Vote(vote) => self.votes.push(fb::Vote::new(
                address,
                vote.end.0,
                vote.committed.0,
                vote.last_term.0,
                vote.committed_term.0,
                vote.pre,
                vote.forced,
            )),
            Body::VoteAnswer(answer) => self.vote_answers.push(fb::VoteAnswer::new(
                address,
                answer.committed.0,
                answer.committed_term.0,
                answer.pre,
                answer.granted,
            )),
            Body::TimeoutNow { sent } => self.timeouts.push(fb::TimeoutNow::new(address, sent.0)),
            Body::Removed => self.removals.push(*address),
            Body::SnapshotOffer(offer) => self.offers.push((*address, offer)),
        }
    }
}

/// At most [`super::MESSAGES_MAX`] messages, none an append.
pub fn encode_messages(sent: Tick, echo: Tick, lapses: u64, messages: &[(GroupId, Message)]) -> Frame {
    let mut lists = Lists::default();
    messages.iter().for_each(|(group, message)| lists.put(*group, message));
    let mut builder = FlatBufferBuilder::with_capacity(192 + super::MESSAGE_BYTES_MAX * messages.len());
    let mut offers = Vec::with_capacity(lists.offers.len());
    for (address, offer) in &lists.offers {
        let membership = builder.create_vector(&offer.membership.encode());
        let args = fb::SnapshotOfferArgs {
            address: Some(address),
            end: offer.end.0,
            term: offer.term.0,
            membership: Some(membership),
        };
        offers.push(fb::SnapshotOffer::create(&mut builder, &args));
    }
    // What is empty is left out.
    macro_rules! list {
        ($list:expr) => {
            (!$list.is_empty()).then(|| builder.create_vector(&$list))
        };
    }
    let args = fb::MessagesArgs {
        sent: sent.0,
        echo: echo.0,
        lapses,
        beats: list!(lists.beats),
        beat_answers: list!(lists.beat_answers),
        answers: list!(lists.answers),
        votes: list!(lists.votes),
        vote_answers: list!(lists.vote_answers),
        timeouts: list!(lists.timeouts),
        removals: list!(lists.removals),
        offers: list!(offers),
    };
    let content = fb::Messages::create(&mut builder, &args).as_union_value();
    finish(builder, fb::Content::Messages, content, Vec::new())
}
