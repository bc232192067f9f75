//! One client connection, from accept to close, on the shard that accepted it.
//!
//! Two halves run in one task. The *reader* takes frames off the socket, and for a Produce fixes the order of its
//! batches in their partitions before it reads on (the first stage). The *writer* completes requests in the order
//! they came and sends the answers: Kafka's protocol answers strictly in order. Between them stands a bounded
//! queue, so a client that does not read its answers stops being read.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use corelog_io::Instant;
use corelog_io::planted::{Fault, planted};
use corelog_io::sync::{Event, QueueReceiver, QueueSender, bounded};
use futures_util::future::{Either, select};
use tracing::{debug, warn};

use super::frame::{FrameError, FrameReader};
use super::patience::{Patience, Progress};
use super::receive::RequestRoom;
use super::request::{Begun, Connection, Outcome};
use super::transport::Transport;
use crate::api;
use crate::shard::Shard;

/// Requests of one connection that may be in progress; clients send 5 (`max.in.flight.requests.per.connection`).
const PIPELINE_DEPTH: usize = 64;

/// A connection that is not read any more may finish what it owes for this long.
const FINISH_MAX: Duration = Duration::from_secs(30);

/// For a peer that takes an answer. Consumers may well read nothing while they process what they have.
const PATIENCE: Patience = Patience { stall: Duration::from_secs(120), bytes_per_second: 16 << 10 };
/// While others wait for the memory that the answer holds.
const PATIENCE_CONTENDED: Patience = Patience { stall: Duration::from_secs(2), bytes_per_second: 64 << 10 };
/// How often a peer that lets an answer wait is looked at.
const LOOK: Duration = Duration::from_millis(500);
/// Bytes of answers that a connection may have made before their turn. Beyond it nothing more is received.
const MADE_MAX: usize = 1 << 20;
/// Requests behind answers that the peer does not take may keep those of others out for this long.
const KEEP_OUT_MAX: Duration = Duration::from_secs(3);

/// Of the room for fetches, by a planted fault: so little that nobody misses it.
const FORGOTTEN_MAX: u64 = 8 << 10;

/// A request whose order is fixed and whose answer is to be completed and sent.
struct Unanswered {
    begun: Begun,
    room: RequestRoom,
    started: Instant,
}

/// How long a connection has kept others out by answers that were not taken, one after the other.
#[derive(Default)]
struct KeptOut {
    time: Duration,
    looked: Instant,
}

impl KeptOut {
    /// At each look at an answer that waits. Whether it was too long.
    fn is_over(&mut self, keeps_out: bool, now: Instant) -> bool {
        // What was long ago counts no more.
        if !keeps_out || now - self.looked > 2 * KEEP_OUT_MAX {
            self.time = Duration::ZERO;
        }
        self.looked = now;
        self.time += if keeps_out { LOOK } else { Duration::ZERO };
        self.time >= KEEP_OUT_MAX
    }
}

/// The requests of a connection that are not answered yet.
#[derive(Default)]
struct Owed {
    count: Cell<usize>,
    /// Whether one of them may wait for what others do: a Fetch for records, a member for its group.
    waits: Cell<bool>,
    /// Memory of answers that are made before their turn comes.
    made_bytes: Cell<usize>,
    answered: Event,
}

impl Owed {
    fn add(&self, waits: bool, made_bytes: usize) {
        self.count.set(self.count.get() + 1);
        self.waits.set(self.waits.get() || waits);
        self.made_bytes.set(self.made_bytes.get() + made_bytes);
    }

    fn settle(&self, made_bytes: usize) {
        self.count.set(self.count.get() - 1);
        self.made_bytes.set(self.made_bytes.get() - made_bytes);
        if self.count.get() == 0 {
            self.waits.set(false);
        }
        self.answered.notify_all();
    }

    /// Completes when every request is answered.
    async fn is_nothing(&self) {
        while self.count.get() > 0 {
            self.answered.listen().await;
        }
    }

    /// Completes when nothing is owed whose answer may be long in coming, nor too much that is made.
    async fn is_prompt(&self) {
        while self.waits.get() || self.made_bytes.get() > MADE_MAX {
            self.answered.listen().await;
        }
    }
}

/// Serves one connection to its end.
pub async fn serve(shard: Rc<Shard>, transport: Transport, connection: Connection) {
    let (peer, connection) = (connection.peer, Rc::new(connection));
    let (sender, receiver) = bounded::<Unanswered>(PIPELINE_DEPTH);
    let owed = Owed::default();
    let reader = std::pin::pin!(read(&shard, connection, transport.clone(), sender, &owed));
    let writer = std::pin::pin!(write(&shard, &transport, peer, receiver, &owed));
    // What was read is carried out: the reader's end lets the writer finish. The writer's end is the connection's.
    match select(reader, writer).await {
        Either::Left((reason, writer)) => {
            debug!(%peer, "reading ended: {reason}");
            if let Some(kind) = reason.kind() {
                shard.sparingly(kind, move |left_out| warn!(%peer, left_out, "connection closed: {reason}"));
            }
            let _ = corelog_io::timeout(FINISH_MAX, writer).await;
        }
        Either::Right((Err(reason), _)) => debug!(%peer, "closing: {reason}"),
        Either::Right((Ok(()), _)) => {}
    }
    transport.shutdown();
    if planted(Fault::SocketsAreKept) {
        std::mem::forget(transport.clone());
    }
}

