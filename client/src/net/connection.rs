//! One connection to one broker: requests go out as they come, answers are matched in order.

use super::Versions;
use crate::config::{Address, ClientConfig};
use crate::driver::{self, Event, TcpStream};
use crate::error::{Error, Result};
use bytes::{Buf, Bytes, BytesMut};
use corelog_wire::messages::{ApiVersionsRequest, ApiVersionsResponse, Message, Request, Response};
use corelog_wire::{ErrorCode, Str, frame};
use futures_channel::oneshot;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io::IoSlice;
use std::marker::PhantomData;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Room made for an answer at a time, beyond doubling: what it announces is taken only as it comes, or as such have come before.
const READ_ROOM: usize = 64 << 10;
/// Deadlines are looked at no more often than this without need.
const LOOK_MIN: Duration = Duration::from_secs(1);
/// Slices given to one vectored write.
const WRITE_SLICES_MAX: usize = 64;

/// Lives on the driver's thread. Three tasks serve it: one writes, one reads, one watches the oldest request's deadline. A request
/// that is not answered in time closes it, since what follows on it cannot be answered before.
pub(crate) struct Connection {
    pub(crate) address: String,
    pub(crate) versions: Versions,
    client_id: Str,
    request_timeout: Duration,
    in_flight_max: usize,
    response_bytes_max: usize,
    stream: TcpStream,
    out: RefCell<VecDeque<Bytes>>,
    queued: Event,
    /// Told when the queue runs empty.
    written: Event,
    pending: RefCell<VecDeque<Pending>>,
    answered: Event,
    ended: Event,
    correlation_id: Cell<i32>,
    closed: RefCell<Option<Error>>,
}

struct Pending {
    correlation_id: i32,
    api: &'static str,
    deadline: Instant,
    timeout: Duration,
    answer: oneshot::Sender<Result<Bytes>>,
}

/// The answer to come of a request that is on its way.
pub(crate) struct Answer<R> {
    frame: oneshot::Receiver<Result<Bytes>>,
    version: i16,
    address: String,
    response: PhantomData<fn() -> R>,
}

impl<R: Response> Answer<R> {
    pub(crate) async fn wait(self) -> Result<R> {
        let frame = self.frame.await.unwrap_or(Err(Error::Closed))?;
        decode(frame, self.version, &self.address)
    }
}

fn decode<R: Response>(frame: Bytes, version: i16, address: &str) -> Result<R> {
    match frame::decode_response(frame, version) {
        Ok((_, response)) => Ok(response),
        Err(source) => Err(Error::Decode { address: address.to_owned(), source }),
    }
}

impl Connection {
    /// Connects, and asks what the broker speaks.
    pub(crate) async fn open(config: &ClientConfig, address: &Address) -> Result<Rc<Connection>> {
        let failed = |source: std::io::Error| Error::Connect {
            address: address.to_string(),
            source: Arc::new(source),
            advice: "check that a broker listens there and can be reached",
        };
        let connect = async {
            let mut last = None;
            for socket in driver::resolve(&address.host, address.port).await? {
                match TcpStream::connect(socket).await {
                    Ok(stream) => return Ok(stream),
                    Err(error) => last = Some(error),
                }
            }
            Err(last.unwrap_or_else(|| std::io::ErrorKind::NotFound.into()))
        };
        let deadline = driver::now() + config.connect_timeout;
        let stream = driver::timeout_at(deadline, connect).await;
        let stream = stream.unwrap_or_else(|| Err(std::io::ErrorKind::TimedOut.into())).map_err(failed)?;
        let mut connection = Connection {
            address: address.to_string(),
            versions: Versions::default(),
            client_id: config.client_id.as_str().into(),
            request_timeout: config.request_timeout,
            in_flight_max: config.requests_in_flight_max,
            response_bytes_max: config.response_bytes_max,
            stream,
            out: RefCell::default(),
            queued: Event::default(),
            written: Event::default(),
            pending: RefCell::default(),
            answered: Event::default(),
            ended: Event::default(),
            correlation_id: Cell::new(0),
            closed: RefCell::default(),
        };
        let negotiated = driver::timeout_at(deadline, connection.negotiate()).await;
        let timed_out =
            || failed(std::io::Error::new(std::io::ErrorKind::TimedOut, "no answer to ApiVersions"));
        connection.versions = negotiated.unwrap_or_else(|| Err(timed_out()))?;
        let connection = Rc::new(connection);
        driver::spawn(connection.clone().write_loop());
        driver::spawn(connection.clone().read_loop());
        driver::spawn(connection.clone().watch_loop());
        Ok(connection)
    }

