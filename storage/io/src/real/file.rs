//! Files on the second ring.

use super::core;
use super::fd::{Fd, check};
use super::ring::{Hold, Operation, Ring};
use crate::{ALIGN, AlignedBuf, OpenOptions};
use bytes::Bytes;
use io_uring::{opcode, squeue, types};
use std::ffi::CString;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::rc::Rc;

/// The most bytes of one write or one send: larger ones gain nothing.
pub(crate) const IO_BYTES_MAX: usize = 1 << 20;
/// One read's most bytes. A write that somebody waits for is in the disk's queue with the reads: small ones let it
/// through sooner, and [`READS_UNDER_WAY_MAX`] of them keep a fast disk busy.
const READ_PIECE: usize = 128 << 10;
/// Bytes that one core's reads may have in the disk's queue. The writes of the journal take two or three requests one
/// after the other (data, flush, on some file systems the inode), and each waits behind what is there.
pub(super) const READS_UNDER_WAY_MAX: u64 = 4 * READ_PIECE as u64;
/// IOV_MAX of Linux.
const VECTORS_MAX: usize = 1024;

#[derive(Clone)]
pub(crate) struct File {
    fd: Rc<Fd>,
    direct: bool,
}

impl File {
    /// A directory, for [`File::sync_all`].
    pub(crate) async fn open_directory(path: &Path) -> io::Result<File> {
        let fd = open_fd(path, libc::O_RDONLY | libc::O_DIRECTORY | libc::O_CLOEXEC).await?;
        Ok(File { fd, direct: false })
    }

    pub(crate) async fn open(path: &Path, options: OpenOptions) -> io::Result<File> {
        let mut flags = libc::O_CLOEXEC;
        flags |= match (options.read, options.write) {
            (true, false) => libc::O_RDONLY,
            (false, true) => libc::O_WRONLY,
            (true, true) => libc::O_RDWR,
            (false, false) => {
                return Err(io::Error::new(io::ErrorKind::InvalidInput, "open needs read or write"));
            }
        };
        if options.create {
            flags |= libc::O_CREAT;
        }
        if options.direct {
            flags |= libc::O_DIRECT;
        }
        Ok(File { fd: open_fd(path, flags).await?, direct: options.direct })
    }

    pub(crate) async fn read_at(&self, pos: u64, len: usize) -> io::Result<Bytes> {
        let ring = ring();
        let buffer = Rc::new(AlignedBuf::unfilled(len));
        let mut started = Vec::with_capacity(len.div_ceil(READ_PIECE));
        for start in (0..len).step_by(READ_PIECE) {
            let piece = READ_PIECE.min(len - start);
            started.push((start, piece, self.start_read(&ring, &buffer, pos, start, piece).await));
        }
        let mut filled = 0;
        for (start, piece, operation) in started {
            let mut done = 0;
            let mut next = Some(operation);
            while done < piece {
                let operation = match next.take() {
                    Some(operation) => operation,
                    None => self.start_read(&ring, &buffer, pos, start + done, piece - done).await,
                };
                match again(operation.await) {
                    Ok(Some(0)) => break,
                    Ok(Some(n)) => done += n as usize,
                    Ok(None) => {}
                    Err(error) => return Err(error),
                }
                // The end of the file; a direct read could not go on from there.
                if self.direct && !done.is_multiple_of(ALIGN) {
                    break;
                }
            }
            if filled == start {
                filled += done;
            }
        }
        let Ok(mut buffer) = Rc::try_unwrap(buffer) else { unreachable!("all reads are done") };
        // SAFETY: the first `filled` bytes were read without a gap.
        unsafe { buffer.set_len(filled) };
        Ok(buffer.freeze())
    }

    async fn start_read(
        &self,
        ring: &Rc<Ring>,
        buffer: &Rc<AlignedBuf>,
        pos: u64,
        start: usize,
        len: usize,
    ) -> Operation {
        assert!(start + len <= buffer.capacity());
        let turn = ring.reads.acquire(len as u64).await;
        let hold = Hold::Buffer { buffer: Rc::clone(buffer), turn };
        // SAFETY: in bounds; `hold` keeps the memory, and nobody looks at it before the read is done.
        unsafe {
            let at = buffer.as_ptr_for_read().add(start);
            let read = opcode::Read::new(types::Fd(self.fd.raw()), at, len as u32).offset(pos + start as u64);
            ring.submit(read.build(), Some(Rc::clone(&self.fd)), hold).await
        }
    }

