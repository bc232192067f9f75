//! A consumer's settings.

use super::assignor::Assignor;
use super::group::RebalanceEvent;
use crate::config::{FOREVER, INTERVAL_MIN, bound};
use crate::error::{Error, Result};
use crate::leaders::Isolation;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Where to begin in a partition without a committed offset, and when the position is no longer there. Where a log was cut that was
/// read further (KIP-320), both `Earliest` and `Latest` go on with the first record that is another one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OffsetReset {
    Earliest,
    #[default]
    Latest,
    /// Nowhere: polling fails, until one seeks.
    Fail,
}

/// Start from `ConsumerConfig::default()` or [`ConsumerConfig::group`] and change what matters.
#[derive(Clone, Debug)]
pub struct ConsumerConfig {
    /// The group whose offsets are committed and whose members share the partitions of what they subscribe to.
    pub group: Option<String>,
    /// Makes a static member (KIP-345): it may restart within the session timeout without a rebalance.
    pub instance_id: Option<String>,
    pub offset_reset: OffsetReset,
    /// How often positions are committed for what earlier polls returned, and once more by closing; None to commit by hand. Only with
    /// a group.
    pub auto_commit: Option<Duration>,
    pub isolation: Isolation,
    /// A broker answers when it has this much, or after `fetch_wait_max`.
    pub fetch_bytes_min: usize,
    pub fetch_wait_max: Duration,
    /// Of one answer; a single larger batch still comes.
    pub fetch_bytes_max: usize,
    /// Of one partition in one answer; a single larger batch still comes.
    pub partition_bytes_max: usize,
    /// Fetched and not yet polled, in bytes as they came; nothing is fetched beyond it, which may be overshot by one answer.
    pub buffer_bytes_max: usize,
    /// What one batch may decompress to.
    pub batch_bytes_max: usize,
    /// Records returned by one poll.
    pub poll_records_max: usize,
    /// Bytes of keys, values and headers returned by one poll; a single larger record still comes.
    pub poll_bytes_max: usize,
    /// Without a heartbeat for so long a member is taken for dead.
    pub session_timeout: Duration,
    pub heartbeat_interval: Duration,
    /// Without a poll for so long, from subscribing on, the consumer leaves its group; a static member lets its session end. Also how long
    /// it may take to rejoin a group.
    pub poll_interval_max: Duration,
    /// Closing takes no longer, whether brokers answer or not.
    pub close_timeout: Duration,
    /// Ways to share partitions, the preferred one first; all members must have one in common.
    pub assignors: Vec<Assignor>,
    /// Where this consumer is; told to brokers and to the group's assignor.
    pub rack: Option<String>,
    /// Told when the group gives partitions or takes them away.
    pub rebalance_listener: Option<RebalanceListener>,
}

/// See [`RebalanceEvent`].
#[derive(Clone)]
pub struct RebalanceListener(pub Arc<dyn Fn(&RebalanceEvent) + Send + Sync>);

impl fmt::Debug for RebalanceListener {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("RebalanceListener")
    }
}

impl Default for ConsumerConfig {
    fn default() -> Self {
        ConsumerConfig {
            group: None,
            instance_id: None,
            offset_reset: OffsetReset::default(),
            auto_commit: Some(Duration::from_secs(5)),
            isolation: Isolation::default(),
            fetch_bytes_min: 1,
            fetch_wait_max: Duration::from_millis(500),
            fetch_bytes_max: 50 << 20,
            partition_bytes_max: 1 << 20,
            buffer_bytes_max: 64 << 20,
            batch_bytes_max: 128 << 20,
            poll_records_max: 500,
            poll_bytes_max: 16 << 20,
            session_timeout: Duration::from_secs(45),
            heartbeat_interval: Duration::from_secs(3),
            poll_interval_max: Duration::from_secs(300),
            close_timeout: Duration::from_secs(30),
            assignors: vec![Assignor::Range, Assignor::CooperativeSticky],
            rack: None,
            rebalance_listener: None,
        }
    }
}

impl ConsumerConfig {
    /// A member of this group.
    pub fn group(name: impl Into<String>) -> ConsumerConfig {
        ConsumerConfig { group: Some(name.into()), ..Default::default() }
    }

    /// Begins at the first record where nothing is committed.
    pub fn from_earliest(mut self) -> Self {
        self.offset_reset = OffsetReset::Earliest;
        self
    }

    /// With times that can be counted with.
    pub(super) fn bounded(mut self) -> ConsumerConfig {
        bound([
            &mut self.fetch_wait_max,
            &mut self.session_timeout,
            &mut self.heartbeat_interval,
            &mut self.poll_interval_max,
            &mut self.close_timeout,
        ]);
        self.auto_commit = self.auto_commit.map(|interval| interval.clamp(INTERVAL_MIN, FOREVER));
        self
    }

    pub(super) fn check(&self) -> Result<()> {
        let zero = [
            ("poll_records_max", self.poll_records_max),
            ("poll_bytes_max", self.poll_bytes_max),
            ("partition_bytes_max", self.partition_bytes_max),
            ("fetch_bytes_max", self.fetch_bytes_max),
            ("buffer_bytes_max", self.buffer_bytes_max),
        ];
        if let Some((name, _)) = zero.iter().find(|(_, value)| *value == 0) {
            return Err(Error::config(format!("{name} is 0"), "raise it"));
        }
        if self.group.as_ref().is_some_and(String::is_empty) {
            return Err(Error::config("the group's name is empty", "give it one, or leave the group out"));
        }
        if self.heartbeat_interval >= self.session_timeout {
            return Err(Error::config(
                "heartbeat_interval must be below session_timeout",
                "use a third of session_timeout at most",
            ));
        }
        if self.assignors.is_empty() {
            return Err(Error::config("assignors is empty", "name at least one"));
        }
        Ok(())
    }
}
