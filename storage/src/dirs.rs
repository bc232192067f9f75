//! Directories below the data directory that are known to be durable.

use crate::error::StorageError;
use corelog_io::fs;
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::ops::Bound;
use std::path::{Path, PathBuf};

pub struct Dirs {
    root: PathBuf,
    /// Their names are durable in their parents. At most one a log, and those above.
    durable: RefCell<BTreeSet<PathBuf>>,
}

impl Dirs {
    pub fn new(root: PathBuf) -> Dirs {
        Dirs { root, durable: RefCell::default() }
    }

    /// Creates `dir` (below the root) and what is missing above it, durably. A directory that was there before this
    /// process is made durable once, too: the process before may have been killed in between.
    pub async fn make(&self, dir: &Path) -> Result<(), StorageError> {
        if self.durable.borrow().contains(dir) {
            return Ok(());
        }
        fs::create_dir_all(dir).await.map_err(StorageError::io("create", dir))?;
        for path in dir.ancestors().take_while(|path| *path != self.root) {
            if self.durable.borrow().contains(path) {
                break;
            }
            let parent = path.parent().expect("a path below the root has a parent");
            fs::sync_dir(parent).await.map_err(StorageError::io("sync", parent))?;
        }
        let mut durable = self.durable.borrow_mut();
        for path in dir.ancestors().take_while(|path| *path != self.root) {
            durable.insert(path.to_path_buf());
        }
        Ok(())
    }

    /// `dir` was removed.
    pub fn forget(&self, dir: &Path) {
        let mut durable = self.durable.borrow_mut();
        // What lies below a directory follows it in the order of paths.
        let below = durable
            .range::<Path, _>((Bound::Included(dir), Bound::Unbounded))
            .take_while(|path| path.starts_with(dir));
        for path in below.cloned().collect::<Vec<PathBuf>>() {
            durable.remove(&path);
        }
    }
}
