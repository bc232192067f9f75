//! The files of a journal: a ring that is overwritten again and again, because a synced overwrite of written blocks
//! costs about half of one that grows a file or fills a reservation (measured: DESIGN, the Rust stack page).
//!
//! Files come into being one after the other as they are needed. Ahead of the head a background task
//! ([`Ring::prepare`]) writes zeros, so that the first lap overwrites written blocks too. A file is used again once
//! a durable checkpoint needs none of its groups ([`Ring::release_below`]).

use crate::error::StorageError;
use crate::format::PAGE;
use crate::format::journal_file::JournalFileHeader;
use crate::paths;
use bytes::Bytes;
use corelog_io::planted::{Fault, planted};
use corelog_io::sync::{Event, Notify, Semaphore};
use corelog_io::{AlignedBuf, File, OpenOptions, fs};
use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// Zeros are written in pieces of this many bytes at the most.
const FILL_PIECE: u64 = 1 << 20;
/// How far ahead of the head zeros are written, at the most.
const FILL_AHEAD: u64 = 8 << 20;
/// Files without which a ring stands still.
const FILES_NEEDED: u64 = 2;

pub struct Ring {
    dir: PathBuf,
    header: JournalFileHeader,
    file_bytes: u64,
    files_max: usize,
    state: RefCell<State>,
    creating: Semaphore,
    /// A file became free, or zeros were written.
    pub freed: Event,
    /// [`Ring::prepare`] has something to do.
    pub wants_prepare: Notify,
    /// Bytes all files may take, for the free-space reckoning.
    allocated: std::cell::Cell<u64>,
}

struct State {
    files: Vec<RingFile>,
    current: usize,
    /// Where the next group goes in the current file.
    position: u64,
}

impl State {
    fn is_begun(&self) -> bool {
        self.files.get(self.current).is_some_and(|file| !file.free)
    }
}

struct RingFile {
    file: File,
    path: Rc<Path>,
    /// Last group in it; 0: none.
    last_sequence: u64,
    free: bool,
    /// Blocks below this have been written before.
    prepared: u64,
    /// Zeros are being written from `prepared` to here: no group may go there now.
    filling: u64,
}

/// Where a group goes.
pub struct Place {
    pub file: File,
    pub path: Rc<Path>,
    pub position: u64,
}

impl Ring {
    /// A ring without files, in `dir`, which exists. The first comes into being with [`Ring::roll`].
    pub fn new(dir: PathBuf, header: JournalFileHeader, file_bytes: u64, files_max: usize) -> Ring {
        Ring {
            dir,
            header,
            file_bytes,
            files_max,
            state: RefCell::new(State { files: Vec::new(), current: 0, position: 0 }),
            creating: Semaphore::new(1),
            freed: Event::new(),
            wants_prepare: Notify::new(),
            allocated: std::cell::Cell::new(0),
        }
    }

    /// Whether there is a file that groups go into.
    pub fn is_begun(&self) -> bool {
        self.state.borrow().is_begun()
    }

    pub fn file_bytes(&self) -> u64 {
        self.file_bytes
    }

    /// Bytes of disk the ring needs to go on, whatever comes: two files, of which one is written while the other is emptied.
    pub fn growth_needed(&self) -> u64 {
        (self.file_bytes * FILES_NEEDED).saturating_sub(self.allocated.get())
    }

    /// Whether a group of `len` bytes can go into the current file.
    pub fn has_room(&self, len: u64) -> bool {
        let state = self.state.borrow();
        state.is_begun() && state.position + len <= self.file_bytes
    }

    /// Whether groups still have room where blocks have been written before, which takes no space of the disk.
    pub fn has_room_to_spare(&self) -> bool {
        let state = self.state.borrow();
        let room = |(i, file): (usize, &RingFile)| match i == state.current {
            true => file.prepared.saturating_sub(state.position),
            false if file.free => file.prepared - PAGE as u64,
            false => 0,
        };
        state.files.iter().enumerate().map(room).sum::<u64>() >= self.ahead() / 4
    }

    /// Whether zeros are being written where a group of `len` bytes would go: wait for [`Ring::freed`].
    pub fn is_being_filled(&self, len: u64) -> bool {
        let state = self.state.borrow();
        let file = state.files.get(state.current);
        file.is_some_and(|file| file.filling > file.prepared && state.position + len > file.prepared)
    }

