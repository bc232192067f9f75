//! A state machine between its requests, the time and its log: the rules of when what happens, without I/O.

use super::desk::{Effect, Now, Ticket, WriteId};
use super::machine::{NotServing, RawRecord, Record, StateMachine, WriteFailure};

/// After every call of a method that takes the time, do what [`take_effects`](Coordinator::take_effects) gives, in its
/// order, and look at [`next_deadline`](Coordinator::next_deadline) again.
pub struct Coordinator<M: StateMachine> {
    pub machine: M,
    loading: bool,
}

impl<M: StateMachine> Coordinator<M> {
    /// A coordinator that is loading.
    pub fn new(machine: M) -> Coordinator<M> {
        Coordinator { machine, loading: true }
    }

    // ---- loading

    /// Takes the next record of the log.
    ///
    /// # Panics
    /// When loading has ended.
    pub fn replay(&mut self, raw: RawRecord, now: Now) -> Result<(), <M::Record as Record>::DecodeError> {
        assert!(self.loading, "the log is read before requests are taken");
        self.machine.desk().now = now;
        if let Some(record) = M::Record::decode(raw)? {
            self.machine.replay(record);
        }
        Ok(())
    }

    /// The whole log has been replayed. True: requests are taken. False: to be called again, the core has other things
    /// to do.
    pub fn wake(&mut self, now: Now) -> bool {
        self.machine.desk().now = now;
        self.loading = !self.machine.wake();
        !self.loading
    }

    // ---- serving

    /// Takes a request. It is answered by an [`Effect::Respond`] with the same ticket: at once, or later.
    pub fn handle(&mut self, ticket: Ticket, context: &M::Context, request: M::Request, now: Now) {
        self.machine.desk().now = now;
        if self.loading {
            let refusal = M::refuse(request, context, NotServing::Loading);
            return self.machine.desk().respond(ticket, refusal);
        }
        self.machine.handle(ticket, context, request);
    }

    /// Has the machine do something that nobody asked for.
    pub fn act(&mut self, act: impl FnOnce(&mut M), now: Now) {
        self.machine.desk().now = now;
        if !self.loading {
            act(&mut self.machine);
        }
    }

    /// Does what is due. To be called at [`next_deadline`](Coordinator::next_deadline), and harmless at any time.
    pub fn expire(&mut self, now: Now) {
        self.machine.desk().now = now;
        if self.loading {
            return;
        }
        while let Some(timer) = self.machine.desk().timers.pop_expired(now.mono_ms) {
            self.machine.due(timer);
        }
    }

    /// When [`expire`](Coordinator::expire) is to be called next, in milliseconds of the monotonic clock. It may be too
    /// early by then; it is never too late. Nothing is due before the log is loaded.
    pub fn next_deadline(&self) -> Option<u64> {
        self.machine.desk_ref().timers.next_ms().filter(|_| !self.loading)
    }

    /// What is to be done, in order.
    pub fn take_effects(&mut self) -> Vec<Effect<M::Answer>> {
        self.machine.desk().take_effects()
    }

    pub fn is_pending(&self, write: WriteId) -> bool {
        self.machine.desk_ref().is_pending(write)
    }

    // ---- the log's reports

    /// A write is committed. To be called in the order of the writes.
    ///
    /// # Panics
    /// When called out of order.
    pub fn committed(&mut self, id: WriteId, now: Now) {
        self.machine.desk().now = now;
        let write = self.machine.desk().take_committed(id);
        for key in write.keys {
            let record = self.machine.desk().take_record(key, id);
            self.machine.replay(record);
        }
        if let Some((ticket, answer)) = write.answer {
            self.machine.desk().respond(ticket, answer);
        }
        self.machine.committed(id, write.then);
    }

    /// The write `first` is not in the log. What was decided after it took it for granted: it must not come to the log
    /// either, and is refused too.
    pub fn refused(&mut self, first: WriteId, failure: WriteFailure, now: Now) {
        self.machine.desk().now = now;
        for write in self.machine.desk().take_refused(first) {
            let failure = match failure {
                // It is the record of `first` that is too large; the others may well be tried again.
                WriteFailure::TooLarge if write.id != first => WriteFailure::Unavailable,
                failure => failure,
            };
            if let Some((ticket, answer)) = write.answer {
                self.machine.desk().respond(ticket, M::failed(answer, failure.error()));
            }
            self.machine.refused(write.id, write.then, failure);
        }
    }

    /// Drops the state: whoever waits is told to look for the coordinator elsewhere.
    pub fn unload(mut self) -> Vec<Effect<M::Answer>> {
        let error = NotServing::Elsewhere.error();
        for write in self.machine.desk().take_refused(WriteId(0)) {
            if let Some((ticket, answer)) = write.answer {
                self.machine.desk().respond(ticket, M::failed(answer, error));
            }
        }
        self.machine.unload(error);
        let mut effects = self.take_effects();
        effects.retain(|effect| matches!(effect, Effect::Respond { .. }));
        effects
    }
}
