//! A simulated file's bytes: what programs see, what the medium has, and what a power loss makes of the difference.
//!
//! Bytes live in pages of 4096 (the file system's block). Each write makes a new version of its pages. Until a sync,
//! a page's versions are all candidates: at a power loss the page comes back as the medium has it, as one of the
//! versions, or torn between them at 512-byte sectors (what a device writes at once). Lengths have their versions
//! too, in order, as a journaling file system commits them.

use super::random::Random;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::rc::Rc;

pub(crate) const PAGE: usize = 4096;
const SECTOR: usize = 512;
const _: () = assert!(PAGE.is_multiple_of(SECTOR));

type Page = [u8; PAGE];

thread_local! {
    /// Shared by all pages that are allocated but were never written.
    static ZEROS: Rc<Page> = Rc::new([0; PAGE]);
}

fn zeros() -> Rc<Page> {
    ZEROS.with(Rc::clone)
}

/// A file at one point: absent pages are holes and read as zeros.
#[derive(Clone, Default)]
struct Image {
    len: u64,
    pages: Vec<Option<Rc<Page>>>,
    /// How many of them are there.
    taken: usize,
}

impl Image {
    fn page(&self, index: usize) -> Option<&Rc<Page>> {
        self.pages.get(index).and_then(Option::as_ref)
    }

    fn set(&mut self, index: usize, page: Rc<Page>) {
        if self.pages.len() <= index {
            self.pages.resize(index + 1, None);
        }
        if self.pages[index].replace(page).is_none() {
            self.taken += 1;
        }
    }

    /// Cuts off what lies at or behind `len`; grows with a hole.
    fn set_len(&mut self, len: u64) {
        if len < self.len {
            let kept = page_count(len).min(self.pages.len());
            self.taken -= self.pages.drain(kept..).flatten().count();
            let keep = (len % PAGE as u64) as usize;
            if keep > 0
                && let Some(Some(last)) = self.pages.get_mut((len / PAGE as u64) as usize)
            {
                Rc::make_mut(last)[keep..].fill(0);
            }
        }
        self.len = len;
    }
}

fn page_count(len: u64) -> usize {
    len.div_ceil(PAGE as u64) as usize
}

/// A length the file has had since the last sync.
#[derive(Clone, Copy)]
struct LenChange {
    len: u64,
    shrinks: bool,
}

struct Version {
    page: Rc<Page>,
    /// How many length changes preceded it: after a cut, it can only be on the medium if the cut is.
    after: usize,
}

#[derive(Default)]
pub(crate) struct Contents {
    current: Image,
    durable: Image,
    unsynced: BTreeMap<usize, Vec<Version>>,
    lens: Vec<LenChange>,
    /// Pages whose sync failed: the kernel holds them for clean, so no later sync writes them.
    forsaken: BTreeSet<usize>,
    /// Pages were allocated, not written, since the last sync.
    allocated: bool,
    /// Pages that the medium does not give back, until they are written anew.
    unreadable: BTreeSet<usize>,
    /// Of these, the ones that are on the medium: a write heals them once it is synced.
    unreadable_durable: BTreeSet<usize>,
    /// Pages that the medium neither gives back nor takes.
    bad: BTreeSet<usize>,
}

impl Contents {
    pub(crate) fn len(&self) -> u64 {
        self.current.len
    }

    /// Bytes of disk space taken.
    pub(crate) fn space(&self) -> u64 {
        (self.current.taken * PAGE) as u64
    }

    /// Fills `buf` from `pos`; how many bytes the file has there.
    pub(crate) fn read(&self, pos: u64, buf: &mut [u8]) -> usize {
        let len = (self.current.len.saturating_sub(pos)).min(buf.len() as u64) as usize;
        for (index, within, range) in spans(pos, len) {
            match self.current.page(index) {
                Some(page) => {
                    let bytes = &page[within..within + range.len()];
                    buf[range].copy_from_slice(bytes);
                }
                None => buf[range].fill(0),
            }
        }
        len
    }

