//! Operations on a simulated disk: each takes its time, happens in the kernel whether or not the caller still waits,
//! and meets the faults that were set for it.

use super::DiskOp;
use super::disk::{DiskState, InodeId};
use super::machine::{Descriptor, Machine};
use super::scheduler::{self, Context};
use crate::fs::{DirEntry, Space};
use crate::sync::oneshot;
use crate::{AlignedBuf, OpenOptions, turn};
use bytes::Bytes;
use std::cell::{Cell, RefCell};
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// What a byte costs on its way to or from the disk, in picoseconds: 1 GB/s.
const BYTE_PICOS: u64 = 1000;
/// One operation in this many takes ten times as long.
const SLOW_ONE_IN: u64 = 64;

/// The second half of an operation.
type Then = Box<dyn FnOnce(&mut DiskState, &Context) -> io::Result<()>>;

/// One operation in the kernel of a machine.
struct Operation {
    context: Rc<Context>,
    op: DiskOp,
    path: PathBuf,
    bytes: usize,
    /// A file system that is read-only refuses it.
    changes: bool,
}

impl Operation {
    fn new(op: DiskOp, path: &Path, bytes: usize) -> Operation {
        let changes = op != DiskOp::Read;
        Operation { context: scheduler::current(), op, path: path.to_path_buf(), bytes, changes }
    }

    /// A look at what is there.
    fn look(path: &Path) -> Operation {
        Operation { changes: false, ..Operation::new(DiskOp::Metadata, path, 0) }
    }

    fn latency(&self) -> u64 {
        let scheduler = &self.context.scheduler;
        let mut random = scheduler.random.borrow_mut();
        let mut latency = random.nanos(&scheduler.config.disk_latency);
        if random.one_in(SLOW_ONE_IN) {
            latency *= 10;
        }
        latency + self.bytes as u64 * BYTE_PICOS / 1000 + self.context.machine.disk.borrow().extra_latency
    }

    /// Runs `apply` on the disk after a while; its outcome. A fault that strikes is handed to `apply`.
    async fn run<T: 'static>(
        self,
        apply: impl FnOnce(&mut DiskState, io::Result<()>, &Context) -> io::Result<T> + 'static,
    ) -> io::Result<T> {
        self.run_then(apply, None).await
    }

    /// As [`Operation::run`]; after another while `then` is done to the disk, and only then the caller goes on.
    async fn run_then<T: 'static>(
        self,
        apply: impl FnOnce(&mut DiskState, io::Result<()>, &Context) -> io::Result<T> + 'static,
        then: Option<Then>,
    ) -> io::Result<T> {
        let (answer, outcome) = oneshot();
        let scheduler = Rc::clone(&self.context.scheduler);
        let power = self.context.machine.power.get();
        let (first, second) = (self.latency(), self.latency());
        turn::operation();
        let at = scheduler.now() + first;
        after_stalls(Rc::clone(&self.context.machine), power, at, move || {
            let context = &self.context;
            let machine = Rc::clone(&context.machine);
            let struck = machine.disk.borrow_mut().faults.strike(self.op, &self.path, self.changes);
            let result = apply(&mut machine.disk.borrow_mut(), struck, context);
            context.scheduler.trace.mix(self.op as u64, u64::from(result.is_ok()));
            context.scheduler.trace.mix_bytes(self.path.as_os_str().as_encoded_bytes());
            match then {
                Some(then) if result.is_ok() => {
                    let at = context.scheduler.now() + second;
                    let context = Rc::clone(context);
                    after_stalls(Rc::clone(&machine), power, at, move || {
                        let after = then(&mut machine.disk.borrow_mut(), &context);
                        let _ = answer.send(after.and(result));
                    });
                }
                _ => {
                    let _ = answer.send(result);
                }
            }
        });
        // No answer: the power failed, and the caller with it.
        outcome.await.unwrap_or_else(|_| Err(io::ErrorKind::Interrupted.into()))
    }
}

