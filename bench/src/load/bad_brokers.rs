//! What figures show if things are bad: brokers that stall, are slow or late, lose, reorder or lie, by known amounts. A machine that is
//! busy makes everything slower: bounds are on the side where that does no harm.

use super::plan::{Pace, Plan};
use super::reading::{self, Expected};
use super::run::run;
use super::schedule::Arrivals;
use super::stage::Stage;
use crate::endpoint::Endpoint;
use crate::endpoint::faults::{Faults, Wrong};
use crate::host::cost::Watched;
use crate::load::payload::Sizes;
use crate::progress::Progress;
use crate::report::RunReport;
use crate::stats::summary::{Latency, Summary};
use corelog_wire::ApiKey;
use std::time::{Duration, Instant};

const MS: Duration = Duration::from_millis(1);

fn endpoint(faults: Faults) -> Endpoint {
    Endpoint::start_with(1 << 30, faults).unwrap()
}

fn plan(endpoint: &Endpoint, records_per_second: f64) -> Plan {
    Plan {
        partitions: 4,
        pace: Pace::Rate { records_per_second, arrivals: Arrivals::Even },
        sizes: Sizes::Fixed(200),
        linger: MS,
        buffer_bytes: 1 << 20,
        warm_up: 100 * MS,
        warm_up_max: Duration::ZERO,
        measured: 1000 * MS,
        ..Plan::new(&endpoint.address.to_string())
    }
}

fn measured(plan: &Plan) -> RunReport {
    run("bad", plan, &Watched::default(), &Progress::new("bad")).unwrap()
}

fn good(plan: &Plan) -> RunReport {
    let report = measured(plan);
    assert_eq!(report.problems, Vec::<String>::new());
    report
}

fn latency(side: &Option<Summary>) -> &Latency {
    side.as_ref().unwrap().latency.as_ref().unwrap()
}

#[test]
fn late_answers_are_latency() {
    let late = |api| endpoint(Faults { late: Some((api, 100 * MS)), ..Default::default() });
    let produced = good(&plan(&late(ApiKey::Produce), 2000.0)).produced;
    assert!(latency(&produced).p50_us >= 100e3, "{produced:?}");
    let report = good(&Plan { groups: 1, ..plan(&late(ApiKey::Fetch), 2000.0) });
    assert!(latency(&report.consumed).p50_us >= 100e3, "{report:?}");
    assert!(latency(&report.produced).p50_us < latency(&report.consumed).p50_us, "{report:?}");
}

/// Whatever is due during a stall is charged with what is left of it.
#[test]
fn a_stall_delays_all_that_is_due_in_it() {
    let endpoint = endpoint(Faults { stalls: Some((1000 * MS, 400 * MS)), ..Default::default() });
    let report = good(&Plan { measured: 2000 * MS, ..plan(&endpoint, 2000.0) });
    let latency = latency(&report.produced);
    assert_eq!(latency.count, 4000);
    // Two of them take four tenths of the time; of what is due then a quarter waits for 300 ms and more.
    assert!(latency.p90_us >= 290e3 && latency.max_us >= 390e3, "{latency:?}");
}

#[test]
fn a_slow_broker_takes_what_it_takes() {
    let endpoint = endpoint(Faults { bytes_per_second: Some(2_000_000), ..Default::default() });
    let report = good(&Plan { pace: Pace::Saturate, measured: 2000 * MS, ..plan(&endpoint, 0.0) });
    let rate = report.produced.as_ref().unwrap().bytes_per_second;
    assert!((1.0e6..2.1e6).contains(&rate), "{rate}");
    // A full buffer of 1 MiB waits for half a second.
    assert!(latency(&report.produced).p50_us >= 350e3, "{report:?}");
}

