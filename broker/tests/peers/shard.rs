//! One shard of a broker under test: production links, and traffic that checks itself.
//!
//! Each frame says which life of which broker sent it, in which of its sessions with the receiver, and which it is of that
//! session. A receiver takes any session, from its frame 0 on, one after the other, and none of a broker's former lives.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use corelog_broker::peer::{
    BrokerId, CallError, Callee, Frame, Incarnation, Introduction, Links, Lost, PeerId, Received, Refusal,
    RefusalKind, Traffic,
};
use corelog_io::sync::Event;
use corelog_io::{Instant, now, random_u64, sleep};
use futures_util::future::LocalBoxFuture;

/// Frames that one peer may be behind: what a driver's queue holds.
const OWED_MAX: u64 = 50;

#[derive(Default)]
pub struct Traveller {
    sessions: RefCell<BTreeMap<PeerId, Session>>,
    /// Of each peer, the last life that was connected.
    lives: RefCell<BTreeMap<PeerId, u64>>,
    next_session: Cell<u64>,
    pub incarnation: Cell<u64>,
    pub told: RefCell<Vec<(Instant, PeerId, Told)>>,
    /// What was received and is kept for a while.
    kept: RefCell<Vec<Received>>,
    pub moved: Event,
    pub keeps: Cell<bool>,
    /// Some of its peers are made up by a test, and send what no broker does.
    pub has_liars: Cell<bool>,
    pub answered: Cell<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    Connected(Introduction),
    Disconnected(Lost),
    Refused(RefusalKind, Option<usize>),
}

struct Session {
    number: u64,
    sent: u64,
    owed: u64,
    received: u64,
    /// The peer's own number of it.
    theirs: Option<u64>,
    life: u64,
}

impl Traveller {
    pub fn new(incarnation: Incarnation) -> Rc<Traveller> {
        let traveller = Traveller::default();
        traveller.incarnation.set(incarnation.0);
        Rc::new(traveller)
    }

    fn tell(&self, peer: PeerId, told: Told) {
        self.told.borrow_mut().push((now(), peer, told));
        self.moved.notify_all();
    }

    /// Frames received of a peer in this session with it; none: it is not connected.
    pub fn received(&self, peer: PeerId) -> Option<u64> {
        self.sessions.borrow().get(&peer).map(|session| session.received)
    }

    pub fn connected_to(&self, peer: PeerId) -> Option<u64> {
        self.sessions.borrow().get(&peer).map(|session| session.life)
    }

    /// There are more frames for whom there is a link with.
    pub fn owe(&self, links: &Links, frames: u64) {
        let peers: Vec<PeerId> = {
            let mut sessions = self.sessions.borrow_mut();
            sessions.values_mut().for_each(|session| session.owed = (session.owed + frames).min(OWED_MAX));
            sessions.keys().copied().collect()
        };
        peers.into_iter().for_each(|peer| links.has_frames(peer));
    }

    pub fn kept_bytes(&self) -> usize {
        self.kept.borrow().iter().map(|frame| frame.head.len() + frame.body.len()).sum()
    }

    pub fn let_go(&self) {
        let kept = self.kept.take();
        drop(kept);
    }

    pub fn forgot(&self, peer: PeerId) {
        self.sessions.borrow_mut().remove(&peer);
    }
}

impl Traffic for Traveller {
    fn connected(&self, peer: PeerId, who: &Introduction) {
        assert_eq!(who.peer(), peer);
        let life = who.incarnation.0;
        let before = self.lives.borrow_mut().insert(peer, life);
        assert!(before.is_none_or(|before| before <= life), "{peer}: life {life} after {before:?}");
        let number = self.next_session.get();
        self.next_session.set(number + 1);
        let session = Session { number, sent: 0, owed: 1, received: 0, theirs: None, life };
        let former = self.sessions.borrow_mut().insert(peer, session);
        assert!(former.is_none(), "{peer} is connected twice");
        self.tell(peer, Told::Connected(who.clone()));
    }

    fn disconnected(&self, peer: PeerId, why: &Lost) {
        assert!(self.has_liars.get() || !matches!(why, Lost::Bad(_)), "{peer}: {why}");
        let session = self.sessions.borrow_mut().remove(&peer);
        assert!(session.is_some(), "{peer} was not connected");
        self.tell(peer, Told::Disconnected(why.clone()));
    }

    fn refused(&self, peer: PeerId, refusal: &Refusal) {
        assert!(!refusal.text.is_empty());
        self.tell(peer, Told::Refused(refusal.kind, refusal.shards));
    }