/// Does `act` at `at`, or once the disk is no longer stalled, unless the machine's power fails before.
fn after_stalls(machine: Rc<Machine>, power: u64, at: u64, act: impl FnOnce() + 'static) {
    let scheduler = machine.scheduler();
    scheduler.at(at, move || {
        if machine.power.get() != power {
            return;
        }
        let stalled_until = machine.disk.borrow().stalled_until;
        if stalled_until > machine.scheduler().now() {
            return after_stalls(machine, power, stalled_until, act);
        }
        act();
    });
}

#[derive(Clone)]
pub(crate) struct File {
    open: Rc<Open>,
}

struct Open {
    inode: InodeId,
    path: PathBuf,
    machine: Rc<Machine>,
    power: u64,
    writable: bool,
    readable: bool,
    device: u64,
    /// The losses that it was told of, of the file and of its file system.
    known: Cell<u64>,
    system_known: Cell<u64>,
    _descriptor: Descriptor,
}

impl Drop for Open {
    fn drop(&mut self) {
        // A power loss has closed everything; and a crash under way may be what drops this.
        if self.machine.power.get() == self.power
            && let Ok(mut disk) = self.machine.disk.try_borrow_mut()
        {
            disk.close(self.inode);
        }
    }
}

impl Open {
    fn write(
        &self,
        disk: &mut DiskState,
        struck: io::Result<()>,
        context: &Context,
        pos: u64,
        data: &[u8],
    ) -> io::Result<()> {
        let fits = |disk: &mut DiskState, len: usize| {
            disk.check_space(self.inode, pos, len as u64)?;
            disk.contents(self.inode).check_writable(pos, len)
        };
        let outcome = struck.and_then(|()| fits(disk, data.len()));
        let taken = match &outcome {
            Ok(()) => data.len(),
            // A failed write may have written a part.
            Err(_) => context.scheduler.random.borrow_mut().below(data.len() as u64 + 1) as usize,
        };
        if outcome.is_ok() || (fits(disk, taken).is_ok() && !disk.faults.is_out()) {
            disk.contents(self.inode).write(pos, &data[..taken]);
        }
        outcome
    }

    /// The second half of a write with RWF_DSYNC.
    fn sync_range(&self, disk: &mut DiskState, context: &Context, pos: u64, len: usize) -> io::Result<()> {
        let struck = disk.faults.strike(DiskOp::Sync, &self.path, true);
        match struck {
            Ok(()) => disk.contents(self.inode).sync_range(pos, len),
            Err(_) => {
                self.lose_range(disk, context, pos, len);
                disk.add_loss(self.inode, self.device);
            }
        }
        struck.and(disk.losses(self.inode).tell(&self.known))
    }

    fn lose_range(&self, disk: &mut DiskState, context: &Context, pos: u64, len: usize) {
        let mut random = context.scheduler.random.borrow_mut();
        disk.contents(self.inode).sync_range_failed(pos, len, &mut random);
    }
}