#[test]
fn every_wrong_is_counted() {
    let records = |wrong, keys| {
        let endpoint = endpoint(Faults { wrongs: Some((wrong, 7)), ..Default::default() });
        let report = measured(&Plan { keys, patience: 2000 * MS, ..plan(&endpoint, 2000.0) });
        assert!(endpoint.wronged() > 0 && !report.problems.is_empty(), "{wrong:?}: {report:?}");
        (endpoint.wronged(), report.verdict)
    };
    let (wronged, lost) = records(Wrong::Lose, 0);
    assert_eq!((lost.lost, lost.surplus), (wronged, 0), "{lost:?}");
    let (wronged, twice) = records(Wrong::Repeat, 0);
    assert_eq!((twice.lost, twice.surplus, twice.faults.disordered), (0, wronged, wronged), "{twice:?}");
    // The last ones have none that comes next, and stay away.
    let (wronged, late) = records(Wrong::Delay, 0);
    assert_eq!(late.lost + late.faults.disordered, wronged, "{late:?}");
    assert!(late.faults.disordered > 0 && late.faults.offset_gaps == 0, "{late:?}");
    let (wronged, corrupt) = records(Wrong::Corrupt, 0);
    assert_eq!((corrupt.faults.corrupt, corrupt.lost), (wronged, wronged), "{corrupt:?}");
    let (wronged, elsewhere) = records(Wrong::Misplace, 50);
    assert_eq!((elsewhere.lost, elsewhere.surplus), (wronged, wronged), "{elsewhere:?}");
    assert!(elsewhere.faults.scattered > 0, "{elsewhere:?}");
    let (_, relocated) = records(Wrong::Misreport, 0);
    assert!(relocated.relocated > 0 && relocated.lost + relocated.surplus == 0, "{relocated:?}");
}

/// Its records wait for it, whatever other producers do meanwhile.
#[test]
fn a_commit_delays_its_producers_records() {
    let endpoint = endpoint(Faults { late: Some((ApiKey::EndTxn, 150 * MS)), ..Default::default() });
    let report = good(&Plan {
        producers: 2,
        transaction_every: Some(100 * MS),
        measured: 2000 * MS,
        ..plan(&endpoint, 2000.0)
    });
    assert!(latency(&report.committed).p50_us >= 150e3, "{report:?}");
    let produced = latency(&report.produced);
    assert_eq!(produced.count, 4000);
    // Three fifths of the time a producer commits; of what is due then a sixth waits for 125 ms and more.
    assert!(produced.p90_us >= 110e3 && produced.max_us >= 140e3, "{produced:?}");
    assert!(report.client.lag_p99_us >= 130e3, "{report:?}");
}

#[test]
fn late_by_tells_how_long_there_was_no_room() {
    let endpoint = endpoint(Faults { stalls: Some((1000 * MS, 600 * MS)), ..Default::default() });
    let sizes = Sizes::Fixed(1000);
    let report = good(&Plan { sizes, measured: 2000 * MS, ..plan(&endpoint, 5000.0) });
    // A buffer of 1 MiB is full after a fifth of a second.
    assert!(report.client.lag_p99_us >= 300e3, "{report:?}");
}

#[test]
fn what_is_not_sent_is_counted_to_the_record() {
    let endpoint = endpoint(Faults { bytes_per_second: Some(500_000), ..Default::default() });
    let (sizes, grace) = (Sizes::Fixed(1000), 200 * MS);
    let report = good(&Plan { sizes, grace, ..plan(&endpoint, 2000.0) });
    let sent = latency(&report.produced).count;
    assert!(report.client.unsent > 0, "{report:?}");
    assert_eq!(sent + report.client.unsent, 2000);
}

#[test]
fn a_run_begins_when_partitions_serve() {
    let endpoint = endpoint(Faults { unready: 700 * MS, ..Default::default() });
    let report = good(&Plan { groups: 1, ..plan(&endpoint, 2000.0) });
    assert!(report.ready_s >= 0.7, "{report:?}");
    assert_eq!(latency(&report.produced).count, 2000);
    // Records that only asked are nobody's.
    assert_eq!(report.verdict.acknowledged, report.verdict.read);
    let due = (report.steady.warm_up_s + report.window_s) * 2000.0;
    assert!((report.verdict.acknowledged as f64 - due).abs() < 2.0, "{report:?}");
}

