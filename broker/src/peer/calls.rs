//! Calls: a request there, an answer back. `line.rs` is the caller's part, here is what both say and the callee's.
//!
//! A caller has one connection to each callee, which serves [`RUNNING_MAX`] requests of it at once and reads no more
//! meanwhile. Whoever waits for a call has gone, on either end, it runs to its end.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use corelog_io::sync::{Event, Permit, Semaphore};
use corelog_io::{Queue, Task, spawn, timeout};

use super::carry::{Batch, Cargo, Connection, Lost};
use super::envelope::{BadFrame, Frame, HEAD_BYTES_MAX, Kind};
use super::handshake::{self, Failed};
use super::hello::{Greeting, Introduction, Refusal, RefusalKind};
use super::links::{Arrival, Local};
use super::receive::{FrameReader, Incoming, Pulse, Received};
use super::{BrokerId, PeerId};
use crate::net::transport::Transport;

/// A request or an answer: what is longer goes in pieces, so that others come between.
pub const CALL_BYTES_MAX: usize = 2 << 20;
/// Requests of one caller that are served at once.
pub const RUNNING_MAX: u64 = 16;
/// And of all that a shard serves: they, and their answers until they are sent, have so many times [`CALL_BYTES_MAX`] at
/// the most.
const RUNNING_ALL_MAX: u64 = 64;
/// Callers that a shard has connections of.
const CALLERS_MAX: usize = 256;

/// Who is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Callee {
    Peer(PeerId),
    /// Shard 0 of whichever broker is there: a seed's address.
    Address(SocketAddr),
}

/// What a call came to.
pub struct Answer {
    pub from: Rc<Introduction>,
    pub head: Bytes,
    pub body: Bytes,
    _room: Received,
}

impl Answer {
    pub(super) fn new(from: Rc<Introduction>, received: Received) -> Answer {
        Answer { from, head: received.head.clone(), body: received.body.clone(), _room: received }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    #[error("no answer within {0:?}")]
    TimedOut(Duration),
    #[error("the address of broker {} is not known", .0.0)]
    NoAddress(BrokerId),
    #[error("{0}")]
    Unreachable(String),
    #[error("{0}")]
    Refused(Refusal),
    #[error("the connection was lost before the answer: {0}")]
    Lost(Lost),
    #[error("{0} calls wait for an answer already")]
    Busy(usize),
    #[error("a request of {0} bytes, the limit is {CALL_BYTES_MAX}")]
    TooLarge(usize),
    #[error("a request whose head has {0} bytes, the limit is {HEAD_BYTES_MAX}")]
    HeadTooLarge(usize),
    /// The callee's own words.
    #[error("{0}")]
    Failed(String),
}

impl From<Failed> for CallError {
    fn from(failed: Failed) -> CallError {
        match failed {
            Failed::Refused(refusal) | Failed::Unsuitable(refusal) => CallError::Refused(refusal),
            other => CallError::Unreachable(other.to_string()),
        }
    }
}

pub(super) async fn call(
    local: &Rc<Local>,
    callee: Callee,
    request: Frame,
    limit: Duration,
) -> Result<Answer, CallError> {
    if request.bytes() > CALL_BYTES_MAX {
        return Err(CallError::TooLarge(request.bytes()));
    }
    if request.head.len() > HEAD_BYTES_MAX {
        return Err(CallError::HeadTooLarge(request.head.len()));
    }
    if local.is_over() {
        return Err(CallError::Lost(Lost::Closed));
    }
    local.metrics.calls.add(1);
    let called = timeout(limit, local.lines.call(local, callee, request)).await;
    let called = called.unwrap_or(Err(CallError::TimedOut(limit)));
    if called.is_err() {
        local.metrics.calls_failed.add(1);
    }
    called
}

/// The callers of a shard.
pub(super) struct Serving {
    /// With a number of each connection.
    callers: RefCell<BTreeMap<PeerId, (u64, Task<()>)>>,
    next: Cell<u64>,
    places: Semaphore,
}

impl Serving {
    pub fn new() -> Serving {
        Serving { callers: RefCell::default(), next: Cell::new(0), places: Semaphore::new(RUNNING_ALL_MAX) }
    }

