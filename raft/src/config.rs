//! Times and bounds, and how they relate.

use std::time::Duration;

/// What a shard's driver is ticked with.
pub const TICK: Duration = Duration::from_millis(20);

/// Times in ticks. The defaults notice a dead broker in half a second to a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// A leader that has something to say is heard this often, and so is each peer by the others.
    pub heartbeat: u64,
    /// Who hears no leader for so long may vote for another. A follower stands for election after this and a random part
    /// of it more; a leader that reaches no majority for so long steps down.
    pub election: u64,
    /// A leader's lease is that much shorter than the time its followers keep to: what their clocks may differ by while
    /// it lasts, and the tick that either may round away.
    pub lease_margin: u64,
    /// A leader whose group was quiet for so long puts it to rest.
    pub rest: u64,
    /// A follower that was offered a snapshot and does not have it after so long is asked anew what it has.
    pub snapshot: u64,
}

impl Default for Timing {
    fn default() -> Timing {
        const TIMING: Timing =
            Timing { heartbeat: 5, election: 25, lease_margin: 4, rest: 50, snapshot: 250 };
        // Two lost heartbeats don't cost a leader its followers, nor its lease.
        const { assert!(TIMING.heartbeat * 3 + TIMING.lease_margin < TIMING.election) };
        TIMING
    }
}

/// Bounds of one shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Bytes of entries that one follower may owe an answer for. One entry always may, however large.
    pub follower_bytes: u64,
    /// The same over all followers of the shard.
    pub shard_bytes: u64,
    /// Bytes of entries in one frame; one entry is always taken.
    pub append_bytes: u64,
    /// Bytes of frames that wait for one peer's connection. What does not fit is not made, or made again later.
    pub peer_queue_bytes: u64,
    /// Groups of the shard that may begin an election in one tick: after a broker's death the others wait their turn.
    pub elections_per_tick: usize,
}

impl Default for Bounds {
    fn default() -> Bounds {
        const BOUNDS: Bounds = Bounds {
            follower_bytes: 4 << 20,
            shard_bytes: 32 << 20,
            append_bytes: 1 << 20,
            peer_queue_bytes: 8 << 20,
            elections_per_tick: 64,
        };
        // One follower can't take the shard's room, and a window is more than one frame: appends are pipelined.
        const { assert!(BOUNDS.follower_bytes * 4 <= BOUNDS.shard_bytes) };
        const { assert!(BOUNDS.append_bytes * 2 <= BOUNDS.follower_bytes) };
        const { assert!(BOUNDS.append_bytes * 4 <= BOUNDS.peer_queue_bytes) };
        BOUNDS
    }
}

/// Replicas of one group, in all roles: what a membership on disk or wire may name.
pub const REPLICAS_MAX: usize = 32;
