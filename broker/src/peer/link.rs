//! A link: the one connection for frames between this shard and a peer, from the time that it is wanted until it is not.
//!
//! The broker with the lower id connects, again and again; the other takes what arrives, and knocks while nothing does.
//! `peer/mod.rs` says which of two connections counts.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;

use corelog_io::planted::{Fault, planted};
use corelog_io::sync::Event;
use corelog_io::{Queue, Task, sleep, spawn, timeout};
use futures_util::FutureExt;
use futures_util::future::{LocalBoxFuture, select};

use super::backoff::Backoff;
use super::carry::{Batch, Cargo, Connection, Lost};
use super::envelope::{BadFrame, Kind};
use super::handshake::{self, Failed};
use super::hello::{Greeting, Introduction, Purpose, Refusal, RefusalKind};
use super::links::{Arrival, Local};
use super::receive::{FrameReader, Incoming, Pulse};
use super::{FORMER_MAX, GREETING_MAX, Incarnation, PeerId};
use crate::net::transport::Transport;

/// Incarnations of a peer that are remembered as former ones.
const FORMER_KEPT: usize = 16;

pub(super) struct Link {
    pub peer: PeerId,
    /// Whether this end connects.
    pub dials: bool,
    pub has_frames: Event,
    /// To be tried at once.
    pub hurry: Event,
    /// The connection that arrived last, and was not looked at.
    arrival: RefCell<Option<Arrival>>,
    arrived: Event,
    /// Whom the link stands with.
    stands: Cell<Option<Incarnation>>,
    fell: Event,
    /// The last that it stood with, and those before.
    last: Cell<Option<Incarnation>>,
    former: RefCell<VecDeque<Incarnation>>,
    is_wanted: Cell<bool>,
    task: RefCell<Option<Task<()>>>,
}

pub(super) fn start(local: &Rc<Local>, peer: PeerId) -> Rc<Link> {
    let link = Rc::new(Link {
        peer,
        dials: local.broker() < peer.broker,
        has_frames: Event::new(),
        hurry: Event::new(),
        arrival: RefCell::default(),
        arrived: Event::new(),
        stands: Cell::new(None),
        fell: Event::new(),
        last: Cell::new(None),
        former: RefCell::default(),
        is_wanted: Cell::new(true),
        task: RefCell::default(),
    });
    let end = End { local: local.clone(), link: link.clone() };
    let task = match link.dials {
        true => spawn(Queue::Produce, async move { end.connect().await }),
        false => spawn(Queue::Produce, async move { end.accept().await }),
    };
    *link.task.borrow_mut() = Some(task);
    link
}

impl Link {
    pub fn arrived(&self, arrival: Arrival) {
        // One that it replaces is closed: its other end has come back, or is gone.
        self.arrival.replace(Some(arrival));
        self.arrived.notify_all();
    }

    /// Of the peer that it stands with.
    pub fn incarnation(&self) -> Option<Incarnation> {
        self.stands.get()
    }

    /// Whether another incarnation has followed this one.
    pub fn check_former(&self, who: &Introduction) -> Result<(), Refusal> {
        if !self.former.borrow().contains(&who.incarnation) || planted(Fault::AnyIncarnationIsTaken) {
            return Ok(());
        }
        let text = format!(
            "broker {} has connected with another incarnation since this one ({}): it was restarted, or two brokers have \
             its id, and then this one must be stopped",
            who.broker.0, who.incarnation
        );
        Err(Refusal::new(RefusalKind::Former, text))
    }

    fn stood(&self, incarnation: Incarnation) {
        self.stands.set(Some(incarnation));
        if let Some(before) = self.last.replace(Some(incarnation))
            && before != incarnation
        {
            let mut former = self.former.borrow_mut();
            if former.len() == FORMER_KEPT {
                former.pop_front();
            }
            former.push_back(before);
        }
    }

    pub fn end(&self) {
        self.is_wanted.set(false);
        let task = self.task.take();
        drop(task);
    }
}

/// This shard's end of a link.
struct End {
    local: Rc<Local>,
    link: Rc<Link>,
}

/// A connection whose other end has answered.
struct Confirmed {
    connection: Connection,
    who: Introduction,
}

