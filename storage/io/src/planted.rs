//! Faults that the code had once, or that a checker is there for, each at the place where its kind is kept out: the
//! simulation must find them, or it would not find their like. Compiled away with optimization, as assertions for debugging are.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A change of metadata that is in the log is not applied when who asked for it has gone.
    ChangeGivenUpHalfway,
    /// A log without state counts as a new one, whatever segments it has.
    AbsenceIsEmpty,
    /// A loaded commit is anybody's topic of that name.
    OffsetsOutliveTheirTopic,
    /// What a log was found to have at a start is committed, whoever decides.
    AllFoundIsCommitted,
    /// Producers in flight are remembered when their batches are cut.
    CutForgetsNoProducers,
    /// What is durable settles producers, committed or not.
    ProducersSettleWhenDurable,
    /// A refused log's batches keep their place in journal and memory.
    RefusedLogKeepsItsPlace,
    /// Who sends a part of a request and then no more keeps its room.
    PartialFrameIsWaitedFor,
    /// Room for requests goes bit by bit to whoever comes first, and is waited for without a limit.
    RoomIsTakenBitByBit,
    /// Listeners wait to be told who their clients are, though nothing can tell them yet: so it shows what strangers may do.
    EveryoneIsAStranger,
    /// A write that was not synced counts as one that was.
    FailedSyncCounts,
    /// A connection that has ended keeps its socket.
    SocketsAreKept,
    /// A rebalance begins no new generation.
    GenerationStandsStill,
    /// A follower answers for entries when they are in its log, durable or not.
    AnsweredBeforeSync,
    /// What its own log has durable a leader takes for committed.
    CommittedByOne,
    /// A replica takes what leaders of earlier terms say.
    TermsIgnored,
    /// Members of a generation that is over are told nothing of it, and commit.
    FormerGenerationsGoOn,
    /// Answers to Fetch keep their room, as long as it is little.
    FetchesKeepTheirRoom,
    /// Deleted topics keep their directories, at a start too.
    DeletedTopicsStay,
    /// A connection to a broker that says nothing is kept.
    SilentPeersAreKept,
    /// Whichever process says last that it is a broker counts as it.
    AnyIncarnationIsTaken,
    /// A cluster is founded when a majority of the seeds would.
    FoundedByAMajority,
    /// What is said of a cluster, or that there is none, is acted on without being asked for again.
    NewsIsBelievedAtOnce,
    /// Whoever is at a founder's address is that founder.
    AnyDirectoryIsAFounder,
}

#[cfg(debug_assertions)]
mod chosen {
    use super::Fault;
    use std::cell::Cell;

    thread_local! {
        static PLANTED: Cell<Option<Fault>> = const { Cell::new(None) };
    }

    /// Whether this thread's simulated world has the fault.
    #[inline]
    pub fn planted(fault: Fault) -> bool {
        PLANTED.get() == Some(fault)
    }

    /// Plants a fault in the worlds of this thread until it is dropped.
    #[must_use]
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

#[cfg(debug_assertions)]
pub use chosen::{Planting, planted};

#[cfg(not(debug_assertions))]
#[inline(always)]
pub const fn planted(_: Fault) -> bool {
    false
}
