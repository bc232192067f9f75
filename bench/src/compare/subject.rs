//! The brokers that are compared, and how each is started.

use super::Compare;
use super::scenario::Scenario;
use crate::host::cost::Watched;
use anyhow::{Context, Result};
use clap::ValueEnum;
use corelog_conformance::broker::{Broker, Kafka, Program, free_address};
use serde::Serialize;
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Apache Kafka as it ships: what it acknowledges is in memory
    Kafka,
    /// Apache Kafka with log.flush.interval.messages=1: what it acknowledges is on disk
    KafkaFsync,
    /// What it acknowledges is on disk
    Corelog,
    /// Corelog with write.caching=true: what it acknowledges is in memory
    CorelogCaching,
    /// Another build of Corelog, which --other names: whether a change has made it slower
    CorelogOther,
}

impl Kind {
    pub fn title(self) -> &'static str {
        match self {
            Kind::Kafka => "Kafka as it ships",
            Kind::KafkaFsync => "Kafka, fsync",
            Kind::Corelog => "Corelog",
            Kind::CorelogCaching => "Corelog, caching",
            Kind::CorelogOther => "Corelog, other",
        }
    }

    pub fn is_corelog(self) -> bool {
        matches!(self, Kind::Corelog | Kind::CorelogCaching | Kind::CorelogOther)
    }

    /// What its topics are given.
    pub fn topic_configs(self) -> Vec<(String, String)> {
        match self {
            Kind::CorelogCaching => vec![("write.caching".to_owned(), "true".to_owned())],
            Kind::Kafka | Kind::KafkaFsync | Kind::Corelog | Kind::CorelogOther => Vec::new(),
        }
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str(self.to_possible_value().expect("none is skipped").get_name())
    }
}

/// As bin/kafka-server-start.sh runs it.
const SERVER_HEAP: [&str; 2] = ["-Xmx1G", "-Xms1G"];
/// As bin/kafka-run-class.sh runs whatever it is, where nothing else is said.
pub const JAVA: [&str; 6] = [
    "-server",
    "-XX:+UseG1GC",
    "-XX:MaxGCPauseMillis=20",
    "-XX:InitiatingHeapOccupancyPercent=35",
    "-XX:+ExplicitGCInvokesConcurrent",
    "-Djava.awt.headless=true",
];

pub struct Subjects {
    /// On the command line; none for what the scenario says.
    named: Vec<Kind>,
    kafka: Option<Kafka>,
    corelog: PathBuf,
    other: Option<PathBuf>,
    flags: Vec<String>,
    pub directory: PathBuf,
    perf: bool,
}

impl Subjects {
    pub fn new(compare: &Compare, scenarios: &[Scenario]) -> Result<Subjects> {
        let directory = compare.dir.canonicalize()?;
        let mut named = compare.brokers.clone();
        named.sort();
        named.dedup();
        let needs_kafka = named.is_empty()
            || named.iter().any(|kind| !kind.is_corelog())
            || scenarios.iter().any(|scenario| scenario.has_tools_of_kafka());
        let kafka = match needs_kafka {
            true => {
                let found = Kafka::find(&compare.repository).context(
                    "Apache Kafka cannot be had; --brokers corelog measures Corelog alone, --repository says where tools/clients/kafka lies",
                )?;
                let logging = directory.join("log4j2.yaml");
                fs::write(&logging, include_str!("../../kafka/log4j2.yaml"))?;
                let properties = include_str!("../../kafka/server.properties").to_owned();
                let java = [&SERVER_HEAP[..], &JAVA].concat().into_iter().map(str::to_owned).collect();
                Some(Kafka { libs: found.libs.canonicalize()?, properties, logging, java })
            }
            false => None,
        };
        Ok(Subjects {
            named,
            kafka,
            corelog: compare.corelog.clone(),
            other: compare.other.clone(),
            flags: compare.corelog_flag.clone(),
            directory,
            perf: compare.perf,
        })
    }

    /// Those who take part in a scenario.
    pub fn of(&self, scenario: Scenario) -> Vec<Kind> {
        match (self.named.as_slice(), scenario.is_about_durability()) {
            ([], true) => vec![Kind::Kafka, Kind::KafkaFsync, Kind::Corelog, Kind::CorelogCaching],
            ([], false) => vec![Kind::Kafka, Kind::Corelog],
            (named, _) => named.to_vec(),
        }
    }

    /// Starts a broker on an empty directory.
    pub fn start(&self, kind: Kind) -> Result<Running> {
        let directory = self.directory.join(format!("corebench-{kind}"));
        clear(&directory)?;
        let mut running =
            Running { kind, directory, address: free_address()?, perf: self.perf, broker: None };
        self.restart(&mut running)?;
        Ok(running)
    }

    /// Puts a broker on an empty directory in the place of a running one of its kind.
    pub fn start_anew(&self, running: &mut Running) -> Result<()> {
        running.broker = None;
        clear(&running.directory)?;
        running.address = free_address()?;
        self.restart(running)
    }

    fn program(&self, binary: PathBuf) -> Program {
        Program::Corelog { binary, flags: self.flags.clone(), open_files: None }
    }

    /// Where Kafka's jars are.
    pub fn kafka(&self) -> Result<&Kafka> {
        self.kafka.as_ref().context("Kafka was not asked for")
    }

    /// Starts a broker that is down on the data that it left.
    pub fn restart(&self, running: &mut Running) -> Result<()> {
        let settings: &[(&str, &str)] = match running.kind {
            Kind::KafkaFsync => &[("log.flush.interval.messages", "1")],
            _ => &[],
        };
        let program = match running.kind {
            Kind::Corelog | Kind::CorelogCaching => self.program(self.corelog.clone()),
            Kind::CorelogOther => {
                let other = self.other.clone();
                self.program(other.context("--other says which build of Corelog corelog-other is")?)
            }
            Kind::Kafka | Kind::KafkaFsync => Program::Kafka(self.kafka()?.clone()),
        };
        // Kafka has it in its configuration from the first start on.
        let address = running.address;
        let started = Broker::start(&program, &running.directory, address, settings);
        running.broker = Some(started.with_context(|| format!("starting {}", running.kind.title()))?);
        Ok(())
    }
}

fn clear(directory: &PathBuf) -> Result<()> {
    if directory.exists() {
        fs::remove_dir_all(directory).with_context(|| format!("emptying {}", directory.display()))?;
    }
    Ok(())
}

/// A broker with its data, which goes when this does.
pub struct Running {
    pub kind: Kind,
    pub directory: PathBuf,
    address: SocketAddr,
    perf: bool,
    broker: Option<Broker>,
}

impl Running {
    pub fn broker(&self) -> Result<&Broker> {
        self.broker.as_ref().context("the broker is down")
    }

    pub fn bootstrap(&self) -> Result<String> {
        Ok(self.broker()?.address.to_string())
    }

    /// SIGTERM.
    pub fn stop(&mut self) -> Result<()> {
        self.broker.take().context("the broker is down")?.stop()
    }

    /// SIGKILL.
    pub fn kill(&mut self) -> Result<()> {
        self.broker.take().context("the broker is down")?.kill()
    }

    pub fn watched(&self) -> Result<Watched> {
        let watched = Watched::new(Some(self.broker()?.pid()), Some(&self.directory));
        Ok(Watched { perf: self.perf, ..watched })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It is killed: nothing of it is kept.
        self.broker = None;
        let _ = clear(&self.directory);
    }
}
