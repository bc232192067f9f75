//! Frames from a connection, within the shard's budget for what its peers send.
//!
//! An envelope's lengths size nothing: the buffer grows with the bytes that arrive, at most four times what is there or as
//! much as the peer has sent whole before, and each byte beyond [`PEEK_BYTES`] is taken from the budget first
//! (`net::receive`, whose rules keep those that wait from waiting for each other). The parts of a frame are slices of what it was received
//! into: nobody copies them.

use std::cell::Cell;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use corelog_io::Instant;
use futures_util::poll;

use super::carry::Lost;
use super::envelope::{BadFrame, ENVELOPE_BYTES, Envelope, Kind};
use crate::net::patience::{Patience, Progress};
use crate::net::receive::{ReceiveBudget, Room};
use crate::net::transport::Transport;

/// What is received at a time without taking room for it: many small frames.
const PEEK_BYTES: usize = 16 << 10;

/// For a frame that has begun, while others wait for the room that it holds.
const PATIENCE: Patience = Patience { stall: Duration::from_secs(2), bytes_per_second: 64 << 10 };
/// How often it is looked at.
const LOOK: Duration = Duration::from_millis(250);

/// The head and the body of a frame that was received. Its memory counts as long as this is there.
pub struct Received {
    pub head: Bytes,
    pub body: Bytes,
    _room: Option<Room>,
}

/// A frame, with what its envelope says.
pub(super) struct Incoming {
    pub kind: Kind,
    pub number: u64,
    pub received: Received,
}

/// When a peer was heard, and whether this end listens at all.
pub(super) struct Pulse {
    heard: Cell<Instant>,
    /// This end has no room, or its user takes its time: meanwhile it hears nobody.
    is_deaf: Cell<bool>,
}

impl Pulse {
    pub fn new() -> Pulse {
        Pulse { heard: Cell::new(corelog_io::now()), is_deaf: Cell::new(false) }
    }

    pub fn hear(&self) {
        self.heard.set(corelog_io::now());
    }

    /// When it was heard last; now, while this end does not listen.
    pub fn heard(&self) -> Instant {
        if self.is_deaf.get() { corelog_io::now() } else { self.heard.get() }
    }

    /// Awaits what keeps this end from listening.
    pub async fn deaf<T>(&self, future: impl Future<Output = T>) -> T {
        self.is_deaf.set(true);
        let value = future.await;
        self.is_deaf.set(false);
        self.hear();
        value
    }
}

pub(super) struct FrameReader {
    transport: Transport,
    budget: Rc<ReceiveBudget>,
    /// The frame that is being received, perhaps with what the peer sent behind it.
    buffer: BytesMut,
    room: Option<Room>,
    /// The largest frame that this peer has sent whole.
    trusted: usize,
    progress: Progress,
}

impl FrameReader {
    pub fn new(transport: Transport, budget: Rc<ReceiveBudget>) -> FrameReader {
        FrameReader {
            transport,
            budget,
            buffer: BytesMut::new(),
            room: None,
            trusted: 0,
            progress: Progress::default(),
        }
    }

    /// The next frame. Dropped midway it goes on at the next call.
    pub async fn next(&mut self, pulse: &Pulse) -> Result<Incoming, Lost> {
        let envelope = loop {
            match self.buffer.first_chunk::<ENVELOPE_BYTES>() {
                Some(bytes) => break Envelope::parse(*bytes)?,
                None => {
                    let space = PEEK_BYTES - self.buffer.len();
                    self.read(space, 0, pulse).await?;
                }
            }
        };
        let max = self.budget.frame_bytes_max();
        let bytes = envelope.bytes();
        let size = usize::try_from(bytes).ok().filter(|size| *size <= max);
        let size = size.ok_or(BadFrame::TooLarge { bytes, max })?;
        loop {
            let missing = size.saturating_sub(self.buffer.len());
            let step = missing.min((self.buffer.len() * 4).max(self.trusted));
            if envelope.kind != Kind::Ping {
                self.take_room(size, self.buffer.len().min(size) + step, pulse).await;
            }
            if missing == 0 {
                return self.take(envelope);
            }
            self.buffer.reserve(step);
            self.read(step, size, pulse).await?;
            corelog_io::yield_if_needed().await;
        }
    }

    /// Room for `wanted` bytes of a frame of `size`, or for more.
    async fn take_room(&mut self, size: usize, wanted: usize, pulse: &Pulse) {
        let held = self.room.as_ref().map_or(0, Room::bytes);
        let wanted = wanted as u64;
        if wanted <= held {
            return;
        }
        let (step, rest) = (wanted - held, size as u64 - held);
        let lane = self.budget.lane(size);
        let more = match lane.try_take(step, rest) {
            Some(more) => more,
            None => {
                let place = lane.place(size, corelog_io::now());
                pulse.deaf(lane.take(place, step, rest)).await
            }
        };
        match &mut self.room {
            Some(room) => room.merge(more),
            None => self.room = Some(more),
        }
    }

    /// More bytes, of a frame of `size` where one has begun. While others wait for what it holds it must come on.
    async fn read(&mut self, max: usize, size: usize, pulse: &Pulse) -> Result<(), Lost> {
        let lane = self.budget.lane(size);
        let had = self.buffer.len();
        let mut read = pin!(self.transport.read(&mut self.buffer, max));
        let read = match poll!(read.as_mut()) {
            // What is there already was not waited for.
            Poll::Ready(read) => read,
            Poll::Pending if self.room.is_none() => read.await,
            Poll::Pending => {
                let mut since = corelog_io::now();
                loop {
                    let read = corelog_io::timeout(LOOK, read.as_mut()).await;
                    let now = corelog_io::now();
                    if !lane.is_contended() {
                        since = now;
                    } else if self.progress.is_over(&PATIENCE, had as u64, &mut since, now) {
                        // With a byte now and then, too: what each was waited for adds up.
                        return Err(Lost::Slow);
                    }
                    if let Ok(read) = read {
                        break read;
                    }
                }
            }
        };
        match read {
            Ok(0) => Err(Lost::Closed),
            Ok(_) => {
                pulse.hear();
                Ok(())
            }
            Err(error) => Err(Lost::Io(error.to_string())),
        }
    }

    fn take(&mut self, envelope: Envelope) -> Result<Incoming, Lost> {
        self.buffer.advance(ENVELOPE_BYTES);
        let head = self.buffer.split_to(envelope.head as usize).freeze();
        let body = self.buffer.split_to(envelope.body as usize).freeze();
        envelope.check_head(&head)?;
        let size = envelope.bytes() as usize;
        self.trusted = self.trusted.max(size);
        self.progress = Progress::default();
        if size > PEEK_BYTES {
            // What comes next has memory of its own: some bytes of it would keep all of this frame's. None of it is read yet.
            let rest = std::mem::take(&mut self.buffer);
            debug_assert!(rest.is_empty());
        }
        let received = Received { head, body, _room: self.room.take() };
        Ok(Incoming { kind: envelope.kind, number: envelope.number, received })
    }
}