    /// Asks with our newest version; a broker that is older says so in version 0 and is asked again (KIP-511).
    async fn negotiate(&self) -> Result<Versions> {
        let request = ApiVersionsRequest {
            client_software_name: "corelog-client".into(),
            client_software_version: env!("CARGO_PKG_VERSION").into(),
        };
        let mut version = ApiVersionsRequest::MAX_VERSION;
        let (mut buffer, mut largest) = (BytesMut::new(), 0);
        loop {
            let parts = frame::request(&request, version, 0, Some(&self.client_id))?;
            self.out.borrow_mut().extend(parts);
            while !self.out.borrow().is_empty() {
                self.write_some().await?;
            }
            let mut frame = self.read_frame(&mut buffer, &mut largest).await?;
            let code = frame.get(4..6).map_or(0, |code| i16::from_be_bytes([code[0], code[1]]));
            let unsupported = ErrorCode(code) == ErrorCode::UNSUPPORTED_VERSION;
            let answered = if unsupported { 0 } else { version };
            let response: ApiVersionsResponse = decode(frame.split_off(0), answered, &self.address)?;
            let versions = Versions::new(&response.api_keys);
            if !unsupported {
                Error::check(response.error_code, || format!("ask {} for its API versions", self.address))?;
                return Ok(versions);
            }
            if version == 0 {
                return Err(Error::broker(
                    ErrorCode(code),
                    format!("ask {} for its API versions", self.address),
                ));
            }
            version = versions.pick::<ApiVersionsRequest>(&self.address, version - 1).unwrap_or(0);
        }
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.borrow().is_some()
    }

    /// The newest version of a request that both sides know.
    pub(crate) fn pick<R: Request>(&self) -> Result<i16> {
        self.pick_max::<R>(i16::MAX)
    }

    pub(crate) fn pick_max<R: Request>(&self, cap: i16) -> Result<i16> {
        self.versions.pick::<R>(&self.address, cap)
    }

    /// Sends with the newest version, and waits for the answer.
    pub(crate) async fn call<R: Request>(&self, request: &R) -> Result<R::Response> {
        self.call_version(request, self.pick::<R>()?, self.request_timeout).await
    }

    pub(crate) async fn call_version<R: Request>(
        &self,
        request: &R,
        version: i16,
        timeout: Duration,
    ) -> Result<R::Response> {
        loop {
            let answered = self.answered.listen();
            if self.pending.borrow().len() < self.in_flight_max || self.is_closed() {
                break;
            }
            answered.await;
        }
        self.send(request, version, timeout)?.wait().await
    }

    /// Queues a request without waiting: requests go out in the order of these calls. The caller bounds how many there are.
    pub(crate) fn send<R: Request>(
        &self,
        request: &R,
        version: i16,
        timeout: Duration,
    ) -> Result<Answer<R::Response>> {
        let correlation_id = self.enqueue(request, version)?;
        let (tx, rx) = oneshot::channel();
        let deadline = driver::now() + timeout;
        let pending = Pending { correlation_id, api: R::API_KEY.name(), deadline, timeout, answer: tx };
        self.pending.borrow_mut().push_back(pending);
        self.queued.notify();
        Ok(Answer { frame: rx, version, address: self.address.clone(), response: PhantomData })
    }

    /// Queues a request that has no answer: Produce with acks 0.
    pub(crate) fn send_without_answer<R: Request>(&self, request: &R, version: i16) -> Result<()> {
        self.enqueue(request, version)?;
        self.queued.notify();
        Ok(())
    }

    fn enqueue<R: Request>(&self, request: &R, version: i16) -> Result<i32> {
        if let Some(error) = &*self.closed.borrow() {
            return Err(error.clone());
        }
        let correlation_id = self.correlation_id.get();
        let parts = frame::request(request, version, correlation_id, Some(&self.client_id))?;
        self.correlation_id.set(correlation_id.wrapping_add(1) & i32::MAX);
        self.out.borrow_mut().extend(parts);
        Ok(correlation_id)
    }

    fn is_writing(&self) -> bool {
        !self.out.borrow().is_empty()
    }

    /// Waits until all that is queued now has left for the kernel.
    pub(crate) async fn written(&self) -> Result<()> {
        loop {
            let written = self.written.listen();
            if let Some(error) = &*self.closed.borrow() {
                return Err(error.clone());
            }
            if !self.is_writing() {
                return Ok(());
            }
            written.await;
        }
    }