    /// The place of group `sequence`; the caller has asked [`Ring::has_room`] and [`Ring::is_being_filled`].
    pub fn take(&self, len: u64, sequence: u64) -> Place {
        let state = &mut *self.state.borrow_mut();
        let position = state.position;
        state.position += len;
        assert!(state.position <= self.file_bytes, "a group runs past the end of its journal file");
        let file = &mut state.files[state.current];
        file.last_sequence = sequence;
        file.prepared = file.prepared.max(state.position);
        file.filling = file.filling.max(file.prepared);
        if file.prepared < (state.position + self.ahead() / 2).min(self.file_bytes)
            || (state.position > self.file_bytes / 2 && state.files.len() < self.files_max)
        {
            self.wants_prepare.notify_one();
        }
        let file = &state.files[state.current];
        Place { file: file.file.clone(), path: Rc::clone(&file.path), position }
    }

    /// Goes on to the next file, whose first group will be `first_sequence`. `false`: none is free, nothing happened.
    pub async fn roll(&self, first_sequence: u64) -> Result<bool, StorageError> {
        let find_free = || self.state.borrow().files.iter().position(|f| f.free);
        let next = match find_free() {
            Some(next) => next,
            None if self.state.borrow().files.len() < self.files_max => {
                let _turn = self.creating.acquire(1).await;
                match find_free() {
                    Some(next) => next,
                    None => self.create_file().await?,
                }
            }
            None => return Ok(false),
        };
        self.begin_file(next, first_sequence).await?;
        Ok(true)
    }

    /// Files that the head may still go on to.
    pub fn files_left(&self) -> usize {
        let state = self.state.borrow();
        self.files_max - state.files.len() + state.files.iter().filter(|f| f.free).count()
    }

    /// The last group of the files that are to be emptied now. Of those that are full, the newest can `wait` while the
    /// head has another to go on to.
    pub fn due_through(&self, wait: bool) -> Option<u64> {
        let wait = wait && self.files_left() > 0;
        let state = self.state.borrow();
        let full = |(i, f): (usize, &RingFile)| (i != state.current && !f.free).then_some(f.last_sequence);
        let mut full: Vec<u64> = state.files.iter().enumerate().filter_map(full).collect();
        full.sort_unstable_by_key(|last| std::cmp::Reverse(*last));
        full.get(usize::from(wait)).copied()
    }

    /// A durable checkpoint needs no group below `sequence`: files that hold only such may be used again.
    pub fn release_below(&self, sequence: u64) {
        let state = &mut *self.state.borrow_mut();
        for (i, file) in state.files.iter_mut().enumerate() {
            if i != state.current && file.last_sequence < sequence {
                file.free = true;
            }
        }
        self.freed.notify_all();
    }

    /// Writes zeros ahead of the head and creates the next file ahead of need, until there is nothing to do.
    pub async fn prepare(&self) -> Result<(), StorageError> {
        while self.fill_piece().await? {}
        let wants_file = {
            let state = self.state.borrow();
            state.position > self.file_bytes / 2
                && state.files.len() < self.files_max
                && !state.files.iter().any(|f| f.free)
        };
        if wants_file {
            let _turn = self.creating.acquire(1).await;
            if !self.state.borrow().files.iter().any(|f| f.free) {
                self.create_file().await?;
            }
        }
        Ok(())
    }

    fn ahead(&self) -> u64 {
        (self.file_bytes / 4).min(FILL_AHEAD) & !(PAGE as u64 - 1)
    }

    /// Writes one piece of zeros; `false` if there is enough already.
    async fn fill_piece(&self) -> Result<bool, StorageError> {
        let (current, file, path, from, to) = {
            let state = &mut *self.state.borrow_mut();
            let target = (state.position + self.ahead()).min(self.file_bytes);
            let current = state.current;
            let Some(f) = state.files.get_mut(current) else { return Ok(false) };
            if f.prepared >= target {
                return Ok(false);
            }
            let to = target.min(f.prepared + FILL_PIECE);
            f.filling = to;
            (current, f.file.clone(), Rc::clone(&f.path), f.prepared, to)
        };
        let written = self.fill(&file, from, to).await;
        {
            let state = &mut *self.state.borrow_mut();
            let f = &mut state.files[current];
            match written {
                Ok(()) => f.prepared = f.prepared.max(to),
                Err(_) => f.filling = f.prepared,
            }
        }
        self.freed.notify_all();
        written.map(|()| true).map_err(StorageError::io("write", &path))
    }

