//! A simulated disk's names and files, and what a power loss makes of them.
//!
//! Names (creations, renames, removals) are durable once their directory is synced. At a power loss each directory
//! keeps a prefix of its unsynced changes, as a journaling file system would; a rename between directories happens in
//! both or in neither.

mod durable;

use super::faults::{Faults, Losses};
use super::pages::Contents;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Component, Path, PathBuf};

pub(crate) type InodeId = u64;

const ROOT: InodeId = 0;

/// Capacity of a disk that was not given one.
const CAPACITY: u64 = 1 << 40;

enum Inode {
    File(Box<Regular>),
    Directory(Directory),
}

#[derive(Default)]
struct Regular {
    contents: Contents,
    open: u32,
    losses: Losses,
}

#[derive(Default)]
struct Directory {
    current: BTreeMap<OsString, InodeId>,
    durable: BTreeMap<OsString, InodeId>,
}

/// A change of names that is not durable yet.
struct Change {
    edits: Vec<Edit>,
}

struct Edit {
    directory: InodeId,
    name: OsString,
    /// None: the name is removed.
    to: Option<InodeId>,
}

impl Change {
    /// The directories it changes, each once.
    fn directories(&self) -> impl Iterator<Item = InodeId> {
        let distinct: BTreeSet<InodeId> = self.edits.iter().map(|edit| edit.directory).collect();
        distinct.into_iter()
    }
}

pub(crate) struct DiskState {
    inodes: BTreeMap<InodeId, Inode>,
    next_inode: InodeId,
    changes: Vec<Change>,
    pub(crate) faults: Faults,
    capacity: u64,
    pub(crate) extra_latency: u64,
    /// World time before which nothing is done.
    pub(crate) stalled_until: u64,
    /// One page in this many that a power loss meets between two versions cannot be read after it; 0 = none.
    pub(crate) torn_unreadable_one_in: u64,
    /// Where other file systems are mounted: the n-th is device n + 1.
    mounts: Vec<PathBuf>,
    /// The device of each file that was opened on one of those.
    devices: BTreeMap<InodeId, u64>,
    system_losses: BTreeMap<u64, Losses>,
}

/// What is at a name.
pub(crate) struct Stat {
    pub(crate) is_dir: bool,
    pub(crate) len: u64,
}

impl DiskState {
    pub(crate) fn new() -> DiskState {
        DiskState {
            inodes: BTreeMap::from([(ROOT, Inode::Directory(Directory::default()))]),
            next_inode: ROOT + 1,
            changes: Vec::new(),
            faults: Faults::default(),
            capacity: CAPACITY,
            extra_latency: 0,
            stalled_until: 0,
            torn_unreadable_one_in: 0,
            mounts: Vec::new(),
            devices: BTreeMap::new(),
            system_losses: BTreeMap::new(),
        }
    }

    pub(crate) fn mount(&mut self, path: &Path) {
        self.mounts.push(path.to_path_buf());
    }

    /// The file system that `path` lies on.
    pub(crate) fn device(&self, path: &Path) -> u64 {
        self.mounts.iter().rposition(|mount| path.starts_with(mount)).map_or(0, |at| at as u64 + 1)
    }

    // ---- names ----

    fn directory(&self, id: InodeId) -> io::Result<&Directory> {
        match self.inodes.get(&id) {
            Some(Inode::Directory(directory)) => Ok(directory),
            _ => Err(io::ErrorKind::NotADirectory.into()),
        }
    }

    fn lookup(&self, path: &Path) -> io::Result<InodeId> {
        let mut at = ROOT;
        for name in names(path)? {
            at = *self.directory(at)?.current.get(name).ok_or(io::ErrorKind::NotFound)?;
        }
        Ok(at)
    }

    fn parent(&self, path: &Path) -> io::Result<(InodeId, OsString)> {
        let names = names(path)?;
        let (name, parents) = names.split_last().ok_or(io::ErrorKind::InvalidInput)?;
        let mut at = ROOT;
        for name in parents {
            at = *self.directory(at)?.current.get(*name).ok_or(io::ErrorKind::NotFound)?;
        }
        self.directory(at)?;
        Ok((at, name.to_os_string()))
    }

    fn change(&mut self, edits: Vec<Edit>) {
        for edit in &edits {
            if let Some(Inode::Directory(directory)) = self.inodes.get_mut(&edit.directory) {
                apply(&mut directory.current, edit);
            }
        }
        self.changes.push(Change { edits });
    }

    fn add(&mut self, inode: Inode) -> InodeId {
        let id = self.next_inode;
        self.next_inode += 1;
        self.inodes.insert(id, inode);
        id
    }

