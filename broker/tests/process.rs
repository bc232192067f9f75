//! The broker as a process on real sockets: what it takes of the machine that others may have.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

/// A port on loopback that nobody listens on now, nor will soon: the kernel takes those of clients from above.
fn free() -> SocketAddr {
    static TAKEN: AtomicU16 = AtomicU16::new(0);
    loop {
        let offset =
            (std::process::id() * 50) as u16 % 11_000 + TAKEN.fetch_add(1, Ordering::Relaxed) % 1_000;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 20_000 + offset));
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
}

/// An empty directory of this test's.
fn directory(name: &str) -> PathBuf {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&directory);
    directory
}

/// A broker process, killed when dropped, and its directory with it.
struct Broker {
    child: Child,
    directory: PathBuf,
}

impl Broker {
    fn spawn(directory: &Path, listen: &str, advertise: SocketAddr, admin: SocketAddr) -> Broker {
        Broker::spawn_with(directory, listen, advertise, admin, &[])
    }

    fn spawn_with(
        directory: &Path,
        listen: &str,
        advertise: SocketAddr,
        admin: SocketAddr,
        flags: &[&str],
    ) -> Broker {
        let mut command = Command::new(env!("CARGO_BIN_EXE_corelog"));
        command.arg("--data-dir").arg(directory);
        command.args(["--listen", listen, "--advertise", &advertise.to_string()]);
        command.args(["--admin", &admin.to_string()]);
        command.args(["--set", "corelog.journal.file.bytes=4MiB", "--set", "corelog.disk.reserve.bytes=0"]);
        let child = command
            .args(flags)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Broker { child, directory: directory.to_owned() }
    }

