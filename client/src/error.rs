//! What can go wrong, where, and what to do about it.

use corelog_wire::records::{BatchError, BuildError};
use corelog_wire::{DecodeError, EncodeError, ErrorCode};
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

pub type Result<T> = std::result::Result<T, Error>;

/// An error of this client. Cheap to clone: one failed batch tells all its records.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A setting, or an argument, that cannot be.
    #[error("{what}: {remedy}")]
    Config { what: String, remedy: String },

    /// `advice`: what to do depends on who named the address.
    #[error("cannot connect to {address}: {source}; {advice}")]
    Connect { address: String, source: Arc<io::Error>, advice: &'static str },

    #[error("lost the connection to {address}: {reason}")]
    Disconnected { address: String, reason: String },

    /// `last` is what kept it from being done, if anything but slowness did.
    #[error("{what} was not done within {after:?}{}", Reason(.last))]
    Timeout { what: String, after: Duration, last: Option<Box<Error>> },

    /// A record was sent, and no broker said in time what became of it: whether it is written is not known. Sent again, it may be there
    /// twice. One that no broker can have fails with [`Error::Timeout`].
    #[error("{what} was not acknowledged within {after:?}, and whether it is written is not known{}", Reason(.last))]
    NotAcknowledged { what: String, after: Duration, last: Option<Box<Error>> },

    #[error("{address} sent an answer that cannot be read ({source}): is it a Kafka listener, without TLS?")]
    Decode { address: String, source: DecodeError },

    /// A request that its version cannot carry.
    #[error(transparent)]
    Encode(#[from] EncodeError),

    #[error("{address} does not speak {api}{}: use a newer broker, or do without", Versions(.theirs, .ours))]
    Unsupported {
        address: String,
        api: &'static str,
        /// The versions that the broker offers, if any.
        theirs: Option<(i16, i16)>,
        ours: (i16, i16),
    },

    /// The broker refused.
    #[error("{what}: {}{}", Refusal(*.code, .message), Remedy(*.code))]
    Broker {
        code: ErrorCode,
        /// What was asked for, with the names in it.
        what: String,
        /// What the broker says beyond the code's own text.
        message: Option<String>,
    },

    #[error(
        "a record of {len} bytes is over the limit of {limit}: raise `request_bytes_max`, and `max.message.bytes` of topic {topic:?}"
    )]
    RecordTooLarge { topic: String, len: usize, limit: usize },

    #[error("records for {topic}-{partition} cannot be made a batch: {source}")]
    Build { topic: String, partition: i32, source: BuildError },

    #[error(
        "{topic}-{partition} holds a batch at offset {offset} that cannot be read: {source}; seek past it to go on"
    )]
    Corrupt { topic: String, partition: i32, offset: i64, source: BatchError },

    /// A new leader's log parts from what was read or committed (KIP-320): records were lost. Only without an `offset_reset`.
    #[error(
        "the log of {topic}-{partition} was cut, and was read up to offset {position}{}, or set offset_reset", Parting(.offset)
    )]
    LogCut {
        topic: String,
        partition: i32,
        /// Of the next record to read, as it was.
        position: i64,
        /// The first offset whose record is another one, where the leader knows it.
        offset: Option<i64>,
    },

    /// Other members of the group took over, or this consumer did not poll for too long.
    #[error("this consumer is no longer a member of group {group:?}: {reason}")]
    NotMember { group: String, reason: String },

    /// A consumer's [`RebalanceListener`](crate::RebalanceListener) did. The rebalance goes on.
    #[error("the rebalance listener panicked at {event}: {panic}")]
    ListenerPanicked { event: String, panic: String },

    /// A record or a request of the transaction failed: abort it and begin another one.
    #[error("the transaction has to be aborted: {cause}")]
    TransactionFailed { cause: Box<Error> },

    /// The record was dropped with its transaction.
    #[error("the transaction was aborted before the record was sent")]
    TransactionAborted,

    /// The producer can do nothing more: most often because a newer one has its transactional id.
    #[error(
        "the producer of transactional id {transactional_id:?} cannot go on: {cause}; close it, and make a new one if need be"
    )]
    TransactionFatal { transactional_id: String, cause: Box<Error> },

    #[error("the client was closed")]
    Closed,
}

impl Error {
    pub(crate) fn config(what: impl Into<String>, remedy: impl Into<String>) -> Error {
        Error::Config { what: what.into(), remedy: remedy.into() }
    }

    pub(crate) fn broker(code: ErrorCode, what: impl Into<String>) -> Error {
        Error::Broker { code, what: what.into(), message: None }
    }

    /// `Ok` for code 0.
    pub(crate) fn check(code: i16, what: impl FnOnce() -> String) -> Result<()> {
        Error::check_with(code, None, what)
    }

