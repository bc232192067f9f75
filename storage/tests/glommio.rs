//! The same log on a real disk: O_DIRECT through io_uring.

mod world;

use bytes::Bytes;
use corelog_io::{RunConfig, available_cpus, run_glommio};
use corelog_storage::{Recovered, ShardStorage, StorageConfig, read_journals};
use std::path::PathBuf;
use world::{batch, client, log_config, log_id};

/// A directory below the build's, on whatever disk that is, removed at the end.
struct Dir(PathBuf);

impl Dir {
    fn new(name: &str) -> Dir {
        let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("the directory can be made");
        Dir(dir)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn on_a_core<T: Send + 'static, F: Future<Output = T> + 'static>(
    work: impl Fn() -> F + Clone + Send + 'static,
) -> T {
    let cpu = available_cpus().expect("the kernel says")[0];
    let handle = run_glommio(RunConfig::new(vec![cpu]), move |_| work()).expect("glommio runs");
    handle.join().expect("the core ends").remove(0)
}

async fn open(config: StorageConfig) -> std::rc::Rc<ShardStorage> {
    let found = read_journals(&config.data_dir, 0, 1).await.expect("the journals can be read");
    ShardStorage::open(config, Recovered::merge([found])).await.expect("the storage opens")
}

#[test]
fn appends_are_read_back_after_a_restart_without_shutdown() {
    let dir = Dir::new("restart");
    let small = |path: PathBuf| StorageConfig { data_dir: path, ..world::config(0, 1) };
    const N: usize = 300;
    let path = dir.0.clone();
    on_a_core(move || {
        let config = small(path.clone());
        async move {
            let storage = open(config).await;
            storage.settle_recovery();
            let log = storage.log(log_id(1), "orders", log_config());
            let mut waiting = Vec::new();
            for i in 0..N {
                let appended = log.append(client(value(i))).await.expect("it is taken");
                assert_eq!(appended.base_offset, i as i64);
                waiting.push(appended.durable);
            }
            for durable in waiting {
                durable.await.expect("it becomes durable");
            }
            assert_eq!(log.high_watermark(), N as i64);
        }
    });
    let path = dir.0.clone();
    on_a_core(move || {
        let config = small(path.clone());
        async move {
            let storage = open(config).await;
            let log = storage.log(log_id(1), "orders", log_config());
            storage.settle_recovery();
            let mut offset = 0;
            while offset < N as i64 {
                let read = log.read(offset, 1 << 20, true).await.expect("it can be read");
                let bytes = Bytes::from(read.parts.concat());
                for found in corelog_wire::records::split_batches(&bytes) {
                    let found = found.expect("whole batches");
                    assert_eq!(found.header().base_offset, offset);
                    assert_eq!(found.bytes()[16..], value(offset as usize)[16..]);
                    offset += 1;
                }
            }
            storage.close().await.expect("it closes");
        }
    });

    fn value(i: usize) -> Bytes {
        batch(&[&vec![i as u8; 7000 + i]], i as i64)
    }
}
