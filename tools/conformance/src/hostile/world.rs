//! What the honest clients and those who watch them know of the broker: where it is, whether it is up, and how long it lets
//! them wait.

use crate::connection::{Connection, NoAnswer};
use anyhow::{Context, Result, bail};
use corelog_wire::ErrorCode;
use corelog_wire::messages::{Request, Response};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Nobody waits longer: then the suite ends.
const PATIENCE: Duration = Duration::from_secs(30);
const RETRY_PAUSE: Duration = Duration::from_millis(20);

/// The kinds of honest waiting.
#[derive(Clone, Copy, Debug)]
pub enum Wait {
    /// For a batch to be acknowledged.
    Produce,
    /// From there until the consumer has it.
    Fetch,
    /// For a heartbeat, a commit, the committed offset, or to join.
    Group,
    /// For a connection, and a topic to be made or deleted.
    Admin,
    /// For a scrape.
    Metrics,
}

pub const WAITS: [&str; 5] = ["produce", "fetch", "group", "admin", "metrics"];

pub struct World {
    pub address: SocketAddr,
    admin_port: AtomicU16,
    began: Instant,
    /// Counts starts and ends: odd while the broker is down.
    life: AtomicU32,
    /// Of the last start, in milliseconds since `began`.
    ready_ms: AtomicU32,
    waited_ms_max: [AtomicU32; WAITS.len()],
    /// Since the last start, by kind.
    served: [AtomicBool; WAITS.len()],
    /// The attack takes every connection that there is: then none is given up for a new one.
    pub full: AtomicBool,
    pub done: AtomicBool,
    pub produced: AtomicU32,
    pub consumed: AtomicU32,
    /// How often the honest member was refused for want of memory.
    pub left_out: AtomicU32,
    pub retried: AtomicU32,
}

impl World {
    pub fn new(address: SocketAddr) -> World {
        World {
            address,
            admin_port: AtomicU16::default(),
            began: Instant::now(),
            life: AtomicU32::new(1),
            ready_ms: AtomicU32::default(),
            waited_ms_max: Default::default(),
            served: Default::default(),
            full: AtomicBool::default(),
            done: AtomicBool::default(),
            produced: AtomicU32::default(),
            consumed: AtomicU32::default(),
            retried: AtomicU32::default(),
            left_out: AtomicU32::default(),
        }
    }

    pub fn is_done(&self) -> bool {
        self.done.load(Ordering::Relaxed)
    }

    pub fn is_full(&self) -> bool {
        self.full.load(Ordering::Relaxed)
    }

    pub fn admin(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.admin_port.load(Ordering::SeqCst)).into()
    }

    pub fn went_up(&self, admin: SocketAddr) {
        self.admin_port.store(admin.port(), Ordering::SeqCst);
        self.ready_ms.store(self.began.elapsed().as_millis() as u32, Ordering::SeqCst);
        self.served.iter().for_each(|served| served.store(false, Ordering::SeqCst));
        self.life.fetch_add(1, Ordering::SeqCst);
    }

    /// To be called before it does.
    pub fn goes_down(&self) {
        self.life.fetch_add(1, Ordering::SeqCst);
    }

    pub fn life(&self) -> u32 {
        self.life.load(Ordering::SeqCst)
    }

    pub fn is_up(&self) -> bool {
        self.life().is_multiple_of(2)
    }

    /// Whether all honest clients have been served since the last start.
    pub fn all_served(&self) -> bool {
        self.served.iter().all(|served| served.load(Ordering::SeqCst))
    }

    /// Notes how long a client has waited; time before the broker's last start does not count.
    pub fn waited(&self, wait: Wait, since: Instant) -> Duration {
        let ready = self.began + Duration::from_millis(self.ready_ms.load(Ordering::SeqCst).into());
        let waited = since.max(ready).elapsed();
        self.waited_ms_max[wait as usize].fetch_max(waited.as_millis() as u32, Ordering::Relaxed);
        waited
    }

    fn was_served(&self, wait: Wait, since: Instant) {
        self.waited(wait, since);
        self.served[wait as usize].store(self.is_up(), Ordering::SeqCst);
    }

    /// The longest of each kind since they were last taken.
    pub fn take_waits(&self) -> [u32; WAITS.len()] {
        self.waited_ms_max.each_ref().map(|max| max.swap(0, Ordering::Relaxed))
    }

    /// `asked` until it is answered, again when the broker was down meanwhile. The error is that of somebody who waits too long.
    pub fn until_served<T>(
        &self,
        wait: Wait,
        since: Instant,
        mut ask: impl FnMut() -> Result<Option<T>>,
    ) -> Result<T> {
        loop {
            let life = self.life();
            let outcome = if self.is_up() { ask() } else { Ok(None) };
            match outcome {
                Ok(Some(answer)) => {
                    self.was_served(wait, since);
                    return Ok(answer);
                }
                Err(e) if life == self.life() => return Err(e),
                Ok(None) if self.is_done() && !self.is_up() => bail!("the broker does not come back"),
                Ok(None) if life.is_multiple_of(2) && self.waited(wait, since) > PATIENCE => {
                    bail!("waits for {PATIENCE:?} and is not served")
                }
                _ => std::thread::sleep(RETRY_PAUSE),
            }
        }
    }
}

/// A client that does nothing wrong: it takes what may pass for what it is and tries again, as clients do, and all else for a fault.
pub struct Client<'a> {
    pub world: &'a World,
    who: &'static str,
    wait: Wait,
    connection: Option<Connection>,
    /// The broker's, which the connection does not survive.
    life: u32,
}

impl<'a> Client<'a> {
    pub fn new(world: &'a World, who: &'static str, wait: Wait) -> Self {
        Client { world, who, wait, connection: None, life: 0 }
    }

    /// The next request goes over a new connection.
    pub fn hang_up(&mut self) {
        self.connection = None;
    }

    /// Asks until it is answered without an error, or with one of `may`. Returns also whether it was asked more than once.
    pub fn ask<R: Request>(
        &mut self,
        version: i16,
        request: &R,
        may: &[ErrorCode],
    ) -> Result<(R::Response, ErrorCode, bool)> {
        let (world, who) = (self.world, self.who);
        let (mut times, mut last) = (0, ErrorCode::NONE);
        let answer = world.until_served(self.wait, Instant::now(), || {
            times += 1;
            let response = match self.try_once(version, request) {
                Ok(response) => response,
                Err(e) => {
                    self.connection = None;
                    return Err(e);
                }
            };
            let mut error = 0;
            response.each_error(&mut |code| error = if error == 0 { code } else { error });
            match ErrorCode(error) {
                ErrorCode::NONE => Ok(Some((response, ErrorCode::NONE))),
                error if may.contains(&error) => Ok(Some((response, error))),
                error if error.is_retriable() => {
                    last = error;
                    world.retried.fetch_add(1, Ordering::Relaxed);
                    Ok(None)
                }
                error => bail!("{error}"),
            }
        });
        let (response, error) = answer.with_context(|| format!("{who}: {} (last: {last})", R::NAME))?;
        Ok((response, error, times > 1))
    }

    fn try_once<R: Request>(&mut self, version: i16, request: &R) -> Result<R::Response> {
        let life = self.world.life();
        if self.connection.is_none() || self.life != life {
            self.life = life;
            let connection = Connection::connect(self.world.address).context("connecting")?;
            connection.set_timeout(Some(PATIENCE))?;
            self.connection = Some(connection);
        }
        let connection = self.connection.as_mut().expect("it was made");
        let sent = connection.send(version, request).map_err(NoAnswer::from);
        Ok(sent.and_then(|()| connection.receive(version))?)
    }
}
