//! `corectl log repair`: rebuilds what a broker knows of its logs, offline.
//!
//! Segments stay as they are: what they hold becomes the state of a new checkpoint, and what follows them in the old
//! journal goes to a new one. Both take the place of `journal/` in one rename; the old one, and whatever else is
//! replaced, lies in `before-repair-TIME/` afterwards. An interrupted repair is finished by the next.

mod controller;
mod plan;
mod segment;

use super::data_dir::{self, Damaged, DataDir};
use super::report::Report;
use crate::output::Output;
use anyhow::{Context, Result, bail};
use clap::Args;
use corelog_storage::paths::{self, JournalName};
use corelog_storage::rebuild::{JournalWriter, checkpoint};
use plan::{Change, LogPlan};
use serde_json::json;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::BufWriter;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

#[derive(Args)]
pub struct Repair {
    /// The broker's data directory
    #[arg(value_name = "DIR")]
    path: PathBuf,
    /// Do it. Without, nothing is changed
    #[arg(long)]
    execute: bool,
    /// How many partitions a topic had that is put back, if more than have records: NAME=COUNT
    #[arg(long, value_name = "NAME=COUNT", value_parser = name_and_count)]
    partitions: Vec<(String, i32)>,
}

fn name_and_count(text: &str) -> Result<(String, i32), String> {
    let (name, count) = text.split_once('=').ok_or("NAME=COUNT is wanted, such as orders=12")?;
    let count = count.parse().ok().filter(|count| (1..=10_000).contains(count));
    Ok((name.to_owned(), count.ok_or("the count is a number from 1 to 10000")?))
}

/// A new journal that is being written, and one that is written and synced.
const GROWING: &str = "journal.repairing";
const GROWN: &str = "journal.repaired";

