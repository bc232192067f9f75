//! A follower takes in a leader's segments, in place of entries that no leader keeps.
//!
//! Meanwhile its group is closed: it says nothing, and counts for nothing. It opens again on what its log is then, whether
//! all came or not. Wherever a crash or a lost leader leaves it, the log is one of the group's:
//!
//! - The membership of where the segments end is durable before the log is touched. One that is newer than its log harms no
//!   replica: it is committed, and what entries below say of it is passed over.
//! - The log begins anew only where it doesn't have what is before the segments. Then nothing that it has from there on is
//!   committed, and nothing that it has below is kept by the leader: it never votes for less than it had.
//! - Each segment that is taken in ends on what is committed. The next transfer goes on there, in the middle of a file too.
//!
//! A log with more segments than are told of at once comes in several such transfers.
//!
//! One replica of a core at a time: the others wait for their turn, and are led meanwhile as before.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

use corelog_io::sync::{Notify, OneshotSender, oneshot};
use corelog_io::{Queue, sleep, spawn};
use corelog_raft::{Leadership, PeerId, Role, SnapshotOffer, Term};
use corelog_storage::{AppendError, LogStart, LogState, RaftIndex, SegmentInfo, SegmentList, TransferError};

use crate::snapshot::{Ask, Told, What};
use crate::work::{FULL_RETRY, Work};
use crate::{Replica, Replicas};

/// Replicas of this core that wait for their turn, each once.
pub(crate) struct Installs {
    waiting: RefCell<VecDeque<(Rc<Replica>, SnapshotOffer)>>,
    wake: Notify,
    taken: Cell<Taken>,
}

/// What came from other cores since this one began, in place of entries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    pub segments: u64,
    pub bytes: u64,
}

/// An installation's turn in its replica's work, and who waits for its end.
pub struct Install {
    offer: SnapshotOffer,
    ended: OneshotSender<()>,
}

/// How a log gets to where the segments end.
enum Way {
    /// It begins anew where they begin.
    Anew,
    /// It ends where one of them begins.
    GoesOn,
    /// It ends in the middle of one, or with what may not be committed: entries can follow.
    Entries,
    /// It is there already.
    None,
}

enum Ended {
    NoAnswer,
    Closed,
    Transfer(TransferError),
}

impl From<TransferError> for Ended {
    fn from(error: TransferError) -> Ended {
        Ended::Transfer(error)
    }
}

impl Installs {
    pub fn new() -> Installs {
        Installs { waiting: RefCell::default(), wake: Notify::new(), taken: Cell::default() }
    }
}

impl Replicas {
    pub(crate) fn install_later(&self, replica: &Rc<Replica>, offer: SnapshotOffer) {
        let mut waiting = self.installs.waiting.borrow_mut();
        match waiting.iter_mut().find(|(other, _)| Rc::ptr_eq(other, replica)) {
            Some((_, waits)) => *waits = offer,
            None => waiting.push_back((replica.clone(), offer)),
        }
        self.installs.wake.notify_one();
    }

    pub fn taken(&self) -> Taken {
        self.installs.taken.get()
    }

    pub(crate) fn start_installs(self: &Rc<Self>) {
        let replicas = self.clone();
        spawn(Queue::Background, async move {
            while !replicas.stopped.get() {
                let next = replicas.installs.waiting.borrow_mut().pop_front();
                let Some((replica, offer)) = next else {
                    replicas.installs.wake.notified().await;
                    continue;
                };
                let (ended, hears) = oneshot();
                replica.put(Work::Install(Install { offer, ended }), &replicas);
                let _closed = hears.await;
            }
        })
        .detach();
    }

    pub(crate) fn stop_installs(&self) {
        self.installs.waiting.borrow_mut().clear();
        self.installs.wake.notify_one();
    }
}

impl Replica {
    /// In its turn of the replica's work.
    pub(crate) async fn install(self: &Rc<Self>, install: Install, replicas: &Rc<Replicas>) {
        let Install { offer, ended } = install;
        if let Some(source) = self.source_of(&offer, replicas) {
            self.fetch(source, replicas).await;
        }
        let _waits = ended.send(());
    }

    /// Where to fetch, if there still is anything to.
    fn source_of(&self, offer: &SnapshotOffer, replicas: &Replicas) -> Option<PeerId> {
        let driver = replicas.driver.borrow();
        let group = driver.group(self.group).filter(|group| group.needs_snapshot(offer))?;
        self.peer_of(group.leadership().leader?)
    }

    async fn fetch(self: &Rc<Self>, source: PeerId, replicas: &Rc<Replicas>) {
        // Of what is not committed the source may have other entries.
        let what = What::Segments { from: self.log.commit_index() };
        let Some(Told::Segments { list, state }) = self.ask(source, what, replicas).await else { return };
        // What was said with a term, and the entries that were taken, are on stable storage before the group closes.
        if let Err(error) = self.sync().await {
            return self.fail(&error, replicas);
        }
        let follows = {
            let driver = replicas.driver.borrow();
            driver.group(self.group).is_some_and(|group| group.leadership().role == Role::Follower)
        };
        let way = self.way_to(&list);
        match way {
            _ if !follows => return,
            Way::None => return,
            Way::Entries => {
                let _noted = self.ask(source, What::Entries, replicas).await;
                return;
            }
            Way::Anew | Way::GoesOn => {}
        }
        self.leave(replicas);
        let begins = matches!(way, Way::Anew).then_some(list.start);
        let outcome = self.take_in(source, begins, &list, &state, replicas).await;
        let all_came = outcome.is_ok();
        self.come_back(outcome, replicas).await;
        if all_came && !self.is_closed() {
            // Nothing waits for the answer: a leader that doesn't hear it sees by itself what this replica has.
            let (replica, replicas) = (self.clone(), replicas.clone());
            let tells = async move { replica.ask(source, What::Entries, &replicas).await };
            spawn(Queue::Background, tells).detach();
        }
    }

