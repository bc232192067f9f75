//! `Transaction`: where a transactional producer stands (KIP-98). It does nothing by itself: the accumulator asks it before it takes
//! records and tells it what failed, and `coordinator` sends what it calls for.
//!
//! ```text
//!                 init          begin         commit or abort
//!  Uninitialized ─────► Ready ─────────► Open ─────────────► Ending ──► Ready
//!                                          │ something fails   ▲
//!                                          └─────► Failed ─────┘ abort
//! ```
//! Fenced, or refused in a way that no abort mends, it is Fatal for good.

use crate::error::{Error, Result};
use corelog_wire::ErrorCode;

pub(super) struct Transaction {
    transactional_id: String,
    state: State,
    /// Of the transactions so far: by it partitions know whether they are in this one.
    number: u64,
    /// Places of the partitions that have records and have not been asked to be added.
    to_add: Vec<usize>,
    /// The coordinator has partitions or offsets of it, and has to be told its end.
    started: bool,
    /// Something failed: sequences may have gaps, and the next transaction needs another epoch (KIP-360).
    needs_epoch: bool,
    /// Requests for this transaction without an outcome; its end must not overtake them.
    pub(super) under_way: usize,
    /// A call that initializes, commits or aborts is not done.
    has_turn: bool,
}

#[derive(Debug)]
enum State {
    Uninitialized,
    Ready,
    Open,
    /// The outcome is asked for, or will be when all records have theirs. If the answer does not come, the same has to be asked again.
    Ending {
        commit: bool,
    },
    Failed(Error),
    Fatal(Error),
}

/// A partition's last transaction.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Membership {
    number: u64,
    is_added: bool,
}

impl Transaction {
    pub(super) fn new(transactional_id: &str) -> Transaction {
        Transaction {
            transactional_id: transactional_id.to_owned(),
            state: State::Uninitialized,
            number: 0,
            to_add: Vec::new(),
            started: false,
            needs_epoch: false,
            under_way: 0,
            has_turn: false,
        }
    }

    /// Whether records and offsets are taken.
    pub(super) fn check_open(&self) -> Result<()> {
        match &self.state {
            State::Open => Ok(()),
            State::Failed(error) | State::Fatal(error) => Err(error.clone()),
            State::Uninitialized => Err(uninitialized()),
            State::Ready => Err(not_open()),
            State::Ending { .. } => Err(Error::config(
                "the transaction is being ended",
                "wait until it is committed or aborted, then begin another one",
            )),
        }
    }

    pub(super) fn init(&mut self) -> Result<()> {
        match &self.state {
            State::Uninitialized => self.take_turn(),
            State::Fatal(error) => Err(error.clone()),
            _ => Err(Error::config("the producer's transactions are initialized already", "do so once")),
        }
    }

    pub(super) fn initialized(&mut self) {
        self.state = State::Ready;
    }

    pub(super) fn begin(&mut self) -> Result<()> {
        match &self.state {
            State::Ready => {}
            State::Open => {
                return Err(Error::config("a transaction is open already", "commit or abort it first"));
            }
            _ => return self.check_open(),
        }
        self.state = State::Open;
        self.number += 1;
        Ok(())
    }

    pub(super) fn end(&mut self, commit: bool) -> Result<()> {
        match &self.state {
            State::Open => {}
            State::Failed(_) if !commit => {}
            State::Ending { commit: before } if *before == commit => {}
            State::Ending { commit: before } => {
                let remedy = if *before { "commit it again" } else { "abort it again" };
                return Err(Error::config("the transaction's other end was asked for before", remedy));
            }
            _ => return self.check_open(),
        }
        self.take_turn()?;
        self.state = State::Ending { commit };
        Ok(())
    }

    /// The coordinator has been told the end, if it had to be.
    pub(super) fn ended_there(&mut self) {
        self.started = false;
    }

    pub(super) fn ended(&mut self) {
        self.state = State::Ready;
        self.needs_epoch = false;
        self.to_add.clear();
    }

    fn take_turn(&mut self) -> Result<()> {
        if self.has_turn {
            return Err(Error::config(
                "another call initializes, commits or aborts",
                "one at a time, over all clones of the producer",
            ));
        }
        self.has_turn = true;
        Ok(())
    }

    pub(super) fn has_turn(&self) -> bool {
        self.has_turn
    }

    pub(super) fn end_turn(&mut self) {
        self.has_turn = false;
    }

    /// Open, or failed: to be committed or aborted by the application.
    pub(super) fn is_open(&self) -> bool {
        matches!(self.state, State::Open | State::Failed(_))
    }

