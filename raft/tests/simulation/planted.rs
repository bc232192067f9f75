//! Rules that the world itself breaks, to show that the checks would find it.

use corelog_raft::frame::{Content, Messages};
use corelog_raft::*;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Planted {
    /// Votes and appends are answered before they are on stable storage.
    AnswersBeforeDurable,
    /// A crash forgets for whom a replica voted.
    VotesForgotten,
    /// A leader counts an entry as its followers' when it has sent it.
    CommitsFromOne,
    /// A replica takes what a leader of an earlier term says.
    TermsIgnored,
    /// Who leads reads without asking whether it still may.
    LeasesIgnored,
    /// A leader at rest does not hear that a peer doubts it.
    LapsesIgnored,
}

/// What the driver makes of a frame whose planted fault is in how it is heard.
pub fn changed(planted: Option<Planted>, driver: &Driver, content: Content) -> Content {
    match (planted, content) {
        (Some(Planted::LapsesIgnored), Content::Messages(messages)) => {
            Content::Messages(Messages { lapses: 0, ..messages })
        }
        (Some(Planted::TermsIgnored), content) => with_own_term(driver, content),
        (_, content) => content,
    }
}

fn with_own_term(driver: &Driver, content: Content) -> Content {
    let lift = |(group, mut message): (GroupId, Message)| {
        if let (Some(own), Body::Append(_) | Body::AppendAnswer(_) | Body::Heartbeat(_)) =
            (driver.group(group), &message.body)
        {
            message.term = message.term.max(own.leadership().term);
        }
        (group, message)
    };
    match content {
        Content::Append(group, message) => {
            let (group, message) = lift((group, message));
            Content::Append(group, message)
        }
        Content::Messages(messages) => {
            let lifted = messages.messages.into_iter().map(lift).collect();
            Content::Messages(Messages { messages: lifted, ..messages })
        }
    }
}

/// The answer that [`Planted::CommitsFromOne`] does not wait for.
pub fn pretended_answer(content: Content) -> Option<Content> {
    let Content::Append(group, message) = content else { return None };
    let Body::Append(append) = message.body else { return None };
    let last = append.entries.last()?;
    let outcome = Outcome::Matched { end: last.index.next() };
    let body = Body::AppendAnswer(AppendAnswer { committed: append.committed, outcome });
    let answer = Message { from: message.to, to: message.from, term: message.term, body };
    Some(Content::Messages(Messages { messages: vec![(group, answer)], ..Messages::default() }))
}
