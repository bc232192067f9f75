//! What a shard's links carry: frames of its replicas, and calls, each kind of which has its handler.

use std::cell::{OnceCell, RefCell};
use std::collections::BTreeMap;
use std::rc::{Rc, Weak};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use corelog_raft::frame::{PREFIX_BYTES, Prefix, decode};
use corelog_replicas::{ANSWER_MAX, Answer, Ask, Network, Replicas};
use futures_util::future::LocalBoxFuture;

use crate::cluster::{CallKind, asks};
use crate::peer::{
    self, BrokerId, CallError, Callee, Frame, Introduction, Links, Lost, PeerId, Received, Refusal, ShardId,
    Traffic,
};

/// Between a shard's [`Links`] and those who have something to say to other brokers: they are made after it, and do not know
/// each other.
#[derive(Default)]
pub struct Carrier {
    links: RefCell<Weak<Links>>,
    replicas: OnceCell<Rc<Replicas>>,
    handlers: RefCell<BTreeMap<CallKind, Handler>>,
}

/// What another broker asks of this shard. Its memory counts until it is dropped.
pub struct Call {
    pub from: Introduction,
    /// Behind the kind.
    pub head: Bytes,
    pub body: Bytes,
    _received: Received,
}

/// Answers calls of one kind; an error goes to the caller, in these words. It runs to its end whether or not anybody waits.
type Handler = Rc<dyn Fn(Call) -> LocalBoxFuture<'static, Result<Frame, String>>>;

/// A driver, as Raft names it.
pub fn raft_peer(peer: PeerId) -> corelog_raft::PeerId {
    corelog_raft::PeerId((peer.broker.0 as u32 as u64) << 32 | peer.shard.0 as u64)
}

fn peer_of(peer: corelog_raft::PeerId) -> PeerId {
    let (broker, shard) = ((peer.0 >> 32) as u32 as i32, (peer.0 & 0xffff_ffff) as usize);
    PeerId { broker: BrokerId(broker), shard: ShardId(shard) }
}

impl Carrier {
    pub fn new() -> Rc<Carrier> {
        Rc::default()
    }

    /// From now on what is said leaves.
    pub fn set_links(&self, links: &Rc<Links>) {
        self.links.replace(Rc::downgrade(links));
    }

    /// From now on frames, and questions of segments, are for these replicas.
    pub fn set_replicas(&self, replicas: &Rc<Replicas>) {
        let is_first = self.replicas.set(replicas.clone()).is_ok();
        assert!(is_first, "a shard has one set of replicas");
        let replicas = replicas.clone();
        self.serve(CallKind::Segments, move |call| {
            let replicas = replicas.clone();
            Box::pin(async move {
                let ask = asks::decode_ask(&call.head).map_err(|error| error.to_string())?;
                // It may wait for its turn.
                drop(call);
                Ok(asks::encode_told(replicas.answer(ask).await))
            })
        });
    }

    /// From now on calls of this kind are answered.
    pub fn serve(
        &self,
        kind: CallKind,
        handler: impl Fn(Call) -> LocalBoxFuture<'static, Result<Frame, String>> + 'static,
    ) {
        let former = self.handlers.borrow_mut().insert(kind, Rc::new(handler));
        assert!(former.is_none(), "{kind:?} has one handler");
    }

    /// Asks another broker, and awaits its answer for so long. Whatever the error: what was asked for may have been done.
    pub fn call(
        &self,
        callee: Callee,
        kind: CallKind,
        content: Frame,
        limit: Duration,
    ) -> impl Future<Output = Result<peer::Answer, CallError>> + use<> {
        let mut head = BytesMut::with_capacity(1 + content.head.len());
        head.put_u8(kind as u8);
        head.put_slice(&content.head);
        let request = Frame { head: head.freeze(), body: content.body };
        let links = self.links.borrow().upgrade();
        let called = links.map(|links| links.call(callee, request, limit));
        async move {
            match called {
                Some(called) => called.await,
                None => Err(CallError::Lost(Lost::Closed)),
            }
        }
    }

    fn handler_of(&self, number: Option<u8>) -> Result<Handler, String> {
        let Some(number) = number else { return Err("a call that does not say what it is for".into()) };
        let kind = CallKind::of(number).ok_or_else(|| {
            format!("calls of kind {number} are not known here: this broker is of an older version")
        })?;
        let handler = self.handlers.borrow().get(&kind).cloned();
        handler.ok_or_else(|| {
            format!("this shard does not serve calls for {kind:?}, or not yet: ask again later")
        })
    }
}

impl Network for Carrier {
    fn frames(&self, peer: corelog_raft::PeerId) {
        if let Some(links) = self.links.borrow().upgrade() {
            links.has_frames(peer_of(peer));
        }
    }

    fn ask(&self, peer: corelog_raft::PeerId, ask: Ask) -> Answer {
        let (peer, content) = (peer_of(peer), asks::encode_ask(&ask));
        let called = self.call(Callee::Peer(peer), CallKind::Segments, content.into(), ANSWER_MAX);
        Box::pin(async move {
            let told = match called.await {
                Ok(answer) => asks::decode_told(&answer.head, answer.body.clone()),
                Err(error) => {
                    tracing::debug!(%peer, log = %ask.log, %error, "no answer about segments");
                    return None;
                }
            };
            told.inspect_err(|error| {
                tracing::warn!(%peer, log = %ask.log, %error, "an answer about segments is of no use");
            })
            .ok()
        })
    }
}

impl Traffic for Carrier {
    fn connected(&self, peer: PeerId, _: &Introduction) {
        if let Some(replicas) = self.replicas.get() {
            replicas.peer_connected(raft_peer(peer));
        }
    }

    fn disconnected(&self, peer: PeerId, _: &Lost) {
        if let Some(replicas) = self.replicas.get() {
            replicas.peer_disconnected(raft_peer(peer));
        }
    }

    fn refused(&self, peer: PeerId, refusal: &Refusal) {
        tracing::debug!(%peer, ?refusal, "no link");
    }

    fn take_frame(&self, peer: PeerId) -> Option<Frame> {
        let frame = self.replicas.get()?.take_frame(raft_peer(peer))?;
        Some(Frame { head: frame.head, body: frame.body })
    }

    fn receive(&self, peer: PeerId, frame: Received) -> Result<(), String> {
        let Some(replicas) = self.replicas.get() else { return Ok(()) };
        let Some((prefix, header)) = frame.head.split_first_chunk::<PREFIX_BYTES>() else {
            return Err(format!("a frame's head of {} bytes", frame.head.len()));
        };
        let prefix = Prefix::parse(*prefix).map_err(|error| error.to_string())?;
        if (header.len(), frame.body.len()) != (prefix.header as usize, prefix.body as usize) {
            return Err("a frame of other lengths than it says".into());
        }
        let content = decode(prefix, header, frame.body.clone()).map_err(|error| error.to_string())?;
        replicas.receive(raft_peer(peer), content, frame);
        Ok(())
    }

    fn call(&self, from: Introduction, request: Received) -> LocalBoxFuture<'static, Result<Frame, String>> {
        match self.handler_of(request.head.first().copied()) {
            Ok(handler) => {
                let (head, body) = (request.head.slice(1..), request.body.clone());
                handler(Call { from, head, body, _received: request })
            }
            Err(what) => Box::pin(async move { Err(what) }),
        }
    }
}
