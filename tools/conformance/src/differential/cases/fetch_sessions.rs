//! Incremental fetches (KIP-227).

use super::super::Case;
use super::super::normalise::NOWHERE;
use super::super::session::{Session, Topic, await_unknown};
use super::fetch::{TOPIC_IDS, fetch_all, partition, request, topic_of};
use super::records::batch;
use anyhow::Result;
use corelog_wire::fetch::{FetchPartition, FetchRequest, FetchTopic, ForgottenTopic};
use corelog_wire::{Str, Uuid};

pub const CASES: &[Case] = &[
    Case { name: "fetch sessions", run: life },
    Case { name: "fetch sessions wrong", run: wrong },
    Case { name: "fetch sessions with errors", run: errors },
    Case { name: "fetch sessions and deleted topics", run: deleted },
];

fn versions(s: &Session) -> std::ops::RangeInclusive<i16> {
    7..=s.newest::<FetchRequest>()
}

fn forgotten(version: i16, topic: &Topic, partitions: &[i32]) -> Vec<ForgottenTopic> {
    let FetchTopic { topic, topic_id, .. } = topic_of(version, topic, Vec::new());
    vec![ForgottenTopic { topic, topic_id, partitions: partitions.to_vec() }]
}

fn at(session_id: i32, session_epoch: i32, topics: Vec<FetchTopic>) -> FetchRequest {
    FetchRequest { session_id, session_epoch, ..request(topics) }
}

fn life(s: &mut Session) -> Result<()> {
    for v in versions(s) {
        let t = s.topic(format!("t-v{v}"), 3, &[])?;
        fetch_all(s, "learn the id", &t, 0);
        let ends = || vec![topic_of(v, &t, vec![partition(0, 0), partition(1, 0), partition(2, 0)])];
        let id = s.ask("new", v, &at(0, 0, ends())).session_id;
        s.ask("nothing new", v, &at(id, 1, Vec::new()));
        s.produce(&t, 1, batch(&["a", "b"]))?;
        s.ask("one has records", v, &at(id, 2, Vec::new()));
        s.ask("they come until they are read", v, &at(id, 3, Vec::new()));
        s.ask("read", v, &at(id, 4, vec![topic_of(v, &t, vec![partition(1, 2)])]));
        s.produce(&t, 0, batch(&["c"]))?;
        s.produce(&t, 1, batch(&["d"]))?;
        let forget = FetchRequest { forgotten_topics_data: forgotten(v, &t, &[0]), ..at(id, 5, Vec::new()) };
        s.ask("forgotten", v, &forget);
        s.ask(
            "back at its end",
            v,
            &at(id, 6, vec![topic_of(v, &t, vec![partition(0, 1), partition(1, 3)])]),
        );
        s.ask("quiet", v, &at(id, 7, Vec::new()));
        let smaller = FetchPartition { partition_max_bytes: 1, ..partition(0, 0) };
        s.ask("seek back with a limit", v, &at(id, 8, vec![topic_of(v, &t, vec![smaller])]));
        s.ask("closed", v, &at(id, -1, ends()));
        s.ask("after its end", v, &at(id, 9, Vec::new()));
        s.ask("without a session", v, &at(0, -1, ends()));
    }
    Ok(())
}

fn wrong(s: &mut Session) -> Result<()> {
    let t = s.topic("t", 2, &[])?;
    fetch_all(s, "learn the id", &t, 0);
    s.produce(&t, 0, batch(&["a"]))?;
    for v in versions(s) {
        let topics = || vec![topic_of(v, &t, vec![partition(0, 0)])];
        s.ask("unknown session", v, &at(1 << 30, 1, topics()));
        s.ask("unknown session, epoch 0", v, &at(1 << 30, 0, topics()));
        s.ask("unknown session to be closed", v, &at(1 << 30, -1, topics()));
        s.ask("no session, epoch 5", v, &at(0, 5, topics()));
        s.ask("no session, epoch -2", v, &at(0, -2, topics()));
        s.ask("new session for nothing", v, &at(0, 0, Vec::new()));
        let id = s.ask("new", v, &at(0, 0, topics())).session_id;
        s.ask("epoch too late", v, &at(id, 3, topics()));
        s.ask("epoch 1", v, &at(id, 1, topics()));
        s.ask("epoch 1 again", v, &at(id, 1, topics()));
        s.ask("epoch -5", v, &at(id, -5, topics()));
        let id = s.ask("epoch 0 makes a new one", v, &at(id, 0, topics())).session_id;
        let forget = FetchRequest { forgotten_topics_data: forgotten(v, &t, &[1]), ..at(id, 1, Vec::new()) };
        s.ask("forget what is not there", v, &forget);
        let forget = FetchRequest { forgotten_topics_data: forgotten(v, &t, &[0]), ..at(id, 2, Vec::new()) };
        s.ask("forget all", v, &forget);
        let forget = FetchRequest { forgotten_topics_data: forgotten(v, &t, &[0]), ..request(topics()) };
        s.ask("forget without a session", v, &forget);
    }
    Ok(())
}

fn errors(s: &mut Session) -> Result<()> {
    let t = s.topic("t", 1, &[])?;
    fetch_all(s, "learn the id", &t, 0);
    s.produce(&t, 0, batch(&["a"]))?;
    let missing = Topic { name: s.name("missing"), id: NOWHERE };
    for v in versions(s) {
        let topics = vec![
            topic_of(v, &t, vec![partition(0, 1), partition(9, 0)]),
            topic_of(v, &missing, vec![partition(0, 0)]),
        ];
        let id = s.ask("with unknown partitions", v, &at(0, 0, topics)).session_id;
        s.ask("still unknown", v, &at(id, 1, Vec::new()));
        let beyond = topic_of(v, &t, vec![partition(0, 50)]);
        s.ask("out of range", v, &at(id, 2, vec![beyond]));
        s.ask("still out of range", v, &at(id, 3, Vec::new()));
        s.ask("mended", v, &at(id, 4, vec![topic_of(v, &t, vec![partition(0, 0)])]));
        if v >= TOPIC_IDS {
            let nothing =
                FetchTopic { topic: Str::new(), topic_id: Uuid::ZERO, partitions: vec![partition(0, 0)] };
            s.ask("no id", v, &at(id, 5, vec![nothing]));
        }
    }
    Ok(())
}

fn deleted(s: &mut Session) -> Result<()> {
    use corelog_wire::messages::DeleteTopicsRequest;
    use corelog_wire::messages::delete_topics_request::State;
    for v in versions(s) {
        let t = s.topic(format!("t-v{v}"), 1, &[])?;
        let other = s.topic(format!("other-v{v}"), 1, &[])?;
        fetch_all(s, "learn the id", &t, 0);
        fetch_all(s, "learn the other id", &other, 0);
        let topics = vec![topic_of(v, &t, vec![partition(0, 0)]), topic_of(v, &other, vec![partition(0, 0)])];
        let id = s.ask("new", v, &at(0, 0, topics)).session_id;
        let named = State { name: Some(t.name.clone()), ..Default::default() };
        s.quiet(6, &DeleteTopicsRequest { topics: vec![named], timeout_ms: 30_000, ..Default::default() })?;
        await_unknown(s, &t.name)?;
        s.ask("deleted", v, &at(id, 1, Vec::new()));
        s.produce(&other, 0, batch(&["a"]))?;
        s.ask("the other goes on", v, &at(id, 2, Vec::new()));
    }
    Ok(())
}
