//! How a group's leader shares partitions among the members.

use crate::hashing::HashMap;
use crate::topic_partition::TopicPartition;
use corelog_wire::Str;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// A way to share partitions, as Kafka's own clients know it by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Assignor {
    /// Of each topic a range of partitions per member.
    Range,
    /// All partitions of all topics in turn.
    RoundRobin,
    /// Evenly, with as few moves as that allows, and without taking anything from a member before it has let go (KIP-429).
    CooperativeSticky,
}

impl Assignor {
    /// As members offer it to the coordinator.
    pub fn name(self) -> &'static str {
        match self {
            Assignor::Range => "range",
            Assignor::RoundRobin => "roundrobin",
            Assignor::CooperativeSticky => "cooperative-sticky",
        }
    }

    /// Whether members keep their partitions while the group rebalances.
    pub(super) fn is_cooperative(self) -> bool {
        self == Assignor::CooperativeSticky
    }

    /// Shares out all partitions of the topics that somebody subscribes to: `partitions` has their counts.
    pub(super) fn assign(self, members: &[Member], partitions: &BTreeMap<Str, i32>) -> Assignments {
        let mut members: Vec<&Member> = members.iter().collect();
        // Static members first, by their lasting name: a restart moves nothing.
        members.sort_by_key(|member| (member.instance_id.is_none(), &member.instance_id, &member.id));
        let mut assignments: Assignments =
            members.iter().map(|member| (member.id.clone(), Vec::new())).collect();
        match self {
            Assignor::Range => range(&members, partitions, &mut assignments),
            Assignor::RoundRobin => round_robin(&members, partitions, &mut assignments),
            Assignor::CooperativeSticky => sticky(&members, partitions, &mut assignments),
        }
        assignments
    }
}

impl fmt::Display for Assignor {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.pad(self.name())
    }
}

pub(super) type Assignments = BTreeMap<Str, Vec<TopicPartition>>;

/// What a member told when it joined.
#[derive(Clone, Debug, Default)]
pub(super) struct Member {
    pub(super) id: Str,
    pub(super) instance_id: Option<Str>,
    pub(super) topics: BTreeSet<Str>,
    pub(super) owned: Vec<TopicPartition>,
    /// In which it came to own them.
    pub(super) generation: i32,
}

fn range(members: &[&Member], partitions: &BTreeMap<Str, i32>, assignments: &mut Assignments) {
    for (topic, count) in partitions {
        let subscribed: Vec<&&Member> =
            members.iter().filter(|member| member.topics.contains(topic)).collect();
        let sharers = subscribed.len() as i32;
        let mut next = 0;
        for (at, member) in subscribed.iter().enumerate() {
            let share = count / sharers + i32::from((at as i32) < count % sharers);
            let range = (next..next + share).map(|partition| TopicPartition::new(topic.clone(), partition));
            assignments.entry(member.id.clone()).or_default().extend(range);
            next += share;
        }
    }
}

fn round_robin(members: &[&Member], partitions: &BTreeMap<Str, i32>, assignments: &mut Assignments) {
    let mut turn = 0;
    for (topic, count) in partitions {
        if !members.iter().any(|member| member.topics.contains(topic)) {
            continue;
        }
        for partition in 0..*count {
            while !members[turn % members.len()].topics.contains(topic) {
                turn += 1;
            }
            let member = members[turn % members.len()];
            turn += 1;
            assignments
                .entry(member.id.clone())
                .or_default()
                .push(TopicPartition::new(topic.clone(), partition));
        }
    }
}

