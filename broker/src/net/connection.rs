//! One client connection, from accept to close, on the shard that accepted it.
//!
//! Two halves run in one task. The *reader* takes frames off the socket, and for a Produce fixes the order of its
//! batches in their partitions before it reads on (the first stage). The *writer* completes requests in the order
//! they came and sends the answers: Kafka's protocol answers strictly in order. Between them stands a bounded
//! queue, so a client that does not read its answers stops being read.

use std::cell::{Cell, OnceCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use corelog_io::sync::{Permit, QueueReceiver, QueueSender, bounded};
use corelog_io::{Part, Stream};
use corelog_wire::Str;
use futures_util::future::{Either, LocalBoxFuture, select};
use tracing::{debug, warn};

use super::frame::{FrameError, FrameReader};
use crate::api;
use crate::shard::Shard;

/// Requests of one connection that may be in progress; clients send 5 (`max.in.flight.requests.per.connection`).
const PIPELINE_DEPTH: usize = 64;

/// A connection that is not read any more may finish what it owes for this long.
const FINISH_MAX: Duration = Duration::from_secs(30);

/// What the handlers know of the connection a request came on.
pub struct Connection {
    pub peer: SocketAddr,
    /// Place in the configuration of the listener that it came in through.
    pub listener: usize,
    /// Name and version of the client's software, once it has told them (KIP-511).
    pub software: OnceCell<(Str, Str)>,
}

impl Connection {
    pub fn new(peer: SocketAddr, listener: usize) -> Connection {
        Connection { peer, listener, software: OnceCell::new() }
    }

    /// Who is at the other end, for the log.
    pub fn client(&self, client_id: Option<&str>) -> String {
        let id = client_id.unwrap_or_default().escape_debug();
        match self.software.get() {
            Some((name, version)) => format!("\"{id}\" ({name} {version}) at {}", self.peer),
            None => format!("\"{id}\" at {}", self.peer),
        }
    }
}

/// What becomes of a request.
pub enum Outcome {
    /// A whole frame, and the budget its records hold until they are sent.
    Answer { frame: Vec<Bytes>, held: Option<Permit> },
    /// acks=0: nothing is sent.
    Silence,
    /// The connection must be closed, after the answers before this one.
    Close(CloseReason),
}

/// Why the broker closes a connection on its own account.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CloseReason {
    #[error("request header: {0}")]
    Header(String),
    #[error("{api} v{version}: {error}")]
    Malformed { api: &'static str, version: i16, error: String },
    #[error("API key {key} v{version} is not supported")]
    Unsupported { key: i16, version: i16 },
    #[error("produce with acks=0 failed: {0}")]
    SilentProduceFailed(String),
    #[error("an answer could not be encoded: {0}")]
    Encode(String),
    #[error("the broker is shutting down")]
    Shutdown,
}

impl CloseReason {
    /// Of what a client is refused for; lines of one kind are told sparingly.
    fn kind(&self) -> Option<&'static str> {
        match self {
            CloseReason::Header(_) | CloseReason::Malformed { .. } => Some("malformed request"),
            CloseReason::Unsupported { .. } => Some("unsupported request"),
            CloseReason::SilentProduceFailed(_) => Some("failed produce with acks=0"),
            CloseReason::Encode(_) => Some("answer that cannot be encoded"),
            CloseReason::Shutdown => None,
        }
    }
}

/// A request whose order is fixed and whose answer is to be completed and sent.
pub struct Pending {
    pub api_key: i16,
    pub outcome: LocalBoxFuture<'static, Outcome>,
    /// The receive budget of the request's bytes, held until it is answered.
    pub budget: Permit,
    pub started: corelog_io::Instant,
}

/// Serves one connection to its end.
pub async fn serve(shard: Rc<Shard>, stream: Stream, peer: SocketAddr, listener: usize) {
    let connection = Rc::new(Connection::new(peer, listener));
    let (sender, receiver) = bounded::<Pending>(PIPELINE_DEPTH);
    let owed = Cell::new(0);
    let reader = std::pin::pin!(read(&shard, connection, stream.clone(), sender, &owed));
    let writer = std::pin::pin!(write(&shard, &stream, peer, receiver, &owed));
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
    stream.shutdown();
}

async fn read(
    shard: &Rc<Shard>,
    connection: Rc<Connection>,
    stream: Stream,
    pending: QueueSender<Pending>,
    owed: &Cell<usize>,
) -> FrameError {
    let config = shard.config();
    let mut frames = FrameReader::new(
        stream,
        shard.receive_budget.clone(),
        config.connections.request_bytes_max,
        config.idle_max(),
    );
    loop {
        let frame = {
            // A client that never pauses is to be stopped too: that is looked at first.
            let stopping = std::pin::pin!(shard.stopping());
            let next = std::pin::pin!(frames.next(|| owed.get() > 0));
            match select(stopping, next).await {
                Either::Left(_) => return FrameError::Stopping,
                Either::Right((Ok(frame), _)) => frame,
                Either::Right((Err(error), _)) => return error,
            }
        };
        let started = corelog_io::now();
        shard.metrics.request_received(frame.bytes.len());
        let (api_key, outcome) = api::begin(shard, &connection, frame.bytes).await;
        owed.set(owed.get() + 1);
        if pending.send(Pending { api_key, outcome, budget: frame.budget, started }).await.is_err() {
            return FrameError::Closed;
        }
        corelog_io::yield_if_needed().await;
    }
}

async fn write(
    shard: &Rc<Shard>,
    stream: &Stream,
    peer: SocketAddr,
    mut pending: QueueReceiver<Pending>,
    owed: &Cell<usize>,
) -> Result<(), String> {
    while let Some(request) = pending.recv().await {
        match request.outcome.await {
            Outcome::Answer { frame, held } => {
                drop(request.budget);
                let bytes: usize = frame.iter().map(Bytes::len).sum();
                stream
                    .send(frame.into_iter().map(Part::Bytes).collect())
                    .await
                    .map_err(|error| error.to_string())?;
                drop(held);
                shard.metrics.request_answered(request.api_key, bytes, corelog_io::now() - request.started);
            }
            Outcome::Silence => {
                shard.metrics.request_answered(request.api_key, 0, corelog_io::now() - request.started)
            }
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
        owed.set(owed.get() - 1);
    }
    Ok(())
}