enum Happened {
    Fell(Lost),
    Arrived(Arrival),
    /// The connection that was welcomed, if it answered.
    Answered(Option<Confirmed>),
}

impl End {
    /// The part of the end that connects.
    async fn connect(&self) {
        let mut backoff = Backoff::new();
        loop {
            let hurry = self.link.hurry.listen();
            if let Some(confirmed) = self.dial(Purpose::Frames).await {
                self.connected(&confirmed.who);
                let since = corelog_io::now();
                let lost = self.carry(confirmed).await;
                self.disconnected(&lost);
                backoff.stood_for(since.elapsed());
            }
            select(std::pin::pin!(sleep(backoff.pause())), hurry).await;
        }
    }

    /// Tries to connect, for frames or to knock.
    async fn dial(&self, purpose: Purpose) -> Option<Confirmed> {
        let (local, peer) = (&self.local, self.link.peer);
        let address = local.address(peer.broker)?;
        let hello = local.hello(purpose, Some(peer.broker), peer.shard);
        let dialled = self.greeted(handshake::dial(address, hello).await, purpose).await;
        if !self.link.is_wanted.get() {
            return None;
        }
        match dialled {
            Ok(confirmed) => Some(confirmed),
            Err(failed) => {
                local.tell_failed(peer, address, &failed);
                if let Some(refusal) = failed.refusal() {
                    local.traffic.refused(peer, refusal);
                }
                None
            }
        }
    }

    async fn greeted(
        &self,
        dialled: Result<(Transport, Introduction), Failed>,
        purpose: Purpose,
    ) -> Result<Confirmed, Failed> {
        let (transport, who) = dialled?;
        self.link.check_former(&who).map_err(Failed::Unsuitable)?;
        let connection = self.connection(transport);
        if purpose == Purpose::Frames {
            // What the other end waits for before the connection counts.
            connection.ping().await.map_err(|lost| Failed::Unreachable(lost.to_string()))?;
        }
        Ok(Confirmed { connection, who })
    }

    /// The part of the end that is connected to.
    async fn accept(&self) {
        let mut standing: Option<LocalBoxFuture<'_, Lost>> = None;
        let mut welcomed: Option<LocalBoxFuture<'_, Option<Confirmed>>> = None;
        let mut knocking = self.knock().boxed_local();
        loop {
            let happened = {
                let mut arrived = self.link.arrived.listen();
                poll_fn(|cx| {
                    let _ = arrived.poll_unpin(cx);
                    if let Some(Poll::Ready(lost)) = standing.as_mut().map(|standing| standing.poll_unpin(cx))
                    {
                        return Poll::Ready(Happened::Fell(lost));
                    }
                    if let Some(arrival) = self.link.arrival.take() {
                        return Poll::Ready(Happened::Arrived(arrival));
                    }
                    if let Some(Poll::Ready(who)) = welcomed.as_mut().map(|welcomed| welcomed.poll_unpin(cx))
                    {
                        return Poll::Ready(Happened::Answered(who));
                    }
                    if standing.is_none() && welcomed.is_none() {
                        let _never = knocking.poll_unpin(cx);
                    }
                    Poll::Pending
                })
                .await
            };
            match happened {
                Happened::Fell(lost) => {
                    standing = None;
                    self.disconnected(&lost);
                    knocking = self.knock().boxed_local();
                }
                Happened::Arrived(arrival) => welcomed = Some(self.welcome(arrival).boxed_local()),
                Happened::Answered(confirmed) => {
                    welcomed = None;
                    let Some(confirmed) = confirmed else { continue };
                    if standing.take().is_some() {
                        self.disconnected(&Lost::Replaced);
                    }
                    self.connected(&confirmed.who);
                    standing = Some(self.carry(confirmed).boxed_local());
                }
            }
        }
    }

    /// Has the other end connect, for as long as it does not.
    async fn knock(&self) {
        let mut backoff = Backoff::new();
        loop {
            let hurry = self.link.hurry.listen();
            self.dial(Purpose::Knock).await;
            select(std::pin::pin!(sleep(backoff.pause())), hurry).await;
        }
    }

