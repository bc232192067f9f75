//! Who this broker is: cluster id and node id, kept in the data directory, and the lock that keeps a second
//! process out of it.
//!
//! Runs on the main thread before any data core starts, so plain blocking file calls are right here.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use corelog_wire::Uuid;
use serde::Deserialize;

use crate::config::Endpoint;
use crate::ids::ReplicaId;

/// Version of the data directory's layout. A broker refuses a directory of a version that it does not know.
pub const LAYOUT_VERSION: u32 = 1;
const FILE_NAME: &str = "identity.toml";

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct IdentityFile {
    layout_version: u32,
    cluster_id: String,
    node_id: i32,
    /// The broker has been ready: there is a journal from then on.
    #[serde(default)]
    has_been_ready: bool,
}

impl IdentityFile {
    fn to_toml(&self) -> String {
        format!(
            "layout_version = {}\ncluster_id = \"{}\"\nnode_id = {}\nhas_been_ready = {}\n",
            self.layout_version, self.cluster_id, self.node_id, self.has_been_ready
        )
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    pub cluster_id: String,
    pub node_id: i32,
    /// Of this life of the data directory (KIP-858): a wiped one comes back under another.
    pub directory: Uuid,
    pub belongs: Belongs,
}

/// How a broker came to its cluster, and so what its replica of the controller's log is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Belongs {
    /// It is the cluster: no other broker has the controller's log.
    Alone,
    /// It was there when the cluster was founded, with these others; the controller's group began with them.
    Founder(Vec<Founder>),
    /// It joined later: its replica has this id.
    Joined(ReplicaId),
}

/// A broker that founded a cluster. Its replica of the controller's log is [`Founder::replica`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Founder {
    pub node_id: i32,
    pub directory: Uuid,
    pub replica: ReplicaId,
    /// Where other brokers reach it, as the seeds name it.
    pub peer: Endpoint,
}

impl Identity {
    /// Of a broker that is its cluster.
    pub fn alone(cluster_id: String, node_id: i32, directory: Uuid) -> Identity {
        Identity { cluster_id, node_id, directory, belongs: Belongs::Alone }
    }

    /// This broker's replica of the controller's log.
    pub fn controller_replica(&self) -> ReplicaId {
        match &self.belongs {
            Belongs::Alone => ReplicaId(1),
            Belongs::Founder(founders) => {
                let own = founders.iter().find(|founder| founder.node_id == self.node_id);
                own.expect("a founder is among the founders").replica
            }
            Belongs::Joined(replica) => *replica,
        }
    }

    /// Those that founded its cluster.
    pub fn founders(&self) -> &[Founder] {
        match &self.belongs {
            Belongs::Founder(founders) => founders,
            Belongs::Alone | Belongs::Joined(_) => &[],
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error("cannot {action} {}: {error}", path.display())]
    Io { action: &'static str, path: PathBuf, error: io::Error },
    #[error("{} is no directory: give the broker one with --data-dir", path.display())]
    NoDirectory { path: PathBuf },
    #[error(
        "another process is using {}: stop it, or give this broker a directory of its own with --data-dir",
        path.display()
    )]
    Locked { path: PathBuf },
    #[error(
        "{} is not a readable identity file ({error}): restore it from a backup of this directory; \
         a new one would make this broker a stranger to its own data",
        path.display()
    )]
    Damaged { path: PathBuf, error: String },
    #[error(
        "{} was written by another version of Corelog (layout {found}; this one reads {LAYOUT_VERSION}): \
         start the version that wrote it",
        path.display()
    )]
    Version { path: PathBuf, found: u32 },
    #[error(
        "{} belongs to node {found}, and node.id is {wanted}: correct node.id or --data-dir",
        path.display()
    )]
    OtherNode { path: PathBuf, found: i32, wanted: i32 },
    #[error(
        "{} has no {FILE_NAME} but is not empty (it has {entry:?}): give an empty directory or one of a broker",
        path.display()
    )]
    NotEmpty { path: PathBuf, entry: String },
    #[error(
        "{} has no {FILE_NAME}, and a broker's data is in it ({entry:?}). Nothing was touched. Restore the file from a \
         copy of this directory; without one write it anew, three lines: layout_version = {LAYOUT_VERSION}, cluster_id = \
         \"...\" (what clients and monitoring know the cluster by: any 22 characters), node_id = {node_id}",
        path.display()
    )]
    Lost { path: PathBuf, entry: String, node_id: i32 },
    #[error(
        "{} is missing or empty, and this broker has kept data: an empty broker would take its place. Nothing was \
         touched. Restore the data directory from a copy, or rebuild the logs' state from their segments: `corectl log \
         repair {}` shows what that keeps, and changes nothing without --execute",
        journal.display(), dir.display()
    )]
    NoJournal { journal: PathBuf, dir: PathBuf },
}

