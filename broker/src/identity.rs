//! Who this broker is: cluster, node id, and how it came to be in its cluster, kept in the data directory, and the lock that
//! keeps a second process out of it.
//!
//! Runs on the main thread before any data core starts, so plain blocking file calls are right here; but for
//! [`Identity::keep`], by which a broker that forms a cluster enters it (`cluster::forming`).

mod file;
#[cfg(test)]
mod tests;

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use corelog_wire::Uuid;

use self::file::{Bad, Kept};
use crate::config::Endpoint;
use crate::ids::ReplicaId;

/// Version of the data directory's layout. A broker refuses a directory of a version that it does not know.
pub const LAYOUT_VERSION: u32 = 1;
/// Of a broker that is not told which.
const NODE_ID: i32 = 1;
pub const FILE_NAME: &str = "identity.toml";
const CLUSTER_ID_BYTES_MAX: usize = 64;
/// The brokers that may found a cluster together.
pub const FOUNDERS_MAX: usize = 9;

/// What a data directory belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Life {
    /// To no cluster yet: it is to found one with its seeds, or to join theirs, under this directory id.
    Forming(Uuid),
    Member(Identity),
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
    /// It joined later. The group began with the replicas 1 to `founders`, of which it has none.
    Joined { replica: ReplicaId, founders: u32 },
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
            Belongs::Joined { replica, .. } => *replica,
        }
    }

    /// The replicas that the group of the controller's log began with.
    pub fn founding_replicas(&self) -> Vec<ReplicaId> {
        match &self.belongs {
            Belongs::Alone => vec![ReplicaId(1)],
            Belongs::Founder(founders) => founders.iter().map(|founder| founder.replica).collect(),
            Belongs::Joined { founders, .. } => (1..=u64::from(*founders)).map(ReplicaId).collect(),
        }
    }

    /// Those that founded its cluster, if it knows them: it was one.
    pub fn founders(&self) -> &[Founder] {
        match &self.belongs {
            Belongs::Founder(founders) => founders,
            Belongs::Alone | Belongs::Joined { .. } => &[],
        }
    }

    /// Of a broker that was its cluster, and that others may join from now on at `peer`.
    fn opened(mut self, peer: &Endpoint) -> Identity {
        let Identity { node_id, directory, .. } = self;
        let founder = Founder { node_id, directory, replica: ReplicaId(1), peer: peer.clone() };
        self.belongs = Belongs::Founder(vec![founder]);
        self
    }

    /// Makes it durable, in place of a directory id that belonged to no cluster. On a core.
    pub async fn keep(&self, dir: &Path) -> io::Result<()> {
        Life::Member(self.clone()).keep(dir).await
    }
}

impl Life {
    /// As it is written in a directory that has no data yet.
    pub fn text(&self) -> String {
        file::write(&Kept { life: self.clone(), has_been_ready: false })
    }

    /// Of the text of an identity file.
    pub fn of(text: &str) -> Result<Life, String> {
        match file::parse(text) {
            Ok(kept) => Ok(kept.life),
            Err(Bad::Damaged(what)) => Err(what),
            Err(Bad::Version(found)) => Err(format!("layout {found}")),
        }
    }

    /// Makes it durable. On a core.
    pub async fn keep(&self, dir: &Path) -> io::Result<()> {
        corelog_io::fs::write_atomic(&dir.join(FILE_NAME), self.text().as_bytes()).await
    }
}

/// Whether a cluster can have this id: it stands in files, answers and lines of the log.
pub fn is_cluster_id(text: &str) -> bool {
    let fits = |byte: u8| (b' '..=b'~').contains(&byte) && byte != b'"' && byte != b'\\';
    !text.is_empty() && text.len() <= CLUSTER_ID_BYTES_MAX && text.bytes().all(fits)
}

/// Whether these can have founded a cluster together.
pub fn check_founders(founders: &[Founder]) -> Result<(), String> {
    if founders.is_empty() || founders.len() > FOUNDERS_MAX {
        return Err(format!("{} founders, there are 1 to {FOUNDERS_MAX}", founders.len()));
    }
    for (at, one) in founders.iter().enumerate() {
        if one.node_id < 0 || one.directory.is_zero() || one.replica.0 == 0 {
            return Err("a founder without a node id, a directory or a replica".to_owned());
        }
        for other in &founders[..at] {
            let twice = [
                ("node id", one.node_id == other.node_id),
                ("directory", one.directory == other.directory),
                ("replica", one.replica == other.replica),
                ("peer", one.peer == other.peer),
            ];
            if let Some((what, _)) = twice.into_iter().find(|(_, is_twice)| *is_twice) {
                return Err(format!("two founders have one {what}"));
            }
        }
    }
    Ok(())
}

