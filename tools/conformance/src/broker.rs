//! Broker processes on loopback: Corelog itself, and Apache Kafka beside it.

use crate::connection::Connection;
use crate::random::Random;
use anyhow::{Context, Result, bail};
use corelog_wire::messages::metadata_request::MetadataRequest;
use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Kafka, with much to recover on a slow machine, has taken more than 90 seconds.
const READY_TIMEOUT: Duration = Duration::from_secs(300);
const STOP_TIMEOUT: Duration = Duration::from_secs(30);
/// How often a starting broker is asked: fine enough to measure a start of some milliseconds.
const ASK_INTERVAL: Duration = Duration::from_millis(2);
/// What brokers call themselves where nothing else is set.
pub const NODE_ID: i32 = 1;
const KAFKA_CLUSTER_ID: &str = "Y29yZWxvZy1vcmFjbGUtMQ";

/// What to run.
#[derive(Clone, Debug)]
pub enum Program {
    Corelog {
        binary: PathBuf,
        /// Further flags.
        flags: Vec<String>,
        /// How many files it may have open (RLIMIT_NOFILE); none: as many as this process.
        open_files: Option<u64>,
    },
    Kafka(Kafka),
}

/// Where Apache Kafka's parts lie: see `tools/clients/kafka`.
#[derive(Clone, Debug)]
pub struct Kafka {
    /// The folder of jars.
    pub libs: PathBuf,
    /// A configuration with @PORT@, @CONTROLLER_PORT@ and @DATA_DIR@ in it.
    pub properties: String,
    /// Of Log4j.
    pub logging: PathBuf,
    /// Flags for the Java machine.
    pub java: Vec<String>,
}

impl Kafka {
    /// Finds Kafka's jars, downloading them through Maven if need be; the error says what is missing.
    pub fn find(root: &Path) -> Result<Kafka> {
        // Maven would take a relative path as its own.
        let root = root.canonicalize().with_context(|| format!("{}", root.display()))?;
        let folder = root.join("tools/clients/kafka");
        let libs = match std::env::var_os("KAFKA_LIBS") {
            Some(libs) => PathBuf::from(libs),
            None => root.join(".test/kafka/libs"),
        };
        for command in ["java", "mvn"] {
            let found =
                Command::new(command).arg("-version").stdout(Stdio::null()).stderr(Stdio::null()).status();
            found.with_context(|| format!("`{command}` is not installed here"))?;
        }
        let status = Command::new(folder.join("prepare")).env("KAFKA_LIBS", &libs).status();
        let status = status.with_context(|| format!("{}/prepare", folder.display()))?;
        if !status.success() {
            bail!("{}/prepare: {status}", folder.display());
        }
        let properties = folder.join("server.properties");
        let properties =
            fs::read_to_string(&properties).with_context(|| format!("{}", properties.display()))?;
        // An oracle is to start soon and to take little.
        let java = ["-Xmx1g", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"].map(str::to_owned).to_vec();
        Ok(Kafka { libs, properties, logging: folder.join("log4j2.yaml"), java })
    }

    fn java(&self) -> Command {
        let mut command = Command::new("java");
        command.args(&self.java);
        command.arg(format!("-Dlog4j2.configurationFile={}", self.logging.display()));
        command.arg("-cp").arg(format!("{}/*", self.libs.display()));
        command
    }
}

/// A broker process. Dropping it kills it.
pub struct Broker {
    pub address: SocketAddr,
    /// Corelog's HTTP service.
    pub admin: SocketAddr,
    /// From exec to the first answer to Metadata.
    pub ready: Duration,
    started: Instant,
    child: Child,
    log: PathBuf,
}

impl Broker {
    /// Starts the program on `directory`, which keeps its data from one start to the next, and waits until it answers.
    pub fn start(
        program: &Program,
        directory: &Path,
        address: SocketAddr,
        settings: &[(&str, &str)],
    ) -> Result<Self> {
        let mut broker = Self::spawn(program, directory, address, settings)?;
        broker.await_ready()?;
        Ok(broker)
    }

    /// As `start`, without the wait: `ready` is zero.
    pub fn spawn(
        program: &Program,
        directory: &Path,
        address: SocketAddr,
        settings: &[(&str, &str)],
    ) -> Result<Self> {
        fs::create_dir_all(directory)?;
        let log = directory.join("broker.log");
        let admin = free_address()?;
        let (mut command, open_files) = match program {
            Program::Corelog { binary, flags, open_files } => {
                (corelog(binary, flags, directory, (address, admin), settings)?, *open_files)
            }
            Program::Kafka(kafka) => (kafka_command(kafka, directory, address, settings)?, None),
        };
        let out = File::options().create(true).append(true).open(&log)?;
        command.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out).current_dir(directory);
        // SAFETY: prctl and setrlimit are async-signal-safe and touch nothing of this process.
        unsafe {
            command.pre_exec(move || {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                if let Some(files) = open_files {
                    let limit = libc::rlimit { rlim_cur: files, rlim_max: files };
                    if libc::setrlimit(libc::RLIMIT_NOFILE, &limit) != 0 {
                        return Err(std::io::Error::last_os_error());
                    }
                }
                Ok(())
            });
        }
        let started = Instant::now();
        let child = command.spawn().with_context(|| format!("{:?}", command.get_program()))?;
        Ok(Broker { address, admin, ready: Duration::ZERO, started, child, log })
    }

