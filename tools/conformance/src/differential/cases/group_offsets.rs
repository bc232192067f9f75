//! OffsetCommit, OffsetFetch, OffsetDelete.

use super::super::Case;
use super::super::normalise::NOWHERE;
use super::super::session::{Session, Topic};
use super::fetch::fetch_all;
use super::group_life::settle;
use anyhow::Result;
use corelog_wire::messages::offset_commit_request::{OffsetCommitRequest, Partition, Topic as CommitTopic};
use corelog_wire::messages::offset_delete_request::{
    OffsetDeleteRequest, Partition as DeletePartition, Topic as DeleteTopic,
};
use corelog_wire::messages::offset_fetch_request::{Group, OffsetFetchRequest, Topic as FetchTopic, Topics};
use corelog_wire::{Str, Uuid};

pub const CASES: &[Case] = &[
    Case { name: "offset commit", run: commits },
    Case { name: "offset commit wrongly", run: commits_wrongly },
    Case { name: "offset commit of members", run: members },
    Case { name: "offset fetch", run: fetches },
    Case { name: "offset delete", run: deletes },
];

/// From here on topics go by id.
const TOPIC_IDS: i16 = 10;
/// From here on several groups are asked at once.
const GROUPS: i16 = 8;

/// A simple commit, as of a consumer that assigns its partitions itself.
pub fn commit(group: &Str, offsets: &[(&str, i32, i64)]) -> OffsetCommitRequest {
    let topic = |(name, partition_index, committed_offset): &(&str, i32, i64)| CommitTopic {
        name: Str::from(*name),
        partitions: vec![Partition {
            partition_index: *partition_index,
            committed_offset: *committed_offset,
            committed_metadata: Some(Str::from("noted")),
            ..Default::default()
        }],
        ..Default::default()
    };
    OffsetCommitRequest {
        group_id: group.clone(),
        topics: offsets.iter().map(topic).collect(),
        ..Default::default()
    }
}

/// By name or by id, as the version wants it.
fn commit_for(version: i16, group: &Str, topic: &Topic, partition: i32, offset: i64) -> OffsetCommitRequest {
    let mut request = commit(group, &[(&topic.name, partition, offset)]);
    if version >= TOPIC_IDS {
        request.topics[0].name = Str::new();
        request.topics[0].topic_id = topic.id;
    }
    request
}

fn fetch(version: i16, group: &Str, topics: Option<&[(&Topic, &[i32])]>) -> OffsetFetchRequest {
    let mut request = OffsetFetchRequest::default();
    if version < GROUPS {
        request.group_id = group.clone();
        let topic = |(topic, partitions): &(&Topic, &[i32])| FetchTopic {
            name: topic.name.clone(),
            partition_indexes: partitions.to_vec(),
        };
        request.topics = topics.map(|topics| topics.iter().map(topic).collect());
    } else {
        let by_id = version >= TOPIC_IDS;
        let topic = |(topic, partitions): &(&Topic, &[i32])| Topics {
            name: if by_id { Str::new() } else { topic.name.clone() },
            topic_id: if by_id { topic.id } else { Uuid::ZERO },
            partition_indexes: partitions.to_vec(),
        };
        let topics = topics.map(|topics| topics.iter().map(topic).collect());
        request.groups = vec![Group { group_id: group.clone(), topics, ..Default::default() }];
    }
    request
}