fn sticky(members: &[&Member], partitions: &BTreeMap<Str, i32>, assignments: &mut Assignments) {
    let claims = claims(members);
    let all = partitions.iter().flat_map(|(topic, count)| {
        (0..*count).map(|partition| TopicPartition { topic: topic.clone(), partition })
    });
    let mut loads = vec![0usize; members.len()];
    let mut placed: Vec<(TopicPartition, usize)> = Vec::new();
    let mut free = Vec::new();
    for at in all {
        match claims.get(&at).and_then(|claim| claim.owner) {
            Some(owner) if members[owner].topics.contains(&at.topic) => {
                loads[owner] += 1;
                placed.push((at, owner));
            }
            _ => free.push(at),
        }
    }
    let lightest = |topic: &Str, loads: &[usize]| {
        let eligible = (0..members.len()).filter(|member| members[*member].topics.contains(topic));
        eligible.min_by_key(|member| loads[*member])
    };
    for at in free {
        if let Some(member) = lightest(&at.topic, &loads) {
            loads[member] += 1;
            placed.push((at, member));
        }
    }
    // Each move makes the loads more even, so this ends.
    let mut moved = true;
    while moved {
        moved = false;
        for (at, member) in &mut placed {
            let Some(lighter) = lightest(&at.topic, &loads) else { continue };
            if loads[*member] > loads[lighter] + 1 {
                loads[*member] -= 1;
                loads[lighter] += 1;
                *member = lighter;
                moved = true;
            }
        }
    }
    placed.sort();
    for (at, member) in placed {
        // Whoever has it must let go first, also who no longer subscribes to it: it is handed out in the rebalance that follows.
        if claims.get(&at).is_none_or(|claim| claim.owner == Some(member)) {
            assignments.entry(members[member].id.clone()).or_default().push(at);
        }
    }
}

/// What members say that they own. None of it is handed to another one until they say so no more.
struct Claim {
    generation: i32,
    /// The one of the latest generation. Two of one generation cannot both be right: neither is believed, and both have to let go.
    owner: Option<usize>,
}

