//! What metrics are told of groups, a few at a time, so that no core is held up.

use std::ops::Bound;

use corelog_wire::Str;

use super::machine::Groups;

/// A group, or a part of one: one with many offsets comes in several rows, one behind the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupRow {
    pub group: Str,
    pub state: &'static str,
    pub members: usize,
    /// Topics that its members subscribe to; in its first row.
    pub subscribed: Vec<Str>,
    /// Topic, partition, and the offset that was committed.
    pub offsets: Vec<(Str, i32, i64)>,
}

/// Where to go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// The partition of `__consumer_offsets`.
    pub(super) partition: i32,
    pub(super) group: Option<Str>,
    /// The last offset that was told of this group.
    pub(super) offset: Option<(Str, i32)>,
}

impl Cursor {
    pub(super) fn partition(partition: i32) -> Cursor {
        Cursor { partition, group: None, offset: None }
    }
}

impl Groups {
    /// Tells of groups from `from` on, in the order of their ids, until as many offsets and groups as there is `room`
    /// for are told; then where to go on, but for the partition.
    pub fn observe(&self, from: Cursor, rows: &mut Vec<GroupRow>, room: &mut usize) -> Option<Cursor> {
        let begin = from.group.as_deref().map_or(Bound::Unbounded, Bound::Included);
        for group in self.groups.range::<str, _>((begin, Bound::Unbounded)).map(|(_, group)| group) {
            if !self.is_shown(group) {
                continue;
            }
            let here = |offset| Some(Cursor { group: Some(group.id.clone()), offset, ..from });
            if *room == 0 {
                return here(None);
            }
            let behind = from.offset.as_ref().filter(|_| from.group.as_ref() == Some(&group.id));
            let mut row = GroupRow {
                group: group.id.clone(),
                state: group.state().name(),
                members: group.member_count(),
                subscribed: Vec::new(),
                offsets: Vec::new(),
            };
            if behind.is_none() {
                row.subscribed.extend(group.subscribed_topics().cloned());
            }
            for (topic, partition, offset) in self.state.offsets.behind(&group.id, behind) {
                if *room == 0 {
                    let last = row.offsets.last().map(|(topic, partition, _)| (topic.clone(), *partition));
                    let place = here(last);
                    rows.push(row);
                    return place;
                }
                row.offsets.push((topic.clone(), partition, offset));
                *room -= 1;
            }
            *room = room.saturating_sub(1);
            rows.push(row);
        }
        None
    }
}