/// All there is comes with the first poll: the time before it is what it took.
#[test]
fn reading_takes_from_its_beginning() {
    let endpoint = endpoint(Faults { late: Some((ApiKey::Fetch, 200 * MS)), ..Default::default() });
    let stage = Stage::create("bad", &plan(&endpoint, 0.0)).unwrap();
    let sent = stage.fill(100_000, &Progress::new("bad")).unwrap();
    let expected = Expected::Sent(sent);
    let report = reading::read("bad", &stage, &expected, &Watched::default(), &Progress::new("bad")).unwrap();
    assert_eq!(report.problems, Vec::<String>::new());
    let consumed = report.consumed.unwrap();
    assert!(report.window_s >= 0.2 && consumed.bytes_per_second <= 100_200.0 / 0.2, "{consumed:?}");
}

#[test]
fn what_becomes_faster_in_the_window_is_not_steady() {
    let late = Some((ApiKey::Produce, 100 * MS));
    let endpoint = endpoint(Faults { late, late_for: Some(1500 * MS), ..Default::default() });
    let report = good(&Plan { measured: 3000 * MS, ..plan(&endpoint, 2000.0) });
    assert!(!report.steady.reached && report.steady.spread > 0.3, "{report:?}");
    assert!(report.remarks().iter().any(|remark| remark.starts_with("not steady")), "{report:?}");
}

#[test]
fn what_does_not_stand_is_waited_for_and_marked() {
    let endpoint = endpoint(Faults { stalls: Some((400 * MS, 200 * MS)), ..Default::default() });
    let report = good(&Plan { warm_up_max: 1500 * MS, ..plan(&endpoint, 2000.0) });
    let steady = &report.steady;
    assert!(!steady.reached && steady.warm_up_s >= 1.5, "{steady:?}");
    assert!(steady.why.as_ref().unwrap().contains("when the window began"), "{steady:?}");
}

#[test]
fn dips_that_come_again_are_counted() {
    let endpoint = endpoint(Faults { stalls: Some((2000 * MS, 1200 * MS)), ..Default::default() });
    let steady = good(&Plan { measured: 6000 * MS, ..plan(&endpoint, 2000.0) }).steady;
    // Three of them, one of which may be cut in two by the window's ends.
    assert!((3..=4).contains(&steady.dips.count) && steady.dips.seconds >= 1.5, "{steady:?}");
    assert!(steady.dips.every_s.is_some_and(|every| (1.3..=2.5).contains(&every)), "{steady:?}");
}

/// A thread that cannot go on ends the run, which says why.
#[test]
fn what_fails_does_not_go_on() {
    let endpoint = endpoint(Faults { wrongs: Some((Wrong::Damage, 7)), ..Default::default() });
    let (started, measured) = (Instant::now(), Duration::from_secs(600));
    let plan = Plan { groups: 1, measured, ..plan(&endpoint, 2000.0) };
    let error = run("bad", &plan, &Watched::default(), &Progress::new("bad")).unwrap_err();
    assert!(format!("{error:#}").contains("checksum"), "{error:#}");
    assert!(started.elapsed() < Duration::from_secs(60));
}

/// Many more than were acknowledged, behind them.
#[test]
fn reading_goes_on_to_the_end() {
    let endpoint = endpoint(Faults::default());
    let progress = Progress::new("bad");
    let stage = Stage::create("bad", &plan(&endpoint, 0.0)).unwrap();
    let [sent, more] = [300_000, 3_000_000].map(|bytes| stage.fill(bytes, &progress).unwrap());
    let (verdict, _) = stage.read(&sent, 1).unwrap();
    assert_eq!((verdict.lost, verdict.surplus), (0, more.total()), "{verdict:?}");
    // Of a topic of others as much is read as it had: they may go on writing.
    let expected = Expected::Counts(sent.by_partition());
    let report = reading::read("bad", &stage, &expected, &Watched::default(), &progress).unwrap();
    assert!(report.verdict.read >= sent.total() && report.verdict.read < more.total(), "{report:?}");
}