    pub fn await_ready(&mut self) -> Result<()> {
        while !answers(self.address) {
            if let Some(status) = self.child.try_wait()? {
                bail!("the broker ended with {status} before it was ready:\n{}", self.log_tail());
            }
            if self.started.elapsed() > READY_TIMEOUT {
                bail!("the broker was not ready after {READY_TIMEOUT:?}:\n{}", self.log_tail());
            }
            std::thread::sleep(ASK_INTERVAL);
        }
        self.ready = self.started.elapsed();
        Ok(())
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// SIGSTOP: connections to it stay, and nothing is answered.
    pub fn pause(&self) {
        self.signal(libc::SIGSTOP);
    }

    pub fn resume(&self) {
        self.signal(libc::SIGCONT);
    }

    fn signal(&self, signal: i32) {
        // SAFETY: no memory is involved; the child has not been waited for, so its pid is still its own.
        unsafe { libc::kill(self.child.id() as i32, signal) };
    }

    pub fn connect(&self) -> Result<Connection> {
        Connection::connect(self.address).with_context(|| format!("connecting to {}", self.address))
    }

    pub fn running(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// SIGKILL.
    pub fn kill(mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!("the broker ended by itself with {status}:\n{}", self.log_tail());
        }
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// SIGTERM; the error also tells of an exit status that is not that of an orderly end.
    pub fn stop(mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!("the broker ended by itself with {status}:\n{}", self.log_tail());
        }
        self.signal(libc::SIGTERM);
        let asked = Instant::now();
        let status: ExitStatus = loop {
            if let Some(status) = self.child.try_wait()? {
                break status;
            }
            if asked.elapsed() > STOP_TIMEOUT {
                bail!("the broker did not stop within {STOP_TIMEOUT:?} of SIGTERM:\n{}", self.log_tail());
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        // A Java machine has run its shutdown hooks when it ends so.
        let is_orderly = status.success() || status.code() == Some(128 + libc::SIGTERM);
        if !is_orderly {
            bail!("the broker stopped with {status}:\n{}", self.log_tail());
        }
        Ok(())
    }

    /// The end of the broker's own log.
    pub fn log_tail(&self) -> String {
        let text =
            fs::read(&self.log).map(|log| String::from_utf8_lossy(&log).into_owned()).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }

    /// A figure of /proc/PID/status in bytes, such as `VmRSS` or `VmHWM`.
    pub fn memory(&self, name: &str) -> Result<u64> {
        let status =
            fs::read_to_string(format!("/proc/{}/status", self.pid())).context("is the broker gone?")?;
        let line = status.lines().find(|line| line.split(':').next() == Some(name));
        let kib =
            line.and_then(|line| line.split_whitespace().nth(1)).and_then(|kib| kib.parse::<u64>().ok());
        Ok(kib.with_context(|| format!("/proc/{}/status has no {name}", self.pid()))? << 10)
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// An address on loopback that nobody listens on now.
pub fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

/// One that stays free while a broker is down and clients try to reach it: the kernel takes ports of clients from others
/// (net.ipv4.ip_local_port_range), or one that connects could meet itself there.
pub fn lasting_address(random: &mut Random) -> SocketAddr {
    loop {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, random.between(20_000, 32_000) as u16));
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
}

fn answers(address: SocketAddr) -> bool {
    let Ok(mut connection) = Connection::connect(address) else { return false };
    let nothing = MetadataRequest { topics: Some(Vec::new()), ..Default::default() };
    connection.call(1, &nothing).is_ok_and(|response| !response.brokers.is_empty())
}

fn corelog(
    binary: &Path,
    flags: &[String],
    directory: &Path,
    (address, admin): (SocketAddr, SocketAddr),
    settings: &[(&str, &str)],
) -> Result<Command> {
    let binary = binary.canonicalize().with_context(|| {
        format!("no corelog binary at {}: run `cargo build --release`, or give --binary", binary.display())
    })?;
    let mut command = Command::new(binary);
    command.arg("--data-dir").arg(directory.join("data"));
    command.args(["--listen", &address.to_string(), "--admin", &admin.to_string()]);
    if settings.iter().all(|(name, _)| *name != "node.id") {
        command.args(["--set", &format!("node.id={NODE_ID}")]);
    }
    command.args(flags);
    for (name, value) in settings {
        command.args(["--set", &format!("{name}={value}")]);
    }
    Ok(command)
}

/// Formats the storage at the first start.
fn kafka_command(
    kafka: &Kafka,
    directory: &Path,
    address: SocketAddr,
    settings: &[(&str, &str)],
) -> Result<Command> {
    let properties = directory.join("server.properties");
    if !properties.exists() {
        let mut text = kafka
            .properties
            .replace("@PORT@", &address.port().to_string())
            .replace("@CONTROLLER_PORT@", &free_address()?.port().to_string())
            .replace("@DATA_DIR@", &directory.join("data").display().to_string());
        for (name, value) in settings {
            text.push_str(&format!("{name}={value}\n"));
        }
        fs::write(&properties, text)?;
        let mut format = kafka.java();
        format.args(["kafka.tools.StorageTool", "format", "--standalone", "-t", KAFKA_CLUSTER_ID, "-c"]);
        let done = format.arg(&properties).output()?;
        if !done.status.success() {
            bail!("formatting Kafka's storage: {}", String::from_utf8_lossy(&done.stderr));
        }
    }
    let mut command = kafka.java();
    command.arg("kafka.Kafka").arg(properties);
    Ok(command)
}
