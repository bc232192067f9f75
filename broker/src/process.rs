//! The process: configuration, checks, the data cores, and on the main thread the service runtime (admin HTTP,
//! signals), which is the only place where tokio runs.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use corelog_io::{Problem, RunConfig};
use corelog_wire::Uuid;
use futures_util::future::{Either, select};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};

use crate::admin::{self, Health, Scraper};
use crate::cluster::MemberPlan;
use crate::cluster::forming::{self, Forming};
use crate::cluster::founding::Candidate;
use crate::config::{self, Args, Endpoint};
use crate::identity::{Identity, Life, Wanted};
use crate::server::{self, Found, Report, Seed, ShardControl};
use crate::settings::Settings;
use crate::version::version;
use crate::{identity, logging, peer};

/// How often it is told how a start goes on. It has no limit: a slow disk may have many journals to read.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(10);
/// What shards report in their lives: the steps of a start, and how it came out.
const REPORTS_PER_CORE: usize = 8;
/// A shard that does not answer a question within this long is left out of a scrape.
const SCRAPE_MAX: Duration = Duration::from_secs(2);

/// Tells what is wrong with the machine; an error if the broker cannot run on it.
fn heed(problems: &[Problem]) -> anyhow::Result<()> {
    for problem in problems {
        eprintln!("corelog: {}\n  remedy: {}", problem.what, problem.remedy);
    }
    match problems.iter().filter(|problem| problem.fatal).count() {
        0 => Ok(()),
        1 => bail!("this machine is not ready to run the broker: one of the problems above is in the way"),
        fatal => {
            bail!("this machine is not ready to run the broker: {fatal} of the problems above are in the way")
        }
    }
}

/// Runs the broker until it is told to stop.
pub fn run(args: &Args, started: Instant) -> anyhow::Result<()> {
    let mut settings = Settings::load(args, std::env::vars_os())?;
    let mut config = settings.broker(&Default::default(), &Default::default())?;
    let _logging = logging::init(&config.log_levels, config.log_json)?;
    if let Some(file) = &settings.fixed.file {
        tracing::info!(file = %file.display(), "configuration");
    }
    for (config, origin, why) in settings.fixed.without_effect() {
        tracing::warn!(config, %origin, "has no effect here: {why}");
    }
    let connections = &config.connections;
    if connections.request_bytes_max < connections.request_bytes_wanted {
        tracing::warn!(
            "socket.request.max.bytes is {}, and a core's part of corelog.memory takes requests of up to {} bytes: give \
             more memory or use fewer cores if clients send larger ones",
            connections.request_bytes_wanted,
            connections.request_bytes_max
        );
    }
    let wanted = Wanted {
        node_id: config.node_id_is_given.then_some(config.node_id),
        peer: config.peer.as_ref(),
        has_seeds: !config.seeds.is_empty(),
    };
    let (life, _lock) = identity::open(&config.data_dir, wanted)?;
    if let Err(problems) = corelog_io::preflight(&config.data_dir, config.cores.len()) {
        heed(&problems)?;
    }
    // Listened for from here on: whatever the broker is about, it ends in good order.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut signals = runtime.block_on(async { Signals::listen() })?;
    let identity = match life {
        Life::Member(identity) => identity,
        Life::Forming(directory) => match form(&config, directory, &runtime, &mut signals)? {
            Some(identity) => identity,
            None => return Ok(()),
        },
    };
    if identity.node_id != config.node_id {
        settings.fixed.put_node_id(identity.node_id, &config.data_dir);
        config = settings.broker(&Default::default(), &Default::default())?;
    }
    let (settings, config) = (Arc::new(settings), Arc::new(config));
    let cores = config.cores.len();
    let (report_sender, reports) = mpsc::channel(REPORTS_PER_CORE * cores);
    let known_as = identity.clone();
    let member = MemberPlan::of(&config, &identity, identity::draw()?)?;
    let (seeds, controls) =
        Seed::for_cores(settings.clone(), config.clone(), identity, member, move |message| {
            let _ = report_sender.try_send(message);
        })?;
    let shards = corelog_io::run_glommio_with(RunConfig::new(config.cores.clone()), seeds, server::run)
        .context("starting the data cores")?;
    let ended = wait_for(shards);
    runtime.block_on(serve(&config, &known_as, controls, reports, ended, signals, started))
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn listen() -> std::io::Result<Signals> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// The next that ends the process.
    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// Founds a cluster with the seeds, or joins theirs, and leaves the port for brokers free again. None: the process was told
/// to stop.
fn form(
    config: &config::BrokerConfig,
    directory: Uuid,
    runtime: &tokio::runtime::Runtime,
    signals: &mut Signals,
) -> anyhow::Result<Option<Identity>> {
    let peer = config.peer.clone().expect("who has seeds has an address among them");
    let forming = Forming {
        listen: peer.resolve().map_err(|what| anyhow::anyhow!("corelog.peer: {what}"))?,
        candidate: Candidate {
            directory,
            node_id: config.node_id_is_given.then_some(config.node_id),
            peer,
            seeds: config.seeds.clone(),
        },
        data_dir: config.data_dir.clone(),
        shards: config.cores.len(),
        rack: config.rack.clone(),
    };
    let (stop, stopped) = corelog_io::remote(1);
    let seeds = peer::seats(1).into_iter().zip([(stopped, forming)]).collect();
    let core = RunConfig::new(config.cores[..1].to_vec());
    let formed = corelog_io::run_glommio_with(core, seeds, async |_, (seat, (mut stopped, forming))| {
        let forming = std::pin::pin!(forming::form(seat, forming));
        Ok(match select(forming, std::pin::pin!(stopped.recv())).await {
            Either::Left((identity, _)) => Some(identity?),
            Either::Right(_) => None,
        })
    });
    let mut ended = wait_for(formed.context("starting the core that forms the cluster")?);
    let formed = runtime.block_on(async {
        tokio::select! {
            formed = &mut ended => formed,
            reason = signals.next() => {
                tracing::info!(reason, "stopping, before this broker belongs to a cluster");
                let _ = stop.try_send(());
                ended.await
            }
        }
    });
    let formed = formed.unwrap_or_else(|_| bail!("forming the cluster ended without a word"))?;
    Ok(formed.into_iter().next().flatten())
}

/// Joins cores on a thread of its own, since joining blocks.
fn wait_for<T: Send + 'static>(
    shards: corelog_io::Handle<anyhow::Result<T>>,
) -> oneshot::Receiver<anyhow::Result<Vec<T>>> {
    let (sender, receiver) = oneshot::channel();
    std::thread::spawn(move || {
        let result = match shards.join() {
            Ok(results) => results.into_iter().collect(),
            Err(error) => Err(error.into()),
        };
        let _ = sender.send(result);
    });
    receiver
}