fn claims(members: &[&Member]) -> HashMap<TopicPartition, Claim> {
    let mut claims: HashMap<TopicPartition, Claim> = HashMap::default();
    for (place, Member { owned, generation, .. }) in members.iter().enumerate() {
        for at in owned {
            let new = Claim { generation: *generation, owner: Some(place) };
            match claims.get_mut(at) {
                None => drop(claims.insert(at.clone(), new)),
                Some(claim) if *generation > claim.generation => *claim = new,
                Some(claim) if *generation == claim.generation && claim.owner != Some(place) => {
                    claim.owner = None;
                }
                Some(_) => {}
            }
        }
    }
    claims
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(id: &str, topics: &[&str]) -> Member {
        let topics = topics.iter().map(|topic| Str::from(*topic)).collect();
        Member { id: id.into(), topics, generation: -1, ..Default::default() }
    }

    fn counts(counts: &[(&str, i32)]) -> BTreeMap<Str, i32> {
        counts.iter().map(|(topic, count)| (Str::from(*topic), *count)).collect()
    }

    /// `a: t-0 t-1; b: ...`
    fn shown(assignments: &Assignments) -> String {
        let member = |(id, of): (&Str, &Vec<TopicPartition>)| {
            let of: Vec<String> = of.iter().map(|at| at.to_string()).collect();
            format!("{id}: {}", of.join(" "))
        };
        assignments.iter().map(member).collect::<Vec<_>>().join("; ")
    }

    #[test]
    fn ranges_and_turns() {
        // Cases as in the documentation of Kafka's RangeAssignor and RoundRobinAssignor.
        for (assignor, members, topics, expected) in [
            (
                Assignor::Range,
                vec![member("a", &["t", "u"]), member("b", &["t", "u"])],
                counts(&[("t", 3), ("u", 3)]),
                "a: t-0 t-1 u-0 u-1; b: t-2 u-2",
            ),
            (
                Assignor::RoundRobin,
                vec![member("a", &["t", "u"]), member("b", &["t", "u"])],
                counts(&[("t", 3), ("u", 3)]),
                "a: t-0 t-2 u-1; b: t-1 u-0 u-2",
            ),
            (
                Assignor::RoundRobin,
                vec![member("a", &["t"]), member("b", &["t", "u"]), member("c", &["t", "u", "v"])],
                counts(&[("t", 1), ("u", 2), ("v", 3)]),
                "a: t-0; b: u-0; c: u-1 v-0 v-1 v-2",
            ),
            (
                Assignor::Range,
                vec![member("a", &["t"]), member("b", &["x"])],
                counts(&[("t", 2)]),
                "a: t-0 t-1; b: ",
            ),
            (Assignor::Range, vec![member("a", &["t"])], counts(&[]), "a: "),
        ] {
            assert_eq!(shown(&assignor.assign(&members, &topics)), expected);
        }
    }

    #[test]
    fn static_members_come_first() {
        let mut fixed = member("z", &["t"]);
        fixed.instance_id = Some("i".into());
        let assigned = Assignor::Range.assign(&[member("a", &["t"]), fixed], &counts(&[("t", 3)]));
        assert_eq!(shown(&assigned), "a: t-2; z: t-0 t-1");
    }

    /// Lets members take over their assignments and rejoin until nothing changes; returns the number of rebalances.
    fn settle(members: &mut [Member], topics: &BTreeMap<Str, i32>) -> usize {
        for turn in 1..10 {
            let assigned = Assignor::CooperativeSticky.assign(members, topics);
            let mut revoked = false;
            for member in members.iter_mut() {
                let new = assigned[&member.id].clone();
                revoked |= member.owned.iter().any(|at| !new.contains(at));
                (member.owned, member.generation) = (new, turn);
            }
            let owned: Vec<&TopicPartition> = members.iter().flat_map(|member| &member.owned).collect();
            assert_eq!(owned.len(), owned.iter().collect::<BTreeSet<_>>().len(), "never owned twice");
            if !revoked {
                return turn as usize;
            }
        }
        panic!("it does not settle");
    }

    #[test]
    fn sticky_is_even_and_moves_little() {
        let topics = counts(&[("t", 7), ("u", 5)]);
        let mut members = vec![member("a", &["t", "u"])];
        assert_eq!(settle(&mut members, &topics), 1);
        assert_eq!(members[0].owned.len(), 12);
        let before = members[0].owned.clone();
        members.push(member("b", &["t", "u"]));
        assert_eq!(settle(&mut members, &topics), 2, "one to let go, one to take over");
        assert_eq!(members[1].owned.len(), 6);
        assert!(members[0].owned.iter().all(|at| before.contains(at)));
        members.push(member("c", &["t", "u"]));
        settle(&mut members, &topics);
        assert!(members.iter().all(|member| member.owned.len() == 4));
        let kept = [members[0].owned.clone(), members[2].owned.clone()];
        members.remove(1);
        settle(&mut members, &topics);
        for (member, kept) in members.iter().zip(kept) {
            assert!(member.owned.len() == 6 && kept.iter().all(|at| member.owned.contains(at)));
        }
    }

    #[test]
    fn what_a_member_still_has_is_not_handed_to_another() {
        let (t, u) = (TopicPartition::new("t", 0), TopicPartition::new("u", 0));
        let topics = counts(&[("t", 1), ("u", 1)]);
        let owning = |id: &str, topics: &[&str], owned: &[&TopicPartition]| Member {
            owned: owned.iter().copied().cloned().collect(),
            generation: 3,
            ..member(id, topics)
        };
        // One that has unsubscribed, and joins before it has let go.
        let mut members = vec![owning("a", &["u"], &[&t, &u]), owning("b", &["t"], &[])];
        let assigned = Assignor::CooperativeSticky.assign(&members, &topics);
        assert_eq!(shown(&assigned), "a: u-0; b: ");
        settle(&mut members, &topics);
        assert_eq!(members[1].owned, std::slice::from_ref(&t));
        // Two that claim the same.
        let mut members = vec![owning("a", &["t"], &[&t]), owning("b", &["t"], &[&t]), member("c", &["t"])];
        let assigned = Assignor::CooperativeSticky.assign(&members, &topics);
        assert_eq!(shown(&assigned), "a: ; b: ; c: ");
        settle(&mut members, &topics);
        assert_eq!(members.iter().map(|member| member.owned.len()).sum::<usize>(), 1);
    }

    #[test]
    fn sticky_heeds_subscriptions_and_false_claims() {
        let topics = counts(&[("t", 4), ("u", 2)]);
        let mut members = vec![member("a", &["t"]), member("b", &["t", "u"])];
        settle(&mut members, &topics);
        assert_eq!(members[0].owned.len(), 3);
        assert!(members[0].owned.iter().all(|at| at.topic == "t"));
        // A member that was away comes with what it owned long ago, and with what is not there.
        let mut away = member("c", &["t", "u"]);
        away.owned =
            vec![members[0].owned[0].clone(), TopicPartition::new("t", 99), TopicPartition::new("gone", 0)];
        away.generation = 0;
        members.push(away);
        settle(&mut members, &topics);
        let all: BTreeSet<_> = members.iter().flat_map(|member| member.owned.clone()).collect();
        assert_eq!(all.len(), 6);
        assert!(members.iter().all(|member| member.owned.len() == 2));
    }
}
