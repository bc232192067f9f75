//! Reads length-prefixed request frames from a stream, within the shard's receive budget.
//!
//! A frame's announced length sizes nothing: the buffer grows with the bytes that arrive, at most four times what
//! is there, and beyond [`OWN_BYTES`] every byte of it is first taken from the shard's budget (`receive`). A client
//! that announces 100 MB and sends 10 bytes holds these 10.

use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use corelog_io::planted::{Fault, planted};
use corelog_io::yield_if_needed;
use corelog_wire::frame::foreign_protocol;
use futures_util::poll;

use super::patience::{Patience, Progress};
use super::receive::{OWN_BYTES, ReceiveBudget, RequestRoom, Room, WAIT_MAX};
use super::transport::Transport;

/// What stands before a frame.
pub const LENGTH_BYTES: usize = 4;
/// The largest request of a client that is not known yet: Kafka's default of `sasl.server.max.receive.size`. Who has not said who it is
/// gets no memory for more.
const STRANGER_BYTES_MAX: usize = 512 << 10;
/// For a frame that has begun: half-open peers must not hold memory.
const PATIENCE: Patience = Patience { stall: Duration::from_secs(30), bytes_per_second: 16 << 10 };
/// While other frames wait for the room that this one holds, as answers have it; and then all of it within `WHOLE_CONTENDED`, or
/// what is large and slow would have all the room for minutes.
const PATIENCE_CONTENDED: Patience = Patience { stall: Duration::from_secs(2), bytes_per_second: 64 << 10 };
const WHOLE_CONTENDED: Duration = Duration::from_secs(10);
/// How often a peer that sends nothing is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// One request frame without its length prefix.
pub struct Frame {
    pub bytes: Bytes,
    pub room: RequestRoom,
}

#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    #[error("the peer closed the connection")]
    Closed,
    #[error("no request for {0:?} (connections.max.idle.ms)")]
    Idle(Duration),
    #[error(
        "the peer sent {received} bytes of a request of {size} in {spent:?}: it may not be silent for {:?}, nor slower \
         than {} bytes a second", .patience.stall, .patience.bytes_per_second
    )]
    Stalled { received: usize, size: usize, spent: Duration, patience: Patience },
    #[error(
        "there was no room for a request of {size} bytes within {WAIT_MAX:?}: others hold the memory for requests; more \
         corelog.memory makes more room"
    )]
    NoRoom { size: usize },
    #[error(
        "a request of {size} bytes was announced, and this broker takes up to {max}: raise socket.request.max.bytes, or \
         corelog.memory if it is that which allows no more (the log says so at the start)"
    )]
    TooLarge { size: i32, max: usize },
    #[error(
        "a request of {size} bytes was announced before authentication, and up to {STRANGER_BYTES_MAX} are taken until then"
    )]
    TooLargeForStranger { size: usize },
    #[error(
        "the peer speaks {0}, and this port Kafka's protocol without TLS: metrics and health are at --admin"
    )]
    Foreign(&'static str),
    #[error("the broker is stopping")]
    Stopping,
    #[error("{0}")]
    Io(#[from] io::Error),
}

impl FrameError {
    /// Of what a client is refused for; lines of one kind are told sparingly. Clients that leave are none.
    pub fn kind(&self) -> Option<&'static str> {
        match self {
            FrameError::TooLarge { .. } => Some("socket.request.max.bytes"),
            FrameError::TooLargeForStranger { .. } => Some("large request before authentication"),
            FrameError::Foreign(protocol) => Some(protocol),
            FrameError::Stalled { .. } => Some("stalled request"),
            FrameError::NoRoom { .. } => Some("no room for a request"),
            FrameError::Closed | FrameError::Idle(_) | FrameError::Stopping | FrameError::Io(_) => None,
        }
    }
}

/// Bytes of the frame that begins so, with its prefix.
fn announced(prefix: [u8; LENGTH_BYTES], max: usize) -> Result<usize, FrameError> {
    let size = i32::from_be_bytes(prefix);
    match usize::try_from(size) {
        Ok(bytes) if bytes <= max => Ok(LENGTH_BYTES + bytes),
        _ => Err(match foreign_protocol(prefix) {
            Some(protocol) => FrameError::Foreign(protocol),
            None => FrameError::TooLarge { size, max },
        }),
    }
}

pub struct FrameReader {
    transport: Transport,
    budget: Rc<ReceiveBudget>,
    /// The frame that is being received from its length prefix on, perhaps with what the peer sent behind it.
    buffer: BytesMut,
    room: Option<Room>,
    progress: Progress,
    idle_max: Option<Duration>,
    /// The largest frame that this peer has sent whole: it is believed as much again.
    trusted: usize,
}

impl FrameReader {
    pub fn new(transport: Transport, budget: Rc<ReceiveBudget>, idle_max: Option<Duration>) -> FrameReader {
        FrameReader {
            transport,
            budget,
            buffer: BytesMut::new(),
            room: None,
            progress: Progress::default(),
            idle_max,
            trusted: 0,
        }
    }

    /// Awaits that a frame has begun, and reads as much of it as takes no room. `busy` says whether answers are still
    /// owed, in which case the peer is not idle.
    pub async fn begin(&mut self, busy: impl Fn() -> bool) -> Result<(), FrameError> {
        while self.buffer.is_empty() {
            self.read_first(&busy).await?;
        }
        loop {
            let wanted = self.frame_bytes()?.map_or(LENGTH_BYTES, |size| size.min(OWN_BYTES));
            if self.buffer.len() >= wanted {
                return Ok(());
            }
            self.read_more(wanted - self.buffer.len()).await?;
        }
    }

