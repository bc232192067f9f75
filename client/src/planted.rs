//! Faults to be found: each breaks one promise, and the simulation must notice, or it would not notice the like. Compiled away without
//! the feature `simulation`.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A Produce whose answer was lost counts as written.
    LostAnswerIsYes,
    /// A record whose time is over is told as not written, whether a broker may have it or not.
    DoubtIsNo,
    /// Batches bear no producer's numbers.
    BatchesAreUnnumbered,
    /// What a dropped consumer had polled counts as processed.
    DroppedIsProcessed,
    /// Members keep all that they have while they join.
    AllIsKeptWhileJoining,
    /// A member that its group has expelled goes on.
    ExpelledGoesOn,
    /// Closing a consumer waits for brokers as long as it takes.
    ClosingWaits,
    /// Connections outlive those for whom they were made.
    LanesAreLeft,
    /// When a client ends, what is on its way is told as not written.
    EndIsNo,
    /// That an automatic commit came with the former generation is told as a failure.
    FormerGenerationIsAFailure,
    /// Of polls at the same time only the latest is woken.
    OnePollIsWoken,
}

#[cfg(feature = "simulation")]
mod chosen {
    use super::Fault;
    use std::cell::Cell;

    thread_local! {
        static PLANTED: Cell<Option<Fault>> = const { Cell::new(None) };
    }

    /// Whether this thread's clients have the fault.
    pub(crate) fn planted(fault: Fault) -> bool {
        PLANTED.get() == Some(fault)
    }

    /// Plants a fault in the clients of this thread until it is dropped.
    #[must_use = "dropped, it takes the fault away"]
    pub struct Planting(());

    impl Planting {
        pub fn of(fault: Fault) -> Planting {
            PLANTED.set(Some(fault));
            Planting(())
        }
    }

    impl Drop for Planting {
        fn drop(&mut self) {
            PLANTED.set(None);
        }
    }
}

#[cfg(feature = "simulation")]
pub use chosen::Planting;
#[cfg(feature = "simulation")]
pub(crate) use chosen::planted;

#[cfg(not(feature = "simulation"))]
#[inline(always)]
pub(crate) const fn planted(_: Fault) -> bool {
    false
}