/// What the configs say of who the broker is to be.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wanted<'a> {
    /// None: any.
    pub node_id: Option<i32>,
    pub peer: Option<&'a Endpoint>,
    pub has_seeds: bool,
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
        "{} was begun to found a cluster with others, or to join theirs, and has not come so far: start it with --peer and \
         --seeds as before, or give an empty directory with --data-dir",
        path.display()
    )]
    StillForming { path: PathBuf },
    #[error(
        "{} belongs to a broker of the cluster {cluster_id}, which other brokers must be able to reach: give it --peer \
         HOST:PORT, as before",
        path.display()
    )]
    NoPeer { path: PathBuf, cluster_id: String },
    #[error(
        "{} has no {FILE_NAME} but is not empty (it has {entry:?}): give an empty directory or one of a broker",
        path.display()
    )]
    NotEmpty { path: PathBuf, entry: String },
    #[error(
        "{} has no {FILE_NAME}, and a broker's data is in it ({entry:?}). Nothing was touched. Restore the file from a \
         copy of this directory; without one write it anew, three lines: layout_version = {LAYOUT_VERSION}, cluster_id = \
         \"...\" (what clients and monitoring know the cluster by: any 22 characters), node_id = {node_id}; but a broker of a \
         cluster of several is to start with an empty directory, which the others fill",
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
pub fn open(dir: &Path, wanted: Wanted<'_>) -> Result<(Life, DirectoryLock), IdentityError> {
    if dir.exists() && !dir.is_dir() {
        return Err(IdentityError::NoDirectory { path: dir.to_owned() });
    }
    fs::create_dir_all(dir).map_err(failed("create the data directory", dir))?;
    let lock = lock(dir)?;
    let path = dir.join(FILE_NAME);
    let (kept, is_new) = match fs::read_to_string(&path) {
        Ok(text) => {
            let kept = file::parse(&text).map_err(|bad| bad.at(&path))?;
            let changed = follow(kept.clone(), wanted, dir, &path)?;
            let is_new = changed != kept;
            (changed, is_new)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            refuse_foreign(dir, wanted.node_id.unwrap_or(NODE_ID))?;
            (Kept { life: begin(wanted)?, has_been_ready: false }, true)
        }
        Err(error) => return Err(failed("read", &path)(error)),
    };
    if is_new {
        write_durable(dir, &kept).map_err(failed("write", &path))?;
    }
    Ok((kept.life, lock))
}

/// The life that an empty directory begins.
fn begin(wanted: Wanted<'_>) -> Result<Life, IdentityError> {
    let directory = draw()?;
    if wanted.has_seeds {
        return Ok(Life::Forming(directory));
    }
    let alone = Identity::alone(draw()?.to_string(), wanted.node_id.unwrap_or(NODE_ID), directory);
    Ok(Life::Member(match wanted.peer {
        Some(peer) => alone.opened(peer),
        None => alone,
    }))
}

/// What a directory's identity becomes under these configs, if they go together.
fn follow(mut kept: Kept, wanted: Wanted<'_>, dir: &Path, path: &Path) -> Result<Kept, IdentityError> {
    let path = path.to_owned();
    let identity = match kept.life {
        Life::Forming(_) if wanted.has_seeds => return Ok(kept),
        Life::Forming(_) => return Err(IdentityError::StillForming { path }),
        Life::Member(identity) => identity,
    };
    if let Some(wanted) = wanted.node_id
        && wanted != identity.node_id
    {
        return Err(IdentityError::OtherNode { path, found: identity.node_id, wanted });
    }
    let journal = corelog_storage::paths::journal_dir(dir);
    let is_empty = || fs::read_dir(&journal).map_or(true, |mut entries| entries.next().is_none());
    if kept.has_been_ready && is_empty() {
        return Err(IdentityError::NoJournal { journal, dir: dir.to_owned() });
    }
    let mut identity = identity;
    if identity.directory.is_zero() {
        identity.directory = draw()?;
    }
    kept.life = Life::Member(match (&identity.belongs, wanted.peer) {
        (Belongs::Alone, Some(peer)) => identity.opened(peer),
        (Belongs::Founder(_) | Belongs::Joined { .. }, None) => {
            return Err(IdentityError::NoPeer { path, cluster_id: identity.cluster_id });
        }
        _ => identity,
    });
    Ok(kept)
}

/// A random id. Blocks.
pub fn draw() -> Result<Uuid, IdentityError> {
    let (mut random, source) = ([0u8; 16], Path::new("/dev/urandom"));
    File::open(source)
        .and_then(|mut file| file.read_exact(&mut random))
        .map_err(failed("read randomness from", source))?;
    Ok(Uuid::from_random(u128::from_be_bytes(random)))
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> IdentityError {
    let path = path.to_owned();
    move |error| IdentityError::Io { action, path, error }
}

impl Bad {
    fn at(self, path: &Path) -> IdentityError {
        let path = path.to_owned();
        match self {
            Bad::Damaged(error) => IdentityError::Damaged { path, error },
            Bad::Version(found) => IdentityError::Version { path, found },
        }
    }
}

/// The broker is ready for the first time: that it has a journal is known from now on.
pub fn note_ready(dir: &Path, identity: &Identity) -> io::Result<()> {
    let text = fs::read_to_string(dir.join(FILE_NAME))?;
    match file::parse(&text) {
        Ok(kept) if kept.has_been_ready => Ok(()),
        _ => write_durable(dir, &Kept { life: Life::Member(identity.clone()), has_been_ready: true }),
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

fn write_durable(dir: &Path, kept: &Kept) -> io::Result<()> {
    let temporary = dir.join(format!("{FILE_NAME}.new"));
    let mut out = File::create(&temporary)?;
    out.write_all(file::write(kept).as_bytes())?;
    out.sync_all()?;
    fs::rename(&temporary, dir.join(FILE_NAME))?;
    File::open(dir)?.sync_all()
}