    /// The frame that has begun, whole. `is_stranger`: it is not known yet who sends it.
    pub async fn finish(&mut self, is_stranger: bool) -> Result<Frame, FrameError> {
        let size = self.frame_bytes()?.expect("a frame has begun");
        if is_stranger && size > LENGTH_BYTES + STRANGER_BYTES_MAX {
            return Err(FrameError::TooLargeForStranger { size: size - LENGTH_BYTES });
        }
        let budget = self.budget.clone();
        let lane = budget.lane(size);
        let mut place = None;
        let mut may_wait = if planted(Fault::RoomIsTakenBitByBit) { Duration::MAX } else { WAIT_MAX };
        loop {
            let missing = size.saturating_sub(self.buffer.len());
            let step = missing.min((self.buffer.len() * 4).max(self.trusted));
            let held = self.room.as_ref().map_or(0, Room::bytes);
            let wanted = (self.buffer.len().min(size) + step) as u64;
            if wanted > held {
                let (step, rest) = (wanted - held, size as u64 - held);
                let more = match lane.try_take(step, rest) {
                    Some(more) => more,
                    None => {
                        let now = corelog_io::now();
                        let place = *place.get_or_insert_with(|| lane.place(size, now));
                        let more = lane.take(place, step, rest);
                        let Ok(more) = corelog_io::timeout(may_wait, more).await else {
                            return Err(FrameError::NoRoom { size });
                        };
                        may_wait = may_wait.saturating_sub(now.elapsed());
                        more
                    }
                };
                match &mut self.room {
                    Some(room) => room.merge(more),
                    None => self.room = Some(more),
                }
            }
            if missing == 0 {
                return Ok(self.take(size));
            }
            // As much as room was given for, which may be more than a step.
            let held = self.room.as_ref().map_or(0, Room::bytes) as usize;
            let step = held.min(size) - self.buffer.len();
            self.buffer.reserve(step);
            self.read_more(step).await?;
            // A large one may come as fast as it can be copied.
            yield_if_needed().await;
        }
    }

    /// Of the frame at the buffer's front, with its prefix; `None` before that is there.
    fn frame_bytes(&self) -> Result<Option<usize>, FrameError> {
        match self.buffer.first_chunk() {
            Some(prefix) => announced(*prefix, self.budget.frame_bytes_max()).map(Some),
            None => Ok(None),
        }
    }

    /// The first bytes after silence, which may last as long as `connections.max.idle.ms` allows.
    async fn read_first(&mut self, busy: &impl Fn() -> bool) -> Result<(), FrameError> {
        loop {
            let read = self.transport.read(&mut self.buffer, OWN_BYTES);
            let count = match self.idle_max {
                None => read.await?,
                Some(idle) => match corelog_io::timeout(idle, read).await {
                    Ok(count) => count?,
                    Err(_) if busy() => continue,
                    Err(_) => return Err(FrameError::Idle(idle)),
                },
            };
            return if count == 0 { Err(FrameError::Closed) } else { Ok(()) };
        }
    }

    /// More of a frame that has begun.
    async fn read_more(&mut self, max: usize) -> Result<(), FrameError> {
        let size = self.frame_bytes()?.unwrap_or(LENGTH_BYTES);
        let lane = self.budget.lane(size);
        let had = self.buffer.len();
        let mut read = pin!(self.transport.read(&mut self.buffer, max));
        let read = match poll!(read.as_mut()) {
            // What is there already was not waited for.
            Poll::Ready(read) => read,
            Poll::Pending => {
                let mut since = corelog_io::now();
                loop {
                    let read = corelog_io::timeout(LOOK, read.as_mut()).await;
                    let received = had + read.as_ref().map_or(0, |read| *read.as_ref().unwrap_or(&0));
                    let contended = self.room.is_some() && lane.is_contended();
                    let patience = if contended {
                        PATIENCE_CONTENDED.within(WHOLE_CONTENDED, size as u64)
                    } else {
                        PATIENCE
                    };
                    let is_over =
                        self.progress.is_over(&patience, received as u64, &mut since, corelog_io::now());
                    if is_over && !planted(Fault::PartialFrameIsWaitedFor) {
                        let spent = self.progress.spent;
                        return Err(FrameError::Stalled { received, size, spent, patience });
                    }
                    if let Ok(read) = read {
                        break read;
                    }
                }
            }
        };
        if read? == 0 { Err(FrameError::Closed) } else { Ok(()) }
    }

    fn take(&mut self, frame_bytes: usize) -> Frame {
        self.trusted = self.trusted.max(frame_bytes);
        self.progress = Progress::default();
        self.buffer.advance(LENGTH_BYTES);
        let bytes = self.buffer.split_to(frame_bytes - LENGTH_BYTES).freeze();
        if frame_bytes > OWN_BYTES {
            // What comes next has memory of its own: some bytes of it would keep all of this frame's. None of it is read yet.
            let rest = std::mem::take(&mut self.buffer);
            debug_assert!(rest.is_empty());
        }
        let room = self.room.take().expect("a whole frame holds its room");
        Frame { bytes, room: RequestRoom::new(room) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_browser_is_not_told_to_raise_the_limit() {
        for (prefix, says) in [
            (b"GET ", "speaks HTTP"),
            (b"\x16\x03\x01\x02", "speaks TLS"),
            (b"\x16\0\0\0", "socket.request.max.bytes"),
        ] {
            let error = announced(*prefix, 100 << 20).unwrap_err();
            assert!(error.to_string().contains(says) && error.kind().is_some(), "{error}");
        }
        assert!(matches!(announced(*b"\0\0\0\x08", 100), Ok(12)));
    }
}
