//! How a shard ends, and all of them together: in two phases, since each serves the others' connections to the last.
//!
//! 1. Every shard stops accepting, and its connections finish what they have begun. Calls and storage are served.
//! 2. When all have come so far ([`Barrier`]), each closes its storage.
//!
//! A shard can be told at any time, while it starts too; then it has no connections, and gives up what it was about.

use std::cell::Cell;

use corelog_io::sync::Event;
use corelog_io::{Received, Receiver, Seat, Senders};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
enum Phase {
    #[default]
    Serving,
    /// Connections finish what they have begun.
    Draining,
    /// What is left of them is cut off.
    Cut,
}

/// How far a shard is on the way to its end.
#[derive(Default)]
pub struct Stopping {
    phase: Cell<Phase>,
    moved: Event,
}

impl Stopping {
    pub fn begin(&self) {
        self.move_to(Phase::Draining);
    }

    pub fn cut(&self) {
        self.move_to(Phase::Cut);
    }

    fn move_to(&self, phase: Phase) {
        if self.phase.get() < phase {
            self.phase.set(phase);
            self.moved.notify_all();
        }
    }

    pub fn has_begun(&self) -> bool {
        self.phase.get() >= Phase::Draining
    }

    /// Completes when the shard is told to stop; at once if it has been.
    pub async fn begun(&self) {
        self.reached(Phase::Draining).await;
    }

    /// Completes when connections may not go on any more.
    pub async fn is_cut(&self) {
        self.reached(Phase::Cut).await;
    }

    async fn reached(&self, phase: Phase) {
        while self.phase.get() < phase {
            self.moved.listen().await;
        }
    }
}

/// Where the shards of a process wait for each other, once.
pub struct Barrier {
    senders: Senders<()>,
    receiver: Receiver<()>,
    core: usize,
    cores: usize,
}

impl Barrier {
    pub async fn join(seat: Seat<()>, core: usize, cores: usize) -> Barrier {
        let (senders, receiver) = seat.join(core).await;
        Barrier { senders, receiver, core, cores }
    }

    /// Completes when every shard has called this or is gone.
    pub async fn wait(mut self) {
        let mut missing = vec![true; self.cores];
        missing[self.core] = false;
        for other in (0..self.cores).filter(|other| *other != self.core) {
            // One that is gone waits for nobody.
            let _ = self.senders.try_send(other, ());
        }
        while missing.contains(&true) {
            match self.receiver.recv_or_gone().await {
                Some((core, Received::Message(()) | Received::Gone)) => missing[core] = false,
                None => return,
            }
        }
    }
}