fn commits(s: &mut Session) -> Result<()> {
    let t = s.topic("t", 3, &[])?;
    fetch_all(s, "learn the id", &t, 0);
    for v in s.versions::<OffsetCommitRequest>() {
        let group = s.group(format!("g-v{v}"))?;
        s.ask("commit", v, &commit_for(v, &group, &t, 0, 5));
        let mut second = commit_for(v, &group, &t, 1, 7);
        second.topics[0].partitions[0].committed_metadata = None;
        if v >= 6 {
            second.topics[0].partitions[0].committed_leader_epoch = 3;
        }
        s.ask("without metadata", v, &second);
        s.ask("earlier", v, &commit_for(v, &group, &t, 0, 2));
        let mut negative = commit_for(v, &group, &t, 2, -1);
        s.ask("negative offset", v, &negative);
        negative.topics[0].partitions[0].committed_offset = i64::MAX;
        s.ask("greatest offset", v, &negative);
        s.ask("no topics", v, &commit(&group, &[]));
        let fv = s.newest::<OffsetFetchRequest>();
        s.ask("fetched", 5, &fetch(5, &group, Some(&[(&t, &[0, 1, 2])])));
        s.ask("fetched by id", fv, &fetch(fv, &group, Some(&[(&t, &[0, 1, 2])])));
    }
    Ok(())
}

fn commits_wrongly(s: &mut Session) -> Result<()> {
    let t = s.topic("t", 1, &[])?;
    fetch_all(s, "learn the id", &t, 0);
    let group = s.group("g")?;
    let missing = Topic { name: s.name("missing"), id: NOWHERE };
    for v in s.versions::<OffsetCommitRequest>() {
        s.ask("no group", v, &commit_for(v, &Str::new(), &t, 0, 1));
        s.ask("unknown topic", v, &commit_for(v, &group, &missing, 0, 1));
        s.ask("unknown partition", v, &commit_for(v, &group, &t, 4, 1));
        s.ask("negative partition", v, &commit_for(v, &group, &t, -1, 1));
        let mut both = commit_for(v, &group, &missing, 0, 1);
        both.topics.extend(commit_for(v, &group, &t, 0, 1).topics);
        s.ask("one is good", v, &both);
        let mut long = commit_for(v, &group, &t, 0, 1);
        for (step, len) in [("metadata of 4096", 4096), ("metadata of 4097", 4097)] {
            long.topics[0].partitions[0].committed_metadata = Some("m".repeat(len).into());
            s.ask(step, v, &long);
        }
        let fresh = s.group(format!("fresh-v{v}"))?;
        let of_member = OffsetCommitRequest {
            generation_id_or_member_epoch: 1,
            member_id: "nobody".into(),
            ..commit_for(v, &fresh, &t, 0, 1)
        };
        s.ask("of a member of no group", v, &of_member);
        s.ask(
            "with a generation of no group",
            v,
            &OffsetCommitRequest { member_id: Str::new(), ..of_member },
        );
        if v >= TOPIC_IDS {
            let mut none = commit_for(v, &group, &t, 0, 1);
            none.topics[0].topic_id = Uuid::ZERO;
            s.ask("no id", v, &none);
        }
    }
    Ok(())
}

fn members(s: &mut Session) -> Result<()> {
    let t = s.topic("t", 1, &[])?;
    fetch_all(s, "learn the id", &t, 0);
    let group = s.group("g")?;
    let a = settle(s, &group)?;
    for v in s.versions::<OffsetCommitRequest>() {
        let of_member = OffsetCommitRequest {
            generation_id_or_member_epoch: a.generation_id,
            member_id: a.member_id.clone(),
            ..commit_for(v, &group, &t, 0, i64::from(v))
        };
        s.ask("good", v, &of_member);
        s.ask(
            "old generation",
            v,
            &OffsetCommitRequest { generation_id_or_member_epoch: 0, ..of_member.clone() },
        );
        s.ask(
            "next generation",
            v,
            &OffsetCommitRequest { generation_id_or_member_epoch: a.generation_id + 1, ..of_member.clone() },
        );
        s.ask("unknown member", v, &OffsetCommitRequest { member_id: "nobody".into(), ..of_member.clone() });
        s.ask("no member", v, &OffsetCommitRequest { member_id: Str::new(), ..of_member.clone() });
        s.ask("as if alone, into a group with members", v, &commit_for(v, &group, &t, 0, 1));
        s.ask(
            "member without a generation",
            v,
            &OffsetCommitRequest { generation_id_or_member_epoch: -1, ..of_member.clone() },
        );
        if v >= 7 {
            s.ask(
                "unknown instance",
                v,
                &OffsetCommitRequest { group_instance_id: Some("i".into()), ..of_member },
            );
        }
    }
    Ok(())
}

