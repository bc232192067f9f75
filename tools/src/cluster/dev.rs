//! `corectl cluster dev`.

use crate::output::{Output, count, tell};
use crate::table::Table;
use anyhow::{Context, Result, bail};
use clap::Args;
use corelog_broker::config::{Machine, cpus};
use corelog_client::{Client, ClientConfig};
use serde_json::json;
use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const READY_TIMEOUT: Duration = Duration::from_secs(60);
const STOP_TIMEOUT: Duration = Duration::from_secs(30);
/// How often starting brokers are asked, and running ones looked at.
const ASK_INTERVAL: Duration = Duration::from_millis(20);
const WATCH_INTERVAL: Duration = Duration::from_millis(100);
/// As many brokers as can found a cluster together.
const BROKERS_MAX: i64 = 9;
/// Less is refused by a broker, per core.
const MEMORY_MIN: u64 = 64 << 20;

/// Starts the brokers, says how to reach them, and stops them at Ctrl-C. What they have written stays in the data
/// directory, and the next run goes on with it.
#[derive(Args)]
#[command(after_help = "Examples:
  corectl cluster dev                                    three brokers, at 127.0.0.1:9092, 9093 and 9094
  corectl cluster dev --brokers 5 --port 19092 --data-dir /nvme/dev
  corectl cluster dev --set log.retention.ms=3600000     with a setting for each broker
  kill -9 $(cat corelog-dev/broker-2/pid)                what then?")]
pub struct Dev {
    /// How many brokers
    #[arg(long, value_name = "COUNT", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=BROKERS_MAX))]
    brokers: u16,
    /// Where their data and logs are: a folder for each
    #[arg(long, value_name = "DIR", default_value = "corelog-dev")]
    data_dir: PathBuf,
    /// Clients' port of the first broker; the others' follow, and then the ports that brokers have for each other
    #[arg(long, value_name = "PORT", default_value_t = 9092, value_parser = clap::value_parser!(u16).range(1..))]
    port: u16,
    /// A setting for each broker, such as log.retention.ms=3600000; may be given more than once
    #[arg(short, long, value_name = "NAME=VALUE")]
    set: Vec<String>,
    /// The broker's program [default: corelog beside corectl, or on the PATH]
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
}

/// One broker's part of the machine.
#[derive(Debug, PartialEq, Eq)]
struct Part {
    node_id: u16,
    clients: SocketAddr,
    peers: SocketAddr,
    cores: String,
    memory_bytes: u64,
}

/// Cores side by side where there are enough, else shared; memory in equal parts.
fn parts(brokers: u16, port: u16, machine: &Machine) -> Result<Vec<Part>> {
    let (count, cpus) = (usize::from(brokers), machine.default_cpus());
    if u32::from(port) + 2 * u32::from(brokers) - 1 > u32::from(u16::MAX) {
        bail!(
            "{brokers} brokers take {} ports from {port} on, and {} is the last there is",
            2 * brokers,
            u16::MAX
        );
    }
    let memory_bytes = machine.default_memory_bytes(cpus.len()) / u64::from(brokers);
    let at = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let part = |index: usize| {
        let cores = match cpus.len() >= count {
            true => &cpus[index * cpus.len() / count..(index + 1) * cpus.len() / count],
            false => std::slice::from_ref(&cpus[index % cpus.len()]),
        };
        let number = index as u16;
        Part {
            node_id: number + 1,
            clients: at(port + number),
            peers: at(port + brokers + number),
            cores: cpus::written(cores),
            memory_bytes: memory_bytes.max(MEMORY_MIN * cores.len() as u64),
        }
    };
    Ok((0..count).map(part).collect())
}

/// The addresses, for a flag.
fn listed(addresses: impl Iterator<Item = SocketAddr>) -> String {
    addresses.map(|address| address.to_string()).collect::<Vec<_>>().join(",")
}