    pub(super) fn is_started(&self) -> bool {
        self.started
    }

    pub(super) fn needs_epoch(&self) -> bool {
        self.needs_epoch
    }

    /// What records and offsets still belong to it.
    pub(super) fn may_grow(&self) -> bool {
        matches!(self.state, State::Open | State::Ending { commit: true })
    }

    /// Enlists a partition that gets its first record of this transaction. Says whether it did.
    pub(super) fn enlist(&mut self, place: usize, membership: &mut Membership) -> bool {
        let is_new = membership.number != self.number;
        if is_new {
            *membership = Membership { number: self.number, is_added: false };
            self.to_add.push(place);
        }
        is_new
    }

    /// Whether the coordinator knows that the partition takes part: only then may records be sent.
    pub(super) fn has(&self, membership: &Membership) -> bool {
        membership.number == self.number && membership.is_added
    }

    /// Partitions to be added now, by a request that counts as under way if there are any.
    pub(super) fn take_to_add(&mut self) -> Vec<usize> {
        let to_add = if self.may_grow() { std::mem::take(&mut self.to_add) } else { Vec::new() };
        self.under_way += usize::from(!to_add.is_empty());
        to_add
    }

    /// They are to be asked for again.
    pub(super) fn not_added(&mut self, places: Vec<usize>) {
        self.to_add.extend(places);
        // Whether the coordinator has added them is not known.
        self.needs_epoch = true;
    }

    pub(super) fn added(&mut self) {
        self.started = true;
    }

    /// Of the partition asked for.
    pub(super) fn confirm(&self, membership: &mut Membership) {
        membership.is_added = membership.number == self.number;
    }

    /// A record was not sent in time, or a broker refused it for good.
    pub(super) fn record_failed(&mut self, cause: &Error) {
        let is_fatal = match cause {
            Error::Unsupported { .. } => true,
            cause => matches!(
                cause.code(),
                Some(
                    ErrorCode::PRODUCER_FENCED
                        | ErrorCode::INVALID_PRODUCER_EPOCH
                        | ErrorCode::TRANSACTIONAL_ID_AUTHORIZATION_FAILED
                        | ErrorCode::CLUSTER_AUTHORIZATION_FAILED
                        | ErrorCode::UNSUPPORTED_VERSION
                )
            ),
        };
        self.fail(cause, is_fatal);
    }

    /// A record that belongs to it was not taken. Errors of those who call out of turn are no failure of it.
    pub(super) fn send_failed(&mut self, cause: &Error) {
        if matches!(self.state, State::Open) {
            self.record_failed(cause);
        }
    }

    /// A coordinator refused. Other than with records, what is not known to be mended by an abort is fatal, as in Kafka's Java client.
    pub(super) fn request_failed(&mut self, cause: &Error) -> Error {
        let is_abortable = cause.is_retriable()
            || matches!(
                cause.code(),
                Some(
                    ErrorCode::TRANSACTION_ABORTABLE
                        | ErrorCode::UNKNOWN_PRODUCER_ID
                        | ErrorCode::INVALID_PRODUCER_ID_MAPPING
                        | ErrorCode::TOPIC_AUTHORIZATION_FAILED
                        | ErrorCode::GROUP_AUTHORIZATION_FAILED
                        | ErrorCode::ILLEGAL_GENERATION
                        | ErrorCode::UNKNOWN_MEMBER_ID
                        | ErrorCode::FENCED_INSTANCE_ID
                )
            );
        self.fail(cause, !is_abortable);
        self.failure().map_or_else(|| cause.clone(), |(error, _)| error.clone())
    }

    pub(super) fn fail(&mut self, cause: &Error, is_fatal: bool) {
        match &self.state {
            State::Fatal(_) => {}
            _ if is_fatal => {
                let transactional_id = self.transactional_id.clone();
                self.state = State::Fatal(Error::TransactionFatal {
                    transactional_id,
                    cause: Box::new(cause.clone()),
                });
            }
            State::Open | State::Ending { commit: true } => {
                self.state = State::Failed(Error::TransactionFailed { cause: Box::new(cause.clone()) });
                self.needs_epoch = true;
            }
            State::Failed(_) | State::Ending { commit: false } => self.needs_epoch = true,
            State::Uninitialized | State::Ready => {}
        }
    }

    /// What it failed with, and whether that is fatal.
    pub(super) fn failure(&self) -> Option<(&Error, bool)> {
        match &self.state {
            State::Failed(error) => Some((error, false)),
            State::Fatal(error) => Some((error, true)),
            _ => None,
        }
    }