    fn take_frame(&self, peer: PeerId) -> Option<Frame> {
        let mut sessions = self.sessions.borrow_mut();
        let session = sessions.get_mut(&peer).expect("asked for what is connected");
        session.owed = session.owed.checked_sub(1)?;
        let length = length_of(session.sent);
        let head = head_of([self.incarnation.get(), session.number, session.sent, length]);
        let body = pattern(session.sent, length);
        let half = body.len() / 2;
        session.sent += 1;
        Some(Frame { head, body: vec![body.slice(..half), body.slice(half..)] })
    }

    fn receive(&self, peer: PeerId, frame: Received) -> Result<(), String> {
        let mut sessions = self.sessions.borrow_mut();
        let session = sessions.get_mut(&peer).expect("received from what is connected");
        let [life, theirs, number, length] = fields(&frame.head);
        assert_eq!(life, session.life, "{peer}: a frame of another life");
        assert_eq!(theirs, *session.theirs.get_or_insert(theirs), "{peer}: a frame of another session");
        assert_eq!(number, session.received, "{peer}: a gap, or out of order");
        assert_eq!(frame.body, pattern(number, length), "{peer}: other bytes");
        session.received += 1;
        if self.keeps.get() {
            self.kept.borrow_mut().push(frame);
        }
        self.moved.notify_all();
        Ok(())
    }

    fn call(&self, from: Introduction, request: Received) -> LocalBoxFuture<'static, Result<Frame, String>> {
        let own = self.incarnation.get();
        Box::pin(async move {
            let [life, number, length, pause_ms] = fields(&request.head);
            assert_eq!(life, from.incarnation.0);
            assert_eq!(request.body, pattern(number, request.body.len() as u64));
            sleep(Duration::from_millis(pause_ms)).await;
            if number % 10 == 9 {
                return Err(format!("call {number} is one that fails"));
            }
            let head = head_of([own, number, length, 0]);
            Ok(Frame { head, body: vec![pattern(number, length)] })
        })
    }
}

/// Most frames are small, some long.
fn length_of(number: u64) -> u64 {
    match number % 200 {
        7 => 150_000 + number % 1000,
        11 | 91 => 20_000,
        _ => number % 300,
    }
}

/// Bytes that depend on the number: a piece of a table.
fn pattern(number: u64, length: u64) -> Bytes {
    thread_local! {
        static TABLE: Bytes = (0..(1 << 20) + 1000).map(|at: u64| (at / 5 + at % 251) as u8).collect();
    }
    let start = (number % 1000) as usize;
    TABLE.with(|table| table.slice(start..start + length as usize))
}

pub fn head_of(fields: [u64; 4]) -> Bytes {
    let mut head = BytesMut::new();
    fields.into_iter().for_each(|field| head.put_u64(field));
    head.freeze()
}

fn fields(mut head: &[u8]) -> [u64; 4] {
    assert_eq!(head.len(), 32);
    [(); 4].map(|()| bytes::Buf::get_u64(&mut head))
}

/// A request of `there` bytes for an answer of `back`, after a pause.
pub fn request(incarnation: u64, number: u64, [there, back, pause_ms]: [u64; 3]) -> Frame {
    let head = head_of([incarnation, number, back, pause_ms]);
    Frame { head, body: vec![pattern(number, there)] }
}

/// One call, as hard as it comes; its error, if it may have one.
pub async fn call(
    links: &Links,
    traveller: &Traveller,
    peer: PeerId,
    limit: Duration,
) -> Result<(), CallError> {
    let number = random_u64() % 1000;
    let (there, back) = match random_u64() % 10 {
        0 => (1 << 20, 100),
        1 => (10, 1 << 20),
        _ => (random_u64() % 500, random_u64() % 5000),
    };
    let pause_ms = random_u64() % 20;
    let request = request(traveller.incarnation.get(), number, [there, back, pause_ms]);
    match links.call(Callee::Peer(peer), request, limit).await {
        Ok(answer) => {
            assert_eq!(answer.from.peer(), peer);
            let [life, answered, length, _] = fields(&answer.head);
            assert_eq!((life, answered, length), (answer.from.incarnation.0, number, back));
            assert_eq!(answer.body, pattern(number, back));
            traveller.answered.set(traveller.answered.get() + 1);
            Ok(())
        }
        Err(CallError::Failed(what)) => {
            assert!(number % 10 == 9 && what.contains(&number.to_string()), "{what}");
            Ok(())
        }
        Err(error) => Err(error),
    }
}

/// Peers on a broker of so many shards.
pub fn peers_of(broker: BrokerId, shards: usize) -> impl Iterator<Item = PeerId> {
    (0..shards).map(move |shard| PeerId { broker, shard: corelog_broker::peer::ShardId(shard) })
}