/// Holds the data directory for this process; the kernel lets go of it however the process ends.
#[derive(Debug)]
pub struct DirectoryLock {
    _file: File,
}

/// Creates the data directory if need be, locks it and reads (or makes) its identity.
pub fn open(dir: &Path, node_id: i32) -> Result<(Identity, DirectoryLock), IdentityError> {
    let io = |action: &'static str, path: &Path| {
        let path = path.to_owned();
        move |error| IdentityError::Io { action, path, error }
    };
    if dir.exists() && !dir.is_dir() {
        return Err(IdentityError::NoDirectory { path: dir.to_owned() });
    }
    fs::create_dir_all(dir).map_err(io("create the data directory", dir))?;
    let lock = lock(dir)?;
    let path = dir.join(FILE_NAME);
    match fs::read_to_string(&path) {
        Ok(text) => {
            let file: IdentityFile = toml::from_str(&text)
                .map_err(|error| IdentityError::Damaged { path: path.clone(), error: error.to_string() })?;
            if file.layout_version != LAYOUT_VERSION {
                return Err(IdentityError::Version { path, found: file.layout_version });
            }
            if file.node_id != node_id {
                return Err(IdentityError::OtherNode { path, found: file.node_id, wanted: node_id });
            }
            let journal = corelog_storage::paths::journal_dir(dir);
            let is_empty = || fs::read_dir(&journal).map_or(true, |mut entries| entries.next().is_none());
            if file.has_been_ready && is_empty() {
                return Err(IdentityError::NoJournal { journal, dir: dir.to_owned() });
            }
            Ok((Identity::alone(file.cluster_id, node_id, Uuid::default()), lock))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            refuse_foreign(dir, node_id)?;
            let mut random = [0u8; 16];
            File::open("/dev/urandom")
                .and_then(|mut file| file.read_exact(&mut random))
                .map_err(io("read randomness from", Path::new("/dev/urandom")))?;
            let identity = Identity::alone(Uuid(random).to_string(), node_id, Uuid::default());
            write_durable(dir, &identity, false).map_err(io("write", &path))?;
            Ok((identity, lock))
        }
        Err(error) => Err(IdentityError::Io { action: "read", path, error }),
    }
}

/// The broker is ready for the first time: that it has a journal is known from now on.
pub fn note_ready(dir: &Path, identity: &Identity) -> io::Result<()> {
    let text = fs::read_to_string(dir.join(FILE_NAME))?;
    match toml::from_str::<IdentityFile>(&text) {
        Ok(file) if file.has_been_ready => Ok(()),
        _ => write_durable(dir, identity, true),
    }
}

fn lock(dir: &Path) -> Result<DirectoryLock, IdentityError> {
    let path = dir.join(".lock");
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(|error| IdentityError::Io { action: "open", path: path.clone(), error })?;
    // SAFETY: flock on a descriptor that `file` keeps open.
    if unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } != 0 {
        return Err(IdentityError::Locked { path: dir.to_owned() });
    }
    Ok(DirectoryLock { _file: file })
}

