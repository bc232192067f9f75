//! Connections between processes: in order, until one of the two goes or is cut off; then all that was under way is lost.

use bytes::Bytes;
use corelog_io::{Instant, Queue, now, random_u64, sleep, spawn};
use corelog_raft::PeerId;
use corelog_raft::frame::{Content, PREFIX_BYTES, Prefix, decode};
use corelog_replicas::{Answer, Ask, Network, Replicas, Told};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;
use std::time::Duration;

const FRAMES_MAX: usize = 64;
/// How long an answer is waited for.
const ANSWER_MAX: Duration = Duration::from_secs(2);

/// A question on its way, and its answer.
struct Call {
    from: usize,
    to: usize,
    connection: u64,
    ask: Ask,
    told: Option<Told>,
}

#[derive(Default)]
struct Line {
    /// Another one for each connection.
    connection: u64,
    under_way: VecDeque<(Duration, Bytes)>,
    /// When the first of these arrives, on the receiver's clock.
    due: Option<Instant>,
}

pub struct Wires {
    nodes: usize,
    lines: RefCell<BTreeMap<(usize, usize), Line>>,
    cut: RefCell<BTreeSet<(usize, usize)>>,
    up: RefCell<BTreeSet<usize>>,
    calls: RefCell<BTreeMap<u64, Call>>,
    called: Cell<u64>,
}

impl Wires {
    pub fn new(nodes: usize) -> Wires {
        Wires {
            nodes,
            lines: RefCell::default(),
            cut: RefCell::default(),
            up: RefCell::default(),
            calls: RefCell::default(),
            called: Cell::new(0),
        }
    }

    fn call(&self, from: usize, to: usize, ask: Ask) -> Option<u64> {
        let connection = self.connection(from, to)?;
        let number = self.called.get();
        self.called.set(number + 1);
        self.calls.borrow_mut().insert(number, Call { from, to, connection, ask, told: None });
        Some(number)
    }

    /// What came of a call; `Some(None)`: nothing will.
    fn outcome(&self, number: u64) -> Option<Option<Told>> {
        let mut calls = self.calls.borrow_mut();
        let Call { from, to, connection, .. } = calls[&number];
        if self.connection(from, to) != Some(connection) {
            calls.remove(&number);
            return Some(None);
        }
        calls[&number].told.is_some().then(|| calls.remove(&number)?.told)
    }

    pub fn restarted(&self, node: usize) {
        self.up.borrow_mut().insert(node);
        (0..self.nodes).for_each(|other| self.reset(node, other));
    }

    pub fn cut(&self, a: usize, b: usize) {
        self.cut.borrow_mut().extend([(a, b), (b, a)]);
        self.reset(a, b);
    }

    pub fn isolate(&self, node: usize) {
        (0..self.nodes).for_each(|other| self.cut(node, other));
    }

    pub fn heal(&self) {
        for (a, b) in self.cut.take() {
            self.reset(a, b);
        }
    }

    fn reset(&self, a: usize, b: usize) {
        for line in [(a, b), (b, a)] {
            let mut lines = self.lines.borrow_mut();
            let line = lines.entry(line).or_default();
            line.connection += 1;
            line.under_way.clear();
            line.due = None;
        }
    }

    /// The connection that there is, if there is one.
    fn connection(&self, from: usize, to: usize) -> Option<u64> {
        let is_there =
            from != to && self.up.borrow().contains(&to) && !self.cut.borrow().contains(&(from, to));
        is_there.then(|| self.lines.borrow_mut().entry((from, to)).or_default().connection)
    }
}

/// One process's end of the wires.
pub struct Node {
    wires: Rc<Wires>,
    node: usize,
    connected: RefCell<BTreeMap<usize, u64>>,
    replicas: RefCell<Option<Rc<Replicas>>>,
    slow: Cell<u64>,
    /// Bytes of frames that count.
    pub held: Rc<Cell<u64>>,
    /// The first call that this node has not seen yet.
    seen: Cell<u64>,
}

impl Node {
    pub fn new(wires: Rc<Wires>, node: usize) -> Node {
        let slow = Cell::new(random_u64() % 20);
        let seen = Cell::new(wires.called.get());
        let (connected, replicas, held) = Default::default();
        Node { wires, node, connected, replicas, slow, held, seen }
    }

