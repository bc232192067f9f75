//! Clients that send what no client should, ask for all there is, or take what they never give back: the broker lives, its memory
//! stays within a bound, and clients who do nothing wrong are served throughout.
//!
//! Attacks ([`attacks`]) come in an order and for times that follow from the seed, some two at once, most as crowds ([`crowd`]).
//! Now and then the broker is stopped or killed, in the midst of an attack too, and comes back with other limits. The honest
//! clients ([`honest`]) go on all the while, and know what they may expect.

mod attacks;
mod crowd;
mod frames;
mod honest;
mod process;
mod world;

use crate::broker::{Broker, Program, lasting_address};
use crate::connection::Connection;
use crate::random::Random;
use anyhow::{Context, Result, anyhow, bail, ensure};
use attacks::{ATTACKS, Attack, Target, Way};
use corelog_wire::ErrorCode;
use honest::PARTITIONS;
use process::Sampler;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use world::{WAITS, World};

/// No honest client waits longer for anything: a third of the 30 s after which Kafka's clients give a request up, on a machine
/// whose cores the attackers share.
const WAIT_MS_MAX: u32 = 10_000;
/// After SIGTERM: connections have 5 s to end by themselves, then storage is closed.
const STOP_MAX: Duration = Duration::from_secs(10);
/// After the attackers have left, connections and their work must be gone by then: a member may be waited for this long.
const LET_GO_MAX: Duration = Duration::from_secs(20);
/// What is served while nobody attacks costs less of a core than this, in percent; with nobody at all, less than the other.
const CALM_CPU_MAX: u64 = 60;
const IDLE_CPU_MAX: u64 = 5;
const ATTACK_MS: (u64, u64) = (2000, 30_000);
/// One attack in so many has company, one is met by a kill, one comes after a stop.
const TWO_ONE_IN: u64 = 3;
const KILL_ONE_IN: u64 = 6;
const STOP_ONE_IN: u64 = 8;
/// Of records that slow readers ask for.
const BULK_BYTES: usize = 96 << 20;
const MIB: f64 = (1 << 20) as f64;

pub struct Options<'a> {
    pub seed: u64,
    pub duration: Duration,
    pub filter: &'a str,
}

/// What the broker is given for one life.
#[derive(Clone, Copy, Debug)]
struct Terms {
    memory_mib: u64,
    open_files: Option<u64>,
}

/// For a whole run: groups that a broker has taken may be more than one with less memory would take.
const MEMORY_MIB: [u64; 3] = [128, 256, 512];
const OPEN_FILES: [Option<u64>; 3] = [Some(600), None, Some(1000)];

impl Terms {
    fn frame_bytes_max(&self) -> usize {
        // Three quarters of the quarter that a core's part of the memory gives to what is received, and the length.
        let receive = (self.memory_mib << 20) / CORES / 4;
        (receive / 100 * 75).min(100 << 20) as usize + 4
    }

    /// The most that the broker may ever hold: its budget, what its program, stacks and rings take, freed memory that each core
    /// keeps, and of each connection what it may hold beside the budget.
    fn rss_max(&self, connections: usize) -> u64 {
        (self.memory_mib << 20) + PROGRAM_BYTES + CORES * POOL_BYTES + connections as u64 * CONNECTION_BYTES
    }
}

/// The broker runs on so many, on whatever machine.
const CORES: u64 = 2;
const PROGRAM_BYTES: u64 = 64 << 20;
const POOL_BYTES: u64 = 16 << 20;
const CONNECTION_BYTES: u64 = 12 << 10;
/// Honest clients', and those of attacks that have no crowd.
const OTHER_CONNECTIONS: usize = 300;

