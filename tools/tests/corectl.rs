//! The whole of corectl against a running broker: `BOOTSTRAP=host:port cargo test -p corelog-tools`.

#[path = "../../client/tests/common/fake_broker.rs"]
mod fake_broker;

use corelog_client::ErrorCode;
use fake_broker::cluster::FakeCluster;
use fake_broker::{FakeBroker, Fault};
use std::io::Write;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// None, said loudly, where no broker is given.
fn bootstrap() -> Option<String> {
    let bootstrap = std::env::var("BOOTSTRAP").ok();
    if bootstrap.is_none() {
        let name = std::thread::current().name().unwrap_or("?").to_owned();
        eprintln!("SKIPPED {name}: set BOOTSTRAP=host:port to run it against a broker");
    }
    bootstrap
}

fn unique(what: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros();
    format!("{what}-{now}-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

struct Corectl(String);

impl Corectl {
    fn command(&self, line: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_corectl"));
        command.args(line).env("CORECTL_BOOTSTRAP", &self.0).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn run(&self, line: &[&str], input: &[u8]) -> Output {
        let mut child = self.command(line).stdin(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let input = input.to_vec();
        let writer = std::thread::spawn(move || {
            // A command that does not read its input closes it.
            let _ = stdin.write_all(&input);
        });
        let output = child.wait_with_output().unwrap();
        writer.join().unwrap();
        output
    }

    /// What it prints; it must succeed.
    fn ok(&self, line: &[&str]) -> String {
        self.fed(line, b"")
    }

    fn fed(&self, line: &[&str], input: &[u8]) -> String {
        let output = self.run(line, input);
        assert!(output.status.success(), "corectl {line:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// What it says on standard error; it must fail.
    fn fails(&self, line: &[&str]) -> String {
        let output = self.run(line, b"");
        assert!(!output.status.success(), "corectl {line:?} succeeded");
        String::from_utf8(output.stderr).unwrap()
    }

    fn json(&self, line: &[&str]) -> serde_json::Value {
        let text = self.ok(&[line, &["--json"]].concat());
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("corectl {line:?}: {error}: {text}"))
    }
}

fn with_corectl(test: impl FnOnce(Corectl)) {
    if let Some(bootstrap) = bootstrap() {
        test(Corectl(bootstrap));
    }
}

#[test]
fn topics() {
    with_corectl(|corectl| {
        let name = unique("ctl-topics");
        let created = corectl.ok(&["topic", "create", &name, "-p", "3", "-c", "retention.ms=1h"]);
        assert!(created.contains(&format!("{name} created")), "{created}");
        assert!(corectl.fails(&["topic", "create", &name]).contains("TOPIC_ALREADY_EXISTS"));
        assert!(corectl.ok(&["topic", "create", &name, "--if-not-exists"]).contains("exists"));
        let listed = corectl.json(&["topic", "list"]);
        let listed = listed.as_array().unwrap().iter().find(|topic| topic["name"] == name.as_str()).unwrap();
        assert_eq!((&listed["partitions"], &listed["records"]), (&3.into(), &0.into()));
        assert!(listed["bytes"].is_number() || listed["bytes"].is_null());
        assert_eq!(corectl.json(&["topic", "list", &format!("{name}*")]).as_array().unwrap().len(), 1);
        assert_eq!(corectl.json(&["topic", "list", &format!("{name}?")]).as_array().unwrap().len(), 0);
        assert!(corectl.ok(&["topic", "list"]).contains(&name));
        let described = corectl.ok(&["topic", "describe", &name]);
        assert!(described.contains("retention.ms=3600000") && described.contains("PARTITION"), "{described}");

        assert!(
            corectl
                .fails(&["topic", "alter", &name, "-s", "retention.ms=7q"])
                .contains("unknown duration unit")
        );
        corectl.ok(&[
            "topic",
            "alter",
            &name,
            "-s",
            "max.message.bytes=2000kB",
            "-r",
            "retention.ms",
            "-p",
            "4",
        ]);
        let described = corectl.json(&["topic", "describe", &name]);
        assert_eq!(described[0]["partitions"].as_array().unwrap().len(), 4);
        assert_eq!(described[0]["configs"]["max.message.bytes"]["value"], "2000000");
        assert_eq!(described[0]["configs"].get("retention.ms"), None);
        assert!(corectl.fails(&["topic", "alter", &name]).contains("nothing to change"));
        assert!(
            corectl.fails(&["topic", "alter", &name, "-s", "no.such.config=1"]).contains("INVALID_CONFIG")
        );

        // Where the broker does not compact, it says so when the topic is made and whenever it is shown.
        let compacted = unique("ctl-compacted");
        let made = corectl.run(&["topic", "create", &compacted, "-c", "cleanup.policy=compact"], b"");
        let shown = corectl.ok(&["topic", "describe", &compacted]);
        let told = String::from_utf8(made.stderr).unwrap().contains("compaction isn't built yet");
        assert!(made.status.success());
        assert_eq!(shown.contains("without effect here: compaction isn't built yet"), told, "{shown}");

        assert!(corectl.fails(&["topic", "delete", &name]).contains("--yes"));
        assert_eq!(corectl.ok(&["topic", "delete", &name, "-y"]), format!("{name} deleted\n"));
        assert!(corectl.fails(&["topic", "describe", &name]).contains("check the name"));
        assert!(corectl.ok(&["topic", "delete", &name, "-y", "--if-exists"]).contains("does not exist"));
    });
}

#[test]
fn produce_and_consume() {
    with_corectl(|corectl| {
        let topic = unique("ctl-records");
        // Some records are dated long ago: they are to stay.
        corectl.ok(&["topic", "create", &topic, "-p", "2", "-c", "retention.ms=-1"]);
        let lines = b"a:1\nb:2\na:3\nc:NULL\n";
        let line =
            ["produce", &topic, "-K", ":", "--null", "NULL", "-H", "from=test", "-z", "zstd:3", "--offsets"];
        let offsets = corectl.fed(&line, lines);
        assert_eq!(offsets.lines().count(), 4);
        let mut records: Vec<String> = corectl
            .ok(&["consume", &topic, "--format", "%k=%v %h\\n", "--null", "(null)"])
            .lines()
            .map(str::to_owned)
            .collect();
        records.sort();
        assert_eq!(records, ["a=1 from=test", "a=3 from=test", "b=2 from=test", "c=(null) from=test"]);

        // One partition, values from the command line, a time of one's own.
        for (value, time) in
            [("first", "2020-01-01"), ("second", "2021-01-01T00:00:00"), ("third", "2022-01-01")]
        {
            corectl.ok(&["produce", &topic, "-p", "1", "-v", value, "--timestamp", time, "-a", "1"]);
        }
        let consume = |more: &[&str]| corectl.ok(&[&["consume", &topic, "-p", "1"], more].concat());
        assert_eq!(consume(&["--from", "-2"]), "second\nthird\n");
        assert_eq!(consume(&["--from", "-3", "-n", "1"]), "first\n");
        let described = corectl.json(&["topic", "describe", &topic]);
        let end = described[0]["partitions"][1]["latest_offset"].as_i64().unwrap();
        let second = (end - 2).to_string();
        assert_eq!(
            consume(&["-o", &second, "-n", "1", "--offsets"]),
            format!("{topic}-1@{second}\tsecond\n")
        );
        assert_eq!(consume(&["--from", &second, "--until", &(end - 1).to_string()]), "second\n");
        let keyless: Vec<String> =
            consume(&["--from-beginning", "--timestamps"]).lines().map(str::to_owned).collect();
        assert!(keyless.contains(&"2021-01-01T00:00:00.000Z\tsecond".to_owned()), "{keyless:?}");
        assert_eq!(consume(&["--from", "end"]), "");
        assert_eq!(consume(&["--quiet", "--from", "-3"]), "3 records, 16 bytes\n");
        let records = consume(&["-f", "json", "-o", &second, "-n", "1"]);
        let record: serde_json::Value = serde_json::from_str(&records).unwrap();
        assert_eq!((&record["value"], &record["key"]), (&"second".into(), &serde_json::Value::Null));
        for field in ["partition", "offset", "timestamp", "headers"] {
            assert!(record.get(field).is_some(), "{field}: {record}");
        }

        assert!(corectl.fails(&["consume", &topic, "-p", "2"]).contains("no partition 2"));
        assert!(corectl.fails(&["consume", &unique("absent")]).contains("check the name"));
        let output = corectl.run(&["produce", &topic, "-K", "|"], b"a|1\nb|2\nno separator\nc|3\n");
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success(), "{stderr}");
        for part in ["line 3 of standard input", "after 2 records, which were written to"] {
            assert!(stderr.contains(part), "{part}: {stderr}");
        }
        let output = corectl.run(&["produce", &topic], b"1\n2\n");
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(stderr.contains("2 records (2 bytes) written to"), "{stderr}");
    });
}

#[test]
fn a_topic_that_is_not_there_is_made_when_asked_for() {
    with_corectl(|corectl| {
        let topic = unique("ctl-absent");
        let error = corectl.fails(&["produce", &topic, "-v", "x"]);
        assert!(error.contains("there is no topic") && error.contains("--create"), "{error}");
        assert!(!corectl.ok(&["topic", "list"]).contains(&topic));
        for _ in 0..2 {
            corectl.ok(&["produce", &topic, "--create", "-v", "x"]);
        }
        assert_eq!(corectl.ok(&["consume", &topic]), "x\nx\n");
    });
}

#[test]
fn records_by_time() {
    with_corectl(|corectl| {
        let topic = unique("ctl-times");
        corectl.ok(&["topic", "create", &topic, "-p", "1", "-c", "retention.ms=-1"]);
        for (value, time) in [("a", "2020-01-01"), ("b", "2021-01-01"), ("c", "2022-01-01")] {
            corectl.ok(&["produce", &topic, "-v", value, "--timestamp", time]);
        }
        assert_eq!(corectl.ok(&["consume", &topic, "--from", "2020-06-01"]), "b\nc\n");
        assert_eq!(corectl.ok(&["consume", &topic, "--from", "2020-06-01", "--until", "2021-06-01"]), "b\n");
        assert_eq!(corectl.ok(&["consume", &topic, "--from", "1h ago"]), "");
        let trimmed = corectl.ok(&["topic", "trim", &topic, "--before", "2020-06-01", "--yes"]);
        assert_eq!(trimmed, format!("{topic}-0 begins at offset 1\n"));
        assert_eq!(corectl.ok(&["consume", &topic]), "b\nc\n");
    });
}

#[test]
fn json_copies_topics_and_files_copy_bytes() {
    with_corectl(|corectl| {
        let (from, to) = (unique("ctl-from"), unique("ctl-to"));
        for name in [&from, &to] {
            corectl.ok(&["topic", "create", name, "-p", "2"]);
        }
        let bytes: Vec<u8> = (0..=255).collect();
        let path = std::env::temp_dir().join(&from);
        std::fs::write(&path, &bytes).unwrap();
        let file = path.to_str().unwrap();
        corectl.ok(&["produce", &from, "-p", "1", "--whole", "--file", file, "-k", "binary", "-H", "h=ü"]);
        std::fs::remove_file(&path).unwrap();
        corectl.fed(&["produce", &from, "-p", "0"], b"text\n\n");
        let records = corectl.ok(&["consume", &from, "--json"]);
        assert_eq!(records.lines().count(), 3);
        let summary = corectl
            .fed(&["produce", &to, "--input", "json", "--keep-partitions", "--json"], records.as_bytes());
        assert!(summary.contains("\"records\": 3"), "{summary}");
        let sorted = |text: String| {
            let mut lines: Vec<String> =
                text.replace(&from, "T").replace(&to, "T").lines().map(str::to_owned).collect();
            lines.sort();
            lines
        };
        assert_eq!(sorted(corectl.ok(&["consume", &to, "--json"])), sorted(records));
        let output = corectl.run(&["consume", &to, "-p", "1", "--format", "%v"], b"");
        assert_eq!(output.stdout, bytes);
    });
}

#[test]
fn follow_sees_what_comes_and_ends_in_good_order() {
    with_corectl(|corectl| {
        let (topic, group) = (unique("ctl-follow"), unique("ctl-follow-group"));
        corectl.ok(&["topic", "create", &topic, "-p", "1"]);
        corectl.ok(&["produce", &topic, "-v", "before"]);
        for more in [&["--follow"][..], &["--follow", "--group", &group, "--from", "beginning"]] {
            let mut line = vec!["consume", &topic, "-n", "2"];
            line.extend(more);
            let mut child = corectl.command(&line).spawn().unwrap();
            let deadline = Instant::now() + Duration::from_secs(20);
            while child.try_wait().unwrap().is_none() {
                assert!(Instant::now() < deadline, "{line:?} does not end");
                corectl.ok(&["produce", &topic, "-v", "after"]);
            }
            let output = child.wait_with_output().unwrap();
            assert!(output.status.success());
            let expected = if more.len() == 1 { "after\nafter\n" } else { "before\nafter\n" };
            assert_eq!(String::from_utf8(output.stdout).unwrap(), expected);
        }
        // What it printed is committed, and no more.
        let described = corectl.json(&["group", "describe", &group]);
        assert_eq!(described[0]["offsets"][0]["committed"], 2);
        assert_eq!(described[0]["members"].as_array().unwrap().len(), 0);
    });
}

#[test]
fn what_a_count_leaves_is_for_the_groups_next_run() {
    with_corectl(|corectl| {
        let (topic, group) = (unique("ctl-count"), unique("ctl-count-group"));
        corectl.ok(&["topic", "create", &topic, "-p", "3"]);
        corectl.fed(&["produce", &topic, "--round-robin"], b"1\n2\n3\n4\n5\n6\n7\n8\n9\n");
        let mut seen = Vec::new();
        for _ in 0..4 {
            let printed = corectl.ok(&["consume", &topic, "--group", &group, "-n", "2", "--format", "%v\\n"]);
            seen.extend(printed.lines().map(str::to_owned));
        }
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), 8, "each once: {seen:?}");
    });
}

#[test]
fn groups() {
    with_corectl(|corectl| {
        let (topic, group) = (unique("ctl-groups"), unique("ctl-group"));
        corectl.ok(&["topic", "create", &topic, "-p", "2"]);
        corectl.fed(&["produce", &topic, "-p", "0"], b"1\n2\n3\n4\n5\n");
        corectl.ok(&["consume", &topic, "--group", &group, "-n", "5"]);
        assert!(corectl.ok(&["group", "list"]).contains(&group));
        corectl.fed(&["produce", &topic, "-p", "0"], b"6\n7\n");
        let described = corectl.ok(&["group", "describe", &group]);
        assert!(described.contains("Empty, 0 members") && described.contains("LAG"), "{described}");
        let lag = |corectl: &Corectl| {
            let described = corectl.json(&["group", "describe", &group]);
            let offsets = described[0]["offsets"].as_array().unwrap().clone();
            let first = offsets.into_iter().find(|offset| offset["partition"] == 0).unwrap();
            (first["committed"].as_i64().unwrap(), first["lag"].as_i64().unwrap())
        };
        assert_eq!(lag(&corectl), (5, 2));
        assert!(described.contains("lag         2 in "), "{described}");
        let listed = corectl.json(&["group", "list", &format!("{}*", &group[..group.len() - 1])]);
        let listed = listed.as_array().unwrap().iter().find(|it| it["name"] == group.as_str()).unwrap();
        assert_eq!((&listed["lag"], &listed["members"]), (&2.into(), &0.into()));
        let all = corectl.json(&["group", "describe", "--all"]);
        assert!(all.as_array().unwrap().iter().any(|it| it["name"] == group.as_str() && it["lag"] == 2));
        assert_eq!(corectl.json(&["group", "list", "--state", "Dead"]).as_array().unwrap().len(), 0);
        let reset = |line: &[&str]| corectl.ok(&[&["group", "reset", &group], line].concat());
        for plan in [&["--all-topics", "--to-earliest"][..], &["--all-topics", "--to-earliest", "--dry-run"]]
        {
            assert!(reset(plan).contains("--execute"), "{plan:?}");
            assert_eq!(lag(&corectl), (5, 2));
        }
        for (line, committed) in [
            (&["--all-topics", "--to-earliest"][..], 0),
            (&["--all-topics", "--to-latest"], 7),
            (&["-t", &topic, "--shift", "-3"], 4),
            (&["-t", &format!("{topic}:0"), "--to-offset", "2"], 2),
            (&["-t", &topic, "--to-offset", "1000"], 7),
            (&["-t", &topic, "--to-datetime", "1h ago"], 0),
        ] {
            reset(&[line, &["--execute"]].concat());
            assert_eq!(lag(&corectl).0, committed, "{line:?}");
        }
        assert!(corectl.fails(&["group", "reset", &group, "--to-earliest"]).contains("--topic"));
        let forget = ["group", "delete-offsets", &group, "-t", &format!("{topic}:0")];
        assert!(corectl.fails(&forget).contains("--yes"));
        assert_eq!(lag(&corectl).0, 0);
        let forgotten = corectl.ok(&[&forget[..], &["-y"]].concat());
        assert_eq!(forgotten, format!("{group}: offset of {topic}-0 deleted\n"));
        assert!(corectl.ok(&["group", "delete", &group, "--yes"]).contains("deleted"));
        assert!(corectl.fails(&["group", "describe", &group]).contains("GROUP_ID_NOT_FOUND"));
    });
}

#[test]
fn cluster() {
    with_corectl(|corectl| {
        let brokers = corectl.json(&["cluster", "brokers"]);
        let id = brokers["brokers"][0]["id"].to_string();
        assert!(corectl.ok(&["cluster", "config", &id, "--all"]).contains("num.partitions"));
        assert!(corectl.fails(&["cluster", "config", "--all"]).contains("<ID>"));
        assert!(corectl.json(&["cluster", "config", &id, "--docs"]).as_array().is_some());
        assert!(corectl.ok(&["cluster", "api-versions"]).contains("ListOffsets"));
        let dirs = corectl.json(&["cluster", "log-dirs", "--partitions"]);
        assert!(!dirs["directories"].as_array().unwrap().is_empty());
        assert!(corectl.ok(&["cluster", "log-dirs"]).contains("DIRECTORY"));
    });
}

#[test]
fn a_clusters_health_is_an_exit_status() {
    let cluster = FakeCluster::start(&[&[1, 2, 3], &[2, 3], &[3]]);
    let corectl = Corectl(cluster.address.clone());
    assert!(corectl.ok(&["cluster", "health"]).contains("All is well."));
    assert!(corectl.ok(&["cluster", "restart-check", "1"]).contains("can be stopped"));
    let stops = corectl.run(&["cluster", "restart-check", "3", "--json"], b"");
    let stops: serde_json::Value = serde_json::from_slice(&stops.stdout).unwrap();
    let stopped: Vec<_> = stops["partitions"].as_array().unwrap().iter().map(|it| &it["partition"]).collect();
    assert_eq!(stopped, [1, 2]);
    assert_eq!(stops["is_safe"], false);

    {
        let mut state = cluster.state.lock().unwrap();
        state.fenced.insert(3);
        state.partitions[0].isr = vec![1, 2];
        state.partitions[1].isr = vec![2];
        state.partitions[2].leader = -1;
    }
    let output = corectl.run(&["cluster", "health"], b"");
    let told = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{told}");
    for part in [
        "2 of 3 there",
        "broker 3 (",
        "decommission 3",
        "no leader",
        "no majority of their",
        "has replicas that are behind",
    ] {
        assert!(told.contains(part), "{part}: {told}");
    }
    let brokers = corectl.json(&["cluster", "brokers"]);
    let broker = |at: usize, key: &str| brokers["brokers"][at][key].clone();
    assert_eq!(
        (broker(2, "state"), broker(2, "behind"), broker(2, "replicas")),
        ("fenced".into(), 3.into(), 3.into())
    );
    assert_eq!((broker(0, "controller"), broker(0, "leads")), ("leader".into(), 1.into()));
    assert!(corectl.fails(&["cluster", "restart-check", "2"]).is_empty());
    let late = ["cluster", "restart-check", "3", "--wait", "--within", "1s"];
    assert!(corectl.fails(&late).contains("broker 3 is not there yet"));
}

#[test]
fn replicas_move_by_flags_and_by_kafkas_file() {
    let cluster = FakeCluster::start(&[&[1], &[2, 3]]);
    let corectl = Corectl(cluster.address.clone());
    assert_eq!(corectl.ok(&["cluster", "reassign"]), "Nothing moves.\n");
    let line = ["cluster", "reassign", "-t", "t", "-p", "0", "--replicas", "1,2,3"];
    assert_eq!(corectl.ok(&line), "t-0 is on 1,2,3\n");
    let plan = br#"{"version":1,"partitions":[{"topic":"t","partition":1,"replicas":[3,1]}]}"#;
    let moved = corectl.fed(&["cluster", "reassign", "--file", "-", "--no-wait"], plan);
    assert_eq!(moved, "t-1 moves to 3,1\n");
    assert!(corectl.ok(&["cluster", "reassign"]).contains("REMOVING"));
    assert_eq!(corectl.ok(&["cluster", "reassign", "--cancel"]), "t-1 stays where it was\n");
    assert_eq!(cluster.state.lock().unwrap().partitions[1].replicas, [2, 3]);
    assert!(corectl.fails(&["cluster", "reassign", "-t", "t", "-p", "0"]).contains("--replicas"));
    assert!(corectl.fails(&["cluster", "reassign", "-t", "t", "--replicas", "1"]).contains("--partition"));

    cluster.state.lock().unwrap().partitions[1].leader = 3;
    assert_eq!(corectl.ok(&["cluster", "elect"]), "t-1 is led by the first of its replicas\n");
    assert!(corectl.ok(&["cluster", "elect"]).contains("All partitions"));
}

#[test]
fn a_broker_is_drained_and_leaves() {
    let cluster = FakeCluster::start(&[&[1, 2], &[2, 3]]);
    let corectl = Corectl(cluster.address.clone());
    assert!(corectl.ok(&["cluster", "drain", "2"]).contains("Broker 2 is empty."));
    assert!(corectl.ok(&["cluster", "brokers"]).contains("draining"));
    assert!(corectl.ok(&["cluster", "undrain", "2"]).contains("takes part again"));
    assert!(corectl.fails(&["cluster", "decommission", "9", "-y"]).contains("no broker 9"));
    assert!(corectl.fails(&["cluster", "decommission", "3"]).contains("--yes"));

    let leaving = corectl.command(&["cluster", "decommission", "2", "-y"]).spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while !cluster.state.lock().unwrap().draining.contains(&2) {
        assert!(Instant::now() < deadline, "it does not drain");
        std::thread::sleep(Duration::from_millis(5));
    }
    cluster.state.lock().unwrap().fenced.insert(2);
    let output = leaving.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(cluster.state.lock().unwrap().unregistered.contains(&2));

    // What only one that is gone has is not given up.
    cluster.state.lock().unwrap().fenced.insert(3);
    assert!(corectl.fails(&["cluster", "decommission", "3", "--yes"]).contains("t-1 for one"));
}

#[test]
fn a_broker_that_is_lost_is_replaced() {
    let cluster = FakeCluster::start(&[&[1, 2], &[1, 2, 3], &[2, 1, 3]]);
    let corectl = Corectl(cluster.address.clone());
    cluster.state.lock().unwrap().fenced.insert(3);
    assert!(corectl.fails(&["cluster", "decommission", "3", "--yes"]).contains("there are 2 brokers"));
    for it in &mut cluster.state.lock().unwrap().partitions[1..] {
        it.replicas.retain(|id| *id != 3);
    }
    corectl.ok(&["cluster", "decommission", "3", "--yes"]);
    let state = cluster.state.lock().unwrap();
    assert!(state.unregistered.contains(&3) && state.draining.is_empty());
}

/// What may pass, such as a full disk, is tried again: the producer says so, and for how long.
#[test]
fn what_is_not_taken_is_given_up_in_time() {
    let broker = FakeBroker::start(Box::new(|_| Fault::Refuse(ErrorCode::KAFKA_STORAGE_ERROR)));
    let corectl = Corectl(broker.address);
    let started = Instant::now();
    let error = corectl.fails(&["--timeout", "7s", "produce", "t", "-v", "x"]);
    assert!(started.elapsed() < Duration::from_secs(20), "{error}");
    for part in ["not all is written after 5s; it is tried for 7s", "within 7s", "KAFKA_STORAGE_ERROR"] {
        assert!(error.contains(part), "{part}: {error}");
    }
}

/// What names nothing is told: done to nothing, it looks as if it were done.
#[test]
fn what_is_not_there_is_an_error() {
    with_corectl(|corectl| {
        let topic = unique("ctl-names");
        corectl.ok(&["topic", "create", &topic, "-p", "2"]);
        corectl.ok(&["produce", &topic, "-p", "1", "-v", "x"]);
        for partitions in ["7", "1,7"] {
            let error = corectl.fails(&["topic", "trim", &topic, "--before", "end", "-p", partitions, "-y"]);
            assert!(error.contains("no partition 7"), "{error}");
            let error = corectl.fails(&["consume", &topic, "-p", partitions]);
            assert!(error.contains("no partition 7"), "{error}");
        }
        assert_eq!(corectl.ok(&["consume", &topic]), "x\n");
        let absent = unique("ctl-absent");
        let error = corectl.fails(&["consume", &absent, "--group", &unique("ctl-absent-group")]);
        assert!(error.contains(&absent) && error.contains("check the name"), "{error}");
        for line in [&["topic", "alter", &topic][..], &["cluster", "config"]] {
            let error = corectl.fails(&[line, &["--reset", "no.such.config"]].concat());
            assert!(error.contains("no.such.config"), "{error}");
        }
        corectl.ok(&["topic", "alter", &topic, "--reset", "retention.ms"]);
        corectl.ok(&["cluster", "config", "--reset", "log.retention.ms"]);
        assert!(corectl.ok(&["topic", "list", &absent]).contains(&absent));
        assert!(corectl.ok(&["group", "list", &absent]).contains(&absent));
        let error = corectl.fails(&["produce", &topic, "-p", "7", "-v", "x"]);
        assert!(error.starts_with(&format!("corectl: nothing was written to {topic}: ")), "{error}");
        for wrong in [
            &["group", "list", "--state", "no-such-state"][..],
            &["consume", &topic, "-n", "0"],
            &["topic", "create", &absent, "-p", "-1"],
            &["produce", &topic, "-p", "-1", "-v", "x"],
        ] {
            assert!(corectl.fails(wrong).contains("invalid value"), "{wrong:?}");
        }
    });
}

#[test]
fn errors_say_what_to_do() {
    let corectl = Corectl("127.0.0.1:1".into());
    let error = corectl.fails(&["topic", "list"]);
    assert!(error.contains("127.0.0.1:1") && error.contains("--bootstrap"), "{error}");
    assert_eq!(error.matches("refused").count(), 1, "{error}");
    for wrong in [
        &["topic"][..],
        &["topic", "create"],
        &["produce", "t", "-z", "zip"],
        &["consume", "t", "--from", "yesterday"],
        &["consume", "t", "-p", "x"],
        &["--timeout", "soon", "topic", "list"],
    ] {
        let output = corectl.run(wrong, b"");
        assert_eq!(output.status.code(), Some(2), "{wrong:?}");
    }
    assert!(corectl.ok(&["completions", "bash"]).contains("corectl"));
    // The flags of a connection stand before a command and behind it, and only where there is a connection.
    for line in [&["-b", "127.0.0.1:2", "topic", "list"][..], &["topic", "list", "-b", "127.0.0.1:2"]] {
        assert!(corectl.fails(line).contains("127.0.0.1:2"), "{line:?}");
    }
    assert!(corectl.ok(&["topic", "list", "--help"]).contains("--bootstrap"));
    for offline in
        [&["log", "dump"][..], &["tune"], &["tune", "check"], &["completions"], &["config", "convert"]]
    {
        let help = corectl.ok(&[offline, &["--help"]].concat());
        assert!(!help.contains("--bootstrap") && !help.contains("--timeout"), "{help}");
    }
    assert!(corectl.fails(&["-b", "127.0.0.1:2", "completions", "bash"]).contains("uses no broker there is"));
    for help in
        [&["--help"][..], &["topic", "--help"], &["consume", "--help"], &["produce", "-h"], &["group", "-h"]]
    {
        assert!(corectl.ok(help).contains("Usage:"));
    }
}

/// As with `| head`: nobody reads what is printed, on either side.
#[test]
fn a_closed_pipe_ends_it_quietly() {
    let corectl = Corectl("127.0.0.1:1".into());
    for line in [&["completions", "zsh"][..], &["tune", "guide"], &["--help"], &["topic", "list"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = corectl.command(line).stdout(writer.try_clone().unwrap()).output().unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        assert!(!told.contains("panicked"), "{line:?}: {told}");
        let status =
            corectl.command(line).stdout(writer.try_clone().unwrap()).stderr(writer).status().unwrap();
        assert!(matches!(status.code(), Some(0 | 1)), "{line:?}: {status}");
    }
}

#[test]
fn a_server_properties_becomes_a_corelog_toml() {
    let corectl = Corectl("127.0.0.1:1".into());
    let path = std::env::temp_dir().join(unique("server.properties"));
    std::fs::write(&path, "num.partitions=3\nlog.dirs=/kafka\nssl.protocol=TLS\n").unwrap();
    let output = corectl.run(&["config", "convert", path.to_str().unwrap()], b"");
    std::fs::remove_file(&path).unwrap();
    let (toml, told) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert!(output.status.success() && toml.contains("\n\"num.partitions\" = 3\n"), "{toml}");
    assert!(toml.contains("\n#   ssl.protocol=TLS\n") && toml.contains("\n#   log.dirs=/kafka\n"), "{toml}");
    assert!(told.contains("1 settings converted, 2 left"), "{told}");
}

#[test]
fn a_cluster_of_one_machine_that_does_not_start() {
    let corectl = Corectl(String::new());
    let directory = std::env::temp_dir().join(unique("ctl-dev"));
    let directory_name = directory.to_str().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let dev = |more: &[&str]| {
        let line = ["cluster", "dev", "--data-dir", directory_name, "--binary", "/bin/false"];
        corectl.fails(&[&line[..], more].concat())
    };
    assert!(dev(&["--port", &port]).contains("is not free"));
    drop(taken);
    let told = dev(&["--port", &port, "--brokers", "1"]);
    assert!(told.contains("broker 1 did not become ready"), "{told}");
    assert!(dev(&["-b", "127.0.0.1:2"]).contains("uses no broker there is"));
    assert!(directory.join("broker-1/broker.log").exists());
    std::fs::remove_dir_all(directory).unwrap();
}