    async fn fill(&self, file: &File, from: u64, to: u64) -> std::io::Result<()> {
        let zeros: Bytes = AlignedBuf::new((to - from) as usize).freeze();
        file.write_at(from, zeros, false).await?;
        // The blocks' first write becomes durable here, so that a group's write finds them written.
        file.sync_data().await?;
        self.allocated.set(self.allocated.get() + (to - from));
        Ok(())
    }

    /// Adds an empty, free file and makes its name durable. Its index.
    async fn create_file(&self) -> Result<usize, StorageError> {
        let number = self.state.borrow().files.len();
        let path = self.dir.join(paths::journal_file(self.header.generation, self.header.shard, number));
        let options = OpenOptions { read: true, write: true, create: true, direct: true };
        let file = File::open(&path, options).await.map_err(StorageError::io("create", &path))?;
        // One zeroed page: a file without a header reads as unused.
        let page = AlignedBuf::new(PAGE).freeze();
        file.write_at(0, page, true).await.map_err(StorageError::io("write", &path))?;
        fs::sync_dir(&self.dir).await.map_err(StorageError::io("sync", &self.dir))?;
        self.allocated.set(self.allocated.get() + PAGE as u64);
        let mut state = self.state.borrow_mut();
        assert_eq!(state.files.len(), number, "files are created one at a time");
        let prepared = PAGE as u64;
        state.files.push(RingFile {
            file,
            path: path.into(),
            last_sequence: 0,
            free: true,
            prepared,
            filling: prepared,
        });
        Ok(number)
    }

    /// Makes a free file the current one: its header is durable before any group goes into it.
    async fn begin_file(&self, number: usize, first_sequence: u64) -> Result<(), StorageError> {
        let (file, path) = {
            let state = self.state.borrow();
            let f = &state.files[number];
            assert!(f.free, "only a free journal file is begun");
            (f.file.clone(), Rc::clone(&f.path))
        };
        let mut page = AlignedBuf::new(PAGE);
        JournalFileHeader { first_sequence, ..self.header }.encode(&mut page);
        file.write_at(0, page.freeze(), true).await.map_err(StorageError::io("write", &path))?;
        let mut state = self.state.borrow_mut();
        state.files[number].free = false;
        state.current = number;
        state.position = PAGE as u64;
        drop(state);
        self.wants_prepare.notify_one();
        Ok(())
    }
}

impl Place {
    /// Writes `bytes` and syncs them. A full disk is waited out by the caller.
    pub async fn write(&self, bytes: Bytes) -> Result<(), StorageError> {
        let outcome = self.file.write_at(self.position, bytes, true).await;
        if planted(Fault::FailedSyncCounts) {
            return Ok(());
        }
        outcome.map_err(StorageError::io("write", &self.path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use corelog_io::sim::Sim;

    #[test]
    fn the_newest_full_file_waits_only_while_the_head_has_another_to_go_on_to() {
        Sim::new(1).block_on(async {
            let dir = PathBuf::from("/journal");
            fs::create_dir_all(&dir).await.expect("the disk is empty");
            let header = JournalFileHeader { generation: 1, shard: 0, salt: 1, first_sequence: 1 };
            let ring = Ring::new(dir, header, 64 << 10, 4);
            assert!(!ring.has_room(PAGE as u64) && ring.roll(1).await.expect("there is room"));
            let mut due = Vec::new();
            for sequence in 1..=3 {
                ring.take(PAGE as u64, sequence);
                assert!(ring.roll(sequence + 1).await.expect("there is room"));
                due.push((ring.due_through(true), ring.due_through(false)));
            }
            assert_eq!(due, [(None, Some(1)), (Some(1), Some(2)), (Some(3), Some(3))]);
            ring.release_below(2);
            assert_eq!(ring.due_through(true), Some(2));
        });
    }
}
