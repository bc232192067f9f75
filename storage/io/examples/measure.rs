//! What the glommio world costs on this machine: start-up, a synced write, an echo, a hop between cores, a stream.
//!
//!     cargo run --release -p corelog-io --example measure -- DIRECTORY
//!
//! DIRECTORY is where the test file goes: a directory on the disk in question. Each line is one measurement; times
//! are per operation, one at a time, in microseconds, unless the line says otherwise.

use bytes::{Bytes, BytesMut};
use corelog_io::{
    ALIGN, AlignedBuf, File, ListenOptions, Listener, OpenOptions, Part, Queue, RunConfig, Stream,
    available_cpus, mesh, now, run_glommio, run_glommio_with, spawn,
};
use std::path::{Path, PathBuf};
use std::time::Instant;

fn main() {
    let dir = PathBuf::from(std::env::args().nth(1).unwrap_or_else(|| ".".into()));
    let cpus = available_cpus().expect("the affinity mask");

    for problem in corelog_io::preflight(&dir, cpus.len()).err().unwrap_or_default() {
        println!("{problem}");
        if problem.fatal {
            return;
        }
    }

    let start = Instant::now();
    let started = Instant::now();
    let handle =
        run_glommio(RunConfig::new(cpus.clone()), move |_| async move { started.elapsed() }).unwrap();
    let mains = handle.join().unwrap();
    let latest = mains.into_iter().max().unwrap();
    println!(
        "start-up of {} cores: {:.1} ms to the last main, {:.1} ms to their end",
        cpus.len(),
        ms(latest),
        ms(start.elapsed())
    );

    run_glommio(RunConfig::new(cpus[..1].to_vec()), {
        let dir = dir.clone();
        move |_| {
            let dir = dir.clone();
            async move { disk(&dir).await }
        }
    })
    .unwrap()
    .join()
    .unwrap();

    let addr = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let two = vec![cpus[0], cpus[1 % cpus.len()]];
    let seats = mesh::<u64>(2, 64);
    run_glommio_with(RunConfig::new(two), seats, move |ctx, seat| async move {
        network(ctx.core, addr).await;
        hops(seat, ctx.core).await;
    })
    .unwrap()
    .join()
    .unwrap();
}

fn ms(d: std::time::Duration) -> f64 {
    d.as_secs_f64() * 1e3
}

struct Samples(Vec<u64>);

impl Samples {
    fn report(mut self, what: &str) {
        self.0.sort_unstable();
        let at = |q: f64| self.0[((self.0.len() - 1) as f64 * q) as usize] as f64 / 1e3;
        println!("{what}: p50 {:.1} p99 {:.1} max {:.1} us", at(0.5), at(0.99), at(1.0));
    }
}

async fn disk(dir: &Path) {
    let path = dir.join("measure.tmp");
    let options = OpenOptions { read: true, write: true, create: true, direct: true };
    let file = File::open(&path, options).await.unwrap();
    let mut fill = AlignedBuf::new(1 << 20);
    fill.fill(7);
    let fill = fill.freeze();
    for i in 0..64u64 {
        file.write_at(i << 20, fill.clone(), false).await.unwrap();
    }
    file.sync_data().await.unwrap();

    for (len, n) in [(ALIGN, 4000), (64 << 10, 1000), (1 << 20, 100)] {
        let data = fill.slice(..len);
        let mut samples = Vec::new();
        for i in 0..n {
            let pos = (i * len as u64) % (64 << 20);
            let start = now();
            file.write_at(pos, data.clone(), true).await.unwrap();
            samples.push(start.elapsed().as_nanos() as u64);
        }
        Samples(samples)
            .report(&format!("write + sync (RWF_DSYNC) of {} KiB over written blocks", len >> 10));
    }
    for (len, n) in [(ALIGN, 4000u64), (1 << 20, 200)] {
        let mut samples = Vec::new();
        for i in 0..n {
            let start = now();
            file.read_at((i * 17 * len as u64) % (48 << 20), len).await.unwrap();
            samples.push(start.elapsed().as_nanos() as u64);
        }
        Samples(samples).report(&format!("direct read of {} KiB", len >> 10));
    }
    let (n, depth) = (20_000u64, 16);
    let start = now();
    let tasks: Vec<_> = (0..depth)
        .map(|t| {
            let (file, data) = (file.clone(), fill.slice(..ALIGN));
            spawn(Queue::Produce, async move {
                for i in 0..n / depth {
                    file.write_at(((i * depth + t) * ALIGN as u64) % (64 << 20), data.clone(), false)
                        .await
                        .unwrap();
                }
            })
        })
        .collect();
    for task in tasks {
        task.await;
    }
    println!("writes of 4 KiB at depth 16: {:.0} /s", n as f64 / start.elapsed().as_secs_f64());
    file.close().await.unwrap();
    corelog_io::fs::remove_file(&path).await.unwrap();
}

async fn network(core: usize, addr: std::net::SocketAddr) {
    const ROUNDS: usize = 20_000;
    if core == 1 {
        let listener = Listener::bind(addr, ListenOptions::default()).unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        let mut buf = BytesMut::new();
        for _ in 0..ROUNDS {
            stream.read(&mut buf, 4096).await.unwrap();
            stream.send(vec![Part::Bytes(buf.split().freeze())]).await.unwrap();
        }
        let block = Bytes::from(vec![7; 1 << 20]);
        for _ in 0..2048 {
            stream.send(vec![block.clone().into()]).await.unwrap();
        }
    } else {
        let stream = loop {
            match Stream::connect(addr).await {
                Ok(stream) => break stream,
                Err(_) => corelog_io::sleep(std::time::Duration::from_millis(1)).await,
            }
        };
        let mut samples = Vec::new();
        let mut buf = BytesMut::new();
        for _ in 0..ROUNDS {
            let start = now();
            stream.send(vec![Bytes::from_static(b"12345678").into()]).await.unwrap();
            buf.clear();
            stream.read(&mut buf, 4096).await.unwrap();
            samples.push(start.elapsed().as_nanos() as u64);
        }
        Samples(samples).report("echo of 8 bytes between two cores over loopback");
        let start = now();
        let mut total = 0;
        loop {
            buf.clear();
            match stream.read(&mut buf, 256 << 10).await.unwrap() {
                0 => break,
                n => total += n,
            }
        }
        println!(
            "stream of 1 MiB sends over loopback: {:.0} MB/s",
            total as f64 / 1e6 / start.elapsed().as_secs_f64()
        );
    }
}

async fn hops(seat: corelog_io::Seat<u64>, core: usize) {
    const ROUNDS: u64 = 20_000;
    let (senders, mut receiver) = seat.join(core).await;
    let mut samples = Vec::new();
    for i in 0..ROUNDS {
        if core == 0 {
            let start = now();
            senders.send(1, i).await.unwrap();
            receiver.recv().await.unwrap();
            samples.push(start.elapsed().as_nanos() as u64);
        } else {
            let (_, i) = receiver.recv().await.unwrap();
            senders.send(0, i).await.unwrap();
        }
    }
    if core == 0 {
        Samples(samples).report("round trip by mailbox between two cores");
    }
}
