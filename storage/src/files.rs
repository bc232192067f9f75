//! Open segment and index files of a shard, a bounded number; the ones longest unused are closed.
//!
//! An idle log has no open file: it is simply not in here any more.

use crate::error::StorageError;
use corelog_io::{File, OpenOptions, fs};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::ops::Bound;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

pub struct FileCache {
    max: usize,
    state: RefCell<State>,
}

#[derive(Default)]
struct State {
    /// By path. As text: comparing paths part by part was a tenth of flushing thousands of logs.
    files: BTreeMap<OsString, (File, u64)>,
    /// Paths by last use.
    by_use: BTreeMap<u64, OsString>,
    uses: u64,
    /// Counts what was forgotten.
    forgotten: u64,
}

impl FileCache {
    pub fn new(max: usize) -> FileCache {
        FileCache { max, state: RefCell::default() }
    }

    pub fn len(&self) -> usize {
        self.state.borrow().files.len()
    }

    /// The file at `path`, for direct reads and writes; opened, and created if `create`, when it is not open.
    pub async fn open(&self, path: &Path, create: bool) -> Result<File, StorageError> {
        if let Some(file) = self.state.borrow_mut().touch(path.as_os_str()) {
            return Ok(file);
        }
        let forgotten = self.state.borrow().forgotten;
        let options = OpenOptions { read: true, write: true, create, direct: true };
        let file = File::open(path, options).await.map_err(StorageError::io("open", path))?;
        let mut state = self.state.borrow_mut();
        if state.forgotten != forgotten {
            // It may have been removed meanwhile: kept open, it would keep its space.
            return Ok(file);
        }
        // Another task may have opened it meanwhile: one of both handles stays.
        if let Some(file) = state.touch(path.as_os_str()) {
            return Ok(file);
        }
        state.insert(path.into(), file.clone());
        while state.files.len() > self.max {
            let (_, oldest) = state.by_use.pop_first().expect("every file has a last use");
            state.files.remove(&oldest);
        }
        Ok(file)
    }

    /// Removes the file at `path`, which may be missing, and closes it once nobody uses it any more.
    pub async fn remove(&self, path: &Path) -> Result<(), StorageError> {
        let removed = fs::remove_file(path).await;
        self.forget(path);
        match removed {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            outcome => outcome.map_err(StorageError::io("remove", path)),
        }
    }

    /// Closes the file at `path` once nobody uses it any more: it is of little use, or was removed.
    pub fn forget(&self, path: &Path) {
        let mut state = self.state.borrow_mut();
        state.forgotten += 1;
        if let Some((_, used)) = state.files.remove(path.as_os_str()) {
            state.by_use.remove(&used);
        }
    }

    /// Closes every file below `dir`, which was removed.
    pub fn forget_below(&self, dir: &Path) {
        let mut state = self.state.borrow_mut();
        state.forgotten += 1;
        let State { files, by_use, .. } = &mut *state;
        // Among these are others whose names begin as the directory's does.
        let dir_text = dir.as_os_str();
        let below = files
            .range::<OsStr, _>((Bound::Included(dir_text), Bound::Unbounded))
            .take_while(|(path, _)| path.as_bytes().starts_with(dir_text.as_bytes()))
            .filter(|(path, _)| Path::new(path).starts_with(dir));
        let below: Vec<OsString> = below.map(|(path, _)| path.clone()).collect();
        for path in below {
            let (_, used) = files.remove(&path).expect("it was just seen");
            by_use.remove(&used);
        }
    }
}

impl State {
    fn touch(&mut self, path: &OsStr) -> Option<File> {
        let (file, used) = self.files.get_mut(path)?;
        self.uses += 1;
        let path = self.by_use.remove(used).expect("every file has a last use");
        *used = self.uses;
        self.by_use.insert(self.uses, path);
        Some(file.clone())
    }

    fn insert(&mut self, path: OsString, file: File) {
        self.uses += 1;
        self.by_use.insert(self.uses, path.clone());
        self.files.insert(path, (file, self.uses));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use corelog_io::sim::Sim;
    use std::future::poll_fn;
    use std::pin::pin;
    use std::task::Poll;

    #[test]
    fn a_file_that_is_removed_while_it_is_being_opened_is_not_kept_open() {
        Sim::new(1).block_on(async {
            let (cache, path) = (FileCache::new(8), Path::new("/d/file"));
            fs::create_dir_all(Path::new("/d")).await.expect("the disk is empty");
            drop(cache.open(path, true).await.expect("it is created"));
            cache.forget(path);
            let mut opening = pin!(cache.open(path, false));
            poll_fn(|cx| Poll::Ready(opening.as_mut().poll(cx).is_pending())).await;
            cache.remove(path).await.expect("it is there");
            // Whether it was opened before it was removed is the disk's affair.
            let _ = opening.await;
            assert_eq!(cache.len(), 0, "its space would stay taken");
        });
    }
}
