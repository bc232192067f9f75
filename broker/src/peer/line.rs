//! Lines: a shard's connections for its calls, one to each callee, made for a call and left when there are none.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use corelog_io::sync::{Event, OneshotSender, Permit, Semaphore, oneshot};
use corelog_io::{Instant, Queue, Task, sleep, sleep_until, spawn};
use futures_util::future::{Either, select};

use super::ShardId;
use super::backoff::Backoff;
use super::calls::{Answer, CallError, Callee};
use super::carry::{Batch, Cargo, Connection, Lost};
use super::envelope::{BadFrame, Frame, Kind};
use super::handshake::{self, Failed};
use super::hello::{Introduction, Purpose};
use super::links::Local;
use super::receive::{FrameReader, Incoming, Pulse};

/// Calls of one line that are not answered.
const CALLS_MAX: usize = 1024;
/// Bytes of requests that are not answered, of all lines.
const REQUEST_BYTES_MAX: u64 = 16 << 20;
/// A line without calls ends.
const IDLE_MAX: Duration = Duration::from_secs(10);

pub(super) struct Lines {
    lines: RefCell<BTreeMap<Callee, Rc<Line>>>,
    room: Semaphore,
}

struct Line {
    callee: Callee,
    /// Not sent yet.
    waiting: RefCell<VecDeque<Call>>,
    /// Sent, and not answered.
    asked: RefCell<BTreeMap<u64, Call>>,
    next: Cell<u64>,
    used: Cell<Instant>,
    news: Event,
    task: RefCell<Option<Task<()>>>,
}

struct Call {
    number: u64,
    /// What is still to be sent.
    request: Frame,
    answer: OneshotSender<Result<Answer, CallError>>,
    _room: Permit,
}

impl Lines {
    pub fn new() -> Lines {
        Lines { lines: RefCell::default(), room: Semaphore::new(REQUEST_BYTES_MAX) }
    }

    pub async fn call(&self, local: &Rc<Local>, callee: Callee, request: Frame) -> Result<Answer, CallError> {
        let room = self.room.acquire(request.bytes() as u64).await;
        if local.is_over() {
            // It ended while this waited: a line that began now would have nobody to end it.
            return Err(CallError::Lost(Lost::Closed));
        }
        let line =
            self.lines.borrow_mut().entry(callee).or_insert_with(|| Line::start(local, callee)).clone();
        let calls = line.waiting.borrow().len() + line.asked.borrow().len();
        if calls >= CALLS_MAX {
            return Err(CallError::Busy(calls));
        }
        let (answer, answered) = oneshot();
        let number = line.next.get();
        line.next.set(number + 1);
        line.waiting.borrow_mut().push_back(Call { number, request, answer, _room: room });
        line.news.notify_all();
        let _call = Given { line: &line, number };
        answered.await.unwrap_or(Err(CallError::Lost(Lost::Closed)))
    }

    pub fn end(&self) {
        for line in self.lines.take().into_values() {
            let task = line.task.take();
            drop(task);
            line.fail_all(&CallError::Lost(Lost::Closed));
        }
    }
}

/// A call that somebody waits for. Given up, it takes no more room.
struct Given<'a> {
    line: &'a Line,
    number: u64,
}

impl Drop for Given<'_> {
    fn drop(&mut self) {
        let asked = self.line.asked.borrow_mut().remove(&self.number);
        drop(asked);
        self.line.waiting.borrow_mut().retain(|call| call.number != self.number);
    }
}

impl Line {
    fn start(local: &Rc<Local>, callee: Callee) -> Rc<Line> {
        let line = Rc::new(Line {
            callee,
            waiting: RefCell::default(),
            asked: RefCell::default(),
            next: Cell::new(0),
            used: Cell::new(corelog_io::now()),
            news: Event::new(),
            task: RefCell::default(),
        });
        let task = spawn(Queue::Control, run(local.clone(), line.clone()));
        *line.task.borrow_mut() = Some(task);
        line
    }

    fn is_used(&self) -> bool {
        !self.waiting.borrow().is_empty() || !self.asked.borrow().is_empty()
    }

    /// Completes when there were no calls for a while.
    async fn idle(&self) -> Lost {
        loop {
            sleep_until(self.used.get() + IDLE_MAX).await;
            if self.is_used() {
                self.used.set(corelog_io::now());
            } else if self.used.get().elapsed() >= IDLE_MAX {
                return Lost::Idle;
            }
        }
    }