    pub(crate) async fn write_at(&self, pos: u64, data: Bytes, sync: bool) -> io::Result<()> {
        let ring = ring();
        let mut started = Vec::with_capacity(data.len().div_ceil(IO_BYTES_MAX));
        for start in (0..data.len()).step_by(IO_BYTES_MAX) {
            let piece = data.slice(start..data.len().min(start + IO_BYTES_MAX));
            let at = pos + start as u64;
            started.push((at, piece.clone(), self.start_write(&ring, at, piece, sync).await));
        }
        for (mut at, mut piece, operation) in started {
            let mut next = Some(operation);
            while !piece.is_empty() {
                let operation = match next.take() {
                    Some(operation) => operation,
                    None => self.start_write(&ring, at, piece.clone(), sync).await,
                };
                let n = written(operation.await)?;
                at += n as u64;
                let _done = piece.split_to(n);
            }
        }
        Ok(())
    }

    async fn start_write(&self, ring: &Rc<Ring>, pos: u64, data: Bytes, sync: bool) -> Operation {
        let write = opcode::Write::new(types::Fd(self.fd.raw()), data.as_ptr(), data.len() as u32)
            .offset(pos)
            .rw_flags(sync_flag(sync));
        // SAFETY: `hold` keeps the bytes, whose memory does not move with the handle.
        unsafe { ring.submit(write.build(), Some(Rc::clone(&self.fd)), Hold::Bytes(data)).await }
    }

    pub(crate) async fn write_vectored_at(&self, pos: u64, parts: Vec<Bytes>, sync: bool) -> io::Result<()> {
        let ring = ring();
        let mut at = pos;
        let mut rest: std::collections::VecDeque<Bytes> =
            parts.into_iter().filter(|p| !p.is_empty()).collect();
        while !rest.is_empty() {
            let (batch, vectors, total) = take_vectors(&mut rest);
            let write = opcode::Writev::new(types::Fd(self.fd.raw()), vectors.as_ptr(), vectors.len() as u32)
                .offset(at)
                .rw_flags(sync_flag(sync));
            let hold = Hold::Vectored { parts: batch.clone(), vectors };
            // SAFETY: `hold` keeps the vectors and the bytes; neither's memory moves with it.
            let operation = unsafe { ring.submit(write.build(), Some(Rc::clone(&self.fd)), hold).await };
            let mut n = written(operation.await)?;
            at += n as u64;
            if n < total {
                // What is left goes back to the front, in order.
                let mut left = Vec::new();
                for mut part in batch {
                    let skip = n.min(part.len());
                    n -= skip;
                    let _done = part.split_to(skip);
                    if !part.is_empty() {
                        left.push(part);
                    }
                }
                for part in left.into_iter().rev() {
                    rest.push_front(part);
                }
            }
        }
        Ok(())
    }

    pub(crate) async fn sync_data(&self) -> io::Result<()> {
        self.simple(|fd| opcode::Fsync::new(fd).flags(types::FsyncFlags::DATASYNC).build()).await
    }

    /// fsync: names of a directory.
    pub(crate) async fn sync_all(&self) -> io::Result<()> {
        self.simple(|fd| opcode::Fsync::new(fd).build()).await
    }

    pub(crate) async fn allocate(&self, pos: u64, len: u64) -> io::Result<()> {
        self.simple(|fd| opcode::Fallocate::new(fd, len).offset(pos).build()).await
    }

    async fn simple(&self, entry: impl Fn(types::Fd) -> squeue::Entry) -> io::Result<()> {
        let ring = ring();
        loop {
            let entry = entry(types::Fd(self.fd.raw()));
            // SAFETY: it points to no memory.
            let operation = unsafe { ring.submit(entry, Some(Rc::clone(&self.fd)), Hold::Nothing).await };
            if again(operation.await)?.is_some() {
                return Ok(());
            }
        }
    }