fn flags(part: &Part, seeds: &str, data: &Path, settings: &[String]) -> Vec<String> {
    let mut flags: Vec<String> = [
        ("--listen", part.clients.to_string()),
        ("--peer", part.peers.to_string()),
        ("--seeds", seeds.to_owned()),
        ("--admin", SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).to_string()),
        ("--data-dir", data.display().to_string()),
        ("--cores", part.cores.clone()),
        ("--memory", part.memory_bytes.to_string()),
        ("--set", format!("node.id={}", part.node_id)),
    ]
    .into_iter()
    // One broker alone has nobody to found a cluster with.
    .filter(|(flag, _)| *flag != "--seeds" || seeds.contains(','))
    .flat_map(|(flag, value)| [flag.to_owned(), value])
    .collect();
    flags.extend(settings.iter().flat_map(|setting| ["--set".to_owned(), setting.clone()]));
    flags
}

struct Broker {
    part: Part,
    child: Child,
    log: PathBuf,
    ended: Option<ExitStatus>,
}

impl Broker {
    fn start(program: &Path, part: Part, seeds: &str, dev: &Dev, directory: &Path) -> Result<Broker> {
        let directory = directory.join(format!("broker-{}", part.node_id));
        fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
        let log = directory.join("broker.log");
        let out = File::options().create(true).append(true).open(&log);
        let out = out.with_context(|| format!("cannot write {}", log.display()))?;
        let mut command = Command::new(program);
        command.args(flags(&part, seeds, &directory.join("data"), &dev.set)).current_dir(&directory);
        command.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out);
        for (name, _) in
            std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("CORELOG_"))
        {
            // Made for one broker, such as its address.
            command.env_remove(name);
        }
        // Ctrl-C at a terminal is for corectl, which stops them.
        command.process_group(0);
        // SAFETY: prctl is async-signal-safe and touches nothing of this process.
        unsafe {
            command.pre_exec(|| {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM);
                Ok(())
            });
        }
        let child = command.spawn().with_context(|| format!("cannot run {}", program.display()))?;
        // For those who want to see what a kill does.
        fs::write(directory.join("pid"), child.id().to_string())?;
        Ok(Broker { part, child, log, ended: None })
    }

    /// Tells, once, that it has ended.
    fn look(&mut self) -> Result<()> {
        if self.ended.is_none()
            && let Some(status) = self.child.try_wait()?
        {
            self.ended = Some(status);
            tell!(
                "corectl: broker {} (process {}) ended: {status}; its log is {}",
                self.part.node_id,
                self.child.id(),
                self.log.display()
            );
        }
        Ok(())
    }

    fn terminate(&self) {
        // SAFETY: no memory is involved; the child has not been waited for, so its id is still its own.
        unsafe { libc::kill(self.child.id() as i32, libc::SIGTERM) };
    }

    /// The last lines of its log.
    fn told(&self) -> String {
        let text = fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(5)..].join("\n")
    }
}

struct Cluster(Vec<Broker>);

impl Cluster {
    fn bootstrap(&self) -> String {
        listed(self.0.iter().map(|broker| broker.part.clients))
    }

    /// Waits until every broker answers and the cluster shows them all. False if it was told to stop before.
    async fn await_ready(&mut self, stop: &AtomicBool, started: Instant) -> Result<bool> {
        let mut waiting: Vec<String> = self.0.iter().map(|broker| broker.part.clients.to_string()).collect();
        loop {
            self.0.iter_mut().try_for_each(Broker::look)?;
            if let Some(broker) = self.0.iter().find(|broker| broker.ended.is_some()) {
                bail!(
                    "broker {} did not become ready; it said last:\n{}",
                    broker.part.node_id,
                    broker.told()
                );
            }
            if stop.load(Ordering::Relaxed) {
                return Ok(false);
            }
            let Some(address) = waiting.last() else { return Ok(true) };
            if brokers_seen(address).await.is_some_and(|seen| seen == self.0.len()) {
                waiting.pop();
                continue;
            }
            if started.elapsed() > READY_TIMEOUT {
                let log = self.0[waiting.len() - 1].log.display();
                bail!(
                    "the cluster was not ready after {READY_TIMEOUT:?}: {address} does not show {} brokers; its log is {log}",
                    self.0.len()
                );
            }
            std::thread::sleep(ASK_INTERVAL);
        }
    }