    pub(crate) fn open(&mut self, path: &Path, create: bool) -> io::Result<InodeId> {
        let id = match self.lookup(path) {
            Ok(id) => id,
            Err(error) if create && error.kind() == io::ErrorKind::NotFound => {
                let (directory, name) = self.parent(path)?;
                let id = self.add(Inode::File(Box::default()));
                self.change(vec![Edit { directory, name, to: Some(id) }]);
                id
            }
            Err(error) => return Err(error),
        };
        match self.inodes.get_mut(&id) {
            Some(Inode::File(file)) => file.open += 1,
            _ => return Err(io::ErrorKind::IsADirectory.into()),
        }
        let device = self.device(path);
        if device > 0 {
            self.devices.insert(id, device);
        }
        Ok(id)
    }

    pub(crate) fn close(&mut self, id: InodeId) {
        if let Some(Inode::File(file)) = self.inodes.get_mut(&id) {
            file.open = file.open.saturating_sub(1);
        }
        self.collect();
    }

    pub(crate) fn create_dir_all(&mut self, path: &Path) -> io::Result<()> {
        let mut at = ROOT;
        for name in names(path)? {
            at = match self.directory(at)?.current.get(name) {
                Some(&id) => id,
                None => {
                    let id = self.add(Inode::Directory(Directory::default()));
                    self.change(vec![Edit { directory: at, name: name.to_os_string(), to: Some(id) }]);
                    id
                }
            };
        }
        self.directory(at).map(|_| ())
    }

    pub(crate) fn read_dir(&self, path: &Path) -> io::Result<Vec<(OsString, Stat)>> {
        let directory = self.directory(self.lookup(path)?)?;
        Ok(directory.current.iter().map(|(name, id)| (name.clone(), self.stat_inode(*id))).collect())
    }

    pub(crate) fn stat(&self, path: &Path) -> io::Result<Stat> {
        Ok(self.stat_inode(self.lookup(path)?))
    }

    fn stat_inode(&self, id: InodeId) -> Stat {
        match &self.inodes[&id] {
            Inode::File(file) => Stat { is_dir: false, len: file.contents.len() },
            Inode::Directory(_) => Stat { is_dir: true, len: 0 },
        }
    }

