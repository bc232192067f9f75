use super::super::Case;
use super::super::normalise::NOWHERE;
use super::super::session::{Session, await_unknown};
use anyhow::Result;
use corelog_wire::messages::delete_topics_request::State;
use corelog_wire::messages::metadata_request::{MetadataRequest, Topic as MetadataTopic};
use corelog_wire::messages::{DeleteTopicsRequest, Message};
use corelog_wire::{Str, Uuid};

pub const CASES: &[Case] = &[
    Case { name: "delete topics", run: by_name },
    Case { name: "delete topics by id", run: by_id },
    Case { name: "delete topics and make them again", run: again },
];

fn names(version: i16, names: &[&Str]) -> DeleteTopicsRequest {
    let mut request = DeleteTopicsRequest { timeout_ms: 30_000, ..Default::default() };
    for name in names {
        if version < 6 {
            request.topic_names.push((*name).clone());
        } else {
            request.topics.push(State { name: Some((*name).clone()), ..Default::default() });
        }
    }
    request
}

fn states(states: &[(Option<&Str>, Uuid)]) -> DeleteTopicsRequest {
    let topics =
        states.iter().map(|(name, topic_id)| State { name: name.cloned(), topic_id: *topic_id }).collect();
    DeleteTopicsRequest { topics, timeout_ms: 30_000, ..Default::default() }
}

fn by_name(s: &mut Session) -> Result<()> {
    let missing = s.name("missing");
    for v in s.versions::<DeleteTopicsRequest>() {
        let topics = [s.topic(format!("a-v{v}"), 2, &[])?.name, s.topic(format!("b-v{v}"), 1, &[])?.name];
        s.ask("missing", v, &names(v, &[&missing]));
        s.ask("none", v, &names(v, &[]));
        s.ask("bad name", v, &names(v, &[&Str::from("a/b")]));
        s.ask("one and one missing", v, &names(v, &[&missing, &topics[0]]));
        await_unknown(s, &topics[0])?;
        s.ask("again", v, &names(v, &[&topics[0]]));
        s.ask("twice in one request", v, &names(v, &[&topics[1], &topics[1]]));
    }
    Ok(())
}

fn by_id(s: &mut Session) -> Result<()> {
    for v in 6..=DeleteTopicsRequest::MAX_VERSION {
        let topic = s.topic("t", 1, &[])?;
        let named = MetadataTopic { name: Some(topic.name.clone()), ..Default::default() };
        s.ask("metadata", 12, &MetadataRequest { topics: Some(vec![named]), ..Default::default() });
        s.ask("unknown id", v, &states(&[(None, NOWHERE)]));
        s.ask("neither name nor id", v, &states(&[(None, Uuid::ZERO)]));
        s.ask("name and id", v, &states(&[(Some(&topic.name), topic.id)]));
        s.ask("unknown id twice", v, &states(&[(None, NOWHERE), (None, NOWHERE)]));
        s.ask("by name and by id", v, &states(&[(Some(&topic.name), Uuid::ZERO), (None, topic.id)]));
        let other = s.topic("other", 1, &[])?;
        let named = MetadataTopic { name: Some(other.name.clone()), ..Default::default() };
        s.ask(
            "metadata of the other",
            12,
            &MetadataRequest { topics: Some(vec![named]), ..Default::default() },
        );
        s.ask("by id", v, &states(&[(None, other.id)]));
        await_unknown(s, &other.name)?;
        s.ask("by id again", v, &states(&[(None, other.id)]));
    }
    Ok(())
}

/// A topic made again has another id.
fn again(s: &mut Session) -> Result<()> {
    let name = s.name("t");
    for round in 0..3 {
        let topic = s.topic("t", 1, &[])?;
        let named = MetadataTopic { name: Some(name.clone()), ..Default::default() };
        s.ask(
            &format!("round {round}"),
            12,
            &MetadataRequest { topics: Some(vec![named]), ..Default::default() },
        );
        s.quiet(6, &states(&[(None, topic.id)]))?;
        await_unknown(s, &name)?;
        let former = MetadataTopic { topic_id: topic.id, name: None };
        s.ask(
            &format!("former id, round {round}"),
            12,
            &MetadataRequest { topics: Some(vec![former]), ..Default::default() },
        );
    }
    Ok(())
}