    /// EIO where a page of the range cannot be read.
    pub(crate) fn check_readable(&self, pos: u64, len: usize) -> io::Result<()> {
        let is_lost = |index: usize| self.unreadable.contains(&index) || self.bad.contains(&index);
        match spans(pos, len).any(|(index, _, _)| is_lost(index)) {
            true => Err(io::Error::from_raw_os_error(libc::EIO)),
            false => Ok(()),
        }
    }

    /// EIO where a page is bad, or where a part of one is to be written that the device cannot read to put the two together.
    pub(crate) fn check_writable(&self, pos: u64, len: usize) -> io::Result<()> {
        let is_refused = |(index, _, range): (usize, usize, std::ops::Range<usize>)| {
            self.bad.contains(&index) || (range.len() < PAGE && self.unreadable.contains(&index))
        };
        match spans(pos, len).any(is_refused) {
            true => Err(io::Error::from_raw_os_error(libc::EIO)),
            false => Ok(()),
        }
    }

    /// Pages of the range cannot be read from now on.
    pub(crate) fn make_unreadable(&mut self, pos: u64, len: usize) {
        for (index, _, _) in spans(pos, len) {
            self.unreadable.insert(index);
            self.unreadable_durable.insert(index);
        }
    }

    pub(crate) fn make_bad(&mut self, pos: u64, len: usize) {
        self.bad.extend(spans(pos, len).map(|(index, _, _)| index));
    }

    pub(crate) fn mend(&mut self) {
        for lost in [&mut self.bad, &mut self.unreadable, &mut self.unreadable_durable] {
            lost.clear();
        }
    }

    /// Disk space that writing `len` bytes at `pos` would newly take.
    pub(crate) fn space_needed(&self, pos: u64, len: u64) -> u64 {
        if len == 0 {
            return 0;
        }
        let pages = (pos / PAGE as u64) as usize..page_count(pos + len);
        pages.filter(|&index| self.current.page(index).is_none()).count() as u64 * PAGE as u64
    }

    pub(crate) fn write(&mut self, pos: u64, data: &[u8]) {
        if data.is_empty() {
            return;
        }
        if pos + data.len() as u64 > self.current.len {
            self.change_len(pos + data.len() as u64);
        }
        for (index, within, range) in spans(pos, data.len()) {
            let mut page = self.current.page(index).cloned().unwrap_or_else(zeros);
            Rc::make_mut(&mut page)[within..within + range.len()].copy_from_slice(&data[range]);
            self.put(index, page);
        }
    }

    fn put(&mut self, index: usize, page: Rc<Page>) {
        self.current.set(index, Rc::clone(&page));
        self.forsaken.remove(&index);
        self.unreadable.remove(&index);
        self.unsynced.entry(index).or_default().push(Version { page, after: self.lens.len() });
    }

    pub(crate) fn allocate(&mut self, pos: u64, len: u64) {
        if pos + len > self.current.len {
            self.change_len(pos + len);
        }
        for index in (pos / PAGE as u64) as usize..page_count(pos + len) {
            if self.current.page(index).is_none() {
                self.current.set(index, zeros());
                self.allocated = true;
            }
        }
    }

    pub(crate) fn truncate(&mut self, len: u64) {
        if len != self.current.len {
            self.change_len(len);
        }
    }

    fn change_len(&mut self, len: u64) {
        let shrinks = len < self.current.len;
        self.lens.push(LenChange { len, shrinks });
        self.current.set_len(len);
        if shrinks {
            // Versions of what is cut off are lost; the page the cut goes through has a new one.
            self.unsynced.split_off(&page_count(len));
            self.unreadable.split_off(&page_count(len));
            self.bad.split_off(&page_count(len));
            let last = (len / PAGE as u64) as usize;
            if let Some(page) = self.current.page(last).cloned() {
                self.put(last, page);
            }
        }
    }