    fn way_to(&self, list: &SegmentList) -> Way {
        let LogStart { index: start, term, .. } = list.start;
        let (committed, next) = (self.log.commit_index(), self.log.next_index());
        let end = list.segments.last().map_or(start, |last| last.next_index);
        if committed >= end {
            return Way::None;
        }
        let has_start = start < self.log.first_index() || self.term_before(start) == Some(term);
        if !has_start && committed > start {
            tracing::error!(log = %self.log.id(), %start, term, %committed, "another replica's segments contradict what is committed here");
            return Way::None;
        }
        if !has_start {
            return Way::Anew;
        }
        let begins_there = list.segments.iter().any(|segment| segment.base_index == next);
        if committed == next && begins_there { Way::GoesOn } else { Way::Entries }
    }

    /// The group is closed here, and nothing is done to the log but what follows.
    pub(crate) fn leave(&self, replicas: &Replicas) {
        replicas.drive(|driver, _| driver.close(self.group));
        self.clear_work();
        let term: Term = self.led().term;
        self.follow(Leadership { role: Role::Follower, term, leader: None }, &*replicas.owner);
    }

    async fn come_back(&self, outcome: Result<(), Ended>, replicas: &Replicas) {
        match outcome {
            Ok(()) => {}
            Err(Ended::Closed) => return,
            Err(Ended::NoAnswer) => {
                tracing::info!(log = %self.log.id(), "segments stopped coming: they go on from where they are");
            }
            Err(Ended::Transfer(TransferError::Append(error))) if !is_full(&error) => {
                return self.fail(&error, replicas);
            }
            Err(Ended::Transfer(error)) => {
                tracing::warn!(log = %self.log.id(), %error, "a segment is not taken in: it has to come again");
            }
        }
        self.enter(replicas).await;
    }

    async fn enter(&self, replicas: &Replicas) {
        if let Err(error) = replicas.enter(self).await {
            self.fail(&error, replicas);
        }
    }

    /// The log has what it was given: its replica comes back to the group that it left for that.
    pub(crate) async fn catch_up(&self, replicas: &Replicas) {
        match self.sync().await {
            Ok(()) => self.enter(replicas).await,
            Err(error) => self.fail(&error, replicas),
        }
    }

    async fn take_in(
        &self,
        source: PeerId,
        begins: Option<LogStart>,
        list: &SegmentList,
        state: &[u8],
        replicas: &Rc<Replicas>,
    ) -> Result<(), Ended> {
        let storage = &replicas.storage;
        self.log.import_state(storage, state).await?;
        if let Some(start) = begins {
            self.log.reset(start).await.map_err(TransferError::from)?;
        }
        for segment in &list.segments {
            if segment.base_index >= self.log.next_index() {
                self.receive(source, segment, replicas).await?;
                self.adopt(segment, replicas).await?;
                let Taken { segments, bytes } = replicas.taken();
                replicas.installs.taken.set(Taken { segments: segments + 1, bytes: bytes + segment.bytes });
            }
        }
        self.take_in_producers(source, replicas).await
    }

    /// Producers of batches that are gone.
    async fn take_in_producers(&self, source: PeerId, replicas: &Replicas) -> Result<(), Ended> {
        let mut above = -1;
        loop {
            let told = self.ask(source, What::State { above }, replicas).await;
            if self.is_closed() {
                return Err(Ended::Closed);
            }
            let Some(Told::State(LogState { bytes, more_above })) = told else { return Err(Ended::NoAnswer) };
            self.log.import_state(&replicas.storage, &bytes).await?;
            match more_above.filter(|more_above| *more_above > above) {
                Some(more_above) => above = more_above,
                None => return Ok(()),
            }
        }
    }

    async fn receive(&self, source: PeerId, segment: &SegmentInfo, replicas: &Replicas) -> Result<(), Ended> {
        let mut position = self.log.received(segment).await.map_err(TransferError::from)?;
        while position < segment.bytes {
            let what = What::Piece { base_offset: segment.base_offset, position };
            let told = self.ask(source, what, replicas).await;
            if self.is_closed() {
                return Err(Ended::Closed);
            }
            let Some(Told::Piece(piece)) = told else { return Err(Ended::NoAnswer) };
            position = self.log.receive(segment, position, &piece).await?;
        }
        Ok(())
    }

    /// One that is in the log, and in no checkpoint yet since the disk is full, is the log's only once it is.
    async fn adopt(&self, segment: &SegmentInfo, replicas: &Replicas) -> Result<(), Ended> {
        loop {
            match self.log.install(&replicas.storage, segment).await {
                Err(TransferError::Append(error)) if is_full(&error) => sleep(FULL_RETRY).await,
                outcome => return Ok(outcome?),
            }
            if self.is_closed() {
                return Err(Ended::Closed);
            }
        }
    }

    async fn ask(&self, source: PeerId, what: What, replicas: &Replicas) -> Option<Told> {
        let ask = Ask { log: self.log.id(), replica: self.id, what };
        replicas.network.ask(source, ask).await
    }

    /// The term of the entry before `index`; `None` if the log does not have it.
    pub(crate) fn term_before(&self, index: RaftIndex) -> Option<i32> {
        if index == self.log.first_index() {
            return Some(self.log.term_before_first());
        }
        index.0.checked_sub(1).and_then(|before| self.log.term_at(RaftIndex(before)))
    }
}

fn is_full(error: &AppendError) -> bool {
    match error {
        AppendError::DiskFull { .. } => true,
        AppendError::Storage(error) => error.is_storage_full(),
        _ => false,
    }
}
