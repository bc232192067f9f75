//! Many members that join, fail, come back, commit and leave at random, over a log that is late and fails at random and
//! a broker that restarts: whatever happens, the invariants hold, and when the faults end every group comes to rest.

use std::collections::BTreeSet;

use corelog_io::Dice;
use corelog_wire::coordinator_records::GroupMetadataValue;
use corelog_wire::messages::offset_delete_request::{self, OffsetDeleteRequest};

use super::*;
use crate::groups::classic::Group;
use crate::groups::offsets::{CommittedOffset, OffsetKey};
use crate::groups::state::GroupsState;

/// To replay a failure, put its seed here.
#[test]
fn one_seed() {
    run(1);
}

#[test]
fn many_seeds() {
    for seed in 0..150 {
        run(seed);
    }
}

const GROUPS: [&str; 2] = ["g0", "g1"];
const TOPICS: [&str; 3] = ["t0", "t1", "t2"];
const INSTANCES: [&str; 8] = ["i0", "i1", "i2", "i3", "i4", "i5", "i6", "i7"];

#[derive(Clone, Debug)]
enum Doing {
    Down,
    Out,
    Joining(Ticket),
    Syncing(Ticket),
    In,
}

/// A client, which knows what its answers told it.
struct Client {
    joiner: Joiner,
    group: &'static str,
    member_id: String,
    generation: i32,
    doing: Doing,
    commit: Option<(Ticket, i64)>,
}