    pub(crate) fn check_with(code: i16, message: Option<&str>, what: impl FnOnce() -> String) -> Result<()> {
        let code = ErrorCode(code);
        if code.is_ok() {
            return Ok(());
        }
        // Brokers often repeat the code's own text: that would be said twice.
        let message = message.filter(|text| !text.is_empty() && *text != code.message());
        Err(Error::Broker { code, what: what(), message: message.map(str::to_owned) })
    }

    /// The broker's code, if a broker refused.
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            Error::Broker { code, .. } => Some(*code),
            Error::TransactionFailed { cause } | Error::TransactionFatal { cause, .. } => cause.code(),
            _ => None,
        }
    }

    /// Whether the same call may succeed later, without any change.
    pub fn is_retriable(&self) -> bool {
        match self {
            Error::Connect { .. } | Error::Disconnected { .. } => true,
            Error::Timeout { .. } | Error::NotAcknowledged { .. } => true,
            Error::Broker { code, .. } => code.is_retriable(),
            _ => false,
        }
    }

    /// Whether what the client believes of leaders and topics may be stale.
    pub(crate) fn wants_metadata(&self) -> bool {
        match self {
            Error::Connect { .. } | Error::Disconnected { .. } | Error::Timeout { .. } => true,
            Error::Broker { code, .. } => code.wants_metadata_refresh(),
            _ => false,
        }
    }
}

struct Reason<'a>(&'a Option<Box<Error>>);

impl fmt::Display for Reason<'_> {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self.0 {
            Some(last) => write!(f, "; the last try: {last}"),
            None => Ok(()),
        }
    }
}

struct Parting<'a>(&'a Option<i64>);

impl fmt::Display for Parting<'_> {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self.0 {
            Some(offset) => write!(f, ": what was read from offset {offset} on is lost; seek there to go on"),
            None => f.write_str(": the leader does not know how much of that is lost; seek to go on"),
        }
    }
}

struct Versions<'a>(&'a Option<(i16, i16)>, &'a (i16, i16));

impl fmt::Display for Versions<'_> {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let Some((min, max)) = self.0 else { return Ok(()) };
        write!(f, " in versions {}-{}, only {min}-{max}", self.1.0, self.1.1)
    }
}

struct Refusal<'a>(ErrorCode, &'a Option<String>);

impl fmt::Display for Refusal<'_> {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let text = self.1.as_deref().unwrap_or(self.0.message());
        write!(f, "{} ({})", text.trim_end_matches('.'), self.0.name())
    }
}

/// What a person can do about a code, where its text does not say.
struct Remedy(ErrorCode);

impl fmt::Display for Remedy {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let remedy = match self.0 {
            ErrorCode::UNKNOWN_TOPIC_OR_PARTITION => "check the name and the partition, or create the topic",
            ErrorCode::TOPIC_ALREADY_EXISTS => "choose another name, or delete it first",
            ErrorCode::MESSAGE_TOO_LARGE => {
                "raise the topic's max.message.bytes, or make batches smaller (`batch_bytes`)"
            }
            ErrorCode::INVALID_REPLICATION_FACTOR => "there are not as many brokers as replicas asked for",
            ErrorCode::NON_EMPTY_GROUP => "stop the group's consumers first",
            ErrorCode::UNKNOWN_MEMBER_ID | ErrorCode::ILLEGAL_GENERATION => {
                "stop the group's consumers first"
            }
            ErrorCode::GROUP_ID_NOT_FOUND => "check the group's name",
            ErrorCode::TOPIC_DELETION_DISABLED => "the broker has delete.topic.enable=false",
            _ => return Ok(()),
        };
        write!(f, "; {remedy}")
    }
}

/// An error with its causes, those that it does not tell of itself.
pub fn explained(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let told = error.to_string();
        if !text.contains(&told) {
            text = format!("{text}: {told}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_say_what_and_what_to_do() {
        let error = Error::check_with(36, Some("Topic 'a' already exists."), || "create topic \"a\"".into());
        assert_eq!(
            error.unwrap_err().to_string(),
            "create topic \"a\": Topic 'a' already exists (TOPIC_ALREADY_EXISTS); choose another name, or delete it first"
        );
        let last = Box::new(Error::broker(ErrorCode::LEADER_NOT_AVAILABLE, "topic \"a\""));
        let error = Error::Timeout { what: "send".into(), after: Duration::from_secs(2), last: Some(last) };
        assert!(
            error
                .to_string()
                .starts_with("send was not done within 2s; the last try: topic \"a\": There is no leader")
        );
        assert!(error.is_retriable());
    }

    #[test]
    fn causes_are_told_once() {
        #[derive(Debug, thiserror::Error)]
        #[error("{0}")]
        struct Outer(&'static str, #[source] Inner);
        #[derive(Debug, thiserror::Error)]
        #[error("b failed: refused")]
        struct Inner;
        assert_eq!(explained(&Outer("cannot do a", Inner)), "cannot do a: b failed: refused");
        assert_eq!(
            explained(&Outer("cannot do a: b failed: refused", Inner)),
            "cannot do a: b failed: refused"
        );
    }
}
