//! Our words and raft-rs's.

use raft::eraftpb::{ConfState, Entry as RaftEntry, EntryType, Message as RaftMessage, MessageType};

use crate::ids::{RaftIndex, ReplicaId, Term};
use crate::log::{Entry, EntryKind};
use crate::membership::Membership;
use crate::message::*;
use crate::terms::Terms;

use super::{AppendOrder, Said};

pub(super) fn term(raft: u64) -> Term {
    Term(i32::try_from(raft).expect("terms are bounded where they come in"))
}

pub(super) fn replica(raft: u64) -> Option<ReplicaId> {
    (raft != raft::INVALID_ID).then_some(ReplicaId(raft))
}

pub(super) fn index_and_term(entry: &RaftEntry) -> (RaftIndex, Term) {
    (RaftIndex(entry.index - 1), term(entry.term))
}

pub(super) fn membership(state: &ConfState) -> Membership {
    let list = |ids: &[u64]| {
        let mut list: Vec<_> = ids.iter().map(|&id| ReplicaId(id)).collect();
        list.sort_unstable();
        list
    };
    Membership {
        voters: list(&state.voters),
        outgoing: list(&state.voters_outgoing),
        learners: list(&state.learners),
        learners_next: list(&state.learners_next),
    }
}

pub(super) fn conf_state(membership: &Membership) -> ConfState {
    let list = |replicas: &[ReplicaId]| replicas.iter().map(|replica| replica.0).collect();
    let mut state = ConfState::default();
    state.set_voters(list(&membership.voters));
    state.set_voters_outgoing(list(&membership.outgoing));
    state.set_learners(list(&membership.learners));
    state.set_learners_next(list(&membership.learners_next));
    state
}

pub(super) fn message(kind: MessageType, from: ReplicaId, to: ReplicaId, term: Term) -> RaftMessage {
    let mut message = RaftMessage { from: from.0, to: to.0, term: term.0 as u64, ..RaftMessage::default() };
    message.set_msg_type(kind);
    message
}

fn bare_entry(entry: &Entry) -> RaftEntry {
    let mut bare = RaftEntry { index: entry.index.0 + 1, term: entry.term.0 as u64, ..RaftEntry::default() };
    if entry.kind == EntryKind::Membership {
        bare.set_entry_type(EntryType::EntryConfChangeV2);
    }
    bare
}

/// `terms`: of the receiver's log, which shortens a leader's search for where a follower's log matches.
pub(super) fn to_raft(ours: &Message, terms: &Terms) -> RaftMessage {
    let new = |kind| message(kind, ours.from, ours.to, ours.term);
    match &ours.body {
        Body::Append(append) => {
            let mut message = new(MessageType::MsgAppend);
            message.index = append.start.0;
            message.log_term = append.term_before.0 as u64;
            message.commit = append.committed.0;
            message.set_entries(append.entries.iter().map(bare_entry).collect::<Vec<_>>().into());
            message
        }
        Body::AppendAnswer(answer) => {
            let mut message = new(MessageType::MsgAppendResponse);
            message.commit = answer.committed.0;
            match answer.outcome {
                Outcome::Matched { end } => message.index = end.0,
                Outcome::Mismatch { start, hint, hint_term } => {
                    let (hint, hint_term) = terms.may_match(hint, hint_term);
                    message.index = start.0;
                    message.reject = true;
                    message.reject_hint = hint.0;
                    message.log_term = hint_term.0 as u64;
                }
            }
            message
        }
        Body::Vote(vote) => {
            let mut message =
                new(if vote.pre { MessageType::MsgRequestPreVote } else { MessageType::MsgRequestVote });
            message.index = vote.end.0;
            message.log_term = vote.last_term.0 as u64;
            message.commit = vote.committed.0;
            message.commit_term = vote.committed_term.0 as u64;
            if vote.forced {
                message.context = raft::CAMPAIGN_TRANSFER.into();
            }
            message
        }
        Body::VoteAnswer(answer) => {
            let (pre, real) = (MessageType::MsgRequestPreVoteResponse, MessageType::MsgRequestVoteResponse);
            let mut message = new(if answer.pre { pre } else { real });
            message.reject = !answer.granted;
            message.commit = answer.committed.0;
            message.commit_term = answer.committed_term.0 as u64;
            message
        }
        Body::Heartbeat(beat) => {
            let mut message = new(MessageType::MsgHeartbeat);
            message.commit = beat.committed.0;
            message
        }
        Body::HeartbeatAnswer(answer) => {
            let mut message = new(MessageType::MsgHeartbeatResponse);
            message.commit = answer.committed.0;
            message
        }
        Body::TimeoutNow { .. } => new(MessageType::MsgTimeoutNow),
        Body::SnapshotOffer(_) | Body::Removed => unreachable!("answered by the group"),
    }
}

/// `None`: of no use outside, or to nobody.
pub(super) fn from_raft(mut raft: RaftMessage) -> Option<Said> {
    let (from, to) = (ReplicaId(raft.from), replica(raft.to)?);
    let term = term(raft.term);
    let committed = RaftIndex(raft.commit);
    let committed_term = Term(raft.commit_term as i32);
    let kind = raft.get_msg_type();
    let body = match kind {
        MessageType::MsgAppend => {
            return Some(Said::Append(AppendOrder {
                to,
                term,
                start: RaftIndex(raft.index),
                term_before: Term(raft.log_term as i32),
                end: RaftIndex(raft.index + raft.entries.len() as u64),
                committed,
                quiet: false,
            }));
        }
        MessageType::MsgAppendResponse => {
            let outcome = if raft.reject {
                let (start, hint) = (RaftIndex(raft.index), RaftIndex(raft.reject_hint));
                Outcome::Mismatch { start, hint, hint_term: Term(raft.log_term as i32) }
            } else {
                Outcome::Matched { end: RaftIndex(raft.index) }
            };
            Body::AppendAnswer(AppendAnswer { committed, outcome })
        }
        MessageType::MsgRequestVote | MessageType::MsgRequestPreVote => Body::Vote(Vote {
            pre: kind == MessageType::MsgRequestPreVote,
            forced: raft.context == raft::CAMPAIGN_TRANSFER,
            end: RaftIndex(raft.index),
            last_term: Term(raft.log_term as i32),
            committed,
            committed_term,
        }),
        MessageType::MsgRequestVoteResponse | MessageType::MsgRequestPreVoteResponse => {
            Body::VoteAnswer(VoteAnswer {
                pre: kind == MessageType::MsgRequestPreVoteResponse,
                granted: !raft.reject,
                committed,
                committed_term,
            })
        }
        // The moments in these are filled in by the group, whose clock they are of.
        MessageType::MsgHeartbeatResponse => {
            Body::HeartbeatAnswer(HeartbeatAnswer { committed, sent: Default::default(), rest: false })
        }
        MessageType::MsgTimeoutNow => Body::TimeoutNow { sent: Default::default() },
        MessageType::MsgSnapshot => {
            let metadata = raft.take_snapshot().take_metadata();
            Body::SnapshotOffer(SnapshotOffer {
                end: RaftIndex(metadata.index),
                term: Term(metadata.term as i32),
                membership: membership(metadata.get_conf_state()),
            })
        }
        _ => return None,
    };
    Some(Said::Message(Message { from, to, term, body }))
}