    pub(crate) async fn truncate(&self, len: u64) -> io::Result<()> {
        let len = i64::try_from(len)
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "length above 2^63"))?;
        // SAFETY: plain system call.
        self.blocking(move |raw| unsafe { libc::ftruncate(raw, len) }).await
    }

    /// syncfs; and fdatasync of this file, since not every file system's syncfs ends with a flush of the device: ext4
    /// without a journal flushes before it writes its own pages, XFS not at all if its log is clean.
    pub(crate) async fn sync_file_system(&self) -> io::Result<()> {
        // SAFETY: plain system call.
        self.blocking(|raw| unsafe { libc::syncfs(raw) }).await?;
        self.sync_data().await
    }

    /// Makes a system call on the blocking thread.
    async fn blocking(&self, call: impl FnOnce(RawFd) -> libc::c_int + Send + 'static) -> io::Result<()> {
        let own = self.duplicate()?;
        super::fs::blocking(move || check(call(own.as_raw_fd())).map(|_| ())).await
    }

    /// For the blocking thread, whose descriptor must outlive a call even if who waits for it is dropped.
    fn duplicate(&self) -> io::Result<OwnedFd> {
        // SAFETY: plain system call on an open descriptor; what it returns is owned by nobody else.
        Ok(unsafe { OwnedFd::from_raw_fd(check(libc::fcntl(self.fd.raw(), libc::F_DUPFD_CLOEXEC, 0))?) })
    }

    pub(crate) async fn syncs_as_one(&self) -> io::Result<bool> {
        let own = self.duplicate()?;
        let kind = super::fs::blocking(move || {
            let mut stat = MaybeUninit::<libc::statfs>::uninit();
            // SAFETY: the buffer is a statfs's size and read only when filled.
            unsafe {
                check(libc::fstatfs(own.as_raw_fd(), stat.as_mut_ptr()))?;
                Ok::<_, io::Error>(stat.assume_init().f_type)
            }
        });
        Ok([libc::EXT4_SUPER_MAGIC, libc::XFS_SUPER_MAGIC].contains(&kind.await?))
    }

    pub(crate) fn len(&self) -> io::Result<u64> {
        self.stat().map(|stat| stat.st_size as u64)
    }

    pub(crate) fn device(&self) -> io::Result<u64> {
        self.stat().map(|stat| stat.st_dev)
    }

    /// fstat reads the inode in memory: it does not block.
    fn stat(&self) -> io::Result<libc::stat> {
        let mut stat = MaybeUninit::<libc::stat>::uninit();
        // SAFETY: the buffer is a stat's size; it is read only when the call filled it.
        unsafe {
            check(libc::fstat(self.fd.raw(), stat.as_mut_ptr()))?;
            Ok(stat.assume_init())
        }
    }

    pub(crate) async fn close(self) -> io::Result<()> {
        match Rc::try_unwrap(self.fd) {
            Ok(fd) => {
                let close = opcode::Close::new(types::Fd(fd.into_raw())).build();
                // SAFETY: it points to no memory.
                let operation = unsafe { ring().submit(close, None, Hold::Nothing).await };
                operation.await.map(|_| ())
            }
            Err(_shared) => Ok(()),
        }
    }
}

/// Opens any path with `flags`, off the core.
async fn open_fd(path: &Path, flags: libc::c_int) -> io::Result<Rc<Fd>> {
    let ring = ring();
    let path = CString::new(path.as_os_str().as_bytes())?;
    loop {
        let held = path.clone();
        let open = opcode::OpenAt::new(types::Fd(libc::AT_FDCWD), held.as_ptr()).flags(flags).mode(0o644);
        // SAFETY: `hold` keeps the path, whose memory does not move with it.
        let operation = unsafe { ring.submit(open.build(), None, Hold::Path(held)).await };
        if let Some(raw) = again(operation.await)? {
            return Ok(Fd::file(raw as i32, &ring));
        }
    }
}

fn ring() -> Rc<Ring> {
    Rc::clone(&core::current().ring)
}

fn sync_flag(sync: bool) -> i32 {
    if sync { libc::RWF_DSYNC } else { 0 }
}

