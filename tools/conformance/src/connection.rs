//! One blocking connection that speaks through the codec.

use bytes::Bytes;
use corelog_wire::messages::{Request, Response};
use corelog_wire::{Str, frame};
use std::collections::VecDeque;
use std::io::{self, IoSlice, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Larger than any answer a suite asks for; a broker that states more is in error.
const ANSWER_LEN_MAX: usize = 512 << 20;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// What [`Connection::connect`] waits for an answer.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(8);
pub const CLIENT_ID: &str = "conformance";

/// Why there is no answer.
#[derive(Debug)]
pub enum NoAnswer {
    /// The broker closed the connection, by FIN or RST.
    Closed,
    Timeout,
    /// It answered, and not as it should have.
    Wrong(String),
}

impl std::fmt::Display for NoAnswer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            NoAnswer::Closed => f.write_str("connection closed"),
            NoAnswer::Timeout => f.write_str("no answer"),
            NoAnswer::Wrong(what) => write!(f, "wrong answer: {what}"),
        }
    }
}

impl std::error::Error for NoAnswer {}

impl From<io::Error> for NoAnswer {
    fn from(e: io::Error) -> Self {
        match e.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => NoAnswer::Timeout,
            _ => NoAnswer::Closed,
        }
    }
}

pub struct Connection {
    stream: TcpStream,
    next_correlation_id: i32,
    /// Of requests that are not answered yet, in order.
    waiting: VecDeque<i32>,
    client_id: Str,
}

impl Connection {
    pub fn connect(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, CONNECT_TIMEOUT)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
        stream.set_write_timeout(Some(ANSWER_TIMEOUT))?;
        Ok(Connection {
            stream,
            next_correlation_id: 1,
            waiting: VecDeque::new(),
            client_id: Str::from_static(CLIENT_ID),
        })
    }

    /// None waits without end.
    pub fn set_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.stream.set_read_timeout(timeout)?;
        self.stream.set_write_timeout(timeout)
    }

    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Sends without waiting for the answer, which [`Connection::receive`] takes in its turn.
    pub fn send<R: Request>(&mut self, version: i16, request: &R) -> io::Result<()> {
        let id = self.send_unanswered(version, request)?;
        self.waiting.push_back(id);
        Ok(())
    }

    /// For requests that have no answer: Produce with acks=0.
    pub fn send_unanswered<R: Request>(&mut self, version: i16, request: &R) -> io::Result<i32> {
        let id = self.next_correlation_id;
        self.next_correlation_id = id.wrapping_add(1);
        let parts = frame::request(request, version, id, Some(&self.client_id))
            .map_err(|e| io::Error::new(io::ErrorKind::InvalidInput, e.to_string()))?;
        write_parts(&self.stream, &parts)?;
        Ok(id)
    }

    /// Sends bytes as they are. The frame bears this correlation id where its answer is to be received by this connection.
    pub fn send_bytes(&mut self, bytes: &[u8], answered: Option<i32>) -> io::Result<()> {
        (&self.stream).write_all(bytes)?;
        self.waiting.extend(answered);
        Ok(())
    }

    pub fn unanswered(&self) -> usize {
        self.waiting.len()
    }

    /// The next answer, which must be to the oldest request.
    pub fn receive<R: Response>(&mut self, version: i16) -> Result<R, NoAnswer> {
        let frame = self.receive_frame()?;
        let (header, response) = frame::decode_response::<R>(frame, version)
            .map_err(|e| NoAnswer::Wrong(format!("{} version {version}: {e}", R::NAME)))?;
        match self.waiting.pop_front() {
            Some(id) if id == header.correlation_id => Ok(response),
            Some(id) => Err(NoAnswer::Wrong(format!("answer {} where {id} is next", header.correlation_id))),
            None => Err(NoAnswer::Wrong(format!("answer {} to nothing", header.correlation_id))),
        }
    }

    /// The next frame without its length.
    pub fn receive_frame(&mut self) -> Result<Bytes, NoAnswer> {
        let mut len = [0; 4];
        (&self.stream).read_exact(&mut len)?;
        let stated = i32::from_be_bytes(len);
        let len = usize::try_from(stated).ok().filter(|len| *len <= ANSWER_LEN_MAX);
        let Some(len) = len else { return Err(NoAnswer::Wrong(format!("a frame of {stated} bytes"))) };
        let mut frame = vec![0; len];
        (&self.stream).read_exact(&mut frame)?;
        Ok(frame.into())
    }

    pub fn call<R: Request>(&mut self, version: i16, request: &R) -> Result<R::Response, NoAnswer> {
        self.send(version, request)?;
        self.receive(version)
    }
}

/// Writes all of the parts, many at a time.
fn write_parts(mut stream: &TcpStream, parts: &[Bytes]) -> io::Result<()> {
    let mut slices: Vec<IoSlice> = parts.iter().map(|part| IoSlice::new(part)).collect();
    let mut rest = slices.as_mut_slice();
    IoSlice::advance_slices(&mut rest, 0);
    while !rest.is_empty() {
        match stream.write_vectored(rest)? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            written => IoSlice::advance_slices(&mut rest, written),
        }
    }
    Ok(())
}