async fn serve(
    config: &config::BrokerConfig,
    identity: &Identity,
    controls: Vec<ShardControl>,
    mut reports: mpsc::Receiver<Report>,
    mut ended: oneshot::Receiver<anyhow::Result<Vec<()>>>,
    mut signals: Signals,
    started: Instant,
) -> anyhow::Result<()> {
    let (health, health_watch) = watch::channel(Health::Starting("the shards are opening their logs".into()));
    let admin = admin::bind(&config.admin).await?;
    let admin_address = asked_for(&config.admin, admin.local_addr()?);
    let scraper = Arc::new(Scraper::new(controls.clone(), Some(SCRAPE_MAX)));
    let teller = scraper.clone();
    let admin_task = tokio::spawn(admin::serve(
        admin,
        health_watch,
        Arc::new(move || {
            let scraper = scraper.clone();
            Box::pin(async move { scraper.scrape().await })
        }),
        Arc::new(move || {
            let teller = teller.clone();
            Box::pin(async move { teller.configs().await })
        }),
    ));
    let mut progress = vec!["begins"; controls.len()];
    let mut tell_progress =
        tokio::time::interval_at(tokio::time::Instant::now() + PROGRESS_INTERVAL, PROGRESS_INTERVAL);
    let stopping = loop {
        tokio::select! {
            report = reports.recv() => match report {
                Some(Report::Ready { addresses, found }) => {
                    if let Err(error) = identity::note_ready(&config.data_dir, identity) {
                        tracing::warn!(%error, "cannot note in the identity file that there is a journal");
                    }
                    health.send_replace(Health::Ready);
                    announce(config, &addresses, &admin_address, found, started.elapsed());
                }
                Some(Report::Starting { shard, what }) => progress[shard] = what,
                Some(Report::Failed { shard, what }) => bail!("shard {shard}: {what}"),
                None => break "the data cores ended",
            },
            result = &mut ended => {
                admin_task.abort();
                return result.unwrap_or_else(|_| bail!("a data core ended without a word")).and_then(|_| bail!("the data cores ended unasked"));
            }
            _ = tell_progress.tick(), if matches!(*health.borrow(), Health::Starting(_)) => {
                let what = told_together(&progress);
                tracing::info!(seconds = started.elapsed().as_secs(), "still starting: {what}");
                health.send_replace(Health::Starting(what));
            }
            reason = signals.next() => break reason,
        }
    };
    tracing::info!(reason = stopping, "stopping");
    health.send_replace(Health::Stopping);
    controls.iter().for_each(ShardControl::stop);
    tokio::select! {
        result = &mut ended => {
            admin_task.abort();
            result.unwrap_or_else(|_| bail!("a data core ended without a word"))?;
        }
        _ = signals.interrupt.recv() => bail!("interrupted again while stopping: nothing acknowledged is lost, the next start replays the journal"),
    }
    tracing::info!("stopped");
    Ok(())
}

