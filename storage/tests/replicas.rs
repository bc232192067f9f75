//! Two replicas of one log, a leader's and a follower's, each in a process of its own that crashes at any moment.
//!
//! The leader appends, cuts what is not committed as if another had led meanwhile, and deletes what is old. The follower
//! asks for what comes next and gets entries, or whole segments where those are gone. What must hold: what the follower
//! said to have is there after its crashes; nothing committed is ever cut; in the end both have the same entries.
//!
//! `CORELOG_SIM_SEEDS` says how many seeds run (from `CORELOG_SIM_FIRST_SEED`). A failure names its seed.

#[path = "model/plan.rs"]
#[allow(dead_code)]
mod plan;
mod world;

use bytes::Bytes;
use corelog_io::Dice;
use corelog_io::sim::{Process, Sim};
use corelog_io::{Queue, random_u64, sleep, spawn};
use corelog_storage::{
    AppendBatch, AppendError, BatchKind, CommitMode, EntriesError, Entry, FollowError, Log, LogConfig,
    RaftIndex, SegmentList, ShardStorage, TransferError,
};
use plan::{Faults, Plan};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;
use world::{internal, log_id, open_as, produced};

const TURN: Duration = Duration::from_millis(1);

enum Request {
    From(RaftIndex),
    Segments,
    Piece { base_offset: i64, position: u64 },
}

#[derive(Clone)]
enum Reply {
    /// What follows an entry of this term.
    Entries {
        term: i32,
        entries: Vec<Entry>,
    },
    /// The log ends before.
    Beyond,
    /// They are gone.
    Compacted,
    Segments {
        list: SegmentList,
        state: Bytes,
    },
    Piece(Option<Bytes>),
    /// With a leader that crashed.
    Lost,
}

/// What both sides and the test share: the network, which loses what a crash finds in it, and what is known.
struct Shared {
    plan: Plan,
    request: RefCell<Option<(u64, Request)>>,
    reply: RefCell<Option<(u64, Reply)>>,
    asked: Cell<u64>,
    /// Where what the follower said to have ends, and in which term.
    acked: Cell<(RaftIndex, i32)>,
    committed: Cell<RaftIndex>,
    term: Cell<i32>,
    /// Nothing is appended any more: the follower is to catch up.
    settling: Cell<bool>,
    /// Both ends, when they are the same.
    leader_end: Cell<RaftIndex>,
    caught_up: Cell<bool>,
    installed: Cell<u32>,
    cut: Cell<u32>,
}

fn below(n: u64) -> u64 {
    random_u64() % n.max(1)
}

impl Shared {
    fn config(&self) -> LogConfig {
        let segment_bytes = self.plan.segment_bytes.min(16 << 10);
        LogConfig { segment_bytes, write_caching: false, ..self.plan.log(CommitMode::Quorum) }
    }

    async fn open(&self) -> (Rc<ShardStorage>, Rc<Log>) {
        let storage = open_as(self.plan.storage(0, 1)).await;
        let log = storage.log(log_id(1), "topic", self.config());
        storage.settle_recovery();
        assert!(log.refused().is_none(), "{:?}", log.refused());
        (storage, log)
    }

    async fn ask(&self, request: Request) -> Reply {
        self.asked.set(self.asked.get() + 1);
        let number = self.asked.get();
        *self.request.borrow_mut() = Some((number, request));
        for _ in 0..1_000 {
            sleep(TURN).await;
            let reply = self.reply.borrow().clone();
            if let Some((_, reply)) = reply.filter(|(of, _)| *of == number) {
                return reply;
            }
        }
        Reply::Lost
    }

    fn commit(&self, log: &Log) {
        let (acked, term) = self.acked.get();
        let index = acked.min(log.durable_index());
        // What was cut since is another's.
        let is_ours = acked.0.checked_sub(1).is_some_and(|last| log.term_at(RaftIndex(last)) == Some(term));
        if is_ours && index > self.committed.get() {
            self.committed.set(index);
        }
        log.advance_commit(self.committed.get());
    }
}

async fn lead(shared: Rc<Shared>) {
    let (storage, log) = shared.open().await;
    assert!(log.next_index() >= shared.committed.get(), "the leader lost what was committed");
    shared.term.set(shared.term.get() + 1);
    let _server = spawn(Queue::Fetch, serve(Rc::clone(&shared), Rc::clone(&log)));
    append(&shared, &log, BatchKind::Internal).await;
    let mut sequence = 0;
    while !shared.settling.get() {
        sleep(shared.plan.pace.mul_f64(0.1 + below(20) as f64 / 10.0)).await;
        shared.commit(&log);
        match below(40) {
            0 => append(&shared, &log, BatchKind::Internal).await,
            1 => {
                let first = log.commit_index();
                let from = RaftIndex(first.0 + below(log.next_index().0.saturating_sub(first.0) + 1));
                if from < log.next_index() {
                    shared.term.set(shared.term.get() + 1);
                    drop(log.truncate(from, shared.term.get()).await.expect("it is not committed"));
                    shared.cut.set(shared.cut.get() + 1);
                }
            }
            2 => {
                let before = log.log_start_offset()
                    + below((log.high_watermark() - log.log_start_offset()) as u64 + 1) as i64;
                log.delete_records(before).await.expect("it is below the high watermark");
            }
            3 => drop(storage.empty_journal().await.expect("the disk is sound")),
            _ => {
                let value = vec![sequence as u8; below(shared.plan.value_bytes_max.min(3_000)) as usize];
                let bytes = produced(&[&value], 5, i64::from(shared.term.get()), 0, sequence);
                place(&shared, &log, bytes, BatchKind::Coordinator).await;
                sequence += 1;
            }
        }
    }
    append(&shared, &log, BatchKind::Internal).await;
    loop {
        shared.commit(&log);
        shared.leader_end.set(log.next_index());
        sleep(TURN).await;
    }
}

