//! Reads length-prefixed request frames from a stream, within the shard's receive budget.
//!
//! A frame's announced length sizes nothing: the buffer grows with the bytes that arrive, at most four times what
//! is there, and every byte of it is first taken from the shard's budget. A client that announces 100 MB and sends
//! 10 bytes holds [`STEP_MIN`].

use std::io;
use std::rc::Rc;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use corelog_io::Stream;
use corelog_io::sync::{Permit, Semaphore};

/// Bytes asked of the socket when little is known of what comes; also the least a partial frame holds.
const STEP_MIN: usize = 4 * 1024;
/// A frame that began must end within this time or bring further bytes: half-open peers must not hold the budget.
const STALL_MAX: Duration = Duration::from_secs(30);

/// One request frame without its length prefix. The budget it took is given back when it is dropped.
pub struct Frame {
    pub bytes: Bytes,
    pub budget: Permit,
}

#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    #[error("the peer closed the connection")]
    Closed,
    #[error("no request for {0:?} (connections.max.idle.ms)")]
    Idle(Duration),
    #[error("the peer sent part of a request and then nothing for {STALL_MAX:?}")]
    Stalled,
    #[error("a request of {size} bytes was announced; socket.request.max.bytes allows {max}")]
    TooLarge { size: i32, max: usize },
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
            FrameError::Stalled => Some("stalled request"),
            FrameError::Closed | FrameError::Idle(_) | FrameError::Stopping | FrameError::Io(_) => None,
        }
    }
}

pub struct FrameReader {
    stream: Stream,
    budget: Rc<Semaphore>,
    buffer: BytesMut,
    held: Option<Permit>,
    frame_bytes_max: usize,
    idle_max: Option<Duration>,
    /// The largest frame that this peer has sent whole: it is believed as much again.
    trusted: usize,
}

impl FrameReader {
    pub fn new(
        stream: Stream,
        budget: Rc<Semaphore>,
        frame_bytes_max: usize,
        idle_max: Option<Duration>,
    ) -> FrameReader {
        FrameReader {
            stream,
            budget,
            buffer: BytesMut::new(),
            held: None,
            frame_bytes_max,
            idle_max,
            trusted: 0,
        }
    }

    /// The next frame. `busy` says whether answers are still owed, in which case the peer is not idle.
    pub async fn next(&mut self, busy: impl Fn() -> bool) -> Result<Frame, FrameError> {
        loop {
            if self.buffer.len() >= 4 {
                let size = i32::from_be_bytes(self.buffer[..4].try_into().expect("4 bytes"));
                if size < 0 || size as usize > self.frame_bytes_max {
                    return Err(FrameError::TooLarge { size, max: self.frame_bytes_max });
                }
                let size = size as usize;
                if self.buffer.len() >= 4 + size {
                    return Ok(self.take(size));
                }
                let missing = 4 + size - self.buffer.len();
                let step = missing.min((self.buffer.len() * 4).max(STEP_MIN).max(self.trusted));
                self.hold(self.buffer.len() + step).await;
                self.buffer.reserve(step);
                self.read_more(step).await?;
            } else if self.buffer.is_empty() {
                // Between requests a connection holds no memory, and no budget.
                self.held = None;
                self.read_first(&busy).await?;
                self.hold(self.buffer.len()).await;
            } else {
                self.read_more(STEP_MIN).await?;
                self.hold(self.buffer.len()).await;
            }
        }
    }

    /// The first bytes after silence, which may last as long as `connections.max.idle.ms` allows.
    async fn read_first(&mut self, busy: &impl Fn() -> bool) -> Result<(), FrameError> {
        loop {
            let read = self.stream.read(&mut self.buffer, STEP_MIN);
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
        let read = self.stream.read(&mut self.buffer, max);
        match corelog_io::timeout(STALL_MAX, read).await {
            Err(_) => Err(FrameError::Stalled),
            Ok(Ok(0)) => Err(FrameError::Closed),
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(error.into()),
        }
    }

    /// Takes from the budget what the buffer will hold once it has grown to `total`.
    async fn hold(&mut self, total: usize) {
        let have = self.held.as_ref().map_or(0, |permit| permit.count());
        let want = total as u64;
        if want > have {
            let more = self.budget.acquire(want - have).await;
            match &mut self.held {
                Some(held) => held.merge(more),
                None => self.held = Some(more),
            }
        }
    }

    fn take(&mut self, size: usize) -> Frame {
        self.trusted = self.trusted.max(size);
        self.buffer.advance(4);
        let bytes = self.buffer.split_to(size).freeze();
        let mut budget = self.held.take().expect("bytes in the buffer were taken from the budget");
        // What is left belongs to the next frame.
        let rest = self.buffer.len() as u64;
        if rest > 0 {
            self.held = Some(budget.split(rest.min(budget.count())));
        }
        Frame { bytes, budget }
    }
}
