//! The process: configuration, checks, the data cores, and on the main thread the service runtime (admin HTTP,
//! signals), which is the only place where tokio runs.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use corelog_io::{Problem, RunConfig};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};

use crate::admin::{self, Health};
use crate::config::describe::Entry;
use crate::config::{self, Args};
use crate::metrics::Snapshot;
use crate::server::{self, Control, Report, Seed, ShardControl};
use crate::settings::Settings;
use crate::{identity, logging};

/// How often it is told how a start goes on. It has no limit: a slow disk may have many journals to read.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(10);
/// What shards report in their lives: the steps of a start, and how it came out.
const REPORTS_PER_CORE: usize = 8;
/// A shard that does not answer a scrape within this long is left out of it.
const SCRAPE_MAX: Duration = Duration::from_secs(2);

/// Tells what is wrong with the machine; an error if the broker cannot run on it.
fn heed(problems: &[Problem]) -> anyhow::Result<()> {
    for problem in problems {
        eprintln!("corelog: {}\n  remedy: {}", problem.what, problem.remedy);
    }
    match problems.iter().filter(|problem| problem.fatal).count() {
        0 => Ok(()),
        fatal => bail!(
            "this machine is not ready to run the broker ({fatal} of the problems above are in the way)"
        ),
    }
}

/// Runs the broker until it is told to stop.
pub fn run(args: &Args, started: Instant) -> anyhow::Result<()> {
    let settings = Arc::new(Settings::load(args, std::env::vars_os())?);
    let config = Arc::new(settings.broker(&Default::default(), &Default::default())?);
    let _logging = logging::init(&config.log_levels, config.log_json)?;
    let connections = &config.connections;
    if connections.request_bytes_max < connections.request_bytes_wanted {
        tracing::warn!(
            "socket.request.max.bytes is {}, and a core's part of corelog.memory takes requests of up to {} bytes: give \
             more memory or use fewer cores if clients send larger ones",
            connections.request_bytes_wanted,
            connections.request_bytes_max
        );
    }
    let (identity, _lock) = identity::open(&config.data_dir, config.node_id)?;
    if let Err(problems) = corelog_io::preflight(&config.data_dir, config.cores.len()) {
        heed(&problems)?;
    }
    // Listened for from here on: whatever the broker is about, it ends in good order.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let signals = runtime.block_on(async { Signals::listen() })?;
    let cores = config.cores.len();
    let (report_sender, reports) = mpsc::channel(REPORTS_PER_CORE * cores);
    let (seeds, controls) = Seed::for_cores(settings.clone(), config.clone(), identity, move |message| {
        let _ = report_sender.try_send(message);
    })?;
    let shards = corelog_io::run_glommio_with(RunConfig::new(config.cores.clone()), seeds, server::run)
        .context("starting the data cores")?;
    let ended = wait_for(shards);
    runtime.block_on(serve(&config, controls, reports, ended, signals, started))
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
}

/// Joins the data cores on a thread of its own, since joining blocks.
fn wait_for(shards: corelog_io::Handle<anyhow::Result<()>>) -> oneshot::Receiver<anyhow::Result<()>> {
    let (sender, receiver) = oneshot::channel();
    std::thread::spawn(move || {
        let result = match shards.join() {
            Ok(results) => results.into_iter().collect::<anyhow::Result<Vec<()>>>().map(drop),
            Err(error) => Err(error.into()),
        };
        let _ = sender.send(result);
    });
    receiver
}