    /// Fails all that is under way. Only the first reason counts.
    pub(crate) fn close(&self, reason: Error) {
        if self.is_closed() {
            return;
        }
        self.stream.shutdown();
        self.out.take();
        let pending = self.pending.take();
        self.closed.replace(Some(reason.clone()));
        for request in pending {
            // The asker may have lost interest.
            let _ = request.answer.send(Err(reason.clone()));
        }
        self.queued.notify();
        self.written.notify();
        self.answered.notify();
        self.ended.notify();
    }

    fn lost(&self, reason: impl ToString) -> Error {
        Error::Disconnected { address: self.address.clone(), reason: reason.to_string() }
    }

    async fn write_loop(self: Rc<Self>) {
        loop {
            let queued = self.queued.listen();
            if self.is_closed() {
                return;
            }
            if !self.is_writing() {
                queued.await;
            } else if let Err(error) = self.write_some().await {
                self.close(error);
            }
        }
    }

    async fn write_some(&self) -> Result<()> {
        // Clones are references: the queue must stay as it is until the kernel has taken them.
        let parts: Vec<Bytes> = self.out.borrow().iter().take(WRITE_SLICES_MAX).cloned().collect();
        let slices: Vec<IoSlice> = parts.iter().map(|part| IoSlice::new(part)).collect();
        let mut written = self.stream.write(&slices).await.map_err(|error| self.lost(error))?;
        let mut out = self.out.borrow_mut();
        while let Some(part) = out.front_mut() {
            if written < part.len() {
                part.advance(written);
                break;
            }
            written -= part.len();
            out.pop_front();
        }
        if out.is_empty() {
            self.written.notify();
        }
        Ok(())
    }

    /// The next frame, without its length.
    ///
    /// Room is made at once for as much as some earlier answer had, `largest`; beyond that, as it comes.
    async fn read_frame(&self, buffer: &mut BytesMut, largest: &mut usize) -> Result<Bytes> {
        loop {
            let mut needed = 4;
            if let Some(length) = buffer.first_chunk::<4>() {
                let length = i32::from_be_bytes(*length);
                needed = match usize::try_from(length).ok().filter(|length| *length >= 4) {
                    Some(length) if length <= self.response_bytes_max => length + 4,
                    _ => {
                        return Err(self.lost(match frame::foreign_protocol(length.to_be_bytes()) {
                            Some(other) => {
                                format!("it speaks {other}, and not Kafka's protocol: is it the right port?")
                            }
                            None => format!(
                                "it announced an answer of {length} bytes (response_bytes_max is {})",
                                self.response_bytes_max
                            ),
                        }));
                    }
                };
                if buffer.len() >= needed {
                    buffer.advance(4);
                    *largest = needed.max(*largest);
                    return Ok(buffer.split_to(length as usize).freeze());
                }
            }
            let missing = needed - buffer.len();
            if buffer.capacity() - buffer.len() < missing.min(READ_ROOM / 4) {
                buffer.reserve(missing.min(buffer.len().max(*largest)).max(READ_ROOM));
            }
            match self.stream.read(buffer).await {
                Ok(0) => return Err(self.lost("it closed the connection")),
                Ok(_) => {}
                Err(error) => return Err(self.lost(error)),
            }
        }
    }

    async fn read_loop(self: Rc<Self>) {
        let (mut buffer, mut largest) = (BytesMut::new(), 0);
        let error = loop {
            let frame = match self.read_frame(&mut buffer, &mut largest).await {
                Ok(frame) => frame,
                Err(error) => break error,
            };
            let correlation_id =
                i32::from_be_bytes(*frame.first_chunk().expect("frames have at least 4 bytes"));
            let Some(pending) = self.pending.borrow_mut().pop_front() else {
                break self.lost("it sent an answer that nobody asked for");
            };
            if pending.correlation_id != correlation_id {
                let expected = pending.correlation_id;
                let _ = pending.answer.send(Err(self.lost("it mixed up answers")));
                break self.lost(format!("it answered request {correlation_id} where {expected} was due"));
            }
            let _ = pending.answer.send(Ok(frame));
            self.answered.notify();
        };
        self.close(error);
    }

    async fn watch_loop(self: Rc<Self>) {
        loop {
            let (queued, ended) = (self.queued.listen(), self.ended.listen());
            if self.is_closed() {
                return;
            }
            let oldest =
                self.pending.borrow().front().map(|pending| (pending.deadline, pending.api, pending.timeout));
            let Some((deadline, api, timeout)) = oldest else {
                queued.await;
                continue;
            };
            if deadline <= driver::now() {
                self.close(self.lost(format!("no answer to {api} within {timeout:?}")));
                return;
            }
            // The next one's may come before this one's, if this one is answered.
            let look = driver::now() + self.request_timeout.max(LOOK_MIN);
            let _ = driver::timeout_at(deadline.min(look), ended).await;
        }
    }
}
