//! The audit: one line for each administrative change, with what was changed, who asked for it and from where, and what
//! came of it. Its logger is `corelog_broker::audit`.
//!
//! What was made, and what nobody knows the outcome of, is told always. What was refused has changed nothing and can be
//! asked for without end: of that there is a line a minute of each kind, with how many were left out.

use std::fmt::Write;
use std::net::SocketAddr;
use std::rc::Rc;

use corelog_wire::{ErrorCode, Str};

use crate::access::Principal;
use crate::controller::ChangeError;
use crate::shard::Shard;

/// Characters of a client's own words that a line holds at most.
const TEXT_MAX: usize = 1000;

/// Who asks for a change.
#[derive(Debug, Clone)]
pub struct Asker {
    pub principal: Principal,
    pub client_id: Option<Str>,
    pub address: SocketAddr,
}

/// A change that is being made. One that is dropped before it is [`done`](Audited::done) is told too: its client has gone,
/// and it is made, or is not, all the same.
#[must_use = "what came of it is to be told"]
pub struct Audited {
    shard: Rc<Shard>,
    asker: Asker,
    what: &'static str,
    on: String,
    details: String,
    is_told: bool,
}

impl Audited {
    /// `what`: such as "create topic"; `on`: what it is done to.
    pub fn new(shard: &Rc<Shard>, asker: &Asker, what: &'static str, on: &str, details: String) -> Audited {
        Audited {
            shard: shard.clone(),
            asker: asker.clone(),
            what,
            on: shortened(on),
            details: shortened(&details),
            is_told: false,
        }
    }

    pub fn done<T>(self, result: &Result<T, ChangeError>) {
        let outcome = result.as_ref().map(drop).map_err(|error| (error.code, error.message.as_str()));
        self.tell(outcome);
    }

    pub fn done_with_code(self, code: ErrorCode) {
        self.tell(if code.is_ok() { Ok(()) } else { Err((code, code.message())) });
    }

    fn tell(mut self, outcome: Result<(), (ErrorCode, &str)>) {
        self.is_told = true;
        let Audited { asker, what, on, details, .. } = &self;
        let (client, address) = (shortened(asker.client_id.as_deref().unwrap_or_default()), asker.address);
        let principal = &asker.principal;
        match outcome {
            Ok(()) => tracing::info!(on, details, %principal, client, %address, result = "ok", "{what}"),
            Err((code, why)) if is_doubtful(code) => {
                tracing::warn!(on, details, %principal, client, %address, result = code.name(), why, "{what}");
            }
            Err((code, why)) => {
                let (what, on, details, why) = (*what, on.clone(), details.clone(), shortened(why));
                let principal = principal.clone();
                self.shard.sparingly(what, move |left_out| {
                    let result = code.name();
                    tracing::warn!(on, details, %principal, client, %address, result, why, left_out, "{what}: refused");
                });
            }
        }
    }
}

impl Drop for Audited {
    fn drop(&mut self) {
        if !self.is_told {
            let client = shortened(self.asker.client_id.as_deref().unwrap_or_default());
            let (on, details, address) = (&self.on, &self.details, self.asker.address);
            let principal = &self.asker.principal;
            let result = "unknown: the client left before";
            tracing::warn!(on, details, %principal, client, %address, result, "{}", self.what);
        }
    }
}

/// Whether the change may have been made though its client is told of an error.
fn is_doubtful(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::KAFKA_STORAGE_ERROR
            | ErrorCode::UNKNOWN_SERVER_ERROR
            | ErrorCode::BROKER_NOT_AVAILABLE
            | ErrorCode::NOT_LEADER_OR_FOLLOWER
            | ErrorCode::COORDINATOR_NOT_AVAILABLE
            | ErrorCode::REQUEST_TIMED_OUT
    )
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(TEXT_MAX) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

/// `a, b, c` of what may be many.
pub fn list(items: impl IntoIterator<Item = impl std::fmt::Display>) -> String {
    let mut text = String::new();
    for item in items {
        if text.len() > 4 * TEXT_MAX {
            break;
        }
        let comma = if text.is_empty() { "" } else { ", " };
        let _ = write!(text, "{comma}{item}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clients_words_are_cut() {
        assert_eq!(shortened("name"), "name");
        let long = "\u{e4}".repeat(TEXT_MAX + 1);
        assert_eq!(shortened(&long).chars().count(), TEXT_MAX + 3);
        assert_eq!(list([0, 2, 5]), "0, 2, 5");
        assert!(list(0..1_000_000).len() < 5 * TEXT_MAX);
    }
}
