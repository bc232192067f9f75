//! What a connection does from its greetings to its end: it sends, receives, pings, and watches the other end.

use std::cell::Cell;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use corelog_io::planted::{Fault, planted};
use corelog_io::sync::Event;
use corelog_io::{Instant, sleep_until, timeout, yield_if_needed};
use futures_util::future::{Either, select};

use super::envelope::{BadFrame, ENVELOPE_BYTES, Envelope, Frame, Kind};
use super::metrics::PeerMetrics;
use super::receive::{FrameReader, Incoming, Pulse};
use super::{GREETING_MAX, PING_AFTER, SILENCE_MAX, STALL_MAX};
use crate::net::transport::Transport;

/// What goes into one write: more is not taken from its source before the socket has this.
const WRITE_BYTES: usize = 256 << 10;
const WRITE_FRAMES: usize = 64;

/// Why a connection has ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Lost {
    #[error("the other end closed the connection")]
    Closed,
    #[error("the connection broke: {0}")]
    Io(String),
    #[error("nothing was heard for {SILENCE_MAX:?}")]
    Silent,
    #[error("the other end took nothing for {STALL_MAX:?}")]
    Stalled,
    #[error("the other end sent a frame too slowly, and others waited for the memory that it held")]
    Slow,
    #[error("{0}")]
    Bad(#[from] BadFrame),
    #[error("it has connected anew")]
    Replaced,
    #[error("nobody has called for a while")]
    Idle,
}

impl Lost {
    /// In metrics, and for lines that are told sparingly.
    pub fn name(&self) -> &'static str {
        match self {
            Lost::Closed => "closed",
            Lost::Io(_) => "broken",
            Lost::Silent => "silent",
            Lost::Stalled => "stalled",
            Lost::Slow => "slow",
            Lost::Bad(_) => "bad_frame",
            Lost::Replaced => "replaced",
            Lost::Idle => "idle",
        }
    }
}

/// A connection behind its greetings.
pub(super) struct Connection {
    pub transport: Transport,
    pub reader: FrameReader,
    pub pulse: Pulse,
}

/// What a connection is for.
pub(super) trait Cargo {
    /// Puts in what is to be sent now, until it is full.
    fn load(&self, batch: &mut Batch);
    /// Notified when there is something to load.
    fn loads(&self) -> &Event;
    async fn unload(&self, incoming: Incoming) -> Result<(), Lost>;
}

/// What goes out in one vectored write.
#[derive(Default)]
pub(super) struct Batch {
    envelopes: BytesMut,
    parts: Vec<Bytes>,
    bytes: usize,
    frames: usize,
}

impl Batch {
    fn ping() -> Batch {
        let mut batch = Batch::default();
        batch.put(Kind::Ping, 0, Frame::default()).expect("it is short");
        batch
    }

    pub fn is_full(&self) -> bool {
        self.bytes >= WRITE_BYTES || self.frames >= WRITE_FRAMES
    }

    /// None: it is longer than the protocol can say.
    pub fn put(&mut self, kind: Kind, number: u64, frame: Frame) -> Option<()> {
        Envelope::write(kind, number, &frame, &mut self.envelopes)?;
        self.bytes += ENVELOPE_BYTES + frame.bytes();
        self.frames += 1;
        self.parts.push(self.envelopes.split().freeze());
        self.parts.extend([frame.head].into_iter().chain(frame.body).filter(|part| !part.is_empty()));
        Some(())
    }
}

/// How a write goes on.
#[derive(Default)]
struct Writing {
    is_under_way: Cell<bool>,
    /// What the peer had taken when it was last looked at, and since when it takes no more.
    taken: Cell<u64>,
    since: Cell<Instant>,
}

impl Connection {
    pub async fn carry(&mut self, cargo: &impl Cargo, metrics: &PeerMetrics) -> Lost {
        let Connection { transport, reader, pulse } = self;
        let writing = Writing::default();
        // What came is looked at before the time since something came.
        let receiving = std::pin::pin!(receive(reader, pulse, cargo, metrics));
        let sending = std::pin::pin!(send(transport, &writing, cargo, metrics));
        let watching = std::pin::pin!(watch(transport, pulse, &writing));
        let both = select(receiving, sending);
        let lost = match select(both, watching).await {
            Either::Left((Either::Left((lost, _)) | Either::Right((lost, _)), _)) => lost,
            Either::Right((lost, _)) => lost,
        };
        transport.shutdown();
        lost
    }

    /// Tells the other end that this one lives.
    pub async fn ping(&self) -> Result<(), Lost> {
        let sent = timeout(GREETING_MAX, self.transport.send(Batch::ping().parts)).await;
        sent.map_err(|_| Lost::Stalled)?.map_err(|error| Lost::Io(error.to_string()))
    }
}

async fn receive(reader: &mut FrameReader, pulse: &Pulse, cargo: &impl Cargo, metrics: &PeerMetrics) -> Lost {
    loop {
        let incoming = match reader.next(pulse).await {
            Ok(incoming) => incoming,
            Err(lost) => return lost,
        };
        if incoming.kind != Kind::Ping {
            metrics.received(&incoming.received);
            if let Err(lost) = pulse.deaf(cargo.unload(incoming)).await {
                return lost;
            }
        }
        yield_if_needed().await;
    }
}

async fn send(transport: &Transport, writing: &Writing, cargo: &impl Cargo, metrics: &PeerMetrics) -> Lost {
    let mut sent = corelog_io::now();
    loop {
        let news = cargo.loads().listen();
        let mut batch = Batch::default();
        cargo.load(&mut batch);
        if batch.frames > 0 {
            metrics.sent(batch.frames, batch.bytes);
        } else {
            let quiet = PING_AFTER.saturating_sub(sent.elapsed());
            if timeout(quiet, news).await.is_ok() {
                continue;
            }
            batch = Batch::ping();
        }
        writing.begin(transport.taken());
        if let Err(error) = transport.send(batch.parts).await {
            return Lost::Io(error.to_string());
        }
        writing.is_under_way.set(false);
        sent = corelog_io::now();
        yield_if_needed().await;
    }
}

impl Writing {
    fn begin(&self, taken: u64) {
        self.is_under_way.set(true);
        self.taken.set(taken);
        self.since.set(corelog_io::now());
    }

    /// Whether the peer has taken nothing for too long.
    fn is_stalled(&self, taken: u64) -> bool {
        if !self.is_under_way.get() {
            return false;
        }
        if self.taken.replace(taken) != taken {
            self.since.set(corelog_io::now());
        }
        self.since.get().elapsed() >= STALL_MAX
    }
}

async fn watch(transport: &Transport, pulse: &Pulse, writing: &Writing) -> Lost {
    const LEAST: Duration = Duration::from_millis(1);
    loop {
        sleep_until((pulse.heard() + SILENCE_MAX).max(corelog_io::now() + LEAST)).await;
        if pulse.heard().elapsed() >= SILENCE_MAX && !planted(Fault::SilentPeersAreKept) {
            return Lost::Silent;
        }
        if writing.is_stalled(transport.taken()) {
            return Lost::Stalled;
        }
    }
}