/// What each shard is about, those that are about the same together.
fn told_together(progress: &[&'static str]) -> String {
    let mut shards: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (shard, what) in progress.iter().enumerate() {
        shards.entry(what).or_default().push(shard.to_string());
    }
    let told = shards.into_iter().map(|(what, shards)| format!("shard {} {what}", shards.join(", ")));
    told.collect::<Vec<_>>().join("; ")
}

/// Tells that clients are served: the log in one line, and a person at a terminal what to try first.
fn announce(config: &config::BrokerConfig, bound: &[SocketAddr], admin: &str, found: Found, took: Duration) {
    let listeners: Vec<String> = config
        .listeners
        .iter()
        .zip(bound)
        .map(|(listener, bound)| asked_for(&listener.bind, *bound))
        .collect();
    tracing::info!(
        version = version(),
        listen = listeners.join(","),
        admin,
        cores = config.cores.len(),
        memory = config::quantity::format_size(config.memory_bytes),
        data_dir = %config.data_dir.display(),
        found = found.name(),
        took_ms = took.as_millis() as u64,
        "ready"
    );
    if std::io::stdout().is_terminal() {
        let advertised = config.listeners[0].advertised(bound[0].port()).to_string();
        print!("{}", banner(config, &listeners[0], &advertised, admin, took));
    }
}

/// The address as it was given, with the port that was got where none was asked for.
fn asked_for(asked: &Endpoint, bound: SocketAddr) -> String {
    Endpoint { port: bound.port(), ..asked.clone() }.to_string()
}

/// What corectl needs to be told to find the broker: nothing where it looks by itself.
fn bootstrap_flag(advertised: &str) -> String {
    match advertised {
        "127.0.0.1:9092" => String::new(),
        elsewhere => format!(" -b {elsewhere}"),
    }
}

fn banner(
    config: &config::BrokerConfig,
    address: &str,
    advertised: &str,
    admin: &str,
    took: Duration,
) -> String {
    let flag = bootstrap_flag(advertised);
    format!(
        "Corelog {version} is ready on {address} ({took:.0?}; {cores} core{s}, data in {data})\n\
         \n  \
         produce   echo hello | corectl produce demo --create{flag}   or  kcat -b {advertised} -P -t demo\n  \
         consume   corectl consume demo --from-beginning{flag}        or  kcat -b {advertised} -C -t demo\n  \
         metrics   http://{admin}/metrics\n  \
         configs   corelog --help-configs\n\n",
        version = version(),
        cores = config.cores.len(),
        s = if config.cores.len() == 1 { "" } else { "s" },
        data = config.data_dir.display(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_that_do_the_same_are_told_together() {
        assert_eq!(told_together(&["reads", "waits", "reads"]), "shard 0, 2 reads; shard 1 waits");
    }

    #[test]
    fn the_first_commands_find_the_broker_where_it_is() {
        assert_eq!(bootstrap_flag("127.0.0.1:9092"), "");
        assert_eq!(bootstrap_flag("127.0.0.1:29092"), " -b 127.0.0.1:29092");
        assert_eq!(bootstrap_flag("broker1:9092"), " -b broker1:9092");
    }

    #[test]
    fn only_fatal_problems_are_in_the_way() {
        let problem = |fatal| Problem { what: "few open files".into(), remedy: "ulimit".into(), fatal };
        assert!(heed(&[]).is_ok());
        assert!(heed(&[problem(false), problem(false)]).is_ok());
        let refusal = heed(&[problem(false), problem(true)]).expect_err("one is fatal").to_string();
        assert!(refusal.contains("one of the problems above"), "{refusal}");
    }
}