    /// Those that were sent have no answer to come.
    fn fail_asked(&self, error: &CallError) {
        for call in self.asked.take().into_values() {
            // Whoever waited may have gone.
            let _ = call.answer.send(Err(error.clone()));
        }
    }

    fn fail_all(&self, error: &CallError) {
        self.fail_asked(error);
        for call in self.waiting.take() {
            let _ = call.answer.send(Err(error.clone()));
        }
    }
}

async fn run(local: Rc<Local>, line: Rc<Line>) {
    let mut backoff = Backoff::new();
    line.used.set(corelog_io::now());
    loop {
        let calls = async {
            loop {
                let news = line.news.listen();
                if !line.waiting.borrow().is_empty() {
                    return;
                }
                news.await;
            }
        };
        let (calls, idle) = (std::pin::pin!(calls), std::pin::pin!(line.idle()));
        if let Either::Right(_) = select(calls, idle).await {
            // A call that comes now begins another.
            local.lines.lines.borrow_mut().remove(&line.callee);
            if let Some(task) = line.task.take() {
                task.detach();
            }
            return;
        }
        let since = corelog_io::now();
        match dial(&local, line.callee).await {
            Ok((mut connection, who)) => {
                let asking = Asking { line: &line, from: Rc::new(who) };
                let carrying = connection.carry(&asking, &local.metrics);
                let lost = match select(std::pin::pin!(carrying), std::pin::pin!(line.idle())).await {
                    Either::Left((lost, _)) | Either::Right((lost, _)) => lost,
                };
                local.metrics.lost(&lost);
                line.fail_asked(&CallError::Lost(lost));
                backoff.stood_for(since.elapsed());
            }
            Err(error) => line.fail_all(&error),
        }
        sleep(backoff.pause()).await;
    }
}

async fn dial(local: &Rc<Local>, callee: Callee) -> Result<(Connection, Introduction), CallError> {
    let (address, hello) = match callee {
        Callee::Peer(peer) => {
            let address = local.address(peer.broker).ok_or(CallError::NoAddress(peer.broker))?;
            (address, local.hello(Purpose::Calls, Some(peer.broker), peer.shard))
        }
        Callee::Address(address) => (address, local.hello(Purpose::Calls, None, ShardId(0))),
    };
    let (transport, who) =
        handshake::dial(address, hello).await.inspect_err(|failed| tell(local, callee, address, failed))?;
    let reader = FrameReader::new(transport.clone(), local.budget.clone());
    Ok((Connection { transport, reader, pulse: Pulse::new() }, who))
}

fn tell(local: &Local, callee: Callee, address: SocketAddr, failed: &Failed) {
    match callee {
        Callee::Peer(peer) => local.tell_failed(peer, address, failed),
        // Who calls an address may find anybody there, and tells of it.
        Callee::Address(_) => tracing::debug!(%address, "no connection to a broker: {failed}"),
    }
}

/// What a line carries.
struct Asking<'a> {
    line: &'a Line,
    from: Rc<Introduction>,
}

impl Cargo for Asking<'_> {
    fn load(&self, batch: &mut Batch) {
        let line = self.line;
        while !batch.is_full()
            && let Some(mut call) = line.waiting.borrow_mut().pop_front()
        {
            let request = std::mem::take(&mut call.request);
            batch.put(Kind::Request, call.number, request).expect("its length was looked at");
            line.asked.borrow_mut().insert(call.number, call);
        }
    }

    fn loads(&self) -> &Event {
        &self.line.news
    }

    async fn unload(&self, incoming: Incoming) -> Result<(), Lost> {
        let Incoming { kind, number, received } = incoming;
        let result = match kind {
            Kind::Answer => Ok(Answer::new(self.from.clone(), received)),
            Kind::Failure => {
                Err(CallError::Failed(String::from_utf8_lossy(&received.head).escape_debug().to_string()))
            }
            _ => {
                let expected = "answers are what comes here".to_owned();
                return Err(BadFrame::OutOfPlace { kind, found: number, expected }.into());
            }
        };
        self.line.used.set(corelog_io::now());
        // Whoever asked may have given up.
        if let Some(call) = self.line.asked.borrow_mut().remove(&number) {
            let _ = call.answer.send(result);
        }
        Ok(())
    }
}