    fn show(&self, out: &Output, ready: Duration) -> Result<()> {
        let mut table = Table::new(&[
            ("id", "id"),
            ("clients", "address"),
            ("cores", "cores"),
            ("process", "pid"),
            ("log", "log"),
        ]);
        for Broker { part, child, log, .. } in &self.0 {
            table.row([
                json!(part.node_id),
                json!(part.clients.to_string()),
                json!(part.cores),
                json!(child.id()),
                json!(log.display().to_string()),
            ]);
        }
        let bootstrap = self.bootstrap();
        if out.json {
            return out.value(&json!({"bootstrap": bootstrap, "ready_ms": ready.as_millis() as u64, "brokers": table.to_json()}));
        }
        out.say(format!(
            "{} ready in {:.2} s; Ctrl-C stops them\n",
            count(self.0.len(), "broker"),
            ready.as_secs_f64()
        ))?;
        out.table(&table)?;
        out.say(format!("\nexport CORECTL_BOOTSTRAP={bootstrap}"))?;
        out.say(format!("corectl topic create demo --partitions 6 --replication {}", self.0.len().min(3)))
    }

    /// Until told to stop, or nobody is left.
    fn watch(&mut self, stop: &AtomicBool) -> Result<()> {
        while !stop.load(Ordering::Relaxed) && self.0.iter().any(|broker| broker.ended.is_none()) {
            self.0.iter_mut().try_for_each(Broker::look)?;
            std::thread::sleep(WATCH_INTERVAL);
        }
        Ok(())
    }

    /// Whether all have ended in good order.
    fn stop(&mut self) -> Result<bool> {
        let mut orderly = self.0.iter().all(|broker| broker.ended.is_none());
        let asked = Instant::now();
        self.0.iter().filter(|broker| broker.ended.is_none()).for_each(Broker::terminate);
        for broker in self.0.iter_mut().filter(|broker| broker.ended.is_none()) {
            let status = loop {
                if let Some(status) = broker.child.try_wait()? {
                    break status;
                }
                if asked.elapsed() > STOP_TIMEOUT {
                    tell!(
                        "corectl: broker {} did not stop within {STOP_TIMEOUT:?}, and is killed",
                        broker.part.node_id
                    );
                    broker.child.kill()?;
                    break broker.child.wait()?;
                }
                std::thread::sleep(ASK_INTERVAL);
            };
            broker.ended = Some(status);
            if !status.success() {
                orderly = false;
                tell!(
                    "corectl: broker {} stopped: {status}; its log is {}",
                    broker.part.node_id,
                    broker.log.display()
                );
            }
        }
        Ok(orderly)
    }
}

/// How many brokers the cluster shows to one that connects here; none while nobody answers.
async fn brokers_seen(address: &str) -> Option<usize> {
    let mut config = ClientConfig::new(address);
    config.client_id = "corectl".to_owned();
    config.connect_timeout = Duration::from_millis(500);
    config.request_timeout = Duration::from_secs(1);
    config.api_timeout = Duration::from_secs(1);
    let client = Client::connect(config).await.ok()?;
    Some(client.admin().describe_cluster().await.ok()?.brokers.len())
}

fn program(given: Option<&PathBuf>) -> Result<PathBuf> {
    if let Some(given) = given {
        return given.canonicalize().with_context(|| format!("no program at {}", given.display()));
    }
    let beside = std::env::current_exe()?.with_file_name("corelog");
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut places =
        std::iter::once(beside).chain(std::env::split_paths(&path).map(|folder| folder.join("corelog")));
    places.find(|place| place.is_file()).context(
        "there is no corelog beside corectl, nor on the PATH: `cargo build --release` makes both, --binary FILE names one",
    )
}