    /// Welcomes a connection, unless it is a former incarnation's or another's that lives; and awaits its answer.
    async fn welcome(&self, arrival: Arrival) -> Option<Confirmed> {
        let Arrival { detached, hello, from } = arrival;
        let (transport, who) = (Transport::attach(detached), hello.from);
        if let Err(refusal) = self.take(&who).await {
            self.local.tell(who.broker, refusal.kind.name(), |left_out| {
                tracing::warn!(peer = %self.link.peer, %from, left_out, "a broker's connection is refused: {refusal}");
            });
            self.local.refuse(&transport, refusal).await;
            return None;
        }
        let greeting = Greeting::Welcome(self.local.introduction());
        handshake::send(&transport, &greeting).await.ok()?;
        let mut connection = self.connection(transport);
        let Connection { reader, pulse, .. } = &mut connection;
        let answer = timeout(GREETING_MAX, reader.next(pulse)).await.ok()?.ok()?;
        (answer.kind == Kind::Ping).then_some(Confirmed { connection, who })
    }

    /// Whether this incarnation may be welcomed. That of a connection that stands must be gone first.
    async fn take(&self, who: &Introduction) -> Result<(), Refusal> {
        self.link.check_former(who)?;
        let has_gone = async {
            while self.link.stands.get().is_some_and(|stands| stands != who.incarnation)
                && !planted(Fault::AnyIncarnationIsTaken)
            {
                self.link.fell.listen().await;
            }
        };
        timeout(FORMER_MAX, has_gone).await.map_err(|_| {
            let text = format!(
                "broker {} is connected with another incarnation, and alive: two brokers have its id, give each a node.id of \
                 its own",
                who.broker.0
            );
            Refusal::new(RefusalKind::Alive, text)
        })
    }

    fn connection(&self, transport: Transport) -> Connection {
        let reader = FrameReader::new(transport.clone(), self.local.budget.clone());
        Connection { transport, reader, pulse: Pulse::new() }
    }

    async fn carry(&self, confirmed: Confirmed) -> Lost {
        let Confirmed { mut connection, .. } = confirmed;
        connection.pulse.hear();
        let frames = Frames { end: self, sent: Cell::new(0), received: Cell::new(0) };
        connection.carry(&frames, &self.local.metrics).await
    }

    fn connected(&self, who: &Introduction) {
        self.link.stood(who.incarnation);
        self.local.metrics.connects.add(1);
        self.local.tell(who.broker, "connected", |left_out| {
            let (peer, incarnation) = (self.link.peer, who.incarnation);
            tracing::info!(%peer, %incarnation, left_out, "connected to a broker");
        });
        self.local.traffic.connected(self.link.peer, who);
    }

    fn disconnected(&self, lost: &Lost) {
        self.link.stands.set(None);
        self.link.fell.notify_all();
        self.local.metrics.lost(lost);
        let peer = self.link.peer;
        self.local.tell(peer.broker, lost.name(), |left_out| {
            tracing::warn!(%peer, left_out, "the connection to a broker has ended: {lost}");
        });
        if self.link.is_wanted.get() {
            self.local.traffic.disconnected(peer, lost);
        }
    }
}

/// What a link carries.
struct Frames<'a> {
    end: &'a End,
    sent: Cell<u64>,
    received: Cell<u64>,
}

impl Cargo for Frames<'_> {
    fn load(&self, batch: &mut Batch) {
        let (local, link) = (&self.end.local, &self.end.link);
        while link.is_wanted.get()
            && !batch.is_full()
            && let Some(frame) = local.traffic.take_frame(link.peer)
        {
            let number = self.sent.get();
            self.sent.set(number + 1);
            batch.put(Kind::Frame, number, frame).expect("a frame of replication fits its envelope");
        }
    }

    fn loads(&self) -> &Event {
        &self.end.link.has_frames
    }

    async fn unload(&self, incoming: Incoming) -> Result<(), Lost> {
        let (local, link) = (&self.end.local, &self.end.link);
        let expected = self.received.get();
        let Incoming { kind, number: found, received } = incoming;
        if kind != Kind::Frame || found != expected {
            let expected = format!("frame {expected} is next");
            return Err(BadFrame::OutOfPlace { kind, found, expected }.into());
        }
        self.received.set(expected + 1);
        if !link.is_wanted.get() {
            return Err(Lost::Replaced);
        }
        local.traffic.receive(link.peer, received).map_err(|what| BadFrame::Senseless(what).into())
    }
}