    /// Waits until it answers.
    fn await_ready(&mut self, address: SocketAddr) {
        while !is_served(address) {
            if self.child.try_wait().unwrap().is_some() {
                panic!("the broker ended before it was ready: {}", self.refusal());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// What it says on standard error; it must end by itself, with an error.
    fn refusal(&mut self) -> String {
        let status = self.child.wait().unwrap();
        let mut text = String::new();
        self.child.stderr.as_mut().unwrap().read_to_string(&mut text).unwrap();
        assert!(!status.success(), "{text}");
        text
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// Asks for the API versions on a connection of its own.
fn is_served(address: SocketAddr) -> bool {
    let ask = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect(address)?;
        // ApiVersions v0, correlation id 7, no client id.
        stream.write_all(&[0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, 7, 0xff, 0xff])?;
        let mut answer = [0; 8];
        stream.read_exact(&mut answer)?;
        Ok(answer[4..] == [0, 0, 0, 7])
    };
    ask().unwrap_or(false)
}

#[test]
fn a_port_that_another_broker_serves_is_refused() {
    let (address, port) = (free(), |address: SocketAddr| address.port());
    let admin = free();
    let first_dir = directory("first");
    let mut first = Broker::spawn(&first_dir, &address.to_string(), address, admin);
    first.await_ready(address);

    let at = |host: &str| format!("{host}:{}", port(address));
    let refused: [(&str, String, SocketAddr, &str); 4] = [
        ("same", at("127.0.0.1"), free(), "--listen"),
        ("every", at("0.0.0.0"), free(), "--listen"),
        ("every-v6", at("[::]"), free(), "--listen"),
        ("admin", free().to_string(), admin, "--admin"),
    ];
    for (name, listen, admin, remedy) in refused {
        let wanted = if remedy == "--admin" { port(admin) } else { port(address) };
        let said = Broker::spawn(&directory(name), &listen, address, admin).refusal();
        assert!(said.contains(&format!(":{wanted}")) && said.contains(remedy), "{name}: {said}");
        assert!(said.to_lowercase().contains("in use"), "{name}: {said}");
        // What the refused start gives up is no fault of the disk.
        assert!(!said.contains("WARN"), "{name}: {said}");
    }
    let mut other = Broker::spawn(&first_dir, &free().to_string(), address, free());
    other.directory = directory("nothing");
    let said = other.refusal();
    assert!(said.contains("another process is using") && said.contains("--data-dir"), "{said}");

    // The first goes on, on every core: none of the connections is anyone else's.
    assert!((0..50).all(|_| is_served(address)));

    // And its port is free again at once when it has gone, connections in TIME_WAIT or not.
    drop(first);
    let mut second = Broker::spawn(&directory("second"), &address.to_string(), address, admin);
    second.await_ready(address);
    assert!(is_served(address));
}

fn health(admin: SocketAddr) -> String {
    let mut stream = TcpStream::connect(admin).unwrap();
    stream.write_all(b"GET /health/ready HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// `corelog.admin`, `corelog.log.format` and `corelog.log.level`: applied by the process around the cores.
#[test]
fn the_address_of_metrics_and_the_form_of_the_log() {
    for (format, level) in [("json", "info"), ("text", "warn")] {
        let (address, admin) = (free(), free());
        let directory = directory(format);
        let mut broker = Broker::spawn_with(
            &directory,
            &address.to_string(),
            address,
            admin,
            &["--log-format", format, "--log", level, "--set", "num.io.threads=3"],
        );
        broker.await_ready(address);
        // Told by another thread than the one that serves.
        let mut answer = health(admin);
        while answer.starts_with("HTTP/1.1 503") {
            std::thread::sleep(Duration::from_millis(20));
            answer = health(admin);
        }
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        // SAFETY: the child has not been waited for, so its pid is still its own.
        unsafe { libc::kill(broker.child.id() as i32, libc::SIGTERM) };
        assert!(broker.child.wait().unwrap().success());
        let mut log = String::new();
        broker.child.stderr.as_mut().unwrap().read_to_string(&mut log).unwrap();
        assert_eq!(log.starts_with('{'), format == "json", "{log}");
        assert_eq!(log.contains("stopped"), level == "info", "{log}");
        // What was given and changes nothing is told.
        assert!(log.contains("num.io.threads") && log.contains("has no effect here"), "{log}");
    }
}

/// The next line of a broker's log that says this.
fn told(broker: &mut Broker, what: &str) -> String {
    let mut all = String::new();
    // Not a byte beyond the line: who comes next reads on.
    let mut log = BufReader::with_capacity(1, broker.child.stderr.as_mut().unwrap());
    loop {
        let start = all.len();
        assert!(log.read_line(&mut all).unwrap() > 0, "it ended before it said {what:?}: {all}");
        if all[start..].contains(what) {
            return all[start..].to_owned();
        }
    }
}

fn stop(broker: &mut Broker) {
    // SAFETY: the child has not been waited for, so its pid is still its own.
    unsafe { libc::kill(broker.child.id() as i32, libc::SIGTERM) };
    assert!(broker.child.wait().unwrap().success());
}

/// `corelog.peer` and `corelog.seeds`.
#[test]
fn three_processes_found_a_cluster_when_all_are_there() {
    let peers = [(); 3].map(|()| free().to_string());
    let seeds = peers.join(",");
    let spawn = |number: usize| {
        let (address, directory) = (free(), directory(&format!("founder-{number}")));
        let flags = ["--peer", &peers[number], "--seeds", &seeds, "--cores", "0", "--log-format", "json"];
        let broker = Broker::spawn_with(&directory, &address.to_string(), address, free(), &flags);
        (broker, address)
    };
    let (mut first, _) = spawn(0);
    let waits = told(&mut first, "belongs to no cluster yet");
    assert!(waits.contains(&format!("seed {} does not answer", peers[1])), "{waits}");
    stop(&mut first);
    drop(first);

    let mut brokers = [0, 1, 2].map(spawn);
    let clusters = brokers.each_mut().map(|(broker, _)| {
        let line = told(broker, "belongs to a cluster");
        assert!(line.contains("founded"), "{line}");
        line.split("\"cluster\":\"").nth(1).expect("it says which")[..22].to_owned()
    });
    assert!(clusters.iter().all(|cluster| *cluster == clusters[0]), "{clusters:?}");
    brokers.iter_mut().for_each(|(broker, address)| broker.await_ready(*address));
}