fn fetches(s: &mut Session) -> Result<()> {
    let t = s.topic("t", 3, &[])?;
    let u = s.topic("u", 1, &[])?;
    fetch_all(s, "learn the id", &t, 0);
    fetch_all(s, "learn the other id", &u, 0);
    let missing = Topic { name: s.name("missing"), id: NOWHERE };
    let group = s.group("g")?;
    let nothing = s.group("nothing")?;
    s.quiet(9, &commit(&group, &[(&t.name, 0, 5), (&t.name, 2, 6), (&u.name, 0, 7)]))?;
    for v in s.versions::<OffsetFetchRequest>() {
        s.ask("some", v, &fetch(v, &group, Some(&[(&t, &[0, 1, 2])])));
        s.ask("of two topics", v, &fetch(v, &group, Some(&[(&u, &[0]), (&t, &[2])])));
        s.ask("unknown topic and partition", v, &fetch(v, &group, Some(&[(&missing, &[0]), (&t, &[7, -1])])));
        s.ask("no partitions", v, &fetch(v, &group, Some(&[(&t, &[])])));
        s.ask("no topics", v, &fetch(v, &group, Some(&[])));
        s.ask("unknown group", v, &fetch(v, &nothing, Some(&[(&t, &[0])])));
        s.ask("no group", v, &fetch(v, &Str::new(), Some(&[(&t, &[0])])));
        if v >= 2 {
            s.ask("all", v, &fetch(v, &group, None));
            s.ask("all of an unknown group", v, &fetch(v, &nothing, None));
        }
        if v >= 7 {
            s.ask(
                "stable ones",
                v,
                &OffsetFetchRequest { require_stable: true, ..fetch(v, &group, Some(&[(&t, &[0])])) },
            );
        }
        if v >= GROUPS {
            let mut two = fetch(v, &group, Some(&[(&t, &[0])]));
            two.groups.extend(fetch(v, &nothing, Some(&[(&t, &[0])])).groups);
            s.ask("two groups", v, &two);
            s.ask("no groups", v, &OffsetFetchRequest::default());
        }
        if v >= 9 {
            let mut member = fetch(v, &group, Some(&[(&t, &[0])]));
            member.groups[0].member_id = Some("nobody".into());
            member.groups[0].member_epoch = 3;
            s.ask("as a member", v, &member);
        }
    }
    Ok(())
}

fn deletes(s: &mut Session) -> Result<()> {
    let t = s.topic("t", 2, &[])?;
    let group = s.group("g")?;
    let missing = s.name("missing");
    let delete = |group: &Str, name: &Str, partitions: &[i32]| OffsetDeleteRequest {
        group_id: group.clone(),
        topics: vec![DeleteTopic {
            name: name.clone(),
            partitions: partitions.iter().map(|index| DeletePartition { partition_index: *index }).collect(),
        }],
    };
    s.each("unknown group", |_| delete(&group, &t.name, &[0]));
    s.each("no group", |_| delete(&Str::new(), &t.name, &[0]));
    s.quiet(9, &commit(&group, &[(&t.name, 0, 5), (&t.name, 1, 6)]))?;
    s.each("unknown topic", |_| delete(&group, &missing, &[0]));
    s.each("unknown partition", |_| delete(&group, &t.name, &[5]));
    s.each("one", |_| delete(&group, &t.name, &[0]));
    s.each("again", |_| delete(&group, &t.name, &[0]));
    s.ask("left", 8, &fetch(8, &group, None));
    // A consumer that is subscribed keeps its offsets.
    let subscribed = s.group("subscribed")?;
    super::group_admin::subscribe(s, &subscribed, &t.name)?;
    s.each("of a subscriber", |_| delete(&subscribed, &t.name, &[0]));
    s.each("of another topic of a subscriber", |_| delete(&subscribed, &missing, &[0]));
    Ok(())
}