pub fn run(repair: &Repair, out: &Output) -> Result<ExitCode> {
    let path = &repair.path;
    let _lock = lock(path)?;
    let mut report = Report::new(out.json, true, false, false, None, None);
    let (journal, grown) = (paths::journal_dir(path), path.join(GROWN));
    if grown.is_dir() && !journal.exists() {
        report.heading("a repair was interrupted: its new journal is whole", "interrupted", json!({}))?;
        if repair.execute {
            fs::rename(&grown, &journal).with_context(|| format!("cannot rename {}", grown.display()))?;
            sync(path)?;
        }
        return finish(repair, report);
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now_ms = now.as_millis() as i64;
    let data_dir = DataDir::open(path, Damaged::IsPassedOver, &mut report)?;
    let mut plans = Vec::new();
    for log in data_dir.logs() {
        plans.push(plan::plan(&data_dir, log, now_ms).with_context(|| format!("log {log}"))?);
    }
    let partitions: BTreeMap<String, i32> = repair.partitions.iter().cloned().collect();
    let back = controller::put_back(&data_dir, &mut plans, &partitions, node(path), now_ms)?;
    for plan in &plans {
        tell(&data_dir, plan, &mut report)?;
    }
    for topic in &back {
        let doubt = topic.doubt.map_or(String::new(), |doubt| format!("; {doubt}"));
        let text = format!(
            "topic {} ({}): the controller's log does not know it; it is put back with {} partitions and no configs{doubt}",
            topic.name, topic.topic, topic.partitions
        );
        let fields = json!({"topic": topic.name, "topic_id": topic.topic.to_string(), "partitions": topic.partitions, "doubt": topic.doubt});
        report.heading(&text, "put_back", fields)?;
    }
    for loss in &data_dir.losses {
        report.line(&format!("CANNOT BE KEPT: {loss}"), "loss", json!({"loss": loss}))?;
    }
    let losses = plans.iter().map(|plan| plan.losses.len()).sum::<usize>() + data_dir.losses.len();
    let text = format!("{} logs, {losses} things that cannot be kept", plans.len());
    report.heading(&text, "plan", json!({"logs": plans.len(), "losses": losses}))?;
    if repair.execute {
        execute(path, &plans, now.as_secs())?;
    }
    finish(repair, report)
}

fn finish(repair: &Repair, mut report: Report) -> Result<ExitCode> {
    let text = match repair.execute {
        true => "repaired: start the broker. What was replaced lies in before-repair-*/ in the data directory; remove \
                 it once all is well"
            .to_owned(),
        false => format!("nothing was changed; with --execute: corectl log repair {} --execute", repair.path.display()),
    };
    report.heading(&text, "done", json!({"executed": repair.execute}))?;
    // What is wrong was the reason to come here.
    report.finish_quietly()?;
    Ok(ExitCode::SUCCESS)
}

/// Keeps brokers out as long as it lives, as a broker does.
fn lock(path: &Path) -> Result<File> {
    if !path.is_dir() {
        bail!("{} is no directory", path.display());
    }
    let file = path.join(".lock");
    let lock = File::options().create(true).truncate(false).write(true).open(&file);
    let lock = lock.with_context(|| format!("cannot open {}", file.display()))?;
    if lock.try_lock().is_err() {
        bail!("a broker, or another repair, is using {}: stop it first", path.display());
    }
    Ok(lock)
}

/// The node id in the identity file.
fn node(path: &Path) -> i32 {
    let text = fs::read_to_string(path.join("identity.toml")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("node_id"));
    line.and_then(|line| line.split('=').nth(1)).and_then(|id| id.trim().parse().ok()).unwrap_or(1)
}

fn tell(data_dir: &DataDir, plan: &LogPlan, report: &mut Report) -> Result<()> {
    let name = data_dir.names.of(plan.log.topic).unwrap_or("?");
    let state = match plan.was_known {
        true => "a checkpoint knows it",
        false => "no checkpoint knows it",
    };
    let from = plan.state.log_start_offset;
    let text = format!(
        "{name}-{} ({}): {state}; kept: offsets {from} to {}, {} batches in {} segments, {} in the journal",
        plan.log.partition,
        plan.log.topic,
        plan.next_offset,
        plan.batches,
        plan.segments,
        plan.journal_batches(),
    );
    let fields = json!({
        "topic": name,
        "topic_id": plan.log.topic.to_string(),
        "partition": plan.log.partition,
        "was_known": plan.was_known,
        "log_start_offset": from,
        "next_offset": plan.next_offset,
        "segments": plan.segments,
        "journal_batches": plan.journal_batches(),
        "losses": plan.losses,
    });
    report.heading(&text, "log", fields)?;
    for loss in &plan.losses {
        report.line(&format!("CANNOT BE KEPT: {loss}"), "loss", json!({"loss": loss}))?;
    }
    Ok(())
}

fn execute(path: &Path, plans: &[LogPlan], now_s: u64) -> Result<()> {
    let aside = Aside { root: path, dir: path.join(format!("before-repair-{now_s}")) };
    fs::create_dir(&aside.dir).with_context(|| format!("cannot create {}", aside.dir.display()))?;
    for leftover in [GROWING, GROWN].map(|name| path.join(name)).iter().filter(|path| path.exists()) {
        aside.take(leftover)?;
    }
    let journal = paths::journal_dir(path);
    let growing = path.join(GROWING);
    fs::create_dir(&growing).with_context(|| format!("cannot create {}", growing.display()))?;
    write_journal(&growing, next_generation(&journal)?, plans)?;
    fs::rename(&growing, path.join(GROWN))?;
    for change in plans.iter().flat_map(|plan| &plan.changes) {
        match change {
            Change::MoveAside(path) => aside.take(path)?,
            Change::CopyAside { name, bytes } => aside.keep(name, bytes)?,
            Change::Header { path, header } => {
                let mut page = vec![0; corelog_storage::format::PAGE];
                let file = File::options().read(true).write(true).open(path)?;
                file.read_exact_at(&mut page, 0)?;
                aside.keep(&path.with_extension("log.header"), &page)?;
                page.fill(0);
                header.encode(&mut page);
                file.write_all_at(&page, 0)?;
                file.sync_all()?;
            }
        }
    }
    fs::create_dir_all(corelog_storage::topics_dir(path))?;
    sync(path)?;
    if journal.exists() {
        aside.take(&journal)?;
    }
    fs::rename(path.join(GROWN), &journal)?;
    sync(&aside.dir)?;
    sync(path)
}

/// Above every one that a file bears in its name.
fn next_generation(journal: &Path) -> Result<u64> {
    let mut newest = 0;
    for (name, _) in data_dir::entries(journal)? {
        if let Some(JournalName::Journal { generation, .. } | JournalName::Checkpoint { generation, .. }) =
            JournalName::parse(&name)
        {
            newest = generation.max(newest);
        }
    }
    newest.checked_add(1).context("no generation can follow the newest")
}

fn write_journal(dir: &Path, generation: u64, plans: &[LogPlan]) -> Result<()> {
    let path = dir.join(paths::journal_file(generation, 0, 0));
    let file = BufWriter::with_capacity(1 << 20, File::create(&path)?);
    // Random, as a hash table's keys are.
    let salt = RandomState::new().build_hasher().finish();
    let mut journal = JournalWriter::begin(file, generation, salt)?;
    for (entry, batch) in plans.iter().flat_map(|plan| &plan.entries) {
        journal.push(entry, batch)?;
    }
    let (file, last_group) = journal.finish()?;
    file.into_inner()?.sync_all()?;
    let logs: Vec<_> =
        plans.iter().filter(|plan| plan.state.next_index.0 > 0).map(|plan| plan.state.clone()).collect();
    let path = dir.join(paths::checkpoint_file(generation, 0));
    fs::write(&path, checkpoint(generation, &logs, last_group))?;
    File::open(&path)?.sync_all()?;
    sync(dir)
}

fn sync(dir: &Path) -> Result<()> {
    File::open(dir).and_then(|dir| dir.sync_all()).with_context(|| format!("cannot sync {}", dir.display()))
}

/// Where what is replaced goes, under the path it had.
struct Aside<'a> {
    root: &'a Path,
    dir: PathBuf,
}

impl Aside<'_> {
    fn place(&self, path: &Path) -> Result<PathBuf> {
        let place = self.dir.join(path.strip_prefix(self.root)?);
        fs::create_dir_all(place.parent().context("it lies in the data directory")?)?;
        Ok(place)
    }

    fn take(&self, path: &Path) -> Result<()> {
        fs::rename(path, self.place(path)?).with_context(|| format!("cannot move {} aside", path.display()))
    }

    fn keep(&self, name: &Path, bytes: &[u8]) -> Result<()> {
        let place = self.place(name)?;
        fs::write(&place, bytes).with_context(|| format!("cannot write {}", place.display()))?;
        Ok(File::open(&place)?.sync_all()?)
    }
}
