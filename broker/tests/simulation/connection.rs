//! A client's connection: frames of Kafka's protocol over the simulated network.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use corelog_io::{Part, Stream, sleep, timeout};
use corelog_wire::{Request, Response, Str, frame};

/// A client that hears nothing for this long gives its connection up.
pub const PATIENCE: Duration = Duration::from_secs(90);
const CONNECT_MAX: Duration = Duration::from_secs(5);

pub struct Connection {
    stream: Stream,
    buffer: BytesMut,
    last_id: i32,
    client_id: Str,
    /// Called with every answer.
    note: Option<Box<dyn Fn()>>,
}

impl Connection {
    /// Connects, trying again until it works or `stop` says to give up.
    pub async fn open(address: SocketAddr, client_id: &str, stop: impl Fn() -> bool) -> Option<Connection> {
        while !stop() {
            if let Ok(Ok(stream)) = timeout(CONNECT_MAX, Stream::connect(address)).await {
                let client_id = client_id.into();
                let buffer = BytesMut::new();
                return Some(Connection { stream, buffer, last_id: 0, client_id, note: None });
            }
            sleep(Duration::from_millis(1 + corelog_io::random_u64() % 50)).await;
        }
        None
    }

    /// Every answer is noted.
    pub fn noted(mut self, note: impl Fn() + 'static) -> Connection {
        self.note = Some(Box::new(note));
        self
    }

    /// Sends a request; its correlation id.
    pub async fn send<R: Request>(&mut self, request: &R, version: i16) -> io::Result<i32> {
        self.last_id += 1;
        let parts = frame::request(request, version, self.last_id, Some(&self.client_id))
            .unwrap_or_else(|error| panic!("{} v{version}: {error}", R::NAME));
        self.send_bytes(parts).await?;
        Ok(self.last_id)
    }

    pub async fn send_bytes(&self, parts: Vec<Bytes>) -> io::Result<()> {
        self.stream.send(parts.into_iter().map(Part::Bytes).collect()).await
    }

    /// The answer to request `id`, which must be the next that comes.
    pub async fn receive<R: Response>(&mut self, version: i16, id: i32) -> io::Result<R> {
        let frame = self.next().await?;
        let (header, response) = frame::decode_response::<R>(frame, version)
            .unwrap_or_else(|error| panic!("{} v{version}: {error}", R::NAME));
        assert_eq!(header.correlation_id, id, "answers come in the order of their requests");
        Ok(response)
    }

    pub async fn call<R: Request>(&mut self, request: &R, version: i16) -> io::Result<R::Response> {
        let id = self.send(request, version).await?;
        self.receive(version, id).await
    }

    /// The next frame that comes, without its length.
    pub async fn next(&mut self) -> io::Result<Bytes> {
        let frame =
            timeout(PATIENCE, self.frame()).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?;
        if let Some(note) = &self.note {
            note();
        }
        Ok(frame)
    }

    async fn frame(&mut self) -> io::Result<Bytes> {
        loop {
            if self.buffer.len() >= 4 {
                let size = u32::from_be_bytes(self.buffer[..4].try_into().expect("4 bytes")) as usize;
                assert!(size < 64 << 20, "an answer of {size} bytes");
                if self.buffer.len() >= 4 + size {
                    let frame = self.buffer.split_to(4 + size).freeze();
                    return Ok(frame.slice(4..));
                }
            }
            if self.stream.read(&mut self.buffer, 64 << 10).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.stream.shutdown();
    }
}