    pub fn end(&self) {
        let callers = self.callers.take();
        drop(callers);
    }
}

/// Serves a connection for calls that has arrived. A caller has one: a former one ends.
pub(super) fn serve(local: &Rc<Local>, arrival: Arrival) {
    let peer = arrival.hello.from.peer();
    if let Err(refusal) = local.check_former(&arrival.hello.from) {
        return local.refuse_later(arrival, refusal);
    }
    let serving = &local.serving;
    let is_known = serving.callers.borrow().contains_key(&peer);
    if !is_known && serving.callers.borrow().len() >= CALLERS_MAX {
        let text = format!("{CALLERS_MAX} shards have connections for calls to this one");
        return local.refuse_later(arrival, Refusal::new(RefusalKind::Busy, text));
    }
    let number = serving.next.get();
    serving.next.set(number + 1);
    let here = local.clone();
    let task = spawn(Queue::Control, async move {
        serve_caller(&here, arrival).await;
        let mut callers = here.serving.callers.borrow_mut();
        if callers.get(&peer).is_some_and(|(of, _)| *of == number)
            && let Some((_, task)) = callers.remove(&peer)
        {
            // It is this one, at its end.
            task.detach();
        }
    });
    let former = serving.callers.borrow_mut().insert(peer, (number, task));
    drop(former);
}

async fn serve_caller(local: &Rc<Local>, arrival: Arrival) {
    let transport = Transport::attach(arrival.detached);
    let welcome = Greeting::Welcome(local.introduction());
    if handshake::send(&transport, &welcome).await.is_err() {
        return;
    }
    let reader = FrameReader::new(transport.clone(), local.budget.clone());
    let mut connection = Connection { transport, reader, pulse: Pulse::new() };
    let (caller, places) = (arrival.hello.from, Semaphore::new(RUNNING_MAX));
    let peer = caller.peer();
    let served = Served { local: local.clone(), caller, places, done: Rc::default() };
    let lost = connection.carry(&served, &local.metrics).await;
    match lost {
        Lost::Closed => {}
        lost => local.tell(peer.broker, lost.name(), |left_out| {
            tracing::warn!(%peer, left_out, "a broker's connection for calls has ended: {lost}");
        }),
    }
}

/// A caller's requests.
struct Served {
    local: Rc<Local>,
    caller: Introduction,
    places: Semaphore,
    done: Rc<Done>,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.done.is_over.set(true);
        let answers = self.done.answers.take();
        drop(answers);
    }
}

/// Answers that are to be sent.
#[derive(Default)]
struct Done {
    /// Nobody takes them any more.
    is_over: Cell<bool>,
    answers: RefCell<VecDeque<Finished>>,
    news: Event,
}

struct Finished {
    number: u64,
    result: Result<Frame, String>,
    /// Among the calls that are served.
    _places: [Permit; 2],
}

impl Cargo for Served {
    fn load(&self, batch: &mut Batch) {
        while !batch.is_full()
            && let Some(Finished { number, result, _places }) = self.done.answers.borrow_mut().pop_front()
        {
            let (kind, frame) = match result.and_then(check_answer) {
                Ok(frame) => (Kind::Answer, frame),
                Err(what) => (Kind::Failure, Frame { head: start_of(what).into(), body: Vec::new() }),
            };
            batch.put(kind, number, frame).expect("it was looked at");
        }
    }

    fn loads(&self) -> &Event {
        &self.done.news
    }

    async fn unload(&self, incoming: Incoming) -> Result<(), Lost> {
        let Incoming { kind, number, received } = incoming;
        if kind != Kind::Request {
            let expected = "requests are what comes here".to_owned();
            return Err(BadFrame::OutOfPlace { kind, found: number, expected }.into());
        }
        if received.head.len() + received.body.len() > CALL_BYTES_MAX {
            return Err(BadFrame::Senseless(format!("a request above {CALL_BYTES_MAX} bytes")).into());
        }
        let _places = [self.places.acquire(1).await, self.local.serving.places.acquire(1).await];
        let work = self.local.traffic.call(self.caller.clone(), received);
        let done = self.done.clone();
        spawn(Queue::Control, async move {
            let result = work.await;
            if done.is_over.get() {
                return;
            }
            done.answers.borrow_mut().push_back(Finished { number, result, _places });
            done.news.notify_all();
        })
        .detach();
        Ok(())
    }
}

fn check_answer(frame: Frame) -> Result<Frame, String> {
    let (bytes, head) = (frame.bytes(), frame.head.len());
    if bytes > CALL_BYTES_MAX {
        return Err(format!("the answer has {bytes} bytes, the limit is {CALL_BYTES_MAX}"));
    }
    if head > HEAD_BYTES_MAX {
        return Err(format!("the answer's head has {head} bytes, the limit is {HEAD_BYTES_MAX}"));
    }
    Ok(frame)
}

/// What is said of a failure.
fn start_of(mut what: String) -> String {
    what.truncate(what.floor_char_boundary(1000));
    what
}
