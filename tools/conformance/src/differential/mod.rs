//! The same requests to Apache Kafka and to Corelog, and the answers compared field by field.
//!
//! A case ([`cases`]) is a script against one broker. It runs against both at the same time, each with a transcript of its own
//! ([`session`]); what two brokers cannot give alike is marked ([`normalise`]); what then differs ([`compare`]) must stand in the table
//! of known differences ([`table`], `differences.md`), and what stands there must occur.

mod cases;
mod compare;
mod fetch_answer;
mod normalise;
mod session;
mod table;

use crate::broker::{Broker, Program, free_address};
use crate::connection::Connection;
use anyhow::{Context, Result, anyhow, bail};
use compare::Difference;
use corelog_wire::messages::api_versions_request::ApiVersionsRequest;
use session::{Entry, Session, Versions};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

const TABLE: &str = include_str!("../../differences.md");

/// Broker settings of both.
const SETTINGS: [(&str, &str); 5] = [
    ("auto.create.topics.enable", "true"),
    ("num.partitions", "1"),
    // A first member would otherwise wait three seconds for company.
    ("group.initial.rebalance.delay.ms", "0"),
    ("offsets.topic.num.partitions", "5"),
    // Cases write records of long ago.
    ("log.retention.ms", "-1"),
];

pub type Run = fn(&mut Session) -> Result<()>;

/// A script with a name that is its own.
pub struct Case {
    pub name: &'static str,
    pub run: Run,
}

pub struct Options<'a> {
    /// Only cases whose names contain this.
    pub filter: &'a str,
    /// Print every answer.
    pub verbose: bool,
}

/// How many cases came out as they should. A row of the table that no longer occurs counts as a failed one.
#[derive(Clone, Copy, Debug, Default)]
pub struct Totals {
    pub passed: usize,
    pub failed: usize,
}

/// Runs `subject` beside Kafka. A case passes where the answers are the same but for what is known.
pub fn run(kafka: &Program, subject: &Program, directory: &Path, options: &Options) -> Result<Totals> {
    let started = Instant::now();
    let same_program = matches!(subject, Program::Kafka(_));
    let [kafka, subject] = start_both([(kafka, "kafka"), (subject, "subject")], directory)?;
    println!("ready: kafka {:.2?}, subject {:.3?}", kafka.ready, subject.ready);
    let versions = offered(kafka.address)?;

    let known = if same_program { Vec::new() } else { table::read(TABLE).context("differences.md")? };
    let mut seen = vec![false; known.len()];
    let mut unlisted: BTreeMap<Difference, BTreeSet<i16>> = BTreeMap::new();
    let mut failed = Vec::new();
    let (mut totals, mut answers, mut listed) = (Totals::default(), 0, 0);
    for case in cases::all().filter(|case| case.name.contains(options.filter)) {
        let found_before = unlisted.len() + failed.len();
        let at = Instant::now();
        let brokers = [(kafka.address, true), (subject.address, same_program)];
        let (on_kafka, on_subject) = on_both(case, brokers, &versions);
        let took = at.elapsed();
        if options.verbose || took > Duration::from_secs(5) {
            println!("{} took {took:.2?}", case.name);
        }
        for (entry, broker) in [(&on_kafka, "kafka"), (&on_subject, "subject")] {
            if let Err(e) = &entry.1 {
                failed.push(format!("{}: on {broker}: {e:#}", case.name));
            }
        }
        answers += on_kafka.0.len();
        if options.verbose {
            for entry in &on_kafka.0 {
                println!("  {} v{}: {}", entry.step, entry.version, entry.value);
            }
        }
        for (difference, versions) in compare::compare(case.name, &on_kafka.0, &on_subject.0) {
            let mut covered = false;
            for (known, seen) in known.iter().zip(&mut seen) {
                if known.covers(&difference) {
                    *seen = true;
                    covered = true;
                }
            }
            if covered {
                listed += 1;
            } else {
                unlisted.insert(difference, versions);
            }
        }
        match unlisted.len() + failed.len() == found_before {
            true => totals.passed += 1,
            false => totals.failed += 1,
        }
    }
    kafka.kill()?;
    // A JVM that is told to stop does not exit with 0.
    let stopped = if same_program { subject.kill() } else { subject.stop() };
    if let Err(e) = stopped {
        failed.push(format!("stopping the subject: {e:#}"));
        totals.failed += 1;
    }

    let complete = options.filter.is_empty();
    let gone: Vec<usize> = known
        .iter()
        .zip(&seen)
        .filter(|(_, seen)| complete && !**seen)
        .map(|(known, _)| known.line)
        .collect();
    for failure in &failed {
        println!("failed: {failure}");
    }
    for (difference, versions) in &unlisted {
        let versions: Vec<String> = versions.iter().map(i16::to_string).collect();
        println!("{}", table::row(difference, &format!("(versions {})", versions.join(" "))));
    }
    for line in &gone {
        println!("differences.md:{line}: listed, and no longer so");
    }
    println!(
        "{} cases, {answers} answers: {listed} known differences, {} unlisted, {} listed in vain, {} failures, in {:.0?}",
        totals.passed + totals.failed,
        unlisted.len(),
        gone.len(),
        failed.len(),
        started.elapsed()
    );
    if totals.passed + totals.failed == 0 {
        bail!("no case has {:?} in its name", options.filter);
    }
    totals.failed += gone.len();
    Ok(totals)
}

fn start_both(programs: [(&Program, &str); 2], directory: &Path) -> Result<[Broker; 2]> {
    let mut brokers = Vec::new();
    for (program, name) in programs {
        brokers.push(Broker::spawn(program, &directory.join(name), free_address()?, &SETTINGS)?);
    }
    for broker in &mut brokers {
        broker.await_ready()?;
    }
    brokers.try_into().map_err(|_| anyhow!("two brokers"))
}

fn offered(address: SocketAddr) -> Result<Versions> {
    let answer = Connection::connect(address)?.call(0, &ApiVersionsRequest::default())?;
    Ok(answer.api_keys.iter().map(|api| (api.api_key, api.min_version..=api.max_version)).collect())
}

type Outcome = (Vec<Entry>, Result<()>);

/// Each broker comes with whether it is Apache Kafka.
fn on_both(case: &Case, brokers: [(SocketAddr, bool); 2], versions: &Versions) -> (Outcome, Outcome) {
    let on = |(address, kafka)| {
        let mut session = Session::new(case.name, address, kafka, versions);
        let outcome = (case.run)(&mut session);
        (session.transcript, outcome)
    };
    let [kafka, subject] = brokers;
    std::thread::scope(|scope| {
        let on_kafka = scope.spawn(|| on(kafka));
        let on_subject = on(subject);
        (on_kafka.join().unwrap_or_else(|_| (Vec::new(), Err(anyhow!("the case panicked")))), on_subject)
    })
}
