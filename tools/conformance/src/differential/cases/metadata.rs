use super::super::Case;
use super::super::normalise::NOWHERE;
use super::super::session::Session;
use anyhow::Result;
use corelog_wire::messages::MetadataRequest;
use corelog_wire::messages::metadata_request::Topic;
use corelog_wire::{Str, Uuid};

pub const CASES: &[Case] = &[
    Case { name: "metadata all topics", run: all },
    Case { name: "metadata named topics", run: named },
    Case { name: "metadata auto creation", run: auto_creation },
    Case { name: "metadata bad names", run: bad_names },
    Case { name: "metadata by id", run: by_id },
    Case { name: "metadata authorized operations", run: authorized_operations },
    Case { name: "metadata internal topic", run: internal },
];

fn topics(names: &[&Str]) -> Option<Vec<Topic>> {
    Some(names.iter().map(|name| Topic { name: Some((*name).clone()), ..Default::default() }).collect())
}

/// Topics by name; from version 4 on without creating them.
fn request(version: i16, names: &[&Str]) -> MetadataRequest {
    MetadataRequest { topics: topics(names), allow_auto_topic_creation: version < 4, ..Default::default() }
}

fn all(s: &mut Session) -> Result<()> {
    s.topic("one", 1, &[])?;
    s.topic("three", 3, &[])?;
    for v in s.versions::<MetadataRequest>() {
        // In version 0 an empty list asks for all.
        let topics = (v == 0).then(Vec::new);
        s.ask("all", v, &MetadataRequest { topics, allow_auto_topic_creation: true, ..Default::default() });
    }
    for v in 1..=s.newest::<MetadataRequest>() {
        s.ask("none", v, &request(v, &[]));
    }
    Ok(())
}

fn named(s: &mut Session) -> Result<()> {
    let one = s.topic("one", 1, &[])?.name;
    let three = s.topic("three", 3, &[])?.name;
    let missing = s.name("missing");
    s.each("one", |v| request(v, &[&one]));
    s.each("both", |v| request(v, &[&three, &one]));
    s.each("twice the same", |v| request(v, &[&one, &one]));
    for v in 4..=s.newest::<MetadataRequest>() {
        s.ask("missing", v, &request(v, &[&missing]));
        s.ask("one is missing", v, &request(v, &[&missing, &one]));
    }
    Ok(())
}

fn auto_creation(s: &mut Session) -> Result<()> {
    for v in s.versions::<MetadataRequest>() {
        let name = s.name_for("new", v);
        let request = MetadataRequest {
            topics: topics(&[&name]),
            allow_auto_topic_creation: true,
            ..Default::default()
        };
        s.ask("first answer", v, &request);
        s.await_topic(&name, 1)?;
        s.ask("when it is there", v, &request);
    }
    Ok(())
}

fn bad_names(s: &mut Session) -> Result<()> {
    let long = "x".repeat(250);
    let names = ["", ".", "..", "a b", "a/b", "é", "a\0b", "a:b", &long];
    for (i, name) in names.into_iter().enumerate() {
        let name = Str::from(name);
        for v in s.versions::<MetadataRequest>() {
            let step = format!("bad name {i}");
            s.ask(&step, v, &MetadataRequest { topics: topics(&[&name]), ..request(v, &[]) });
            if v >= 4 {
                let request = MetadataRequest {
                    topics: topics(&[&name]),
                    allow_auto_topic_creation: true,
                    ..Default::default()
                };
                s.ask(&format!("{step}, to be created"), v, &request);
            }
        }
    }
    Ok(())
}

fn by_id(s: &mut Session) -> Result<()> {
    let topic = s.topic("t", 2, &[])?;
    // Its name is learned with its id.
    s.ask("by name", 12, &request(12, &[&topic.name]));
    let ids = |ids: &[Uuid], name: Option<Str>| MetadataRequest {
        topics: Some(ids.iter().map(|topic_id| Topic { topic_id: *topic_id, name: name.clone() }).collect()),
        allow_auto_topic_creation: false,
        ..Default::default()
    };
    for v in 10..=s.newest::<MetadataRequest>() {
        let step =
            |step: &str| if v < 12 { format!("{step} in versions that must not") } else { step.to_owned() };
        s.ask(&step("id"), v, &ids(&[topic.id], None));
        s.ask(&step("unknown id"), v, &ids(&[NOWHERE], None));
        s.ask(&step("both ids"), v, &ids(&[NOWHERE, topic.id], None));
        s.ask(&step("neither id nor name"), v, &ids(&[Uuid::ZERO], None));
        s.ask(&step("id and its name"), v, &ids(&[topic.id], Some(topic.name.clone())));
        s.ask(&step("id and another name"), v, &ids(&[topic.id], Some("other".into())));
        s.ask(&step("unknown id and a name"), v, &ids(&[NOWHERE], Some(topic.name.clone())));
    }
    Ok(())
}

fn authorized_operations(s: &mut Session) -> Result<()> {
    let topic = s.topic("t", 1, &[])?.name;
    for v in 8..=s.newest::<MetadataRequest>() {
        let request = MetadataRequest {
            include_topic_authorized_operations: true,
            include_cluster_authorized_operations: v <= 10,
            ..request(v, &[&topic])
        };
        s.ask("operations", v, &request);
    }
    Ok(())
}

fn internal(s: &mut Session) -> Result<()> {
    s.group("g")?;
    s.each("offsets topic", |v| request(v, &[&Str::from_static("__consumer_offsets")]));
    Ok(())
}
