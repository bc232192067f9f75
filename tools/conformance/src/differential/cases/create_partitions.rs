use super::super::Case;
use super::super::session::Session;
use anyhow::Result;
use corelog_wire::Str;
use corelog_wire::messages::CreatePartitionsRequest;
use corelog_wire::messages::create_partitions_request::{Assignment, Topic};
use corelog_wire::messages::metadata_request::{MetadataRequest, Topic as MetadataTopic};

pub const CASES: &[Case] = &[
    Case { name: "create partitions", run: counts },
    Case { name: "create partitions assignments", run: assignments },
];

fn topic(name: &Str, count: i32) -> Topic {
    Topic { name: name.clone(), count, assignments: None }
}

fn request(topics: Vec<Topic>) -> CreatePartitionsRequest {
    CreatePartitionsRequest { topics, timeout_ms: 30_000, validate_only: false }
}

fn counts(s: &mut Session) -> Result<()> {
    let missing = s.name("missing");
    for v in s.versions::<CreatePartitionsRequest>() {
        let name = s.topic(format!("t-v{v}"), 2, &[])?.name;
        let other = s.topic(format!("other-v{v}"), 1, &[])?.name;
        for count in [2, 1, 0, -1, i32::MIN] {
            s.ask(&format!("to {count}"), v, &request(vec![topic(&name, count)]));
        }
        s.ask(
            "to 4, only validated",
            v,
            &CreatePartitionsRequest { validate_only: true, ..request(vec![topic(&name, 4)]) },
        );
        s.ask("to 4", v, &request(vec![topic(&name, 4)]));
        s.await_topic(&name, 4)?;
        let named = MetadataTopic { name: Some(name.clone()), ..Default::default() };
        s.ask("metadata", 9, &MetadataRequest { topics: Some(vec![named]), ..Default::default() });
        s.ask("missing", v, &request(vec![topic(&missing, 4)]));
        s.ask("bad name", v, &request(vec![topic(&"a/b".into(), 4)]));
        s.ask("none", v, &request(Vec::new()));
        s.ask("twice in one request", v, &request(vec![topic(&name, 5), topic(&name, 6)]));
        s.ask("several", v, &request(vec![topic(&missing, 4), topic(&name, 1), topic(&other, 2)]));
    }
    Ok(())
}

fn assignments(s: &mut Session) -> Result<()> {
    let cases: &[(&str, i32, &[&[i32]])] = &[
        ("too few", 4, &[&[1]]),
        ("too many", 3, &[&[1], &[1]]),
        ("unknown broker", 3, &[&[9]]),
        ("broker twice", 3, &[&[1, 1]]),
        ("no brokers", 3, &[&[]]),
        ("none at all", 3, &[]),
        ("factor differs", 4, &[&[1], &[1, 2]]),
        ("fewest there could be", i32::MIN, &[&[1]]),
        ("good", 4, &[&[1], &[1]]),
    ];
    for v in s.versions::<CreatePartitionsRequest>() {
        let name = s.topic(format!("t-v{v}"), 2, &[])?.name;
        for (step, count, brokers) in cases {
            let assignments = brokers.iter().map(|ids| Assignment { broker_ids: ids.to_vec() }).collect();
            s.ask(step, v, &request(vec![Topic { assignments: Some(assignments), ..topic(&name, *count) }]));
        }
    }
    Ok(())
}
