//! Files and names behave alike in both worlds.

mod common;

use bytes::Bytes;
use common::{World, in_both_worlds, in_glommio};
use corelog_io::{ALIGN, AlignedBuf, Block, File, OpenOptions, Queue, fs, spawn};
use std::io;
use std::path::Path;

const BUFFERED: OpenOptions = OpenOptions { read: true, write: true, create: true, direct: false };
const DIRECT: OpenOptions = OpenOptions { direct: true, ..BUFFERED };

fn pattern(len: usize, salt: u64) -> AlignedBuf {
    let mut buf = AlignedBuf::new(len);
    for (i, byte) in buf.iter_mut().enumerate() {
        *byte = ((i as u64 * 31 + salt * 7) % 251) as u8;
    }
    buf
}

async fn open(world: &World, name: &str, options: OpenOptions) -> File {
    File::open(&world.dir.join(name), options).await.unwrap()
}

#[test]
fn what_is_written_is_read() {
    in_both_worlds(1, |world| async move {
        for (options, name) in [(BUFFERED, "buffered"), (DIRECT, "direct")] {
            for sync in [false, true] {
                let file = open(&world, name, options).await;
                // Above one I/O's size, so that it goes in pieces.
                let len = (2 << 20) + 3 * ALIGN;
                let data = pattern(len, u64::from(sync)).freeze();
                file.write_at(ALIGN as u64, data.clone(), sync).await.unwrap();
                assert_eq!(file.len().await.unwrap(), (ALIGN + len) as u64);
                let got = file.read_at(ALIGN as u64, len).await.unwrap();
                assert!(got == data, "{name}: other bytes came back");
                let head = file.read_at(0, ALIGN).await.unwrap();
                assert!(head.iter().all(|b| *b == 0), "a hole reads as zeros");
                file.sync_data().await.unwrap();
                file.close().await.unwrap();
            }
        }
    });
}

#[test]
fn a_read_is_short_only_at_the_end() {
    in_both_worlds(1, |world| async move {
        let file = open(&world, "short", BUFFERED).await;
        file.write_at(0, Bytes::from_static(b"0123456789"), false).await.unwrap();
        assert_eq!(&file.read_at(3, 4).await.unwrap()[..], b"3456");
        assert_eq!(&file.read_at(3, 100).await.unwrap()[..], b"3456789");
        assert!(file.read_at(10, 5).await.unwrap().is_empty());
        assert!(file.read_at(1 << 40, 5).await.unwrap().is_empty());
        assert!(file.read_at(0, 0).await.unwrap().is_empty());

        // A direct reader of a file whose end is not aligned: in one piece and in several.
        let len = (1 << 20) + 4096 + 77;
        file.write_at(0, pattern(len, 1).freeze(), true).await.unwrap();
        let direct = open(&world, "short", DIRECT).await;
        for ask in [(1 << 20) + 2 * 4096, 4 << 20] {
            let got = direct.read_at(0, ask).await.unwrap();
            assert!(got[..] == pattern(len, 1)[..], "asked {ask}, got {}", got.len());
        }
        assert_eq!(direct.read_at(1 << 20, 2 * ALIGN).await.unwrap().len(), 4096 + 77);
    });
}

#[test]
fn vectored_writes_of_any_shape() {
    in_both_worlds(1, |world| async move {
        let file = open(&world, "vectored", BUFFERED).await;
        let whole = pattern(3 << 20, 2).freeze();
        let mut parts = Vec::new();
        let mut at = 0;
        // More parts than one system call takes, empty ones, and one larger than an I/O.
        for n in std::iter::repeat_n(13, 1500).chain([0, 1, 0]).chain([2 << 20]) {
            parts.push(whole.slice(at..at + n));
            at += n;
        }
        parts.push(whole.slice(at..));
        file.write_vectored_at(5, parts, true).await.unwrap();
        assert!(file.read_at(5, whole.len()).await.unwrap() == whole);
        assert_eq!(file.len().await.unwrap(), 5 + whole.len() as u64);

        let direct = open(&world, "vectored-direct", DIRECT).await;
        let parts = (0..40u64).map(|i| pattern(ALIGN * (1 + i as usize % 3), i).freeze()).collect::<Vec<_>>();
        let whole: Vec<u8> = parts.iter().flatten().copied().collect();
        direct.write_vectored_at(0, parts, true).await.unwrap();
        assert!(direct.read_at(0, whole.len()).await.unwrap() == whole);
    });
}