async fn read(
    shard: &Rc<Shard>,
    connection: Rc<Connection>,
    transport: Transport,
    pending: QueueSender<Unanswered>,
    owed: &Owed,
) -> FrameError {
    let config = shard.config();
    let mut frames = FrameReader::new(transport, shard.receive_budget.clone(), config.idle_max());
    loop {
        let frame = {
            // A client that never pauses is to be stopped too: that is looked at first.
            let stopping = std::pin::pin!(shard.stopping());
            let next = std::pin::pin!(async {
                frames.begin(|| owed.count.get() > 0).await?;
                match connection.is_authenticated() {
                    // Behind a request that waits, another would hold its room for as long.
                    true => owed.is_prompt().await,
                    false => owed.is_nothing().await,
                }
                // What was answered meanwhile may have told who it is.
                frames.finish(!connection.is_authenticated()).await
            });
            match select(stopping, next).await {
                Either::Left(_) => return FrameError::Stopping,
                Either::Right((Ok(frame), _)) => frame,
                Either::Right((Err(error), _)) => return error,
            }
        };
        let started = corelog_io::now();
        shard.metrics.request_received(frame.bytes.len());
        let room = frame.room.clone();
        let begun = api::begin(shard, &connection, frame).await;
        owed.add(begun.waits_for_others, begun.made_bytes);
        if pending.send(Unanswered { begun, room, started }).await.is_err() {
            return FrameError::Closed;
        }
        corelog_io::yield_if_needed().await;
    }
}

async fn write(
    shard: &Rc<Shard>,
    transport: &Transport,
    peer: SocketAddr,
    mut pending: QueueReceiver<Unanswered>,
    owed: &Owed,
) -> Result<(), String> {
    let keeps_out = || owed.count.get() > 1 && shard.receive_budget.waiting() > 0;
    let mut kept_out = KeptOut::default();
    while let Some(Unanswered { begun: Begun { api_key, outcome, made_bytes, .. }, room, started }) =
        pending.recv().await
    {
        match outcome.await {
            Outcome::Answer { frame, held } => {
                room.give_back();
                let bytes: usize = frame.iter().map(Bytes::len).sum();
                let counted = match held {
                    Some(_) => None,
                    None => shard.answers.take(bytes).await.map_err(|error| {
                        let why = error.to_string();
                        shard.sparingly("answer room", move |left_out| {
                            warn!(%peer, left_out, "connection closed: {error}");
                        });
                        why
                    })?,
                };
                let contended = || {
                    held.is_some() && shard.fetching.room.waiting() > 0
                        || counted.is_some() && shard.answers.is_contended()
                };
                send(transport, frame, contended, keeps_out, &mut kept_out).await?;
                match planted(Fault::FetchesKeepTheirRoom) && shard.fetching.room.used() < FORGOTTEN_MAX {
                    true => std::mem::forget(held),
                    false => drop((held, counted)),
                }
                shard.metrics.request_answered(api_key, bytes, corelog_io::now() - started);
            }
            Outcome::Silence => shard.metrics.request_answered(api_key, 0, corelog_io::now() - started),
            Outcome::Close(reason) => {
                let why = reason.to_string();
                if let Some(kind) = reason.kind() {
                    shard.sparingly(
                        kind,
                        move |left_out| warn!(%peer, left_out, "connection closed: {reason}"),
                    );
                }
                return Err(why);
            }
        }
        owed.settle(made_bytes);
    }
    Ok(())
}

/// Sends an answer. A peer that takes none of it, or too little, loses its connection: the sooner when others wait for
/// what the answer holds of the shard's memory, or for what the requests behind it hold.
async fn send(
    transport: &Transport,
    frame: Vec<Bytes>,
    contended: impl Fn() -> bool,
    keeps_out: impl Fn() -> bool,
    kept_out: &mut KeptOut,
) -> Result<(), String> {
    let mut sending = std::pin::pin!(transport.send(frame));
    // Most are taken at once.
    if let Poll::Ready(sent) = futures_util::poll!(sending.as_mut()) {
        return sent.map_err(|error| error.to_string());
    }
    let mut since = corelog_io::now();
    let mut progress = Progress::default();
    // What it had taken at the first look: part of that belongs to former answers.
    let mut taken_before = None;
    loop {
        if let Ok(sent) = corelog_io::timeout(LOOK, sending.as_mut()).await {
            return sent.map_err(|error| error.to_string());
        }
        if kept_out.is_over(keeps_out(), corelog_io::now()) {
            return Err(format!(
                "requests behind answers that the peer does not take keep out those of others, for {KEEP_OUT_MAX:?}"
            ));
        }
        let taken = transport.taken();
        let taken = taken - *taken_before.get_or_insert(taken);
        let patience = if contended() { PATIENCE_CONTENDED } else { PATIENCE };
        if progress.is_over(&patience, taken, &mut since, corelog_io::now()) {
            return Err(format!(
                "the peer took {taken} bytes of an answer in {:?}: it may not stop for {:?}, nor be slower than {} \
                 bytes a second",
                progress.spent, patience.stall, patience.bytes_per_second
            ));
        }
    }
}
