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
        match spans(pos, len).any(|(index, _, _)| self.unreadable.contains(&index)) {
            true => Err(io::Error::from_raw_os_error(libc::EIO)),
            false => Ok(()),
        }
    }

    /// EIO where a part of a page is to be written that the device cannot read to put the two together.
    pub(crate) fn check_writable(&self, pos: u64, len: usize) -> io::Result<()> {
        let in_part = |(index, _, range): (usize, usize, std::ops::Range<usize>)| {
            range.len() < PAGE && self.unreadable.contains(&index)
        };
        match spans(pos, len).any(in_part) {
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

    /// fdatasync failed: what was unsynced may or may not be on the medium, and no later sync will tell.
    pub(crate) fn sync_failed(&mut self) {
        self.forsaken.extend(self.unsynced.keys());
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
mod tests {
    use super::*;

    fn all(contents: &Contents) -> Vec<u8> {
        let mut buf = vec![0xee; contents.len() as usize];
        assert_eq!(contents.read(0, &mut buf), buf.len());
        buf
    }

    #[test]
    fn synced_bytes_survive_every_crash() {
        for seed in 0..200 {
            let mut contents = Contents::default();
            contents.write(100, &[1; 9000]);
            contents.sync();
            contents.write(4096, &[2; 4096]);
            contents.sync_range(4096, 4096);
            contents.write(8192, &[3; 300]);
            contents.sync_range(8192, 100);
            contents.crash(&mut Random::new(seed), 0);
            let bytes = all(&contents);
            assert_eq!(bytes.len(), 9100);
            assert!(bytes[..100].iter().all(|b| *b == 0));
            assert!(bytes[100..4096].iter().all(|b| *b == 1));
            assert!(bytes[4096..8192].iter().all(|b| *b == 2));
            assert!(bytes[8192..8292].iter().all(|b| *b == 3));
            assert!(bytes[8292..8492].iter().all(|b| *b == 1 || *b == 3));
        }
    }

    #[test]
    fn unsynced_bytes_are_kept_lost_or_torn_by_sector() {
        let (mut kept, mut lost, mut torn) = (0, 0, 0);
        for seed in 0..300 {
            let mut contents = Contents::default();
            contents.write(0, &[1; PAGE]);
            contents.sync();
            contents.write(0, &[2; PAGE]);
            contents.crash(&mut Random::new(seed), 0);
            let bytes = all(&contents);
            for sector in bytes.chunks(SECTOR) {
                assert!(sector.iter().all(|b| b == &sector[0]), "a sector is never torn");
            }
            match bytes.iter().filter(|b| **b == 2).count() {
                0 => lost += 1,
                PAGE => kept += 1,
                _ => torn += 1,
            }
        }
        assert!(kept > 50 && lost > 50 && torn > 20, "{kept} kept, {lost} lost, {torn} torn");
    }

    #[test]
    fn an_unsynced_length_may_be_lost_and_brings_zeros_not_garbage() {
        let mut lens = BTreeSet::new();
        for seed in 0..100 {
            let mut contents = Contents::default();
            contents.write(0, &[1; 1000]);
            contents.sync();
            contents.truncate(10);
            contents.allocate(0, 2000);
            contents.crash(&mut Random::new(seed), 0);
            let bytes = all(&contents);
            lens.insert(bytes.len());
            match bytes.len() {
                1000 => assert!(bytes.iter().all(|b| *b == 1)),
                10 | 2000 => assert!(bytes[10..].iter().all(|b| *b == 0), "cut bytes came back"),
                other => panic!("length {other}"),
            }
        }
        assert_eq!(lens, BTreeSet::from([10, 1000, 2000]));
    }

    #[test]
    fn after_a_failed_sync_a_later_one_promises_nothing_for_the_same_bytes() {
        let mut lost = 0;
        for seed in 0..100 {
            let mut contents = Contents::default();
            contents.write(0, &[1; PAGE]);
            contents.sync();
            contents.write(0, &[2; PAGE]);
            contents.sync_failed();
            contents.sync();
            assert_eq!(all(&contents), [2; PAGE]);
            contents.crash(&mut Random::new(seed), 0);
            lost += usize::from(all(&contents)[0] == 1);
        }
        assert_eq!(lost, 100);
    }
}