#[test]
fn a_block_is_written_in_place() {
    in_both_worlds(1, |world| async move {
        let file = open(&world, "block", DIRECT).await;
        let mut block = Block::with_capacity(64 << 10);
        let header = block.reserve(16);
        let batch = block.append(&[7; 5000]);
        block.write_at(header.start..header.start + 4, &[1, 2, 3, 4]);
        let tail = block.len();
        block.reserve(tail.next_multiple_of(ALIGN) - tail);
        let cached = block.slice(batch);
        let group = block.slice(0..block.len());
        file.write_at(0, group.clone(), true).await.unwrap();
        assert!(file.read_at(0, group.len()).await.unwrap() == group);
        assert_eq!(&cached[..], &[7; 5000]);
    });
}

#[test]
fn many_operations_at_once_find_room_in_turn() {
    in_both_worlds(1, |world| async move {
        let file = open(&world, "many", DIRECT).await;
        // More than a ring's depth.
        let n = if world.simulated { 300 } else { 3000 };
        let writes: Vec<_> = (0..n)
            .map(|i| {
                let file = file.clone();
                spawn(Queue::Produce, async move {
                    file.write_at(i * ALIGN as u64, pattern(ALIGN, i).freeze(), false).await.unwrap();
                    let got = file.read_at(i * ALIGN as u64, ALIGN).await.unwrap();
                    assert!(got[..] == pattern(ALIGN, i)[..], "write {i}");
                })
            })
            .collect();
        for write in writes {
            write.await;
        }
        assert_eq!(file.len().await.unwrap(), n * ALIGN as u64);
    });
}

#[test]
fn a_dropped_operation_keeps_its_memory_until_it_is_done() {
    in_both_worlds(1, |world| async move {
        let file = open(&world, "dropped", DIRECT).await;
        for round in 0..200u64 {
            let data = pattern(64 << 10, round).freeze();
            let copy = file.clone();
            let task = spawn(Queue::Produce, async move { copy.write_at(0, data, true).await });
            if round % 2 == 0 {
                corelog_io::yield_now().await;
            }
            drop(task);
            // Whatever is freed too early is reused here.
            let other = spawn(Queue::Fetch, {
                let file = file.clone();
                async move { file.read_at(0, 64 << 10).await }
            });
            let _ = other.await.unwrap();
        }
        // A descriptor goes with its last operation; its number is reused only then. (Written where none of the dropped
        // writes, which may still be under way, goes.)
        let pos = 1 << 20;
        file.write_at(pos, pattern(ALIGN, 1).freeze(), true).await.unwrap();
        let reading = file.read_at(pos, ALIGN);
        let last = file.clone();
        drop(reading);
        last.close().await.unwrap();
        assert!(file.read_at(pos, ALIGN).await.unwrap()[..] == pattern(ALIGN, 1)[..]);
    });
}

#[test]
fn space_is_reserved_and_cut() {
    in_both_worlds(1, |world| async move {
        let file = open(&world, "reserved", DIRECT).await;
        file.allocate(0, 1 << 20).await.unwrap();
        assert_eq!(file.len().await.unwrap(), 1 << 20);
        assert!(file.read_at(0, 1 << 20).await.unwrap().iter().all(|b| *b == 0));
        file.write_at(8192, pattern(ALIGN, 3).freeze(), true).await.unwrap();
        file.truncate(8192 + 100).await.unwrap();
        assert_eq!(file.len().await.unwrap(), 8292);
        file.truncate(16384).await.unwrap();
        let got = file.read_at(8192, 8192).await.unwrap();
        assert_eq!(got[..100], pattern(ALIGN, 3)[..100]);
        assert!(got[100..].iter().all(|b| *b == 0), "what was cut off came back");
        let space = fs::space(&world.dir).await.unwrap();
        assert!(space.total > space.available && space.available > 0, "{space:?}");
    });
}