/// Returns whether all bounds held. The error tells what was lost, or who was not served at all.
pub fn run(binary: &Path, directory: &Path, options: &Options) -> Result<bool> {
    let files = process::raise_open_files()?;
    ensure!(
        files >= 12_000,
        "12000 open files are needed, and the limit is {files}: raise it with ulimit -Hn"
    );
    println!("hostile: seed {}, {:?}", options.seed, options.duration);
    let address = lasting_address(&mut Random::new(Random::fresh_seed()));
    let world = World::new(address);
    let mut suite = Suite {
        binary,
        directory,
        world: &world,
        sampler: &Sampler::default(),
        random: Random::new(options.seed),
        terms: Terms {
            memory_mib: MEMORY_MIB[(options.seed % MEMORY_MIB.len() as u64) as usize],
            open_files: OPEN_FILES[0],
        },
        broker: None,
        rows: BTreeMap::new(),
        ends: Ends::default(),
        held: true,
    };
    suite.start()?;
    create_topics(&world)?;
    fill(&world)?;
    let outcome = std::thread::scope(|scope| {
        let honest: [fn(&World) -> Result<()>; 5] =
            [honest::produce, honest::consume, honest::member, honest::administrator, honest::scraper];
        let threads: Vec<_> = honest
            .map(|client| {
                let world = &world;
                scope.spawn(move || {
                    let outcome = client(world);
                    if let Err(error) = &outcome {
                        println!("ENDED: {error:#}");
                        // Nothing else is to be learnt then: what others meet now may come of this one's end.
                        world.done.store(true, Ordering::Relaxed);
                    }
                    outcome
                })
            })
            .into();
        let sampler = suite.sampler;
        scope.spawn(|| sampler.run(&world));
        let attacked = suite.attack_all(options);
        world.done.store(true, Ordering::Relaxed);
        // What the honest ones met tells more than what became of the others.
        let during = attacked.as_ref().err().map(ToString::to_string);
        for thread in threads {
            let outcome = thread.join().map_err(|_| anyhow!("a thread panicked"))?;
            outcome.with_context(|| during.clone().unwrap_or_default())?;
        }
        attacked
    });
    let tail = suite.broker.as_ref().map_or(String::new(), Broker::log_tail);
    outcome.with_context(|| format!("the broker's log ends with:\n{tail}"))?;
    suite.finish()?;
    suite.table();
    Ok(suite.held)
}

struct Suite<'a> {
    binary: &'a Path,
    directory: &'a Path,
    world: &'a World,
    sampler: &'a Sampler,
    random: Random,
    terms: Terms,
    broker: Option<Broker>,
    rows: BTreeMap<&'static str, Row>,
    ends: Ends,
    held: bool,
}

/// The broker's ends and starts.
#[derive(Default)]
struct Ends {
    kills: u32,
    stops: u32,
    stop_max: Duration,
    ready_max: Duration,
}

/// What is told of an attack at the end.
#[derive(Default)]
struct Row {
    times: u32,
    seconds: f64,
    waited_ms_max: [u32; WAITS.len()],
    rss_max: u64,
    /// Of what the broker may hold, in percent.
    rss_part_max: u64,
}

