//! What a frame says, if it says anything.

use bytes::Bytes;
use flatbuffers::{Vector, VerifierOptions};

use crate::ids::{GroupId, RaftIndex, ReplicaId, Term, Tick};
use crate::log::{Entry, EntryKind};
use crate::membership::Membership;
use crate::message::*;

use super::generated::corelog as fb;
use super::{BadFrame, Content, HEADER_BYTES_MAX, MESSAGES_MAX, Messages, OFFERS_MAX, Prefix};

/// `header` and `body` have the lengths that the prefix announced.
pub fn decode(prefix: Prefix, header: &[u8], body: Bytes) -> Result<Content, BadFrame> {
    prefix.check(header)?;
    let options = VerifierOptions {
        max_depth: 4,
        max_tables: 2 + OFFERS_MAX,
        max_apparent_size: HEADER_BYTES_MAX,
        ..VerifierOptions::default()
    };
    let root = flatbuffers::root_with_opts::<fb::Header>(&options, header)
        .map_err(|error| BadFrame::Invalid(error.to_string()))?;
    if root.content_type() != fb::Content::Append && !body.is_empty() {
        return Err(BadFrame::Senseless("a body without an append"));
    }
    if let Some(append) = root.content_as_append() {
        return decode_append(append, body);
    }
    match root.content_as_messages() {
        Some(messages) => decode_messages(messages).map(Content::Messages),
        None => Err(BadFrame::Senseless("a content that this feature level does not know")),
    }
}

fn addressed(address: &fb::Address, body: Body) -> (GroupId, Message) {
    let topic = u128::from(address.topic_high()) << 64 | u128::from(address.topic_low());
    let (from, to) = (ReplicaId(address.from()), ReplicaId(address.to()));
    let group = GroupId { topic, partition: address.partition() };
    (group, Message { from, to, term: Term(address.term()), body })
}

fn decode_append(append: fb::Append<'_>, mut body: Bytes) -> Result<Content, BadFrame> {
    let mut entries = Vec::new();
    let mut index = RaftIndex(append.start());
    for entry in append.entries().into_iter().flatten() {
        let length = entry.length() as usize;
        if length > body.len() || index.0 == u64::MAX {
            return Err(BadFrame::Senseless("entries longer than the body, or out of range"));
        }
        let kind = match entry.kind() {
            0 => EntryKind::Batch,
            1 => EntryKind::TermStart,
            2 => EntryKind::Membership,
            _ => return Err(BadFrame::Senseless("an entry of no known kind")),
        };
        entries.push(Entry { index, term: Term(entry.term()), kind, bytes: body.split_to(length) });
        index = index.next();
    }
    if !body.is_empty() {
        return Err(BadFrame::Senseless("a body longer than its entries"));
    }
    let append_body = Append {
        start: RaftIndex(append.start()),
        term_before: Term(append.term_before()),
        committed: RaftIndex(append.committed()),
        entries,
    };
    let (group, message) = addressed(append.address(), Body::Append(append_body));
    Ok(Content::Append(group, message))
}

fn len<T>(list: Option<Vector<'_, T>>) -> usize {
    list.map_or(0, |list| list.len())
}

fn decode_messages(from: fb::Messages<'_>) -> Result<Messages, BadFrame> {
    let count = len(from.beats())
        + len(from.beat_answers())
        + len(from.answers())
        + len(from.votes())
        + len(from.vote_answers())
        + len(from.timeouts())
        + len(from.removals())
        + len(from.offers());
    if count > MESSAGES_MAX || len(from.offers()) > OFFERS_MAX {
        return Err(BadFrame::Senseless("more messages than one frame may have"));
    }
    let mut messages = Vec::with_capacity(count);
    // What changes terms comes before what is said in them.
    for vote in from.votes().into_iter().flatten() {
        messages.push(addressed(vote.address(), Body::Vote(decode_vote(vote))));
    }
    for answer in from.vote_answers().into_iter().flatten() {
        let body = VoteAnswer {
            pre: answer.pre(),
            granted: answer.granted(),
            committed: RaftIndex(answer.committed()),
            committed_term: Term(answer.committed_term()),
        };
        messages.push(addressed(answer.address(), Body::VoteAnswer(body)));
    }
    for beat in from.beats().into_iter().flatten() {
        let (committed, sent) = (RaftIndex(beat.committed()), Tick(beat.sent()));
        let body = Heartbeat { committed, sent, rest: beat.rest() };
        messages.push(addressed(beat.address(), Body::Heartbeat(body)));
    }
    for beat in from.beat_answers().into_iter().flatten() {
        let (committed, sent) = (RaftIndex(beat.committed()), Tick(beat.sent()));
        let body = HeartbeatAnswer { committed, sent, rest: beat.rest() };
        messages.push(addressed(beat.address(), Body::HeartbeatAnswer(body)));
    }
    for answer in from.answers().into_iter().flatten() {
        messages.push(addressed(answer.address(), Body::AppendAnswer(decode_answer(answer))));
    }
    for timeout in from.timeouts().into_iter().flatten() {
        messages.push(addressed(timeout.address(), Body::TimeoutNow { sent: Tick(timeout.sent()) }));
    }
    for address in from.removals().into_iter().flatten() {
        messages.push(addressed(address, Body::Removed));
    }
    for offer in from.offers().into_iter().flatten() {
        let membership = Membership::decode(offer.membership().bytes())
            .ok_or(BadFrame::Senseless("an offer without a membership"))?;
        let (end, term) = (RaftIndex(offer.end()), Term(offer.term()));
        let body = SnapshotOffer { end, term, membership };
        messages.push(addressed(offer.address(), Body::SnapshotOffer(body)));
    }
    Ok(Messages { sent: Tick(from.sent()), echo: Tick(from.echo()), lapses: from.lapses(), messages })
}

fn decode_vote(vote: &fb::Vote) -> Vote {
    Vote {
        pre: vote.pre(),
        forced: vote.forced(),
        end: RaftIndex(vote.end()),
        last_term: Term(vote.last_term()),
        committed: RaftIndex(vote.committed()),
        committed_term: Term(vote.committed_term()),
    }
}

fn decode_answer(answer: &fb::Answer) -> AppendAnswer {
    let index = RaftIndex(answer.index());
    let outcome = if answer.matched() {
        Outcome::Matched { end: index }
    } else {
        let (hint, hint_term) = (RaftIndex(answer.hint()), Term(answer.hint_term()));
        Outcome::Mismatch { start: index, hint, hint_term }
    };
    AppendAnswer { committed: RaftIndex(answer.committed()), outcome }
}
