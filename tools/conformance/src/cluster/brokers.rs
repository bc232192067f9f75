//! The brokers of a cluster, each a process on loopback with a data directory of its own.

use crate::broker::{Broker, Program, lasting_address};
use crate::connection::Connection;
use crate::random::Random;
use anyhow::{Context, Result, bail};
use corelog_wire::messages::metadata_request::{MetadataRequest, Topic};
use corelog_wire::messages::metadata_response::MetadataResponse;
use corelog_wire::{ErrorCode, Str};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

const METADATA_VERSION: i16 = 1;
const ASK_INTERVAL: Duration = Duration::from_millis(10);
/// For each broker: several share the machine.
const MEMORY: &str = "256MiB";
/// Small, so that a short run goes round in journals and rolls segments.
const SETTINGS: [(&str, &str); 2] =
    [("corelog.journal.file.bytes", "16777216"), ("log.segment.bytes", "16777216")];

/// What is known of one broker, running or not.
struct Place {
    program: Program,
    directory: PathBuf,
    address: SocketAddr,
    settings: Vec<(&'static str, String)>,
    process: Option<Broker>,
}

pub struct Brokers(Vec<Place>);

impl Brokers {
    /// None of them runs yet. Their cores follow from the random numbers.
    pub fn new(binary: &Path, directory: &Path, count: usize, random: &mut Random) -> Self {
        let mut free = || lasting_address(random);
        let addresses: Vec<(SocketAddr, SocketAddr)> = (0..count).map(|_| (free(), free())).collect();
        let seeds: Vec<String> = addresses.iter().map(|(_, peer)| peer.to_string()).collect();
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let place = |(index, (address, peer)): (usize, &(SocketAddr, SocketAddr))| {
            let flags: &[&str] =
                if count == 1 { &[] } else { &["--peer", &peer.to_string(), "--seeds", &seeds.join(",")] };
            // Some have more shards than others: what goes from broker to broker then changes cores.
            let cores = random.between(1, cores.min(2) as u64) - 1;
            let mut settings: Vec<_> =
                SETTINGS.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
            settings.push(("node.id", (index + 1).to_string()));
            settings.push(("corelog.memory", MEMORY.to_owned()));
            settings.push(("corelog.cores", format!("0-{cores}")));
            Place {
                program: Program::Corelog {
                    binary: binary.to_owned(),
                    flags: flags.iter().map(|flag| (*flag).to_owned()).collect(),
                    open_files: None,
                },
                directory: directory.join(format!("broker-{}", index + 1)),
                address: *address,
                settings,
                process: None,
            }
        };
        Brokers(addresses.iter().enumerate().map(place).collect())
    }

    pub fn count(&self) -> usize {
        self.0.len()
    }

    pub fn bootstrap(&self) -> String {
        self.0.iter().map(|place| place.address.to_string()).collect::<Vec<_>>().join(",")
    }

    /// Does not wait for it to be ready.
    pub fn start(&mut self, index: usize) -> Result<()> {
        let place = &mut self.0[index];
        let settings: Vec<_> = place.settings.iter().map(|(name, value)| (*name, value.as_str())).collect();
        place.process = Some(Broker::spawn(&place.program, &place.directory, place.address, &settings)?);
        Ok(())
    }

    fn take(&mut self, index: usize) -> Result<Broker> {
        self.0[index].process.take().with_context(|| format!("broker {} does not run", index + 1))
    }

    pub fn kill(&mut self, index: usize) -> Result<()> {
        self.take(index)?.kill().with_context(|| format!("broker {}", index + 1))
    }

    /// In good order.
    pub fn stop(&mut self, index: usize) -> Result<()> {
        self.take(index)?.stop().with_context(|| format!("broker {}", index + 1))
    }

    pub fn pause(&self, index: usize) {
        self.0[index].process.iter().for_each(Broker::pause);
    }

    pub fn resume(&self, index: usize) {
        self.0[index].process.iter().for_each(Broker::resume);
    }

    /// An error if one ended by itself.
    pub fn look(&mut self) -> Result<()> {
        for (index, place) in self.0.iter_mut().enumerate() {
            if let Some(process) = &mut place.process
                && !process.running()?
            {
                bail!("broker {} ended by itself; its log ends with\n{}", index + 1, process.log_tail());
            }
        }
        Ok(())
    }

    /// Waits until each broker shows all of them.
    pub fn await_all(&mut self, limit: Duration) -> Result<Duration> {
        let started = Instant::now();
        for index in 0..self.count() {
            loop {
                self.look()?;
                let seen = self.metadata(index, None).map(|answer| answer.brokers.len());
                match seen {
                    Ok(seen) if seen == self.count() => break,
                    _ if started.elapsed() < limit => thread::sleep(ASK_INTERVAL),
                    Ok(seen) => {
                        bail!("broker {} shows {seen} brokers of {} after {limit:?}", index + 1, self.count())
                    }
                    Err(error) => bail!("broker {} does not serve after {limit:?}: {error:#}", index + 1),
                }
            }
        }
        Ok(started.elapsed())
    }

    /// As this broker tells it, of no topics or of these.
    fn metadata(&self, index: usize, topics: Option<&[Str]>) -> Result<MetadataResponse> {
        let topics = topics
            .unwrap_or_default()
            .iter()
            .map(|name| Topic { name: Some(name.clone()), ..Default::default() });
        let request = MetadataRequest { topics: Some(topics.collect()), ..Default::default() };
        let mut connection = Connection::connect(self.0[index].address)?;
        connection.set_timeout(Some(Duration::from_secs(1)))?;
        Ok(connection.call(METADATA_VERSION, &request)?)
    }

    fn any_metadata(&self, topics: &[Str]) -> Result<MetadataResponse> {
        let answers = (0..self.count()).map(|index| self.metadata(index, Some(topics)));
        let mut last = None;
        for answer in answers {
            match answer {
                Ok(answer) => return Ok(answer),
                Err(error) => last = Some(error),
            }
        }
        Err(last.context("there are no brokers")?)
    }

    /// The leader of each partition, by topic, as indexes of brokers.
    pub fn leaders(&self, topics: &[Str]) -> Result<Vec<Vec<Option<usize>>>> {
        let answer = self.any_metadata(topics)?;
        let index = |id: i32| usize::try_from(id - 1).ok().filter(|index| *index < self.count());
        topics
            .iter()
            .map(|name| {
                let topic = answer.topics.iter().find(|topic| topic.name.as_ref() == Some(name));
                let topic = topic.with_context(|| format!("no answer for {name}"))?;
                if topic.error_code != 0 {
                    bail!("{name}: {}", ErrorCode(topic.error_code));
                }
                let mut leaders = vec![None; topic.partitions.len()];
                for partition in &topic.partitions {
                    leaders[partition.partition_index as usize] = index(partition.leader_id);
                }
                Ok(leaders)
            })
            .collect()
    }

    /// Who leads the controllers, as far as it is known.
    pub fn controller(&self) -> Option<usize> {
        let id = self.any_metadata(&[]).ok()?.controller_id;
        usize::try_from(id - 1).ok().filter(|index| *index < self.count())
    }
}