    /// fdatasync: the medium has what programs see.
    pub(crate) fn sync(&mut self) {
        self.sync_len();
        for (index, _) in std::mem::take(&mut self.unsynced) {
            if self.forsaken.contains(&index) {
                continue;
            }
            if let Some(page) = self.current.page(index).cloned() {
                self.durable.set(index, page);
                self.unreadable_durable.remove(&index);
            }
        }
        if std::mem::take(&mut self.allocated) {
            for index in 0..self.current.pages.len() {
                if let (Some(page), None) = (self.current.page(index).cloned(), self.durable.page(index)) {
                    self.durable.set(index, page);
                }
            }
        }
    }

    pub(crate) fn is_synced(&self) -> bool {
        self.unsynced.is_empty()
    }

    /// A sync failed: some of what was unsynced is on the medium, and no later sync writes the rest.
    pub(crate) fn sync_failed(&mut self, random: &mut Random) {
        for index in self.unsynced.keys().copied().collect::<Vec<usize>>() {
            self.page_failed(index, random);
        }
    }

    /// As [`Contents::sync_failed`], of a write with RWF_DSYNC.
    pub(crate) fn sync_range_failed(&mut self, pos: u64, len: usize, random: &mut Random) {
        for (index, _, _) in spans(pos, len) {
            self.page_failed(index, random);
        }
    }

    fn page_failed(&mut self, index: usize, random: &mut Random) {
        let Some(page) = self.current.page(index).cloned() else { return };
        // What was written behind a cut is on the medium only if the cut is.
        let may_be_written = !self.lens.iter().any(|change| change.shrinks);
        match random.below(3) {
            0 if may_be_written => {
                self.durable.set(index, page);
                self.unsynced.remove(&index);
                self.unreadable_durable.remove(&index);
                return;
            }
            0 | 1 => {}
            // The kernel has use for the memory of a page that it holds for clean.
            _ => {
                self.current.set(index, self.durable.page(index).cloned().unwrap_or_else(zeros));
                self.unsynced.remove(&index);
                if self.unreadable_durable.contains(&index) {
                    self.unreadable.insert(index);
                }
            }
        }
        self.forsaken.insert(index);
    }

    /// A write with RWF_DSYNC ends: its bytes, and the length, are on the medium.
    pub(crate) fn sync_range(&mut self, pos: u64, len: usize) {
        self.sync_len();
        for (index, within, range) in spans(pos, len) {
            let Some(current) = self.current.page(index).cloned() else { continue };
            if range.len() == PAGE {
                self.unsynced.remove(&index);
                self.unreadable_durable.remove(&index);
                self.durable.set(index, current);
                continue;
            }
            let bytes = within..within + range.len();
            let mut page = self.durable.page(index).cloned().unwrap_or_else(zeros);
            Rc::make_mut(&mut page)[bytes.clone()].copy_from_slice(&current[bytes.clone()]);
            self.durable.set(index, page);
            for version in self.unsynced.get_mut(&index).into_iter().flatten() {
                Rc::make_mut(&mut version.page)[bytes.clone()].copy_from_slice(&current[bytes.clone()]);
            }
        }
    }

    fn sync_len(&mut self) {
        if self.lens.is_empty() {
            return;
        }
        self.cut_durable(self.lens.len());
        self.durable.set_len(self.current.len);
        self.lens.clear();
        for version in self.unsynced.values_mut().flatten() {
            version.after = 0;
        }
    }

    /// The medium takes the first `n` length changes: what a cut took away does not come back when it grows again.
    fn cut_durable(&mut self, n: usize) {
        for change in &self.lens[..n] {
            if change.len < self.durable.len || change.shrinks {
                self.durable.set_len(change.len.min(self.durable.len));
            }
        }
    }

