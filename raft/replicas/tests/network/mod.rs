//! Connections between processes: in order, until one of the two goes or is cut off; then all that was under way is lost.

use bytes::Bytes;
use corelog_io::{Instant, Queue, now, random_u64, sleep, spawn};
use corelog_raft::PeerId;
use corelog_raft::frame::{Content, PREFIX_BYTES, Prefix, decode};
use corelog_replicas::{Network, Replicas};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;
use std::time::Duration;

const FRAMES_MAX: usize = 64;

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
}

impl Wires {
    pub fn new(nodes: usize) -> Wires {
        Wires { nodes, lines: RefCell::default(), cut: RefCell::default(), up: RefCell::default() }
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
}

impl Node {
    pub fn new(wires: Rc<Wires>, node: usize) -> Node {
        let slow = Cell::new(random_u64() % 20);
        Node { wires, node, connected: RefCell::default(), replicas: RefCell::default(), slow }
    }

    pub fn start(self: &Rc<Self>, replicas: &Rc<Replicas>) {
        *self.replicas.borrow_mut() = Some(replicas.clone());
        let (me, replicas) = (self.clone(), replicas.clone());
        spawn(Queue::Produce, async move {
            loop {
                (0..me.wires.nodes).for_each(|other| me.look(&replicas, other));
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
            replicas.receive(peer, parse(bytes));
        }
        self.frames(peer);
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

fn parse(bytes: Bytes) -> Content {
    let mut prefix = [0; PREFIX_BYTES];
    prefix.copy_from_slice(&bytes[..PREFIX_BYTES]);
    let prefix = Prefix::parse(prefix).expect("a frame");
    let header = bytes.slice(PREFIX_BYTES..PREFIX_BYTES + prefix.header as usize);
    let body = bytes.slice(PREFIX_BYTES + prefix.header as usize..);
    decode(prefix, &header, body).expect("a frame")
}
