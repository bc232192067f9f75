//! What syncs make durable, what failed ones lose, and what a power loss leaves.

use super::super::faults::Losses;
use super::super::random::Random;
use super::{Change, DiskState, Inode, InodeId, Regular, apply};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;

impl DiskState {
    /// Makes the changes of a directory durable, and with them what they depend on.
    pub(crate) fn sync_dir(&mut self, path: &Path) -> io::Result<()> {
        let id = self.lookup(path)?;
        self.directory(id)?;
        let mut directories = BTreeSet::from([id]);
        let mut durable = BTreeSet::new();
        // From the newest back: a change in one of the directories takes all older ones of its directories along.
        for (index, change) in self.changes.iter().enumerate().rev() {
            if change.directories().any(|directory| directories.contains(&directory)) {
                directories.extend(change.directories());
                durable.insert(index);
            }
        }
        let mut index = 0;
        let (done, rest) = std::mem::take(&mut self.changes).into_iter().partition(|_| {
            index += 1;
            durable.contains(&(index - 1))
        });
        self.changes = rest;
        self.settle(done);
        self.collect();
        Ok(())
    }

    fn files_on(&mut self, device: u64) -> impl Iterator<Item = &mut Regular> {
        let devices = &self.devices;
        self.inodes.iter_mut().filter_map(move |(id, inode)| match inode {
            Inode::File(file) if devices.get(id).copied().unwrap_or(0) == device => Some(file.as_mut()),
            _ => None,
        })
    }

    /// Makes every file of a file system durable, and all names.
    pub(crate) fn sync_file_system(&mut self, device: u64) {
        self.files_on(device).for_each(|file| file.contents.sync());
        let changes = std::mem::take(&mut self.changes);
        self.settle(changes);
        self.collect();
    }

    /// Some files are durable, the others have lost what they had not.
    pub(crate) fn sync_file_system_failed(&mut self, device: u64, random: &mut Random) {
        for file in self.files_on(device).filter(|file| !file.contents.is_synced()) {
            match random.one_in(2) {
                true => file.contents.sync(),
                false => {
                    file.contents.sync_failed(random);
                    file.losses.add();
                }
            }
        }
        self.system_losses(device).add();
    }

    /// A file has lost what a sync did not write.
    pub(crate) fn add_loss(&mut self, id: InodeId, device: u64) {
        self.losses(id).add();
        self.system_losses(device).add();
    }

    pub(crate) fn losses(&mut self, id: InodeId) -> &mut Losses {
        match self.inodes.get_mut(&id) {
            Some(Inode::File(file)) => &mut file.losses,
            _ => panic!("an open file's inode is gone"),
        }
    }

    pub(crate) fn system_losses(&mut self, device: u64) -> &mut Losses {
        self.system_losses.entry(device).or_default()
    }

    pub(super) fn settle(&mut self, changes: Vec<Change>) {
        for edit in changes.iter().flat_map(|change| &change.edits) {
            if let Some(Inode::Directory(directory)) = self.inodes.get_mut(&edit.directory) {
                apply(&mut directory.durable, edit);
            }
        }
    }

    /// Power loss.
    pub(crate) fn crash(&mut self, random: &mut Random) {
        let changes = std::mem::take(&mut self.changes);
        let mut counts: BTreeMap<InodeId, u64> = BTreeMap::new();
        for directory in changes.iter().flat_map(|change| change.directories()) {
            *counts.entry(directory).or_default() += 1;
        }
        // How many of its changes each directory keeps.
        let mut kept: BTreeMap<InodeId, u64> =
            counts.iter().map(|(directory, count)| (*directory, random.below(count + 1))).collect();
        let mut survivors = Vec::new();
        for change in changes {
            if change.directories().all(|directory| kept[&directory] > 0) {
                for directory in change.directories() {
                    kept.entry(directory).and_modify(|left| *left -= 1);
                }
                survivors.push(change);
            } else {
                // Later changes of these directories build on this one.
                for directory in change.directories() {
                    kept.insert(directory, 0);
                }
            }
        }
        self.settle(survivors);
        self.system_losses.clear();
        for inode in self.inodes.values_mut() {
            match inode {
                Inode::File(file) => {
                    (file.open, file.losses) = (0, Losses::default());
                    file.contents.crash(random, self.torn_unreadable_one_in);
                }
                Inode::Directory(directory) => directory.current = directory.durable.clone(),
            }
        }
        self.collect();
    }
}