async fn append(shared: &Shared, log: &Log, kind: BatchKind) {
    place(shared, log, internal(b"raft's own"), kind).await;
}

async fn place(shared: &Shared, log: &Log, bytes: Bytes, kind: BatchKind) {
    let batch = AppendBatch { bytes, kind, leader_epoch: shared.term.get() };
    let appended = match log.append(batch).await {
        // The follower is away.
        Err(AppendError::NoQuorum { .. }) => return,
        appended => appended.expect("it is taken"),
    };
    if below(3) == 0 {
        appended.durable.await.expect("the disk is sound");
    }
}

/// Answers what the follower asks.
async fn serve(shared: Rc<Shared>, log: Rc<Log>) {
    loop {
        let request = shared.request.borrow_mut().take();
        let Some((number, request)) = request else {
            sleep(TURN).await;
            continue;
        };
        let reply = answer(&log, request).await;
        *shared.reply.borrow_mut() = Some((number, reply));
    }
}

async fn answer(log: &Log, request: Request) -> Reply {
    match request {
        Request::From(index) => {
            let term = if index == log.first_index() {
                Some(log.term_before_first())
            } else {
                index.0.checked_sub(1).and_then(|before| log.term_at(RaftIndex(before)))
            };
            let to = RaftIndex(log.next_index().0.min(index.0 + 1 + below(40)));
            match log.entries(index, to, 1 + below(20_000) as usize).await {
                Ok(entries) => match term {
                    Some(term) => Reply::Entries { term, entries },
                    None if index > log.next_index() => Reply::Beyond,
                    None => Reply::Compacted,
                },
                Err(EntriesError::Beyond { .. }) => Reply::Beyond,
                Err(EntriesError::Compacted { .. }) => Reply::Compacted,
                Err(error) => panic!("the disk is sound: {error}"),
            }
        }
        Request::Segments => {
            if below(3) == 0 {
                log.seal().await.expect("the disk is sound");
            }
            let list = log.segments().await.expect("the disk is sound");
            Reply::Segments { list, state: log.export_state(-1, usize::MAX).expect("it is sound").bytes }
        }
        Request::Piece { base_offset, position } => {
            let len = 4096 * (1 + below(3)) as usize;
            let piece = log.segment_bytes(base_offset, position, len).await;
            Reply::Piece(piece.expect("the disk is sound"))
        }
    }
}

async fn follow(shared: Rc<Shared>) {
    let (storage, log) = shared.open().await;
    assert!(log.next_index() >= shared.committed.get(), "the follower lost what it said to have");
    let mut from = log.next_index();
    loop {
        if below(30) == 0 {
            storage.empty_journal().await.expect("the disk is sound");
        }
        if below(10) == 0 {
            sleep(TURN * below(60) as u32).await;
        }
        log.advance_commit(shared.committed.get().min(log.durable_index()));
        match shared.ask(Request::From(from)).await {
            Reply::Entries { term, entries } => match log.append_entries((from, term), &entries).await {
                Ok(accepted) => {
                    accepted.durable.await.expect("the disk is sound");
                    from = accepted.next;
                    let last = entries.last().map_or(term, |last| last.term);
                    shared.acked.set((accepted.next, last));
                }
                Err(FollowError::Gap { .. }) => from = log.commit_index(),
                Err(error) => panic!("the leader's entries are sound: {error}"),
            },
            Reply::Beyond => from = log.commit_index(),
            Reply::Compacted => {
                take_in(&shared, &storage, &log).await;
                from = log.next_index();
            }
            _ => {}
        }
        let is_level = from == shared.leader_end.get() && log.commit_index() == from;
        shared.caught_up.set(shared.settling.get() && is_level);
    }
}