impl File {
    pub(crate) async fn open(path: &Path, options: OpenOptions) -> io::Result<File> {
        if !options.read && !options.write {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "open needs read or write"));
        }
        let owned = path.to_path_buf();
        let machine = Rc::clone(&scheduler::current().machine);
        let at_disk = Rc::clone(&machine);
        let operation = Operation {
            changes: options.write || options.create,
            ..Operation::new(DiskOp::Metadata, path, 0)
        };
        // The handle is made where the inode is opened: if the caller is dropped meanwhile, it closes again.
        let open = operation.run(move |disk, struck, context| {
            struck?;
            let descriptor = context.descriptor()?;
            let inode = disk.open(&owned, options.create)?;
            let power = at_disk.power.get();
            let device = disk.device(&owned);
            let (readable, writable) = (options.read, options.write);
            Ok(Open {
                inode,
                path: owned,
                machine: at_disk,
                power,
                readable,
                writable,
                device,
                known: Cell::new(disk.losses(inode).known()),
                system_known: Cell::new(disk.system_losses(device).known()),
                _descriptor: descriptor,
            })
        });
        Ok(File { open: Rc::new(open.await?) })
    }

    pub(crate) async fn read_at(&self, pos: u64, len: usize) -> io::Result<Bytes> {
        if !self.open.readable {
            return Err(io::Error::from_raw_os_error(libc::EBADF));
        }
        let open = Rc::clone(&self.open);
        Operation::new(DiskOp::Read, &self.open.path, len)
            .run(move |disk, struck, context| {
                struck?;
                let mut buf = AlignedBuf::new(len);
                disk.contents(open.inode).check_readable(pos, len)?;
                let got = disk.contents(open.inode).read(pos, &mut buf);
                let bytes = buf.freeze().slice(..got);
                context.scheduler.trace.mix_bytes(&bytes);
                Ok(bytes)
            })
            .await
    }

    pub(crate) async fn write_at(&self, pos: u64, data: Bytes, sync: bool) -> io::Result<()> {
        if !self.open.writable {
            return Err(io::Error::from_raw_os_error(libc::EBADF));
        }
        let (open, len) = (Rc::clone(&self.open), data.len());
        let durable: Option<Then> = sync.then(|| {
            let open = Rc::clone(&self.open);
            let sync =
                move |disk: &mut DiskState, context: &Context| open.sync_range(disk, context, pos, len);
            Box::new(sync) as Then
        });
        Operation::new(DiskOp::Write, &self.open.path, len)
            .run_then(
                move |disk, struck, context| {
                    context.scheduler.trace.mix(pos, len as u64);
                    context.scheduler.trace.mix_bytes(&data);
                    let outcome = open.write(disk, struck, context, pos, &data);
                    if outcome.is_err() && sync {
                        open.lose_range(disk, context, pos, len);
                    }
                    outcome
                },
                durable,
            )
            .await
    }

    pub(crate) async fn sync_data(&self) -> io::Result<()> {
        let open = Rc::clone(&self.open);
        Operation::new(DiskOp::Sync, &self.open.path, 0)
            .run(move |disk, struck, context| {
                let contents = disk.contents(open.inode);
                match struck {
                    Ok(()) => contents.sync(),
                    Err(_) => {
                        contents.sync_failed(&mut context.scheduler.random.borrow_mut());
                        disk.add_loss(open.inode, open.device);
                    }
                }
                struck.and(disk.losses(open.inode).tell(&open.known))
            })
            .await
    }

    pub(crate) fn device(&self) -> u64 {
        self.open.device
    }

    pub(crate) async fn sync_file_system(&self) -> io::Result<()> {
        let open = Rc::clone(&self.open);
        Operation::new(DiskOp::Sync, &self.open.path, 0)
            .run(move |disk, struck, context| {
                match struck {
                    Ok(()) => disk.sync_file_system(open.device),
                    Err(_) => {
                        let mut random = context.scheduler.random.borrow_mut();
                        disk.sync_file_system_failed(open.device, &mut random);
                    }
                }
                struck.and(disk.system_losses(open.device).tell(&open.system_known))
            })
            .await
    }

    pub(crate) async fn allocate(&self, pos: u64, len: u64) -> io::Result<()> {
        let open = Rc::clone(&self.open);
        Operation::new(DiskOp::Metadata, &self.open.path, 0)
            .run(move |disk, struck, _| {
                struck?;
                disk.check_space(open.inode, pos, len)?;
                disk.contents(open.inode).allocate(pos, len);
                Ok(())
            })
            .await
    }

    pub(crate) async fn truncate(&self, len: u64) -> io::Result<()> {
        let open = Rc::clone(&self.open);
        Operation::new(DiskOp::Metadata, &self.open.path, 0)
            .run(move |disk, struck, _| {
                struck?;
                disk.contents(open.inode).truncate(len);
                Ok(())
            })
            .await
    }

    pub(crate) fn len(&self) -> io::Result<u64> {
        Ok(self.open.machine.disk.borrow_mut().contents(self.open.inode).len())
    }
}

/// One operation on names.
async fn names<T: 'static>(
    path: &Path,
    apply: impl FnOnce(&mut DiskState) -> io::Result<T> + 'static,
) -> io::Result<T> {
    on_names(Operation::new(DiskOp::Metadata, path, 0), apply).await
}