    pub(crate) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let id = self.lookup(from)?;
        let (from_directory, from_name) = self.parent(from)?;
        let (to_directory, to_name) = self.parent(to)?;
        if let Some(&target) = self.directory(to_directory)?.current.get(&to_name) {
            if target == id {
                return Ok(());
            }
            match (&self.inodes[&id], &self.inodes[&target]) {
                (Inode::File(_), Inode::Directory(_)) => return Err(io::ErrorKind::IsADirectory.into()),
                (Inode::Directory(_), Inode::File(_)) => return Err(io::ErrorKind::NotADirectory.into()),
                (_, Inode::Directory(directory)) if !directory.current.is_empty() => {
                    return Err(io::ErrorKind::DirectoryNotEmpty.into());
                }
                _ => {}
            }
        }
        self.change(vec![
            Edit { directory: from_directory, name: from_name, to: None },
            Edit { directory: to_directory, name: to_name, to: Some(id) },
        ]);
        self.collect();
        Ok(())
    }

    pub(crate) fn remove_file(&mut self, path: &Path) -> io::Result<()> {
        if self.stat(path)?.is_dir {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        let (directory, name) = self.parent(path)?;
        self.change(vec![Edit { directory, name, to: None }]);
        self.collect();
        Ok(())
    }

    pub(crate) fn remove_dir(&mut self, path: &Path) -> io::Result<()> {
        match self.directory(self.lookup(path)?)?.current.is_empty() {
            true => self.remove_dir_all(path),
            false => Err(io::ErrorKind::DirectoryNotEmpty.into()),
        }
    }

    pub(crate) fn remove_dir_all(&mut self, path: &Path) -> io::Result<()> {
        let id = match self.lookup(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            found => found?,
        };
        self.directory(id)?;
        self.remove_tree(id);
        let (directory, name) = self.parent(path)?;
        self.change(vec![Edit { directory, name, to: None }]);
        self.collect();
        Ok(())
    }

    /// Takes a file or a directory with all in it away, from the medium too.
    pub(crate) fn vanish(&mut self, path: &Path) -> io::Result<()> {
        self.lookup(path)?;
        let (directory, name) = self.parent(path)?;
        // No change under way brings it back.
        let changes = std::mem::take(&mut self.changes);
        self.settle(changes);
        self.settle(vec![Change { edits: vec![Edit { directory, name: name.clone(), to: None }] }]);
        if let Some(Inode::Directory(directory)) = self.inodes.get_mut(&directory) {
            directory.current.remove(&name);
        }
        self.collect();
        Ok(())
    }

    fn remove_tree(&mut self, id: InodeId) {
        let Some(Inode::Directory(directory)) = self.inodes.get(&id) else { return };
        let entries: Vec<(OsString, InodeId)> =
            directory.current.iter().map(|(name, id)| (name.clone(), *id)).collect();
        for (name, entry) in entries {
            self.remove_tree(entry);
            self.change(vec![Edit { directory: id, name, to: None }]);
        }
    }

    /// All files, by path.
    pub(crate) fn files(&self) -> Vec<PathBuf> {
        let mut files = Vec::new();
        let mut rest = vec![(PathBuf::from("/"), ROOT)];
        while let Some((path, id)) = rest.pop() {
            match &self.inodes[&id] {
                Inode::File(_) => files.push(path),
                Inode::Directory(directory) => {
                    rest.extend(directory.current.iter().map(|(name, id)| (path.join(name), *id)));
                }
            }
        }
        files.sort();
        files
    }

    /// Forgets inodes that nothing can reach, a power loss included.
    fn collect(&mut self) {
        // What an unsynced change names may come back.
        let pending = self.changes.iter().flat_map(|change| &change.edits).filter_map(|edit| edit.to);
        let reached = self.reachable(pending.collect(), true);
        self.inodes.retain(|id, _| reached.contains(id));
    }

    /// Inodes that are open, reachable by name, or reachable from `more`.
    fn reachable(&self, more: Vec<InodeId>, durably: bool) -> BTreeSet<InodeId> {
        let open = |(id, inode): (&InodeId, &Inode)| match inode {
            Inode::File(file) if file.open > 0 => Some(*id),
            _ => None,
        };
        let mut reached = BTreeSet::new();
        let mut rest: Vec<InodeId> = self.inodes.iter().filter_map(open).chain(more).collect();
        rest.push(ROOT);
        while let Some(id) = rest.pop() {
            if reached.insert(id)
                && let Some(Inode::Directory(directory)) = self.inodes.get(&id)
            {
                rest.extend(directory.current.values());
                if durably {
                    rest.extend(directory.durable.values());
                }
            }
        }
        reached
    }

    // ---- files ----

    pub(crate) fn contents(&mut self, id: InodeId) -> &mut Contents {
        match self.inodes.get_mut(&id) {
            Some(Inode::File(file)) => &mut file.contents,
            _ => panic!("an open file's inode is gone"),
        }
    }

    /// As [`DiskState::contents`], by path.
    pub(crate) fn contents_of(&mut self, path: &Path) -> io::Result<&mut Contents> {
        let id = self.lookup(path)?;
        match self.inodes.get_mut(&id) {
            Some(Inode::File(file)) => Ok(&mut file.contents),
            _ => Err(io::ErrorKind::IsADirectory.into()),
        }
    }

    /// Total and available bytes. A removed file's space is free at once.
    pub(crate) fn space(&self) -> (u64, u64) {
        let space = |id: &InodeId| match self.inodes.get(id) {
            Some(Inode::File(file)) => file.contents.space(),
            _ => 0,
        };
        let used: u64 = self.reachable(Vec::new(), false).iter().map(space).sum();
        (self.capacity, self.capacity.saturating_sub(used))
    }

    pub(crate) fn set_capacity(&mut self, bytes: u64) {
        self.capacity = bytes;
    }

    /// Whether `len` bytes at `pos` fit, as far as that takes new space.
    pub(crate) fn check_space(&mut self, id: InodeId, pos: u64, len: u64) -> io::Result<()> {
        if self.capacity == CAPACITY {
            return Ok(());
        }
        let needed = self.contents(id).space_needed(pos, len);
        if needed > 0 && needed > self.space().1 { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }
}

fn apply(entries: &mut BTreeMap<OsString, InodeId>, edit: &Edit) {
    match edit.to {
        Some(id) => entries.insert(edit.name.clone(), id),
        None => entries.remove(&edit.name),
    };
}

/// A path's names from the root; relative paths start there too.
fn names(path: &Path) -> io::Result<Vec<&OsStr>> {
    let mut names = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => names.push(name),
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir => {
                names.pop();
            }
            Component::Prefix(_) => return Err(io::ErrorKind::InvalidInput.into()),
        }
    }
    Ok(names)
}