/// `None`: interrupted or not ready, try again.
fn again(result: io::Result<u32>) -> io::Result<Option<u32>> {
    match result {
        Ok(n) => Ok(Some(n)),
        Err(error) if matches!(error.raw_os_error(), Some(libc::EINTR | libc::EAGAIN)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Bytes written; 0 = try again. A write of no bytes that is no error would loop for ever: it becomes one.
fn written(result: io::Result<u32>) -> io::Result<usize> {
    match again(result)? {
        Some(0) => Err(io::Error::new(io::ErrorKind::WriteZero, "the file system took none of the bytes")),
        Some(n) => Ok(n as usize),
        None => Ok(0),
    }
}

/// Takes parts off the front for one vectored write: at most [`IO_BYTES_MAX`] bytes and [`VECTORS_MAX`] parts.
fn take_vectors(rest: &mut std::collections::VecDeque<Bytes>) -> (Vec<Bytes>, Vec<libc::iovec>, usize) {
    let (mut batch, mut vectors, mut total) = (Vec::new(), Vec::new(), 0);
    while vectors.len() < VECTORS_MAX && total < IO_BYTES_MAX {
        let Some(mut part) = rest.pop_front() else { break };
        let room = IO_BYTES_MAX - total;
        if part.len() > room {
            rest.push_front(part.split_off(room));
        }
        vectors.push(libc::iovec { iov_base: part.as_ptr() as *mut libc::c_void, iov_len: part.len() });
        total += part.len();
        batch.push(part);
    }
    (batch, vectors, total)
}

#[cfg(test)]
mod tests {
    use super::super::run;
    use super::*;
    use crate::{RunConfig, available_cpus};
    use std::future::poll_fn;
    use std::pin::pin;
    use std::task::Poll;
    use std::time::Duration;

    #[test]
    fn a_large_read_takes_its_turns_and_gives_them_back_when_it_is_given_up() {
        const LEN: usize = 12 * READ_PIECE + 5000;
        let path = std::env::temp_dir().join(format!("corelog-reads-{}", std::process::id()));
        let bytes: Vec<u8> = (0..LEN).map(|at| (at / 7) as u8).collect();
        std::fs::write(&path, &bytes).expect("the file can be written");
        let config = RunConfig::new(vec![available_cpus().expect("there are CPUs")[0]]);
        let for_core = path.clone();
        let main = move |_, ()| {
            let path = for_core.clone();
            async move {
                let options = OpenOptions { read: true, ..OpenOptions::default() };
                let file = File::open(&path, options).await.expect("it is there");
                let left = || ring().reads.available();
                assert_eq!(left(), READS_UNDER_WAY_MAX);
                {
                    let mut given_up = pin!(file.read_at(0, LEN));
                    poll_fn(|cx| Poll::Ready(given_up.as_mut().poll(cx).is_ready())).await;
                    assert_eq!(left(), 0, "the rest of the read waits");
                }
                let whole = file.read_at(0, LEN).await.expect("it can be read");
                for _ in 0..1000 {
                    if left() == READS_UNDER_WAY_MAX {
                        return whole;
                    }
                    crate::sleep(Duration::from_millis(5)).await;
                }
                panic!("{} bytes were not given back", READS_UNDER_WAY_MAX - left());
            }
        };
        for core in run::start(&config, vec![()], main).expect("the core starts") {
            let whole = core.join().expect("the core ends").expect("it has run");
            assert!(whole == bytes);
        }
        std::fs::remove_file(path).expect("it can be removed");
    }

    /// Descriptors of this process that lead to `path`.
    fn open_at(path: &Path) -> usize {
        let links = std::fs::read_dir("/proc/self/fd").expect("Linux").flatten();
        links.filter(|link| std::fs::read_link(link.path()).is_ok_and(|target| target == path)).count()
    }

    #[test]
    fn an_open_that_is_given_up_leaves_no_descriptor() {
        let path = std::env::temp_dir().join(format!("corelog-opens-{}", std::process::id()));
        std::fs::write(&path, b"something").expect("the file can be written");
        let config = RunConfig::new(vec![available_cpus().expect("there are CPUs")[0]]);
        let for_core = path.clone();
        let main = move |_, ()| {
            let path = for_core.clone();
            async move {
                let options = OpenOptions { read: true, ..OpenOptions::default() };
                for round in 0..50 {
                    let mut given_up = pin!(File::open(&path, options));
                    // Some before the kernel has begun, some when it is done and nobody has looked.
                    poll_fn(|cx| Poll::Ready(given_up.as_mut().poll(cx).is_ready())).await;
                    if round % 2 == 0 {
                        crate::sleep(Duration::from_millis(1)).await;
                    }
                }
                for _ in 0..1000 {
                    if open_at(&path) == 0 {
                        return;
                    }
                    crate::sleep(Duration::from_millis(5)).await;
                }
                panic!("{} descriptors were left", open_at(&path));
            }
        };
        for core in run::start(&config, vec![()], main).expect("the core starts") {
            core.join().expect("the core ends").expect("it has run");
        }
        std::fs::remove_file(path).expect("it can be removed");
    }
}
