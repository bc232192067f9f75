//! Connections between brokers.
//!
//! # Ends
//!
//! Where a partition lives is each broker's own affair, so shards talk with shards: an end of a connection is one shard of
//! one broker ([`PeerId`]), and what shard 2 of broker 1 has to say to shard 0 of broker 5 goes there directly, by a
//! connection of these two. [`Links`] is what a shard has of them; its user is told what comes by [`Traffic`].
//!
//! | | connects | carries |
//! |---|---|---|
//! | *link* | the broker with the lower id, while both ends want each other ([`Links::want`]) | frames of replication, both ways, in order |
//! | *line* | who has calls, when it has one ([`Links::call`]); left when there are none | requests there, answers back, in any order |
//!
//! Calls have connections of their own so that no large answer stands before a heartbeat, in a queue here or in the kernel's.
//! Of a link it is fixed who connects, so that two never duel; the other end *knocks* while it waits: it greets, and is
//! greeted, so that the one whose turn it is does not sit out its pause, and each learns why the other does not have it.
//!
//! # From the port to the shard
//!
//! Shard 0 has the listener (`listener.rs`). Who connects has a second for its greeting (`hello.rs`), which says who it is and
//! which shard it wants; there is room for few such at a time. A greeting that is in order goes with its socket to that shard,
//! by mailbox; all others are told why not, and so is the log.
//!
//! # Which of two connections counts
//!
//! A connection counts when the end that accepted it has had an answer to its welcome: then its other end lived after it was
//! welcomed, and whoever was greeted later is later. One such comes in the place of a former one of the same incarnation. Of
//! another incarnation it is not even welcomed before the former connection has ended: if that still answers, two brokers
//! have one id, and the one that came second is refused. An incarnation that another has followed is refused for ever. So
//! nothing of an older process arrives behind something of a newer one.
//!
//! # Who is silent, who is slow
//!
//! Who has nothing to send pings every [`PING_AFTER`]; who is not heard for [`SILENCE_MAX`], while this end would read, is
//! cut off. An end that does not read stalls its own connection and nothing else: frames are taken from their source when the
//! socket can take them ([`Traffic::take_frame`]), so that nothing is queued twice, and after [`STALL_MAX`] it is cut off too.
//! What is received has a budget of its own ([`LinksConfig::receive_bytes`]): when it is used up, nothing more is read.
//!
//! # Absent on purpose
//!
//! Forwarding by a hop, and queues of frames. Nobody is told of frames that were on their way when a connection was lost:
//! replication says them again.

mod backoff;
mod calls;
mod carry;
pub mod envelope;
#[allow(clippy::all, dead_code, unused_imports, deprecated, mismatched_lifetime_syntaxes, unsafe_op_in_unsafe_fn)]
#[rustfmt::skip]
mod generated;
mod handshake;
pub mod hello;
mod line;
mod link;
mod links;
mod listener;
mod metrics;
mod receive;
#[cfg(test)]
mod tests;

use std::fmt;
use std::time::Duration;

use futures_util::future::LocalBoxFuture;

pub use crate::ids::{BrokerId, ShardId};
pub use calls::{Answer, CALL_BYTES_MAX, CallError, Callee, RUNNING_MAX};
pub use carry::Lost;
pub use envelope::Frame;
pub use hello::{Introduction, Refusal, RefusalKind};
pub use links::{LinkSeat, Links, LinksConfig, seats};
pub use receive::Received;

/// Who has nothing to send for so long sends a ping.
pub const PING_AFTER: Duration = Duration::from_millis(200);
/// Who is not heard for so long is gone.
pub const SILENCE_MAX: Duration = Duration::from_millis(800);
/// Who takes nothing of what is sent for so long is as good as gone; the kernel's own limit too.
pub const STALL_MAX: Duration = Duration::from_secs(10);
/// For TCP's handshake.
const CONNECT_MAX: Duration = Duration::from_secs(1);
/// For a greeting that is due, from its first byte to its last.
const GREETING_MAX: Duration = Duration::from_secs(1);
/// A welcome may wait until a former incarnation's connection has gone silent.
const FORMER_MAX: Duration = Duration::from_millis(1_000);
/// From hello to welcome.
const WELCOME_MAX: Duration = Duration::from_millis(2_500);
const _: () = {
    assert!(PING_AFTER.as_millis() * 3 < SILENCE_MAX.as_millis(), "two lost pings cost no connection");
    assert!(SILENCE_MAX.as_millis() < FORMER_MAX.as_millis());
    assert!(GREETING_MAX.as_millis() + FORMER_MAX.as_millis() < WELCOME_MAX.as_millis());
};

/// One end of a connection: a shard of a broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId {
    pub broker: BrokerId,
    pub shard: ShardId,
}

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "broker {} shard {}", self.broker.0, self.shard.0)
    }
}

/// One life of a broker's process: a number drawn when it starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Incarnation(pub u64);

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// What a shard says to its peers and hears of them. All of it is called from tasks of [`Links`], on its shard, and never
/// from within a call to `Links`, which hold it: it may know them by a `Weak` alone.
pub trait Traffic {
    /// A link stands. What is received from now on is the peer's from now on, in its order, without a gap, until
    /// [`Traffic::disconnected`].
    fn connected(&self, peer: PeerId, who: &Introduction);
    fn disconnected(&self, peer: PeerId, why: &Lost);
    /// The peer, or this end, will not have the link; it is tried again.
    fn refused(&self, peer: PeerId, refusal: &Refusal);
    /// The next frame for a peer that is connected: asked for when its socket can take more.
    fn take_frame(&self, peer: PeerId) -> Option<Frame>;
    /// A frame of a peer that is connected. Its memory counts until it is dropped. An error ends the connection.
    fn receive(&self, peer: PeerId, frame: Received) -> Result<(), String>;
    /// A call: answered when it comes to something, in no order. It runs to its end whether or not its caller waits.
    fn call(&self, from: Introduction, request: Received) -> LocalBoxFuture<'static, Result<Frame, String>>;
}