pub async fn run(dev: Dev, out: &Output) -> Result<ExitCode> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        // The second one ends corectl, and with it the brokers.
        signal_hook::flag::register_conditional_shutdown(signal, 1, stop.clone())?;
        signal_hook::flag::register(signal, stop.clone())?;
    }
    let program = program(dev.binary.as_ref())?;
    let parts = parts(dev.brokers, dev.port, &Machine::detect())?;
    // Whoever has a port already would be shown as a broker that ends.
    for address in parts.iter().flat_map(|part| [part.clients, part.peers]) {
        TcpListener::bind(address).with_context(|| format!("{address} is not free; --port names others"))?;
    }
    fs::create_dir_all(&dev.data_dir).with_context(|| format!("cannot make {}", dev.data_dir.display()))?;
    let directory = dev.data_dir.canonicalize()?;
    let seeds = listed(parts.iter().map(|part| part.peers));
    let started = Instant::now();
    let mut cluster = Cluster(Vec::new());
    let done = async {
        for part in parts {
            cluster.0.push(Broker::start(&program, part, &seeds, &dev, &directory)?);
        }
        if cluster.await_ready(&stop, started).await? {
            cluster.show(out, started.elapsed())?;
            cluster.watch(&stop)?;
        }
        Ok(())
    };
    let done: Result<()> = done.await;
    let orderly = cluster.stop()?;
    done?;
    Ok(if orderly { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(cpus: usize, quota: Option<usize>, gib: u64) -> Machine {
        Machine {
            cpus: (0..cpus).collect(),
            cpu_quota: quota,
            memory_bytes: gib << 30,
            host_name: "dev".to_owned(),
        }
    }

    #[test]
    fn brokers_share_the_machine() {
        const GIB: u64 = 1 << 30;
        for (brokers, machine, cores, memory) in [
            (3, machine(8, None, 48), ["0-1", "2-4", "5-7"].as_slice(), 8 * GIB / 3),
            (3, machine(2, None, 24), &["0", "1", "0"], 2 * GIB / 3),
            (3, machine(8, Some(3), 4), &["0", "1", "2"], GIB / 3),
            (2, machine(1, None, 0), &["0", "0"], MEMORY_MIN),
            (1, machine(4, None, 16), &["0-3"], 4 * GIB),
        ] {
            let parts = parts(brokers, 9092, &machine).unwrap();
            assert_eq!(parts.iter().map(|part| part.cores.as_str()).collect::<Vec<_>>(), cores);
            assert!(parts.iter().all(|part| part.memory_bytes == memory), "{parts:?}");
        }
    }

    #[test]
    fn ports_follow_each_other() {
        let ports = |parts: Vec<Part>| -> Vec<(u16, u16)> {
            parts.iter().map(|part| (part.clients.port(), part.peers.port())).collect()
        };
        let machine = machine(2, None, 8);
        assert_eq!(ports(parts(3, 9092, &machine).unwrap()), [(9092, 9095), (9093, 9096), (9094, 9097)]);
        assert_eq!(ports(parts(3, 65530, &machine).unwrap())[2], (65532, 65535));
        assert!(parts(3, 65531, &machine).unwrap_err().to_string().contains("6 ports from 65531"));
    }

    #[test]
    fn one_broker_has_no_seeds() {
        for (brokers, seeds) in [(1, None), (2, Some("127.0.0.1:8002,127.0.0.1:8003".to_owned()))] {
            let parts = parts(brokers, 8000, &machine(2, None, 8)).unwrap();
            let all = listed(parts.iter().map(|part| part.peers));
            let flags = flags(&parts[0], &all, Path::new("data"), &["a.b=1".to_owned()]);
            let given = flags.iter().position(|flag| flag == "--seeds").map(|at| flags[at + 1].clone());
            assert_eq!(given, seeds);
            assert_eq!(flags[flags.len() - 2..], ["--set", "a.b=1"]);
        }
    }
}
