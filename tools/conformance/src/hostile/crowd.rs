//! Connections by the hundred or thousand that all do the same: say something, read or do not, hang up and come again.

use bytes::{Buf, Bytes};
use corelog_wire::Str;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

/// Connecting blocks, so that some do it at once.
const THREADS: usize = 4;
/// A thread sends and reads so much at most in a turn, and looks after so many clients in a second: the machine is for others too.
const TURN_BYTES: usize = 1 << 20;
const TURN: Duration = Duration::from_millis(20);
const CARE: Duration = Duration::from_micros(50);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Hostile clients do not keep more of an answer.
const ANSWER_LEN_MAX: usize = 16 << 20;

/// What the clients of a crowd do with answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reads {
    Nothing,
    /// One byte in a turn.
    Byte,
    /// Everything, without a look.
    All,
    /// Each answer before they go on.
    Answer,
}

pub struct Crowd {
    pub clients: usize,
    /// What a client sends next; nothing for one that says no more.
    pub says: Box<dyn Fn(&mut Turn) -> Bytes + Sync>,
    pub reads: Reads,
    /// From one thing said to the next.
    pub every: Duration,
    /// All hang up at once when this is over, again and again.
    pub stays: Duration,
    /// Hanging up is sending RST.
    pub resets: bool,
    /// Whoever was closed comes again.
    pub returns: bool,
}

impl Default for Crowd {
    fn default() -> Crowd {
        Crowd {
            clients: 1,
            says: Box::new(|_| Bytes::new()),
            reads: Reads::Nothing,
            every: Duration::from_millis(100),
            stays: Duration::from_secs(3600),
            resets: false,
            returns: true,
        }
    }
}

/// One client's turn to speak.
pub struct Turn<'a> {
    pub client: usize,
    /// Which of its connections this is, from 1.
    pub visit: u32,
    /// How often it has spoken on it.
    pub nth: u32,
    /// To what it said last, without the length; empty before.
    pub answer: Bytes,
    /// For what it must remember while the connection lasts.
    pub note: &'a mut Str,
}

/// What a crowd came to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Done {
    pub connections: u64,
    /// Ended by the broker.
    pub closed: u64,
    pub sent: u64,
    pub read: u64,
    pub answers: u64,
    /// At the end.
    pub open: u64,
}

impl Done {
    pub fn told(&self, clients: usize) -> String {
        let mib = |bytes: u64| bytes as f64 / (1 << 20) as f64;
        format!(
            "{clients} clients, {} connections, {} closed, {} open at the end, {:.0} MiB sent, {:.0} read, {} answers",
            self.connections,
            self.closed,
            self.open,
            mib(self.sent),
            mib(self.read),
            self.answers
        )
    }

    fn add(&mut self, other: Done) {
        self.connections += other.connections;
        self.closed += other.closed;
        self.sent += other.sent;
        self.read += other.read;
        self.answers += other.answers;
        self.open += other.open;
    }
}

#[derive(Default)]
struct Client {
    number: usize,
    stream: Option<TcpStream>,
    visit: u32,
    nth: u32,
    out: Bytes,
    due: Option<Instant>,
    answer: Vec<u8>,
    answered: bool,
    note: Str,
}

/// The crowd does what it does until the time is over, and hangs up.
pub fn run(address: SocketAddr, until: Instant, crowd: &Crowd) -> Done {
    let mut done = Done::default();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS.min(crowd.clients))
            .map(|thread| {
                let numbers = (thread..crowd.clients).step_by(THREADS);
                let clients = numbers.map(|number| Client { number, ..Client::default() }).collect();
                let share =
                    Share { address, crowd, clients, done: Done::default(), buffer: vec![0; 64 << 10] };
                scope.spawn(move || share.run(until))
            })
            .collect();
        for thread in threads {
            done.add(thread.join().unwrap_or_default());
        }
    });
    done
}

/// A thread's share of the clients.
struct Share<'a> {
    address: SocketAddr,
    crowd: &'a Crowd,
    clients: Vec<Client>,
    done: Done,
    buffer: Vec<u8>,
}