    /// Nobody is there to end it any more. Says whether the coordinator should be told, so that readers need not wait for its timeout.
    pub(super) fn abandon(&mut self) -> bool {
        if self.started && !matches!(self.state, State::Fatal(_)) {
            self.state = State::Ending { commit: false };
            self.needs_epoch = false;
            return true;
        }
        false
    }
}

fn uninitialized() -> Error {
    Error::config("the producer's transactions are not initialized", "call init_transactions first")
}

fn not_open() -> Error {
    Error::config("no transaction is open", "call begin_transaction first")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open() -> Transaction {
        let mut transaction = Transaction::new("x");
        transaction.init().unwrap();
        transaction.initialized();
        transaction.end_turn();
        transaction.begin().unwrap();
        transaction
    }

    fn refused(code: ErrorCode) -> Error {
        Error::broker(code, "test")
    }

    #[test]
    fn what_is_called_out_of_turn_is_refused() {
        let told = |outcome: Result<()>| outcome.unwrap_err().to_string();
        let mut transaction = Transaction::new("x");
        assert!(told(transaction.begin()).ends_with("call init_transactions first"));
        assert!(told(transaction.end(true)).ends_with("call init_transactions first"));
        transaction.init().unwrap();
        assert!(told(transaction.init()).starts_with("another call"));
        transaction.end_turn();
        transaction.init().unwrap();
        transaction.initialized();
        transaction.end_turn();
        assert!(told(transaction.init()).contains("already"));
        assert!(told(transaction.end(false)).ends_with("call begin_transaction first"));
        assert!(told(transaction.check_open()).ends_with("call begin_transaction first"));
        transaction.begin().unwrap();
        assert!(told(transaction.begin()).ends_with("commit or abort it first"));
        transaction.end(true).unwrap();
        assert!(told(transaction.end(true)).starts_with("another call"));
        transaction.end_turn();
        assert!(told(transaction.end(false)).ends_with("commit it again"));
        assert!(told(transaction.check_open()).contains("wait until"));
        transaction.end(true).unwrap();
        transaction.ended();
        transaction.begin().unwrap();
    }

    #[test]
    fn failures_are_abortable_or_fatal() {
        for (code, of_record, of_request) in [
            (ErrorCode::MESSAGE_TOO_LARGE, false, true),
            (ErrorCode::INVALID_TXN_STATE, false, true),
            (ErrorCode::TRANSACTION_ABORTABLE, false, false),
            (ErrorCode::REQUEST_TIMED_OUT, false, false),
            (ErrorCode::PRODUCER_FENCED, true, true),
            (ErrorCode::INVALID_PRODUCER_EPOCH, true, true),
        ] {
            let (mut record, mut request) = (open(), open());
            record.record_failed(&refused(code));
            request.request_failed(&refused(code));
            for (mut transaction, is_fatal) in [(record, of_record), (request, of_request)] {
                assert_eq!(transaction.failure().map(|it| it.1), Some(is_fatal), "{code}");
                assert_eq!(transaction.end(true).unwrap_err().code(), Some(code));
                assert_eq!(transaction.end(false).is_err(), is_fatal, "{code}");
                assert!(is_fatal || transaction.needs_epoch());
            }
        }
    }

    #[test]
    fn a_failure_while_committing_is_to_be_aborted() {
        let mut transaction = open();
        transaction.end(true).unwrap();
        transaction.record_failed(&refused(ErrorCode::MESSAGE_TOO_LARGE));
        transaction.end_turn();
        assert!(matches!(transaction.end(true), Err(Error::TransactionFailed { .. })));
        transaction.end(false).unwrap();
        transaction.ended();
        transaction.end_turn();
        transaction.begin().unwrap();
        assert!(!transaction.needs_epoch());
    }

    #[test]
    fn partitions_are_enlisted_once_a_transaction() {
        let mut transaction = open();
        let mut membership = Membership::default();
        assert!(transaction.enlist(5, &mut membership) && !transaction.enlist(5, &mut membership));
        assert!(!transaction.has(&membership));
        assert_eq!(transaction.take_to_add(), [5]);
        transaction.added();
        transaction.confirm(&mut membership);
        assert!(transaction.has(&membership) && transaction.take_to_add().is_empty());
        transaction.end(true).unwrap();
        transaction.ended();
        transaction.end_turn();
        transaction.begin().unwrap();
        assert!(!transaction.has(&membership) && transaction.enlist(5, &mut membership));
    }
}