impl Suite<'_> {
    fn broken(&mut self, what: String) {
        println!("BROKEN: {what}");
        self.held = false;
    }

    fn start(&mut self) -> Result<()> {
        let Terms { memory_mib, open_files } = self.terms;
        let flags = vec!["--memory".into(), format!("{memory_mib}MiB"), "--cores".into(), "0-1".into()];
        let program = Program::Corelog { binary: self.binary.to_owned(), flags, open_files };
        // Small files, so that journals go round and what is past retention goes soon.
        let settings =
            [("corelog.journal.file.bytes", "16777216"), ("log.retention.check.interval.ms", "5000")];
        let broker = Broker::start(&program, self.directory, self.world.address, &settings)?;
        self.sampler.watch(&broker);
        self.world.went_up(broker.admin);
        self.broker = Some(broker);
        Ok(())
    }

    fn broker(&self) -> Result<&Broker> {
        self.broker.as_ref().context("no broker runs")
    }

    /// Ends the broker, and starts it with other limits. Returns how long the start took.
    fn restart(&mut self, terms: Terms, kill: bool) -> Result<Duration> {
        let broker = self.broker.take().context("no broker runs")?;
        self.world.goes_down();
        let asked = Instant::now();
        if kill {
            self.ends.kills += 1;
            broker.kill()?;
        } else {
            self.ends.stops += 1;
            broker.stop()?;
            let took = asked.elapsed();
            self.ends.stop_max = took.max(self.ends.stop_max);
            if took > STOP_MAX {
                self.broken(format!("the stop took {took:?}, and may take {STOP_MAX:?}"));
            }
        }
        self.terms = terms;
        self.start()?;
        let ready = self.broker()?.ready;
        self.ends.ready_max = ready.max(self.ends.ready_max);
        Ok(ready)
    }

    fn any_terms(&mut self) -> Terms {
        let open_files = OPEN_FILES[self.random.below(OPEN_FILES.len() as u64) as usize];
        Terms { open_files, ..self.terms }
    }

    /// Goes through all attacks again and again, in another order each time, until the time is over: once at the least.
    fn attack_all(&mut self, options: &Options) -> Result<()> {
        let is_chosen = |attack: &&Attack| options.filter.split(',').any(|part| attack.name.contains(part));
        let chosen: Vec<&Attack> = ATTACKS.iter().filter(is_chosen).collect();
        ensure!(!chosen.is_empty(), "no attack has {:?} in its name", options.filter);
        let until = Instant::now() + options.duration;
        // So that each comes several times, if there is the time for it.
        let ms_max = options.duration.as_millis() as u64 / (4 * ATTACKS.len() as u64);
        let ms_max = ms_max.clamp(ATTACK_MS.0 + 1, ATTACK_MS.1);
        self.await_served()?;
        self.calm("nobody yet")?;
        for round in 0.. {
            let mut deck = chosen.clone();
            while !deck.is_empty() {
                if self.world.is_done() || (round > 0 && Instant::now() >= until) {
                    return Ok(());
                }
                let two = self.random.below(TWO_ONE_IN) == 0;
                let mut drawn = Vec::new();
                while !deck.is_empty() && drawn.len() < 1 + usize::from(two) {
                    drawn.push(deck.swap_remove(self.random.below(deck.len() as u64) as usize));
                }
                let time = Duration::from_millis(self.random.log_uniform(ATTACK_MS.0, ms_max));
                self.attack(&drawn, time)?;
            }
        }
        Ok(())
    }

    fn attack(&mut self, drawn: &[&Attack], time: Duration) -> Result<()> {
        let takes_all = drawn.iter().any(|attack| attack.takes_all);
        let kill = self.random.below(KILL_ONE_IN) == 0;
        if self.random.below(STOP_ONE_IN) == 0 || (takes_all && self.terms.open_files.is_none()) {
            let few = Terms { open_files: OPEN_FILES[0], ..self.terms };
            let terms = if takes_all { few } else { self.any_terms() };
            let ready = self.restart(terms, false)?;
            println!("stopped, and ready again after {:.0} ms with {terms:?}", ready.as_secs_f64() * 1e3);
            self.await_served()?;
        }
        let names: Vec<_> = drawn.iter().map(|attack| attack.name).collect();
        let names = names.join(" + ");
        let started = Instant::now();
        let sockets = process::sockets(self.broker()?.pid())?;
        self.world.take_waits();
        self.sampler.take();
        self.world.full.store(takes_all, Ordering::Relaxed);
        let (what, ready, connections) =
            self.make(drawn, time, kill, started + time).with_context(|| names.clone())?;
        self.world.full.store(false, Ordering::Relaxed);
        let attacked = started.elapsed();
        if ready.is_some() {
            self.await_served().with_context(|| format!("after a kill during {names}"))?;
        }
        let calm = self.let_go(sockets).with_context(|| format!("after {names}"))?;
        let waits = self.world.take_waits();
        let rss = self.sampler.take();
        let mib = |bytes: u64| bytes as f64 / MIB;
        println!(
            "{names:<34} {:>5.1} s  waits ms {:>5}  RSS max {:>4.0} MiB, then {:>4.0}  let go in {:>4.1} s  {what}{}",
            attacked.as_secs_f64(),
            waits.map(|ms| format!("{ms:>5}")).join(" "),
            mib(rss),
            mib(calm.rss),
            calm.after.as_secs_f64(),
            ready.map_or(String::new(), |ready| format!(
                "; killed, ready after {:.0} ms",
                ready.as_secs_f64() * 1e3
            )),
        );
        for attack in drawn {
            let row = self.rows.entry(attack.name).or_default();
            row.times += 1;
            row.seconds += attacked.as_secs_f64();
            row.rss_max = row.rss_max.max(rss);
            row.rss_part_max = row.rss_part_max.max(rss * 100 / self.terms.rss_max(connections));
            for (max, waited) in row.waited_ms_max.iter_mut().zip(waits) {
                *max = waited.max(*max);
            }
        }
        for (kind, waited) in WAITS.iter().zip(waits) {
            if waited > WAIT_MS_MAX {
                self.broken(format!("{kind} waited {waited} ms during {names}, and may wait {WAIT_MS_MAX}"));
            }
        }
        for (when, rss, most) in
            [("during", rss, self.terms.rss_max(connections)), ("after", calm.rss, self.terms.rss_max(0))]
        {
            if rss > most {
                self.broken(format!("{:.0} MiB {when} {names}, and {:.0} is the bound", mib(rss), mib(most)));
            }
        }
        Ok(())
    }

    /// Returns what was done, how long a start in its midst took, and how many connections there were at once.
    fn make(
        &mut self,
        drawn: &[&Attack],
        time: Duration,
        kill: bool,
        until: Instant,
    ) -> Result<(String, Option<Duration>, usize)> {
        let open_files = self.terms.open_files.map(|files| files as usize);
        let share = |files: usize| files * 2 / 5 / drawn.len();
        let targets: Vec<Target> = drawn
            .iter()
            .map(|_| Target {
                address: self.world.address,
                frame_bytes_max: self.terms.frame_bytes_max(),
                connections: open_files.map_or(10_000, share),
                open_files,
                number: self.random.bits() >> 40,
                seed: self.random.bits(),
                until,
            })
            .collect();
        let crowds: Vec<_> = drawn
            .iter()
            .zip(&targets)
            .map(|(attack, target)| match attack.way {
                Way::Frames(_) => None,
                Way::Crowd(crowd) => {
                    let mut crowd = crowd(target);
                    if !attack.takes_all {
                        // Who comes again is there twice, until the broker has seen that they hung up.
                        let at_once = if crowd.stays < time { 2 } else { 1 };
                        crowd.clients = crowd.clients.min(target.connections / at_once);
                    }
                    Some(crowd)
                }
            })
            .collect();
        let connections: usize = crowds.iter().flatten().map(|crowd| crowd.clients).sum();
        std::thread::scope(|scope| {
            let threads: Vec<_> = drawn
                .iter()
                .zip(&targets)
                .zip(&crowds)
                .map(|((attack, target), crowd)| {
                    scope.spawn(move || match (&attack.way, crowd) {
                        (Way::Frames(frames), _) => frames(target),
                        (Way::Crowd(_), Some(crowd)) => {
                            crowd::run(target.address, target.until, crowd).told(crowd.clients)
                        }
                        (Way::Crowd(_), None) => String::new(),
                    })
                })
                .collect();
            let ready = if kill {
                std::thread::sleep(time / 2);
                let terms = self.terms;
                Some(self.restart(terms, true)?)
            } else {
                None
            };
            let told: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap_or_default()).collect();
            Ok((told.join(" + "), ready, connections + OTHER_CONNECTIONS))
        })
    }

    fn await_served(&self) -> Result<()> {
        let started = Instant::now();
        while !self.world.all_served() && !self.world.is_done() {
            if started.elapsed() > Duration::from_millis(WAIT_MS_MAX.into()) {
                bail!("not all are served within {WAIT_MS_MAX} ms of a start");
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    fn calm(&mut self, when: &str) -> Result<()> {
        let sockets = process::sockets(self.broker()?.pid())?;
        let calm = self.let_go(sockets)?;
        let waits = self.world.take_waits().map(|ms| format!("{ms:>5}")).join(" ");
        println!("{when:<34} {:>7}  waits ms {waits}  RSS {:.0} MiB", "", calm.rss as f64 / MIB);
        Ok(())
    }

    /// Waits until the broker has no more connections than before, and nothing to do for those who are gone.
    fn let_go(&mut self, sockets_before: usize) -> Result<Calm> {
        let started = Instant::now();
        let pid = self.broker()?.pid();
        loop {
            if self.world.is_done() {
                bail!("an honest client ended");
            }
            let cpu_before = process::figures(pid)?;
            std::thread::sleep(Duration::from_millis(500));
            let now = process::figures(pid)?;
            let sockets = process::sockets(pid)?;
            let cpu = now.cpu_percent_since(&cpu_before);
            // The honest ones' come and go.
            // Freed memory goes back a while later.
            let late = started.elapsed() > LET_GO_MAX;
            if sockets <= sockets_before + 8
                && cpu <= CALM_CPU_MAX
                && (late || now.rss <= self.terms.rss_max(0))
            {
                return Ok(Calm { rss: now.rss, after: started.elapsed() });
            }
            if late {
                bail!(
                    "{LET_GO_MAX:?} after all have hung up there are {sockets} sockets, {sockets_before} were before, \
                     and the broker takes {cpu} % of a core, where {CALM_CPU_MAX} are enough"
                );
            }
        }
    }

    /// With nobody left: idle, an orderly stop, and all that was ever acknowledged read from the beginning.
    fn finish(&mut self) -> Result<()> {
        let pid = self.broker()?.pid();
        let started = Instant::now();
        let mut before = process::figures(pid)?;
        loop {
            std::thread::sleep(Duration::from_secs(2));
            let now = process::figures(pid)?;
            let cpu = now.cpu_percent_since(&before);
            before = now;
            if cpu <= IDLE_CPU_MAX {
                println!("idle: {cpu} % of a core, {:.0} MiB", now.rss as f64 / MIB);
                break;
            }
            if started.elapsed() > LET_GO_MAX {
                self.broken(format!("with nobody there the broker takes {cpu} % of a core"));
                break;
            }
        }
        self.restart(self.terms, false)?;
        self.world.consumed.store(0, Ordering::Relaxed);
        honest::consume(self.world)?;
        let (produced, consumed) =
            (self.world.produced.load(Ordering::Relaxed), self.world.consumed.load(Ordering::Relaxed));
        println!(
            "honest: {produced} records acknowledged, and {consumed} read again from the beginning, each once and in order; {} \
             answers said to try again; the member was refused {} times since groups had no memory",
            self.world.retried.load(Ordering::Relaxed),
            self.world.left_out.load(Ordering::Relaxed)
        );
        ensure!(produced == consumed, "{produced} records were acknowledged, and {consumed} are there");
        self.world.goes_down();
        let broker = self.broker.take().context("no broker runs")?;
        broker.stop()
    }

    fn table(&self) {
        let Ends { kills, stops, stop_max, ready_max } = &self.ends;
        println!("{kills} kills, {stops} stops of {stop_max:.1?} at the most; ready within {ready_max:.1?}");
        println!(
            "\n{:<20} {:>5} {:>8} {:>40} {:>9} {:>9}",
            "", "", "", "longest wait in ms", "RSS", "of its"
        );
        let head = WAITS.map(|wait| format!("{wait:>8}")).join("");
        println!("{:<20} {:>5} {:>8} {head} {:>9} {:>9}", "attack", "times", "seconds", "max MiB", "bound");
        for (name, row) in &self.rows {
            let waits = row.waited_ms_max.map(|ms| format!("{ms:>8}")).join("");
            println!(
                "{name:<20} {:>5} {:>8.0} {waits} {:>9.0} {:>7} %",
                row.times,
                row.seconds,
                row.rss_max as f64 / MIB,
                row.rss_part_max
            );
        }
    }
}

/// How the broker is when nobody attacks it.
struct Calm {
    rss: u64,
    /// How long that took.
    after: Duration,
}

fn create_topics(world: &World) -> Result<()> {
    let sink = [
        ("max.message.bytes", (attacks::SINK_BATCH_BYTES + (1 << 20)).to_string()),
        ("segment.bytes", (16 << 20).to_string()),
        ("retention.bytes", (32 << 20).to_string()),
    ];
    let request = honest::create_request(&[
        (honest::TOPIC.into(), PARTITIONS, &[]),
        (attacks::BULK.into(), attacks::BULK_PARTITIONS, &[]),
        (attacks::SINK.into(), attacks::SINK_PARTITIONS, &sink),
    ]);
    for created in Connection::connect(world.address)?.call(4, &request)?.topics {
        if created.error_code != 0 {
            bail!("creating {}: {} {:?}", created.name, ErrorCode(created.error_code), created.error_message);
        }
    }
    Ok(())
}

fn fill(world: &World) -> Result<()> {
    let mut connection = Connection::connect(world.address)?;
    let records = attacks::batch(900_000);
    for i in 0..BULK_BYTES / records.len() {
        let batches = vec![(i as i32 % attacks::BULK_PARTITIONS, records.clone())];
        let answer = connection.call(9, &honest::produce_request(attacks::BULK, batches))?;
        let error = answer.responses[0].partition_responses[0].error_code;
        ensure!(error == 0, "filling {}: {}", attacks::BULK, ErrorCode(error));
    }
    Ok(())
}