impl Share<'_> {
    fn run(mut self, until: Instant) -> Done {
        let turn = TURN + CARE * self.clients.len() as u32;
        let mut leave = Instant::now() + self.crowd.stays;
        while Instant::now() < until {
            if Instant::now() >= leave {
                self.clients.iter_mut().for_each(|client| client.hang_up(self.crowd.resets));
                leave = Instant::now() + self.crowd.stays;
            }
            // Who comes first has most of what may be sent.
            self.clients.rotate_left(1);
            self.turn(until);
            std::thread::sleep(turn);
        }
        self.done.open = self.clients.iter().filter(|client| client.stream.is_some()).count() as u64;
        self.clients.iter_mut().for_each(|client| client.hang_up(self.crowd.resets));
        self.done
    }

    fn turn(&mut self, until: Instant) {
        let (crowd, done) = (self.crowd, &mut self.done);
        let mut bytes = TURN_BYTES;
        for client in &mut self.clients {
            if client.stream.is_none() {
                if client.visit > 0 && !crowd.returns {
                    continue;
                }
                if Instant::now() >= until || !client.connect(self.address) {
                    return;
                }
                done.connections += 1;
            }
            let so_far = done.sent + done.read;
            let spoke = client.speak(crowd, bytes, done);
            if spoke.and_then(|()| client.listen(crowd, bytes, &mut self.buffer, done)).is_err() {
                done.closed += 1;
                client.stream = None;
            }
            bytes = bytes.saturating_sub((done.sent + done.read - so_far) as usize);
        }
    }
}

impl Client {
    fn connect(&mut self, address: SocketAddr) -> bool {
        let Ok(stream) = TcpStream::connect_timeout(&address, CONNECT_TIMEOUT) else { return false };
        if stream.set_nodelay(true).and_then(|()| stream.set_nonblocking(true)).is_err() {
            return false;
        }
        let (number, visit) = (self.number, self.visit + 1);
        *self = Client { number, visit, stream: Some(stream), answered: true, ..Client::default() };
        true
    }

    fn hang_up(&mut self, resets: bool) {
        let Some(stream) = self.stream.take() else { return };
        if resets {
            let linger = libc::linger { l_onoff: 1, l_linger: 0 };
            // SAFETY: the option is given a whole linger of this frame, and the descriptor is open.
            unsafe {
                libc::setsockopt(
                    stream.as_raw_fd(),
                    libc::SOL_SOCKET,
                    libc::SO_LINGER,
                    (&raw const linger).cast(),
                    size_of_val(&linger) as u32,
                )
            };
        }
    }

    fn speak(&mut self, crowd: &Crowd, bytes: usize, done: &mut Done) -> std::io::Result<()> {
        let Some(stream) = &mut self.stream else { return Ok(()) };
        let is_due = self.due.is_none_or(|due| due <= Instant::now());
        if self.out.is_empty() && is_due && (crowd.reads != Reads::Answer || self.answered) {
            let mut answer = Bytes::from(std::mem::take(&mut self.answer));
            answer.advance(answer.len().min(4));
            let (client, visit, nth) = (self.number, self.visit, self.nth);
            self.out = (crowd.says)(&mut Turn { client, visit, nth, answer, note: &mut self.note });
            self.nth += 1;
            self.answered = self.out.is_empty();
            let pause = if self.out.is_empty() { Duration::from_secs(3600) } else { crowd.every };
            self.due = Some(Instant::now() + pause);
        }
        let mut left = bytes;
        while !self.out.is_empty() && left > 0 {
            match stream.write(&self.out[..self.out.len().min(left)]) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(sent) => {
                    self.out.advance(sent);
                    left -= sent;
                    done.sent += sent as u64;
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    fn listen(
        &mut self,
        crowd: &Crowd,
        bytes: usize,
        buffer: &mut [u8],
        done: &mut Done,
    ) -> std::io::Result<()> {
        let Some(stream) = &mut self.stream else { return Ok(()) };
        let mut left = match crowd.reads {
            Reads::Nothing => return Ok(()),
            Reads::Byte => 1,
            Reads::All | Reads::Answer => bytes.max(1),
        };
        while left > 0 {
            let most = left.min(buffer.len());
            match stream.read(&mut buffer[..most]) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(read) => {
                    left -= read;
                    done.read += read as u64;
                    if crowd.reads == Reads::Answer && !self.answered {
                        self.answer.extend_from_slice(&buffer[..read]);
                        let length =
                            self.answer.first_chunk().map(|length| u32::from_be_bytes(*length) as usize);
                        self.answered = length.is_some_and(|length| self.answer.len() >= 4 + length);
                        done.answers += u64::from(self.answered);
                        if length.is_some_and(|length| length > ANSWER_LEN_MAX) {
                            return Err(ErrorKind::InvalidData.into());
                        }
                    }
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }
}
