//! What must hold whatever happens.

use std::collections::BTreeMap;

use corelog_raft::*;

use crate::disk::Disk;

#[derive(Default)]
pub struct Checks {
    leaders: BTreeMap<(GroupId, Term), ReplicaId>,
    committed: BTreeMap<GroupId, Vec<Entry>>,
    /// What leaders said was committed: acknowledged.
    acknowledged: BTreeMap<GroupId, RaftIndex>,
}

impl Checks {
    pub fn leads(&mut self, group: GroupId, term: Term, replica: ReplicaId) -> Result<(), String> {
        let first = *self.leaders.entry((group, term)).or_insert(replica);
        if first == replica {
            Ok(())
        } else {
            Err(format!("{first} and {replica} lead term {term} of {group}"))
        }
    }

    pub fn elections(&self) -> usize {
        self.leaders.len()
    }

    pub fn acknowledged(&self, group: GroupId) -> RaftIndex {
        self.acknowledged.get(&group).copied().unwrap_or_default()
    }

    /// This replica holds its log to be committed below `end`.
    pub fn commits(
        &mut self,
        group: GroupId,
        disk: &Disk,
        end: RaftIndex,
        leads: bool,
    ) -> Result<(), String> {
        if end < disk.committed {
            return Err(format!("committed fell from {} to {end} in {group}", disk.committed));
        }
        let committed = self.committed.entry(group).or_default();
        for index in disk.committed.0..end.0 {
            let Some(entry) = disk.entry(RaftIndex(index)) else {
                return Err(format!("entry {index} of {group} is committed and not there"));
            };
            match committed.get(index as usize) {
                Some(known) if known != entry => {
                    return Err(format!(
                        "entry {index} of {group} is committed as {known:?} and as {entry:?}"
                    ));
                }
                Some(_) => {}
                None if committed.len() as u64 == index => committed.push(entry.clone()),
                None => return Err(format!("entries before {index} of {group} were never seen committed")),
            }
        }
        if leads {
            let acknowledged = self.acknowledged.entry(group).or_default();
            *acknowledged = end.max(*acknowledged);
        }
        Ok(())
    }

    /// At the end: this replica has all that was ever committed, and nothing else below.
    pub fn has_all(&self, group: GroupId, disk: &Disk) -> Result<(), String> {
        let committed = self.committed.get(&group).map_or(&[][..], Vec::as_slice);
        for entry in &committed[(disk.start.first.0 as usize).min(committed.len())..] {
            if disk.entry(entry.index) != Some(entry) {
                let found = disk.entry(entry.index);
                return Err(format!("committed {entry:?} of {group} is {found:?} after all has healed"));
            }
        }
        Ok(())
    }
}
