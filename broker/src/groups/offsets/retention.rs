//! Offsets that nobody needs any more, past their retention or of topics that are gone, and groups that hold nothing (KIP-211).

use std::ops::Bound;

use tracing::info;

use super::store::{CommittedOffset, OffsetKey};
use crate::groups::classic::{Group, GroupState};
use crate::groups::machine::{Groups, TimerKey};

/// What one step looks at and removes, at most: the core has other things to do. The next step goes on from there.
const GROUPS_A_STEP: usize = 500;
const TOMBSTONES_A_STEP: usize = 5_000;
const NEXT_STEP_MS: u64 = 20;

/// From when on the retention of a group's offsets runs.
#[derive(Clone, Copy)]
enum RetentionFrom {
    /// Members are there and the group is not at rest: nothing expires.
    Never,
    /// From its own commit: nobody was ever a member, or nobody reads the topic.
    Commit,
    /// From when the group lost its last member, at this wall clock.
    Empty(i64),
}

impl RetentionFrom {
    fn of(group: &Group) -> RetentionFrom {
        match (&group.protocol_type, group.state()) {
            (None, _) => RetentionFrom::Commit,
            (Some(_), GroupState::Empty) => {
                group.state_since_ms.map_or(RetentionFrom::Commit, RetentionFrom::Empty)
            }
            (Some(_), GroupState::Stable) if group.is_consumer_group() && group.knows_subscriptions() => {
                RetentionFrom::Commit
            }
            _ => RetentionFrom::Never,
        }
    }

    fn has_ended(self, offset: &CommittedOffset, now_ms: i64, retention_ms: i64) -> bool {
        match (self, offset.expire_timestamp_ms) {
            (RetentionFrom::Never, _) => false,
            // The client has set a time of its own, as clients could once.
            (_, Some(expire_ms)) => now_ms >= expire_ms,
            (RetentionFrom::Commit, None) => {
                now_ms.saturating_sub(offset.commit_timestamp_ms) >= retention_ms
            }
            (RetentionFrom::Empty(since_ms), None) => now_ms.saturating_sub(since_ms) >= retention_ms,
        }
    }
}

impl Groups {
    pub(in crate::groups) fn schedule_retention(&mut self, in_ms: u64) {
        let due = self.env.desk.now.mono_ms.saturating_add(in_ms);
        self.env.desk.timers.schedule(TimerKey::Retention, due);
    }

    /// One step of a run through all groups.
    pub(in crate::groups) fn apply_retention(&mut self) {
        let now_ms = self.env.desk.now.wall_ms;
        let retention_ms = self.env.config.offsets_retention_ms;
        let from_group = self.retention_from.take().map_or(Bound::Unbounded, Bound::Included);
        let mut removals = Vec::new();
        let mut tombstones = 0;
        for (seen, (id, group)) in self.groups.range((from_group, Bound::Unbounded)).enumerate() {
            if seen >= GROUPS_A_STEP || tombstones >= TOMBSTONES_A_STEP {
                self.retention_from = Some(id.clone());
                break;
            }
            if self.env.is_pending(group.creation) || self.env.is_pending(group.removal) {
                continue;
            }
            let from = RetentionFrom::of(group);
            let mut keys = Vec::new();
            let mut all_go = true;
            for (topic, partition, offset, is_pending) in self.latest_offsets_of(id) {
                let ended = from.has_ended(offset, now_ms, retention_ms) && !group.is_subscribed_to(topic);
                if (ended || self.is_orphan(topic, offset)) && !is_pending {
                    keys.push(OffsetKey { group: id.clone(), topic: topic.clone(), partition });
                } else {
                    all_go = false;
                }
            }
            tombstones += keys.len();
            let group_goes = all_go && group.is(GroupState::Empty) && group.pending_member_count() == 0;
            if group_goes || !keys.is_empty() {
                removals.push((id.clone(), keys, group_goes));
            }
        }
        if !removals.is_empty() {
            info!(
                groups = removals.len(),
                offsets = tombstones,
                "removing offsets past their retention, or of topics that are gone"
            );
        }
        for (group, keys, group_goes) in removals {
            let groups = if group_goes { vec![group] } else { Vec::new() };
            self.remove_offsets(keys, groups, None);
        }
        let unfinished = self.retention_from.is_some();
        let next =
            if unfinished { NEXT_STEP_MS } else { self.env.config.offsets_retention_check_interval_ms };
        self.schedule_retention(next);
    }
}
