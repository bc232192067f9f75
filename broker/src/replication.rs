//! A shard's replicas over its links: what one has to say the other carries.

use std::cell::{OnceCell, RefCell};
use std::rc::{Rc, Weak};

use corelog_raft::frame::{PREFIX_BYTES, Prefix, decode};
use corelog_replicas::{Answer, Ask, Network, Replicas};
use futures_util::future::LocalBoxFuture;

use crate::peer::{BrokerId, Frame, Introduction, Links, Lost, PeerId, Received, Refusal, ShardId, Traffic};

/// Between a shard's [`Links`] and its [`Replicas`], which are made after it, and do not know each other.
#[derive(Default)]
pub struct Carrier {
    links: RefCell<Weak<Links>>,
    replicas: OnceCell<Rc<Replicas>>,
}

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

    /// From now on what comes is handed on, and what is said leaves.
    pub fn join(&self, links: &Rc<Links>, replicas: &Rc<Replicas>) {
        self.links.replace(Rc::downgrade(links));
        let joined = self.replicas.set(replicas.clone());
        assert!(joined.is_ok(), "a shard has one set of replicas");
    }
}

impl Network for Carrier {
    fn frames(&self, peer: corelog_raft::PeerId) {
        if let Some(links) = self.links.borrow().upgrade() {
            links.has_frames(peer_of(peer));
        }
    }

    /// No call carries segments yet: who needs them stays behind.
    fn ask(&self, _: corelog_raft::PeerId, _: Ask) -> Answer {
        Box::pin(async { None })
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
        replicas.receive(raft_peer(peer), content);
        Ok(())
    }

    fn call(&self, _: Introduction, _: Received) -> LocalBoxFuture<'static, Result<Frame, String>> {
        Box::pin(async { Err("no calls are known yet".into()) })
    }
}
