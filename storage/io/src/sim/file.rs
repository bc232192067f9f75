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
use std::cell::RefCell;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// What a byte costs on its way to or from the disk, in picoseconds: 1 GB/s.
const BYTE_PICOS: u64 = 1000;
/// One operation in this many takes ten times as long.
const SLOW_ONE_IN: u64 = 64;

/// The second half of an operation.
type Then = Box<dyn FnOnce(&mut DiskState)>;

/// One operation in the kernel of a machine.
struct Operation {
    context: Rc<Context>,
    op: DiskOp,
    path: PathBuf,
    bytes: usize,
}

impl Operation {
    fn new(op: DiskOp, path: &Path, bytes: usize) -> Operation {
        Operation { context: scheduler::current(), op, path: path.to_path_buf(), bytes }
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
            let struck = machine.disk.borrow_mut().strike(self.op, &self.path);
            let result = apply(&mut machine.disk.borrow_mut(), struck, context);
            context.scheduler.trace.mix(self.op as u64, u64::from(result.is_ok()));
            context.scheduler.trace.mix_bytes(self.path.as_os_str().as_encoded_bytes());
            match then {
                Some(then) if result.is_ok() => {
                    let at = context.scheduler.now() + second;
                    after_stalls(Rc::clone(&machine), power, at, move || {
                        then(&mut machine.disk.borrow_mut());
                        let _ = answer.send(result);
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

impl File {
    pub(crate) async fn open(path: &Path, options: OpenOptions) -> io::Result<File> {
        if !options.read && !options.write {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "open needs read or write"));
        }
        let owned = path.to_path_buf();
        let machine = Rc::clone(&scheduler::current().machine);
        let at_disk = Rc::clone(&machine);
        // The handle is made where the inode is opened: if the caller is dropped meanwhile, it closes again.
        let open = Operation::new(DiskOp::Metadata, path, 0).run(move |disk, struck, context| {
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
            let sync = move |disk: &mut DiskState| disk.contents(open.inode).sync_range(pos, len);
            Box::new(sync) as Then
        });
        Operation::new(DiskOp::Write, &self.open.path, len)
            .run_then(
                move |disk, struck, context| {
                    context.scheduler.trace.mix(pos, len as u64);
                    context.scheduler.trace.mix_bytes(&data);
                    let outcome = struck
                        .and_then(|()| disk.check_space(open.inode, pos, len as u64))
                        .and_then(|()| disk.contents(open.inode).check_writable(pos, len));
                    let taken = match &outcome {
                        Ok(()) => len,
                        // A failed write may have written a part.
                        Err(_) => context.scheduler.random.borrow_mut().below(len as u64 + 1) as usize,
                    };
                    let fits = |disk: &mut DiskState| {
                        disk.check_space(open.inode, pos, taken as u64).is_ok()
                            && disk.contents(open.inode).check_writable(pos, taken).is_ok()
                    };
                    if outcome.is_ok() || fits(disk) {
                        disk.contents(open.inode).write(pos, &data[..taken]);
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
            .run(move |disk, struck, _| {
                let contents = disk.contents(open.inode);
                match struck {
                    Ok(()) => contents.sync(),
                    Err(_) => contents.sync_failed(),
                }
                struck
            })
            .await
    }

    pub(crate) fn device(&self) -> u64 {
        self.open.device
    }

    pub(crate) async fn sync_file_system(&self) -> io::Result<()> {
        let device = self.open.device;
        Operation::new(DiskOp::Sync, &self.open.path, 0)
            .run(move |disk, struck, _| {
                struck?;
                disk.sync_file_system(device);
                Ok(())
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
    Operation::new(DiskOp::Metadata, path, 0)
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
    names(&path.clone(), move |disk| {
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
    names(&path.clone(), move |disk| disk.stat(&path).map(|stat| stat.len)).await
}

pub(crate) async fn space(path: &Path) -> io::Result<Space> {
    names(path, |disk| {
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
