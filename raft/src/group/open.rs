//! A group takes up a log where its last life left it.

use crate::config::Timing;
use crate::core::{Core, Role, Violation};
use crate::ids::{ReplicaId, Tick};
use crate::log::{Log, committed};
use crate::random::Random;
use crate::terms::Terms;

use super::*;

#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("replica 0 is none")]
    NoReplica,
    #[error("the log's terms don't fit its indexes: {0}")]
    Terms(String),
    #[error(
        "the log is durable up to {durable} and ends at {next}: a group opens on what is on stable storage"
    )]
    NotDurable { durable: RaftIndex, next: RaftIndex },
    #[error(
        "the log is committed up to {committed}, which is not between its start {first} and its end {next}"
    )]
    Committed { committed: RaftIndex, first: RaftIndex, next: RaftIndex },
    #[error(transparent)]
    Violation(#[from] Violation),
}

impl Group {
    /// `seed`: of the random part of this replica's timeouts; another one for each replica.
    pub fn open(
        id: ReplicaId,
        timing: Timing,
        seed: u64,
        log: &impl Log,
        now: Tick,
    ) -> Result<Group, OpenError> {
        let terms = checked(id, log)?;
        let (hard_state, durable) = (log.hard_state(), log.durable_index());
        let core = Core::open(id, log, terms).map_err(|error| OpenError::Terms(error.to_string()))?;
        let leadership = Leadership { role: Role::Follower, term: core.term(), leader: None };
        let mut group = Group {
            id,
            gate: Gate::new(hard_state, durable),
            clock: Clock::new(timing, Random::new(seed), now),
            lease: Lease::default(),
            memberships: vec![log.membership()],
            away: Vec::new(),
            offers: Vec::new(),
            removed: false,
            committed: RaftIndex(0),
            echo: HeartbeatAnswer { committed: RaftIndex(0), sent: Tick(0), rest: false },
            quiet: false,
            resting: false,
            output: Output::default(),
            leadership,
            core,
        };
        for (index, bytes) in log.membership_entries() {
            group.begin_change(index, &bytes)?;
        }
        group.absorb(Payloads::None)?;
        if group.is_new() {
            // Whatever is promised is said with a term, which is durable first.
            group.clock.promised_until = now;
        }
        if group.stands_alone() {
            // Nobody else could have been elected: no reason to wait.
            group.clock.election_due = now;
            group.tick(now)?;
        }
        Ok(group)
    }

    /// It has never heard of a term.
    fn is_new(&self) -> bool {
        self.leadership.term == Term(0) && self.next_index() == RaftIndex(0)
    }
}

fn checked(id: ReplicaId, log: &impl Log) -> Result<Terms, OpenError> {
    if id.0 == 0 {
        return Err(OpenError::NoReplica);
    }
    let (start, runs, next) = (log.start(), log.terms(), log.next_index());
    let described = format!("{start:?}, {runs:?}, next {next}");
    let terms = Terms::new(start, runs, next).ok_or(OpenError::Terms(described))?;
    let (durable, committed, first) = (log.durable_index(), committed(log), terms.first());
    if durable != next {
        return Err(OpenError::NotDurable { durable, next });
    }
    if committed < first || committed > next {
        return Err(OpenError::Committed { committed, first, next });
    }
    Ok(terms)
}