/// A look at names.
async fn look<T: 'static>(
    path: &Path,
    apply: impl FnOnce(&mut DiskState) -> io::Result<T> + 'static,
) -> io::Result<T> {
    on_names(Operation::look(path), apply).await
}

async fn on_names<T: 'static>(
    operation: Operation,
    apply: impl FnOnce(&mut DiskState) -> io::Result<T> + 'static,
) -> io::Result<T> {
    operation
        .run(move |disk, struck, _| {
            struck?;
            apply(disk)
        })
        .await
}

pub(crate) async fn create_dir_all(path: PathBuf) -> io::Result<()> {
    names(&path.clone(), move |disk| disk.create_dir_all(&path)).await
}

pub(crate) async fn read_dir(path: PathBuf) -> io::Result<Vec<DirEntry>> {
    let context = scheduler::current();
    look(&path.clone(), move |disk| {
        context.check_descriptor()?;
        let entries = disk.read_dir(&path)?;
        Ok(entries
            .into_iter()
            .map(|(name, stat)| DirEntry { name, is_dir: stat.is_dir, len: stat.len })
            .collect())
    })
    .await
}

pub(crate) async fn rename(from: PathBuf, to: PathBuf) -> io::Result<()> {
    names(&to.clone(), move |disk| disk.rename(&from, &to)).await
}

pub(crate) async fn remove_file(path: PathBuf) -> io::Result<()> {
    names(&path.clone(), move |disk| disk.remove_file(&path)).await
}

pub(crate) async fn remove_dir(path: PathBuf) -> io::Result<()> {
    names(&path.clone(), move |disk| disk.remove_dir(&path)).await
}

pub(crate) async fn remove_dir_all(path: PathBuf) -> io::Result<()> {
    names(&path.clone(), move |disk| disk.remove_dir_all(&path)).await
}

pub(crate) async fn sync_dir(path: &Path) -> io::Result<()> {
    let owned = path.to_path_buf();
    Operation::new(DiskOp::Sync, path, 0)
        .run(move |disk, struck, context| {
            struck?;
            context.check_descriptor()?;
            disk.sync_dir(&owned)
        })
        .await
}

pub(crate) async fn exists(path: PathBuf) -> io::Result<bool> {
    match file_len(path).await {
        Ok(_) => Ok(true),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

pub(crate) async fn file_len(path: PathBuf) -> io::Result<u64> {
    look(&path.clone(), move |disk| disk.stat(&path).map(|stat| stat.len)).await
}

pub(crate) async fn space(path: &Path) -> io::Result<Space> {
    look(path, |disk| {
        let (total, available) = disk.space();
        Ok(Space { total, available })
    })
    .await
}

pub(crate) async fn read(path: PathBuf, max: usize) -> io::Result<Bytes> {
    let file = File::open(&path, OpenOptions { read: true, ..OpenOptions::default() }).await?;
    let len = file.len()?;
    if len > max as u64 {
        return Err(crate::fs::too_large(&path, max));
    }
    file.read_at(0, len as usize).await
}

pub(crate) async fn write_atomic(path: &Path, data: &[u8]) -> io::Result<()> {
    let (directory, temporary) = crate::fs::atomic_names(path)?;
    let write = async || {
        let options = OpenOptions { write: true, create: true, ..OpenOptions::default() };
        let file = File::open(&temporary, options).await?;
        file.truncate(0).await?;
        file.write_at(0, Bytes::copy_from_slice(data), false).await?;
        file.sync_data().await?;
        rename(temporary.clone(), path.to_path_buf()).await?;
        sync_dir(&directory).await
    };
    let written = write().await;
    if written.is_err() {
        let _ = remove_file(temporary).await;
    }
    written
}

/// Access to a disk from outside, for tests.
pub(crate) fn contents(disk: &RefCell<DiskState>, path: &Path) -> io::Result<Vec<u8>> {
    let mut disk = disk.borrow_mut();
    let contents = disk.contents_of(path)?;
    let mut bytes = vec![0; contents.len() as usize];
    contents.read(0, &mut bytes);
    Ok(bytes)
}