    pub fn start(self: &Rc<Self>, replicas: &Rc<Replicas>) {
        *self.replicas.borrow_mut() = Some(replicas.clone());
        let (me, replicas) = (self.clone(), replicas.clone());
        spawn(Queue::Produce, async move {
            loop {
                (0..me.wires.nodes).for_each(|other| me.look(&replicas, other));
                me.answer_calls(&replicas);
                sleep(Duration::from_millis(1)).await;
            }
        })
        .detach();
    }

    fn look(&self, replicas: &Replicas, other: usize) {
        let peer = PeerId(other as u64);
        let before = self.connected.borrow().get(&other).copied();
        let connection = self.wires.connection(self.node, other);
        if before != connection {
            if before.is_some() {
                self.connected.borrow_mut().remove(&other);
                replicas.peer_disconnected(peer);
            }
            if let Some(connection) = connection {
                self.connected.borrow_mut().insert(other, connection);
                replicas.peer_connected(peer);
            }
        }
        while let Some(bytes) = self.arrived(other) {
            let room = Room::of(&self.held, &bytes);
            replicas.receive(peer, parse(bytes), room);
        }
        self.frames(peer);
    }

    fn answer_calls(&self, replicas: &Rc<Replicas>) {
        let first = self.seen.replace(self.wires.called.get());
        for (&number, call) in self.wires.calls.borrow().range(first..) {
            if call.to == self.node {
                let (wires, replicas, ask) = (self.wires.clone(), replicas.clone(), call.ask);
                spawn(Queue::Background, async move {
                    let told = replicas.answer(ask).await;
                    if let Some(call) = wires.calls.borrow_mut().get_mut(&number) {
                        call.told = Some(told);
                    }
                })
                .detach();
            }
        }
    }

    fn arrived(&self, other: usize) -> Option<Bytes> {
        let mut lines = self.wires.lines.borrow_mut();
        let line = lines.get_mut(&(other, self.node))?;
        let &(delay, _) = line.under_way.front()?;
        if *line.due.get_or_insert_with(|| now() + delay) > now() {
            return None;
        }
        line.due = None;
        line.under_way.pop_front().map(|(_, bytes)| bytes)
    }
}

impl Network for Node {
    fn ask(&self, peer: PeerId, ask: Ask) -> Answer {
        let (wires, from) = (self.wires.clone(), self.node);
        Box::pin(async move {
            let number = wires.call(from, peer.0 as usize, ask)?;
            let begun = now();
            while begun.elapsed() < ANSWER_MAX {
                sleep(Duration::from_millis(1)).await;
                if let Some(outcome) = wires.outcome(number) {
                    return outcome;
                }
            }
            wires.calls.borrow_mut().remove(&number);
            None
        })
    }

    fn frames(&self, peer: PeerId) {
        let other = peer.0 as usize;
        let Some(replicas) = self.replicas.borrow().clone() else { return };
        let Some(&connection) = self.connected.borrow().get(&other) else { return };
        let mut lines = self.wires.lines.borrow_mut();
        let line = lines.entry((self.node, other)).or_default();
        if line.connection != connection {
            return;
        }
        while line.under_way.len() < FRAMES_MAX
            && let Some(frame) = replicas.take_frame(peer)
        {
            let delay = Duration::from_micros(random_u64() % (1 + self.slow.get() * 200));
            let mut bytes = frame.head.to_vec();
            frame.body.iter().for_each(|part| bytes.extend_from_slice(part));
            line.under_way.push_back((delay, bytes.into()));
        }
    }
}

/// What a received frame counts by.
struct Room {
    held: Rc<Cell<u64>>,
    bytes: u64,
}

impl Room {
    fn of(held: &Rc<Cell<u64>>, frame: &Bytes) -> Room {
        let bytes = frame.len() as u64;
        held.set(held.get() + bytes);
        Room { held: held.clone(), bytes }
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.held.set(self.held.get() - self.bytes);
    }
}

fn parse(bytes: Bytes) -> Content {
    let mut prefix = [0; PREFIX_BYTES];
    prefix.copy_from_slice(&bytes[..PREFIX_BYTES]);
    let prefix = Prefix::parse(prefix).expect("a frame");
    let header = bytes.slice(PREFIX_BYTES..PREFIX_BYTES + prefix.header as usize);
    let body = bytes.slice(PREFIX_BYTES + prefix.header as usize..);
    decode(prefix, &header, body).expect("a frame")
}