/// A directory with other things in it is more likely a mistake than a wish.
fn refuse_foreign(dir: &Path, node_id: i32) -> Result<(), IdentityError> {
    let entries = fs::read_dir(dir).map_err(|error| IdentityError::Io {
        action: "list",
        path: dir.to_owned(),
        error,
    })?;
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if [corelog_storage::paths::journal_dir(dir), corelog_storage::topics_dir(dir)]
            .contains(&entry.path())
        {
            return Err(IdentityError::Lost { path: dir.to_owned(), entry: name, node_id });
        }
        if name != ".lock" && name != "lost+found" && !name.starts_with(FILE_NAME) {
            return Err(IdentityError::NotEmpty { path: dir.to_owned(), entry: name });
        }
    }
    Ok(())
}

fn write_durable(dir: &Path, identity: &Identity, has_been_ready: bool) -> io::Result<()> {
    let Identity { cluster_id, node_id, .. } = identity.clone();
    let file = IdentityFile { layout_version: LAYOUT_VERSION, cluster_id, node_id, has_been_ready };
    let text =
        format!("# Written by Corelog: who this directory belongs to. Do not edit.\n{}", file.to_toml());
    let temporary = dir.join(format!("{FILE_NAME}.new"));
    let mut out = File::create(&temporary)?;
    out.write_all(text.as_bytes())?;
    out.sync_all()?;
    fs::rename(&temporary, dir.join(FILE_NAME))?;
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("corelog-identity-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        dir
    }

    #[test]
    fn is_made_once_and_kept() {
        let dir = scratch("kept");
        let (first, lock) = open(&dir, 1).unwrap();
        drop(lock);
        let (second, _lock) = open(&dir, 1).unwrap();
        assert_eq!(first, second);
        assert_eq!(first.cluster_id.len(), 22, "{}", first.cluster_id);
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn a_second_process_is_refused() {
        let dir = scratch("locked");
        let _first = open(&dir, 1).unwrap();
        // flock belongs to the open file, so a second open in this process stands for a second process.
        assert!(matches!(open(&dir, 1), Err(IdentityError::Locked { .. })));
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn other_versions_nodes_damage_and_strangers_are_refused() {
        let dir = scratch("refused");
        drop(open(&dir, 1).unwrap());
        assert!(matches!(open(&dir, 2), Err(IdentityError::OtherNode { found: 1, wanted: 2, .. })));
        let path = dir.join(FILE_NAME);
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, text.replace("layout_version = 1", "layout_version = 99")).unwrap();
        assert!(matches!(open(&dir, 1), Err(IdentityError::Version { found: 99, .. })));
        fs::write(&path, &text[..text.len() / 2]).unwrap();
        assert!(matches!(open(&dir, 1), Err(IdentityError::Damaged { .. })));
        fs::remove_file(&path).unwrap();
        fs::write(dir.join("holiday.jpg"), "").unwrap();
        assert!(matches!(open(&dir, 1), Err(IdentityError::NotEmpty { .. })));
        assert!(matches!(open(&dir.join("holiday.jpg"), 1), Err(IdentityError::NoDirectory { .. })));
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn a_half_restored_directory_is_refused() {
        let dir = scratch("halves");
        let (identity, lock) = open(&dir, 1).unwrap();
        drop(lock);
        // A start that failed before there was a journal may be tried again.
        drop(open(&dir, 1).unwrap());
        fs::create_dir(dir.join("journal")).unwrap();
        fs::write(dir.join("journal/00000001-0-0.journal"), "").unwrap();
        note_ready(&dir, &identity).unwrap();
        assert_eq!(open(&dir, 1).unwrap().0, identity);
        fs::remove_file(dir.join("journal/00000001-0-0.journal")).unwrap();
        for _ in 0..2 {
            let refused = open(&dir, 1).unwrap_err();
            assert!(matches!(refused, IdentityError::NoJournal { .. }), "{refused}");
            let _ = fs::remove_dir(dir.join("journal"));
        }
        fs::remove_file(dir.join(FILE_NAME)).unwrap();
        fs::create_dir(dir.join("topics")).unwrap();
        let refused = open(&dir, 1).unwrap_err();
        assert!(matches!(refused, IdentityError::Lost { .. }), "{refused}");
        assert!(!dir.join(FILE_NAME).exists());
        fs::remove_dir_all(&dir).unwrap();
    }
}