struct World {
    seed: u64,
    dice: Dice,
    config: GroupConfig,
    bench: Bench,
    clients: Vec<Client>,
    /// Writes fail now and then.
    writes_fail: bool,
    write_failed: bool,
    /// Groups are removed, by administrators and for want of use.
    groups_go: bool,
    /// Groups may come back, when they were removed or their creation was not stored. Their generations begin anew
    /// then, so that a generation is no name for one assignment.
    groups_come_back: bool,
    /// Grows with each restart of the broker: a generation that was not stored may come again after one.
    incarnation: usize,
    /// Who leads a generation, as its members were told.
    leaders: BTreeMap<(usize, &'static str, i32), String>,
    /// Which of the leader's plans a generation follows.
    plans: BTreeMap<(usize, &'static str, i32), String>,
    /// The plans that were sent, by whom.
    sent: BTreeMap<String, String>,
    next_offset: i64,
    /// Tickets that nobody waits for any more.
    abandoned: Vec<Ticket>,
}

fn run(seed: u64) {
    let mut world = World::new(seed);
    for step in 0..500 {
        world.step();
        world.check();
        if step % 50 == 0 {
            world.check_replay();
        }
    }
    world.come_to_rest();
    world.empty_everything();
}

impl World {
    fn new(seed: u64) -> World {
        let mut dice = Dice(seed.wrapping_mul(0x1234_5678_9abc_def1));
        let (groups_go, writes_fail) = (dice.one_in(3), dice.one_in(3));
        let config = GroupConfig {
            offsets_retention_check_interval_ms: if groups_go { 600_000 } else { u64::MAX },
            initial_rebalance_delay_ms: [0, 0, 500, 3_000][dice.index(4)],
            group_members_max: if dice.one_in(4) { 3 } else { 100 },
            ..GroupConfig::default()
        };
        let mut bench = Bench::new(config.clone());
        bench.durable = false;
        let clients = (0..2 + dice.index(7)).map(|index| {
            let group = GROUPS[dice.index(2)];
            let version = dice.index(10) as i16;
            Client {
                joiner: Joiner {
                    version,
                    group,
                    instance_id: (version >= 5 && dice.one_in(3)).then(|| INSTANCES[index]),
                    session_timeout_ms: [6_000, 10_000, 30_000][dice.index(3)],
                    rebalance_timeout_ms: [0, 5_000, 20_000][dice.index(3)],
                    ..Joiner::default()
                },
                group,
                member_id: String::new(),
                generation: -1,
                doing: Doing::Out,
                commit: None,
            }
        });
        let clients = clients.collect();
        World {
            seed,
            writes_fail,
            dice,
            config,
            bench,
            clients,
            write_failed: false,
            groups_go,
            groups_come_back: groups_go || writes_fail,
            incarnation: 0,
            leaders: BTreeMap::new(),
            plans: BTreeMap::new(),
            sent: BTreeMap::new(),
            next_offset: 1,
            abandoned: Vec::new(),
        }
    }

    fn step(&mut self) {
        let ms = match self.dice.index(40) {
            0 => 7_000,
            1 => 25_000,
            2 => 400_000,
            _ => self.dice.index(400) as u64,
        };
        // Without the clock's jumps past whole sessions, every other step.
        self.bench.pass(if self.dice.one_in(2) { ms.min(400) } else { ms });
        match self.dice.index(100) {
            0..70 => {
                let client = self.dice.index(self.clients.len());
                self.client_steps(client, true);
            }
            70..94 => self.log_steps(),
            94..98 => self.administrator_steps(),
            _ => self.broker_restarts(),
        }
    }

    fn log_steps(&mut self) {
        if self.bench.in_flight.is_empty() {
            return;
        }
        let result = if self.writes_fail && self.dice.one_in(5) {
            self.write_failed = true;
            Err([WriteFailure::TooLarge, WriteFailure::Unavailable][self.dice.index(2)])
        } else {
            Ok(())
        };
        self.bench.write(result);
    }

    fn administrator_steps(&mut self) {
        let group = GROUPS[self.dice.index(2)];
        let topic = TOPICS[self.dice.index(3)];
        let ticket = match self.dice.index(6) {
            0 if self.groups_go => self.bench.send(2, GroupRequest::Delete(vec![s(group)])),
            1 => {
                let partitions = vec![offset_delete_request::Partition { partition_index: 0 }];
                let topics = vec![offset_delete_request::Topic { name: s(topic), partitions }];
                self.bench
                    .send(0, GroupRequest::OffsetDelete(OffsetDeleteRequest { group_id: s(group), topics }))
            }
            2 => {
                return self.bench.topics_deleted(&[(s(topic), topic_id(topic))]);
            }
            3 => {
                let group =
                    offset_fetch_request::Group { group_id: s(group), topics: None, ..Default::default() };
                self.bench.send(8, GroupRequest::OffsetFetch { group, require_stable: true })
            }
            _ => {
                self.next_offset += 1;
                let request = commit_request(group, "", -1, topic, self.next_offset);
                self.bench.send(8, GroupRequest::OffsetCommit(request))
            }
        };
        self.abandoned.push(ticket);
    }

    /// Some of the writes on their way are in the log when the broker comes back, though nobody was told.
    fn broker_restarts(&mut self) {
        let survive = self.dice.index(self.bench.in_flight.len() + 1);
        for (_, records) in self.bench.in_flight.drain(..survive) {
            self.bench.log.extend(records);
        }
        self.bench = self.bench.restarted(self.config.clone());
        self.bench.durable = false;
        self.incarnation += 1;
        self.abandoned.clear();
        for client in &mut self.clients {
            client.commit = None;
            if matches!(client.doing, Doing::Joining(_) | Doing::Syncing(_)) {
                client.doing = Doing::Out;
            }
        }
    }

    // ---- clients

    fn client_steps(&mut self, index: usize, faults: bool) {
        if faults && self.dice.one_in(25) {
            return self.client_fails(index);
        }
        self.look_at_commit(index);
        match self.clients[index].doing.clone() {
            Doing::Down => {
                if !faults || self.dice.one_in(4) {
                    let client = &mut self.clients[index];
                    client.member_id.clear();
                    client.doing = Doing::Out;
                }
            }
            Doing::Out => self.client_joins(index),
            Doing::Joining(ticket) if self.bench.is_parked(ticket) => {
                // Its request has timed out, it thinks.
                if faults && self.dice.one_in(15) {
                    self.abandoned.push(ticket);
                    self.client_joins(index);
                }
            }
            Doing::Joining(ticket) => self.client_joined(index, ticket),
            Doing::Syncing(ticket) if self.bench.is_parked(ticket) => {
                if faults && self.dice.one_in(15) {
                    self.abandoned.push(ticket);
                    self.clients[index].doing = Doing::Out;
                }
            }
            Doing::Syncing(ticket) => self.client_synced(index, ticket),
            Doing::In => self.member_acts(index, faults),
        }
    }

    fn client_fails(&mut self, index: usize) {
        let client = &mut self.clients[index];
        if let Doing::Joining(ticket) | Doing::Syncing(ticket) = client.doing {
            self.abandoned.push(ticket);
        }
        self.abandoned.extend(client.commit.take().map(|(ticket, _)| ticket));
        client.doing = Doing::Down;
    }

    fn look_at_commit(&mut self, index: usize) {
        let Some((ticket, offset)) = self.clients[index].commit else { return };
        if self.bench.is_parked(ticket) {
            return;
        }
        self.clients[index].commit = None;
        if self.bench.committed(ticket).is_ok() {
            let value = offset.to_be_bytes();
            let stored =
                |record: &RawRecord| record.value.as_ref().is_some_and(|v| v[2..].starts_with(&value));
            assert!(self.bench.log.iter().any(stored), "seed {}: offset {offset} is acknowledged", self.seed);
        }
    }

    fn client_joins(&mut self, index: usize) {
        let joiner = self.clients[index].joiner.with_id(&self.clients[index].member_id);
        let ticket = self.bench.join(&joiner);
        self.clients[index].doing = Doing::Joining(ticket);
    }

    fn client_joined(&mut self, index: usize, ticket: Ticket) {
        let joined = self.bench.joined(ticket);
        let client = &mut self.clients[index];
        client.doing = Doing::Out;
        match join_error(&joined) {
            ErrorCode::NONE => {}
            ErrorCode::MEMBER_ID_REQUIRED => return client.member_id = joined.member_id.to_string(),
            ErrorCode::UNKNOWN_MEMBER_ID
            | ErrorCode::FENCED_INSTANCE_ID
            | ErrorCode::GROUP_MAX_SIZE_REACHED => {
                return client.member_id.clear();
            }
            ErrorCode::REBALANCE_IN_PROGRESS
            | ErrorCode::COORDINATOR_NOT_AVAILABLE
            | ErrorCode::UNKNOWN_SERVER_ERROR => return,
            other => panic!("seed {}: JoinGroup is answered with {other:?}", self.seed),
        }
        client.member_id = joined.member_id.to_string();
        client.generation = joined.generation_id;
        let key = (self.incarnation, client.group, joined.generation_id);
        let leads = joined.leader == joined.member_id;
        let told_to_assign = leads && !joined.skip_assignment;
        if told_to_assign {
            let former = self.leaders.insert(key, joined.member_id.to_string());
            assert!(
                self.groups_come_back || former.as_deref().is_none_or(|former| *former == *joined.member_id),
                "seed {}: generation {key:?} has two leaders",
                self.seed
            );
            assert!(joined.members.iter().any(|member| member.member_id == joined.member_id));
        } else if !joined.skip_assignment {
            assert!(joined.members.is_empty(), "seed {}: only the leader learns of the others", self.seed);
        }
        let plan = format!("{}/{}", joined.generation_id, self.dice.next());
        let assignments: Vec<(&str, &str)> = if told_to_assign {
            self.sent.insert(plan.clone(), joined.member_id.to_string());
            joined.members.iter().map(|member| (&*member.member_id, plan.as_str())).collect()
        } else if self.dice.one_in(4) {
            // A follower that thinks it leads. Its plan is not among those that may be followed.
            vec![(&*joined.member_id, plan.as_str())]
        } else {
            Vec::new()
        };
        let request = SyncGroupRequest {
            group_id: s(client.group),
            ..sync_request(&joined.member_id, joined.generation_id, &assignments)
        };
        let ticket = self.bench.send(4, GroupRequest::Sync(request));
        self.clients[index].doing = Doing::Syncing(ticket);
    }

    fn client_synced(&mut self, index: usize, ticket: Ticket) {
        let synced = self.bench.synced(ticket);
        let client = &mut self.clients[index];
        client.doing = Doing::Out;
        match sync_error(&synced) {
            ErrorCode::NONE => client.doing = Doing::In,
            ErrorCode::UNKNOWN_MEMBER_ID | ErrorCode::FENCED_INSTANCE_ID => return client.member_id.clear(),
            ErrorCode::REBALANCE_IN_PROGRESS
            | ErrorCode::ILLEGAL_GENERATION
            | ErrorCode::COORDINATOR_NOT_AVAILABLE
            | ErrorCode::UNKNOWN_SERVER_ERROR => return,
            other => panic!("seed {}: SyncGroup is answered with {other:?}", self.seed),
        }
        let plan = String::from_utf8(synced.assignment.to_vec()).unwrap();
        let key = (self.incarnation, client.group, client.generation);
        assert!(
            plan.starts_with(&format!("{}/", client.generation)),
            "seed {}: {plan} in {key:?}",
            self.seed
        );
        if self.groups_come_back {
            return;
        }
        let by = &self.sent[&plan];
        if let Some(leader) = self.leaders.get(&key) {
            assert_eq!(by, leader, "seed {}: generation {key:?} is assigned by its leader", self.seed);
        }
        let followed = self.plans.entry(key).or_insert_with(|| plan.clone());
        assert_eq!(*followed, plan, "seed {}: generation {key:?} has one assignment", self.seed);
    }

    fn member_acts(&mut self, index: usize, faults: bool) {
        let client = &self.clients[index];
        let (group, member_id, generation) = (client.group, client.member_id.clone(), client.generation);
        let action = if faults { self.dice.index(20) } else { 0 };
        match action {
            0..12 => {
                let request = HeartbeatRequest {
                    group_id: s(group),
                    generation_id: generation,
                    member_id: s(&member_id),
                    group_instance_id: client.joiner.instance_id.map(s),
                };
                let GroupResponse::Heartbeat(answer) = self.bench.call(4, GroupRequest::Heartbeat(request))
                else {
                    panic!()
                };
                let client = &mut self.clients[index];
                match ErrorCode(answer.error_code) {
                    ErrorCode::NONE => {}
                    ErrorCode::REBALANCE_IN_PROGRESS | ErrorCode::ILLEGAL_GENERATION => {
                        client.doing = Doing::Out
                    }
                    ErrorCode::UNKNOWN_MEMBER_ID | ErrorCode::FENCED_INSTANCE_ID => {
                        client.member_id.clear();
                        client.doing = Doing::Out;
                    }
                    other => panic!("seed {}: Heartbeat is answered with {other:?}", self.seed),
                }
            }
            12..17 if client.commit.is_none() => {
                self.next_offset += 1;
                let topic = TOPICS[self.dice.index(3)];
                let request = commit_request(group, &member_id, generation, topic, self.next_offset);
                let ticket = self.bench.send(8, GroupRequest::OffsetCommit(request));
                self.clients[index].commit = Some((ticket, self.next_offset));
            }
            17 => {
                let members = vec![MemberIdentity { member_id: s(&member_id), ..Default::default() }];
                let request = LeaveGroupRequest { group_id: s(group), members, ..Default::default() };
                let ticket = self.bench.send(5, GroupRequest::Leave(request));
                self.abandoned.push(ticket);
                let client = &mut self.clients[index];
                client.member_id.clear();
                client.doing = Doing::Down;
            }
            18 => {
                let topics = [TOPICS[self.dice.index(3)], TOPICS[self.dice.index(3)]];
                self.clients[index].joiner.protocols = vec![("range", subscription(&topics))];
                self.client_joins(index);
            }
            _ => {}
        }
    }

    // ---- what always holds

    fn check(&mut self) {
        let machine = self.bench.groups();
        let groups: usize = machine.groups.values().map(Group::check).sum();
        let offsets = machine.state.offsets.count_bytes();
        let writes: usize = machine.env.desk.thens().map(|then| then.bytes()).sum();
        assert_eq!(machine.env.memory.used(), groups + offsets + writes, "seed {}: memory", self.seed);
        for group in machine.groups.values() {
            // Whoever is in a group can be timed out of it, or waits for something that can.
            for member in group.members() {
                let key = TimerKey::Session { group: group.id.clone(), member: member.id.clone() };
                let waits = member.join.is_some() || member.sync.is_some();
                assert!(
                    waits || machine.env.desk.timers.is_armed(&key),
                    "seed {}: {} has no session",
                    self.seed,
                    member.id
                );
            }
            let join = TimerKey::Join(group.id.clone());
            let preparing = group.is(GroupState::PreparingRebalance);
            assert_eq!(
                machine.env.desk.timers.is_armed(&join),
                preparing,
                "seed {}: join deadline",
                self.seed
            );
            let sync = TimerKey::Sync(group.id.clone());
            assert_eq!(
                machine.env.desk.timers.is_armed(&sync),
                !group.pending_sync.is_empty(),
                "seed {}: sync deadline",
                self.seed
            );
        }
    }

    /// A coordinator that replays the log knows what this one knows: always, what records say; and what it makes of that
    /// where nothing is on its way or was refused.
    fn check_replay(&mut self) {
        let other = self.bench.replayed(self.config.clone());
        assert_eq!(
            records_say(&self.bench.groups().state),
            records_say(&other.groups().state),
            "seed {}",
            self.seed
        );
        let other = self.bench.restarted(self.config.clone());
        if !self.bench.in_flight.is_empty() || self.write_failed || self.config.group_members_max < 100 {
            return;
        }
        // One whose last offset was deleted is known until retention looks, and has no record.
        let has_records = |id: &Str| self.bench.groups().state.has(id);
        let of_records = |bench: &Bench| {
            bench.groups().groups.keys().filter(|id| has_records(id)).cloned().collect::<BTreeSet<_>>()
        };
        assert_eq!(of_records(&self.bench), of_records(&other), "seed {}", self.seed);
        for (id, group) in self.bench.groups().groups.iter().filter(|(id, _)| has_records(id)) {
            let replayed = &other.groups().groups[id];
            if matches!(group.state(), GroupState::Stable | GroupState::Empty) {
                assert_eq!(durable_group(group), durable_group(replayed), "seed {}", self.seed);
            }
        }
    }

    /// No more faults: in the end every live client is in its group, all in one generation.
    fn come_to_rest(&mut self) {
        self.bench.durable = true;
        if !self.bench.in_flight.is_empty() {
            self.bench.write(Ok(()));
        }
        self.config.group_members_max = 100;
        for round in 0.. {
            assert!(round < 2_000, "seed {}: the groups do not come to rest", self.seed);
            for index in 0..self.clients.len() {
                self.client_steps(index, false);
                self.check();
            }
            self.bench.pass(500);
            let waits = |ticket: &Ticket| self.bench.is_parked(*ticket);
            let settled = self.clients.iter().all(|client| matches!(client.doing, Doing::In))
                && self.bench.groups().groups.values().all(|group| {
                    let live = self.clients.iter().filter(|client| *client.group == *group.id).count();
                    group.is(GroupState::Stable) && group.member_count() == live
                        || live == 0 && group.is(GroupState::Empty)
                })
                && !self.abandoned.iter().any(waits);
            // A full group keeps turning those away who come last.
            if settled || (round > 500 && self.bench.groups().env.config.group_members_max < 100) {
                break;
            }
        }
        self.check_replay();
    }

    /// When everybody has left and all is deleted, nothing is held.
    fn empty_everything(&mut self) {
        for client in &mut self.clients {
            client.doing = Doing::Down;
        }
        self.bench.pass(2_000_000);
        for group in GROUPS {
            self.bench.call(2, GroupRequest::Delete(vec![s(group)]));
        }
        let groups = self.bench.groups();
        assert_eq!(groups.groups.len(), 0, "seed {}", self.seed);
        assert_eq!(groups.env.memory.used(), 0, "seed {}", self.seed);
        let other = self.bench.restarted(self.config.clone());
        assert_eq!(other.groups().env.memory.used(), 0, "seed {}", self.seed);
    }
}

type RecordsSay = (BTreeMap<Str, GroupMetadataValue>, Vec<(OffsetKey, CommittedOffset)>);

fn records_say(state: &GroupsState) -> RecordsSay {
    let offsets = state.offsets.all().map(|(group, topic, partition, offset)| {
        (OffsetKey { group: group.clone(), topic: topic.clone(), partition }, offset.clone())
    });
    (state.stored.clone(), offsets.collect())
}

type DurableGroup =
    (GroupState, i32, Option<Str>, Option<Str>, Option<Str>, Vec<(Str, Option<Str>, Bytes, Bytes)>);

fn durable_group(group: &Group) -> DurableGroup {
    let members = group.members().map(|member| {
        (
            member.id.clone(),
            member.instance_id.clone(),
            member.metadata(group.protocol.as_ref()),
            member.assignment.clone(),
        )
    });
    (
        group.state(),
        group.generation,
        group.protocol_type.clone(),
        group.protocol.clone(),
        group.leader.clone(),
        members.collect(),
    )
}