#[test]
fn opening_says_what_is_wrong() {
    in_both_worlds(1, |world| async move {
        let missing = OpenOptions { read: true, ..OpenOptions::default() };
        let error = File::open(&world.dir.join("missing"), missing).await.err().unwrap();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        let error = File::open(&world.dir.join("x"), OpenOptions::default()).await.err().unwrap();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        let error = File::open(&world.dir, BUFFERED).await.err().unwrap();
        assert_eq!(error.kind(), io::ErrorKind::IsADirectory);
        drop(open(&world, "write-only", OpenOptions { read: false, ..BUFFERED }).await);
        let read_only = File::open(&world.dir.join("write-only"), missing).await.unwrap();
        assert!(read_only.write_at(0, Bytes::from_static(b"x"), false).await.is_err());
        let write_only = open(&world, "write-only", OpenOptions { read: false, ..BUFFERED }).await;
        assert!(write_only.read_at(0, 10).await.is_err());
    });
}

#[test]
fn names() {
    in_both_worlds(1, |world| async move {
        let base = world.dir.join("a/b/c");
        fs::create_dir_all(&base).await.unwrap();
        fs::create_dir_all(&base).await.unwrap();
        fs::write_atomic(&base.join("two"), b"22").await.unwrap();
        fs::write_atomic(&base.join("one"), b"1").await.unwrap();
        fs::write_atomic(&base.join("two"), b"twice").await.unwrap();
        fs::create_dir_all(&base.join("sub")).await.unwrap();
        let entries = fs::read_dir(&base).await.unwrap();
        let listed: Vec<_> = entries.iter().map(|e| (e.name.to_str().unwrap(), e.is_dir, e.len)).collect();
        assert_eq!(listed, [("one", false, 1), ("sub", true, 0), ("two", false, 5)]);

        assert_eq!(&fs::read(&base.join("two"), 5).await.unwrap()[..], b"twice");
        assert_eq!(fs::read(&base.join("two"), 4).await.unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert_eq!(fs::file_len(&base.join("two")).await.unwrap(), 5);
        assert_eq!(fs::file_len(&base.join("none")).await.unwrap_err().kind(), io::ErrorKind::NotFound);

        fs::rename(&base.join("two"), &base.join("sub/three")).await.unwrap();
        fs::sync_dir(&base).await.unwrap();
        assert!(!fs::exists(&base.join("two")).await.unwrap());
        assert!(fs::exists(&base.join("sub/three")).await.unwrap());
        assert!(fs::exists(&base).await.unwrap());

        // An open file outlives its name.
        let file = File::open(&base.join("sub/three"), BUFFERED).await.unwrap();
        fs::remove_file(&base.join("sub/three")).await.unwrap();
        assert_eq!(&file.read_at(0, 10).await.unwrap()[..], b"twice");
        assert!(fs::remove_file(&base.join("sub/three")).await.is_err());

        let top: &Path = &world.dir.join("a");
        fs::remove_dir_all(top).await.unwrap();
        assert!(!fs::exists(top).await.unwrap());
        fs::remove_dir_all(top).await.unwrap();
        assert!(fs::read_dir(top).await.is_err());
        assert!(fs::sync_dir(top).await.is_err());
    });
}

#[test]
#[should_panic(expected = "is not aligned")]
fn direct_io_asserts_its_alignment() {
    // In the simulated world, where a panic reaches the test.
    common::in_simulation(1, 1, |world| async move {
        let file = open(&world, "unaligned", DIRECT).await;
        let _ = file.write_at(0, Bytes::from(vec![0; 100]), false).await;
    });
}

#[test]
#[should_panic(expected = "memory not aligned")]
fn direct_io_asserts_the_memorys_alignment() {
    common::in_simulation(1, 1, |world| async move {
        let file = open(&world, "unaligned", DIRECT).await;
        let data = AlignedBuf::new(2 * ALIGN).freeze();
        let _ = file.write_at(0, data.slice(8..8 + ALIGN), false).await;
    });
}

#[test]
fn descriptors_are_closed() {
    in_glommio(1, |world| async move {
        let count = || {
            std::fs::read_dir("/proc/self/fd")
                .unwrap()
                .filter_map(Result::ok)
                .filter(|fd| std::fs::read_link(fd.path()).is_ok_and(|target| target.starts_with(&world.dir)))
                .count()
        };
        for i in 0..50 {
            let file = open(&world, &format!("file-{i}"), BUFFERED).await;
            file.write_at(0, Bytes::from_static(b"x"), i % 2 == 0).await.unwrap();
            if i % 3 == 0 {
                file.close().await.unwrap();
            }
        }
        // Closed in the background.
        for _ in 0..200 {
            if count() == 0 {
                return;
            }
            corelog_io::sleep(std::time::Duration::from_millis(5)).await;
        }
        panic!("{} descriptors left open", count());
    });
}