async fn serve(
    config: &config::BrokerConfig,
    controls: Vec<ShardControl>,
    mut reports: mpsc::Receiver<Report>,
    mut ended: oneshot::Receiver<anyhow::Result<()>>,
    Signals { mut terminate, mut interrupt }: Signals,
    started: Instant,
) -> anyhow::Result<()> {
    let (health, health_watch) = watch::channel(Health::Starting("the shards are opening their logs".into()));
    let admin = admin::bind(&config.admin).await?;
    let scrape_controls = controls.clone();
    let configs_controls = controls.clone();
    let admin_task = tokio::spawn(admin::serve(
        admin,
        health_watch,
        Arc::new(move || Box::pin(scrape(scrape_controls.clone()))),
        Arc::new(move || Box::pin(configs(configs_controls.clone()))),
    ));
    let mut progress = vec!["begins"; controls.len()];
    let mut tell_progress =
        tokio::time::interval_at(tokio::time::Instant::now() + PROGRESS_INTERVAL, PROGRESS_INTERVAL);
    let stopping = loop {
        tokio::select! {
            report = reports.recv() => match report {
                Some(Report::Ready { addresses }) => {
                    health.send_replace(Health::Ready);
                    announce(config, addresses[0], started.elapsed());
                }
                Some(Report::Starting { shard, what }) => progress[shard] = what,
                Some(Report::Failed { shard, what }) => bail!("shard {shard}: {what}"),
                None => break "the data cores ended",
            },
            result = &mut ended => {
                admin_task.abort();
                return result.unwrap_or_else(|_| bail!("a data core ended without a word")).and_then(|()| bail!("the data cores ended unasked"));
            }
            _ = tell_progress.tick(), if matches!(*health.borrow(), Health::Starting(_)) => {
                let what = told_together(&progress);
                tracing::info!(seconds = started.elapsed().as_secs(), "still starting: {what}");
                health.send_replace(Health::Starting(what));
            }
            _ = terminate.recv() => break "SIGTERM",
            _ = interrupt.recv() => break "SIGINT",
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
        _ = interrupt.recv() => bail!("interrupted again while stopping: nothing acknowledged is lost, the next start replays the journal"),
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

/// Asks every shard for its metrics.
async fn scrape(controls: Vec<ShardControl>) -> Vec<Snapshot> {
    let mut answers = Vec::with_capacity(controls.len());
    for control in &controls {
        let (sender, receiver) = oneshot::channel();
        let ask = Control::Metrics(Box::new(move |snapshot| {
            let _ = sender.send(snapshot);
        }));
        if control.ask(ask) {
            answers.push(receiver);
        }
    }
    let mut snapshots = Vec::with_capacity(answers.len());
    for answer in answers {
        if let Ok(Ok(snapshot)) = tokio::time::timeout(SCRAPE_MAX, answer).await {
            snapshots.push(snapshot);
        }
    }
    snapshots
}

/// This broker's configs in effect, as shard 0 has them.
async fn configs(controls: Vec<ShardControl>) -> Vec<Entry> {
    let (sender, receiver) = oneshot::channel();
    let ask = Control::Configs(Box::new(move |entries| {
        let _ = sender.send(entries);
    }));
    if !controls[0].ask(ask) {
        return Vec::new();
    }
    tokio::time::timeout(SCRAPE_MAX, receiver).await.ok().and_then(Result::ok).unwrap_or_default()
}

/// What a person at a terminal wants to know first.
fn announce(config: &config::BrokerConfig, address: std::net::SocketAddr, took: Duration) {
    tracing::info!(%address, ready_ms = took.as_millis() as u64, "ready");
    let data_dir: &Path = &config.data_dir;
    println!(
        "Corelog {version} is ready on {address} ({took:.0?}; {cores} core{s}, data in {data})\n\
         \n  \
         produce   echo hello | corectl produce demo        or  kcat -b {address} -P -t demo\n  \
         consume   corectl consume demo --from-beginning    or  kcat -b {address} -C -t demo\n  \
         metrics   http://{admin}/metrics\n  \
         configs   corelog --help-configs\n",
        version = env!("CARGO_PKG_VERSION"),
        cores = config.cores.len(),
        s = if config.cores.len() == 1 { "" } else { "s" },
        data = data_dir.display(),
        admin = config.admin,
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_that_do_the_same_are_told_together() {
        assert_eq!(told_together(&["reads", "waits", "reads"]), "shard 0, 2 reads; shard 1 waits");
    }

    #[test]
    fn only_fatal_problems_are_in_the_way() {
        let problem = |fatal| Problem { what: "few open files".into(), remedy: "ulimit".into(), fatal };
        assert!(heed(&[]).is_ok());
        assert!(heed(&[problem(false), problem(false)]).is_ok());
        let refusal = heed(&[problem(false), problem(true)]).expect_err("one is fatal").to_string();
        assert!(refusal.contains("(1 of"), "{refusal}");
    }
}