    /// Power loss. One in `unreadable_one_in` (0: none) of the pages that were being written cannot be read after it.
    pub(crate) fn crash(&mut self, random: &mut Random, unreadable_one_in: u64) {
        let kept = random.below(self.lens.len() as u64 + 1) as usize;
        let len = if kept == 0 { self.durable.len } else { self.lens[kept - 1].len };
        self.cut_durable(kept);
        self.durable.set_len(len);
        let cuts: Vec<usize> = (1..=self.lens.len()).filter(|&n| self.lens[n - 1].shrinks).collect();
        for (index, mut versions) in std::mem::take(&mut self.unsynced) {
            versions
                .retain(|version| cuts.iter().filter(|&&cut| cut <= version.after).all(|&cut| cut <= kept));
            if !versions.is_empty() && self.unreadable_durable.contains(&index) && random.one_in(2) {
                self.unreadable_durable.remove(&index);
            }
            if !versions.is_empty() && random.one_in(unreadable_one_in) {
                self.unreadable_durable.insert(index);
            }
            let before = self.durable.page(index).cloned();
            if let Some(page) = survivor(before, &versions, random) {
                self.durable.set(index, page);
            }
        }
        // Nothing lies behind the end.
        self.durable.len = u64::MAX;
        self.durable.set_len(len);
        self.current = self.durable.clone();
        self.lens.clear();
        self.forsaken.clear();
        self.allocated = false;
        self.unreadable_durable.retain(|&index| index < page_count(len));
        self.unreadable = self.unreadable_durable.clone();
        self.bad.retain(|&index| index < page_count(len));
    }

    /// Flips a bit wherever the page is; false behind the end of the file.
    pub(crate) fn flip_bit(&mut self, bit: u64) -> bool {
        let byte = bit / 8;
        if byte >= self.current.len {
            return false;
        }
        let (index, within) = ((byte / PAGE as u64) as usize, (byte % PAGE as u64) as usize);
        let flip = |page: &mut Rc<Page>| Rc::make_mut(page)[within] ^= 1 << (bit % 8);
        let mut page = self.current.page(index).cloned().unwrap_or_else(zeros);
        flip(&mut page);
        self.current.set(index, page);
        let mut page = self.durable.page(index).cloned().unwrap_or_else(zeros);
        flip(&mut page);
        self.durable.set(index, page);
        self.unsynced.get_mut(&index).into_iter().flatten().for_each(|version| flip(&mut version.page));
        true
    }
}

/// What a power loss leaves of a page: the medium's, one of the versions, or a mix of them by sectors.
fn survivor(before: Option<Rc<Page>>, versions: &[Version], random: &mut Random) -> Option<Rc<Page>> {
    let candidates = versions.len() as u64 + 1;
    let draw = |random: &mut Random| random.below(candidates) as usize;
    let pick = |choice: usize| match choice {
        0 => before.clone(),
        n => Some(Rc::clone(&versions[n - 1].page)),
    };
    if versions.is_empty() || !random.one_in(4) {
        return pick(draw(random));
    }
    let mut torn = zeros();
    let bytes = Rc::make_mut(&mut torn);
    for sector in (0..PAGE).step_by(SECTOR) {
        if let Some(page) = pick(draw(random)) {
            bytes[sector..sector + SECTOR].copy_from_slice(&page[sector..sector + SECTOR]);
        }
    }
    Some(torn)
}

/// The pages a range goes through: page index, offset within the page, and the part of the range there.
fn spans(pos: u64, len: usize) -> impl Iterator<Item = (usize, usize, std::ops::Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        if done >= len {
            return None;
        }
        let at = pos + done as u64;
        let within = (at % PAGE as u64) as usize;
        let n = (PAGE - within).min(len - done);
        let span = ((at / PAGE as u64) as usize, within, done..done + n);
        done += n;
        Some(span)
    })
}

#[cfg(test)]
mod tests;