/// Whole segments, as far as the leader has them.
async fn take_in(shared: &Shared, storage: &ShardStorage, log: &Log) {
    let Reply::Segments { list, state } = shared.ask(Request::Segments).await else { return };
    let committed = log.commit_index();
    if committed < list.start.index {
        log.reset(list.start).await.expect("the disk is sound");
    } else if !list.segments.iter().any(|segment| segment.base_index == committed) {
        return;
    } else if log.next_index() > committed {
        drop(log.truncate(committed, i32::MAX).await.expect("it is not committed"));
    }
    for segment in list.segments.iter().filter(|segment| segment.base_index >= log.next_index()) {
        let mut at = log.received(segment).await.expect("the disk is sound");
        while at < segment.bytes {
            let piece = Request::Piece { base_offset: segment.base_offset, position: at };
            let Reply::Piece(Some(piece)) = shared.ask(piece).await else { return };
            let whole =
                piece.len() - if at + (piece.len() as u64) < segment.bytes { piece.len() % 4096 } else { 0 };
            at = log.receive(segment, at, &piece[..whole]).await.expect("it goes on there");
        }
        match log.install(storage, segment).await {
            Ok(()) => shared.installed.set(shared.installed.get() + 1),
            Err(TransferError::Damaged { .. } | TransferError::Elsewhere { .. }) => return,
            Err(error) => panic!("the disk is sound: {error}"),
        }
    }
    log.import_state(storage, &state).await.expect("it is the log's");
}

async fn all_entries(log: &Log) -> Vec<Entry> {
    let (mut entries, mut at) = (Vec::new(), log.first_index());
    while at < log.next_index() {
        match log.entries(at, log.next_index(), 50_000).await {
            Ok(read) => entries.extend(read),
            Err(EntriesError::Compacted { first, .. }) => entries.retain(|e: &Entry| e.index >= first),
            Err(error) => panic!("the disk is sound: {error}"),
        }
        at = entries.last().map_or(log.first_index(), |last| last.index.next());
    }
    entries
}

/// The entries a process has, read in a life of its own.
fn entries_of(sim: &Sim, machine: &Process, shared: &Rc<Shared>) -> Vec<Entry> {
    let found = Rc::new(RefCell::new(Vec::new()));
    let (out, shared) = (Rc::clone(&found), Rc::clone(shared));
    machine.kill();
    world::run(sim, machine, async move {
        let (_storage, log) = shared.open().await;
        *out.borrow_mut() = all_entries(&log).await;
    });
    found.take()
}

/// How many segments were installed, and how often something was cut.
fn run_seed(seed: u64) -> (u32, u32) {
    struct Name(u64);
    impl Drop for Name {
        fn drop(&mut self) {
            if std::thread::panicking() {
                eprintln!("FAILED: seed {}", self.0);
            }
        }
    }
    let _name = Name(seed);
    let sim = Sim::new(seed);
    let (leader, follower) = (sim.process("leader"), sim.process("follower"));
    let shared = Rc::new(Shared {
        plan: Plan::from_seed(seed, Faults::Crashes),
        request: RefCell::default(),
        reply: RefCell::default(),
        asked: Cell::default(),
        acked: Cell::default(),
        committed: Cell::default(),
        term: Cell::default(),
        settling: Cell::default(),
        leader_end: Cell::new(RaftIndex(u64::MAX)),
        caught_up: Cell::default(),
        installed: Cell::default(),
        cut: Cell::default(),
    });
    let mut dice = Dice(seed);
    for _ in 0..3 + dice.below(5) {
        for (machine, is_leader) in [(&leader, true), (&follower, false)] {
            if !machine.is_running() && (is_leader || dice.below(3) > 0) {
                start(machine, &shared, is_leader);
            }
        }
        sim.run_steps(dice.below(6_000));
        let struck = if dice.below(2) == 0 { &leader } else { &follower };
        if struck.is_running() {
            if dice.below(3) == 0 { struck.kill() } else { struck.crash() }
        }
    }
    for (machine, is_leader) in [(&leader, true), (&follower, false)] {
        if !machine.is_running() {
            start(machine, &shared, is_leader);
        }
    }
    shared.settling.set(true);
    let mut steps = 0;
    while !shared.caught_up.get() {
        assert!(sim.run_steps(500) > 0 && steps < 4_000_000, "the follower does not catch up");
        steps += 500;
    }
    let (leads, follows) = (entries_of(&sim, &leader, &shared), entries_of(&sim, &follower, &shared));
    assert_eq!(leads.last(), follows.last());
    let common = leads.len().min(follows.len());
    assert!(leads[leads.len() - common..] == follows[follows.len() - common..], "the replicas differ");
    (shared.installed.get(), shared.cut.get())
}

fn start(machine: &Process, shared: &Rc<Shared>, is_leader: bool) {
    let shared = Rc::clone(shared);
    machine.start(1, move |_| {
        let shared = Rc::clone(&shared);
        async move { if is_leader { lead(shared).await } else { follow(shared).await } }
    });
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |value| value.parse().expect("it is a number"))
}

#[test]
fn replicas_end_alike() {
    let first = setting("CORELOG_SIM_FIRST_SEED", 1);
    let (mut installed, mut cut) = (0, 0);
    let seeds = setting("CORELOG_SIM_SEEDS", 60);
    for seed in first..first + seeds {
        let (segments, cuts) = run_seed(seed);
        installed += segments;
        cut += cuts;
    }
    assert!(seeds < 50 || cut > 20, "{installed} segments were installed, {cut} cuts made");
}
