//! What clients were promised, what they saw, and whether both agree.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::mpsc;
use std::time::Duration;

use corelog_client::{ConsumerRecord, Error, RebalanceEvent, TopicPartition};

/// What a limit in time may be overrun by: tasks wait for their turn, timers for their millisecond.
pub const SLACK: Duration = Duration::from_millis(250);

/// A machine's time without that in which it stood still.
#[derive(Clone, Default)]
pub struct Awake {
    stood_still: Rc<Cell<Duration>>,
}

impl Awake {
    pub fn now(&self) -> Duration {
        world_now().saturating_sub(self.stood_still.get())
    }

    /// The machine stood still for so long.
    pub fn resume(&self, after: Duration) {
        self.stood_still.set(self.stood_still.get() + after);
    }
}

/// World time, as the wall clocks of all clients show it.
pub fn world_now() -> Duration {
    Duration::from_millis(corelog_io::wall_clock_ms() as u64)
}

/// Tells what happens to whoever reads along.
pub fn note(what: impl FnOnce() -> String) {
    if std::env::var("LOG").is_ok() {
        eprintln!("{}", what());
    }
}

/// A record's name: which producer's, and which in its order for the partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name {
    pub session: u64,
    pub number: u64,
}

impl Name {
    pub fn to_value(self) -> String {
        format!("{}:{}", self.session, self.number)
    }

    pub fn of(record: &ConsumerRecord) -> Name {
        let text = record.value.as_deref().and_then(|value| std::str::from_utf8(value).ok());
        let name = text.and_then(|text| text.split_once(':')).and_then(|(session, number)| {
            Some(Name { session: session.parse().ok()?, number: number.parse().ok()? })
        });
        name.unwrap_or_else(|| panic!("a record that nobody sent: {record:?}"))
    }
}

/// What a producer promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Promise {
    /// Once, in order.
    Idempotent,
    /// Perhaps repeated; in order, as they come first.
    Ordered,
    /// Perhaps repeated, in any order.
    Delivered,
    /// Nothing is heard.
    Unheard,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// On its way, or unclear for good.
    Unknown,
    Written(Option<i64>),
    /// And why.
    NotWritten(String),
}

#[derive(Default)]
struct Session {
    promise: Option<Promise>,
    /// By partition, in the order of sending.
    sent: BTreeMap<TopicPartition, BTreeMap<u64, Fate>>,
}

#[derive(Default)]
struct Group {
    /// By partition, what some member has worked through.
    processed: BTreeMap<TopicPartition, BTreeSet<i64>>,
    /// What was seen to be committed last.
    committed: BTreeMap<TopicPartition, i64>,
    /// What a member was told is committed, at the least.
    floor: BTreeMap<TopicPartition, i64>,
    owners: BTreeMap<TopicPartition, BTreeSet<usize>>,
}

struct Member {
    group: usize,
    machine: usize,
    /// Until when something kept it from hearing of its group.
    kept_out_until: Duration,
    is_gone: bool,
}

pub struct Truth {
    sessions: BTreeMap<u64, Session>,
    groups: BTreeMap<usize, Group>,
    members: BTreeMap<usize, Member>,
    /// What is known of the logs, by partition and offset.
    log: BTreeMap<TopicPartition, BTreeMap<i64, Name>>,
    told: mpsc::Sender<(usize, Duration, RebalanceEvent)>,
    events: mpsc::Receiver<(usize, Duration, RebalanceEvent)>,
    /// How long a member may hold what another one has already, once nothing keeps it from knowing.
    pub believes_max: Duration,
    /// Of machines, until when something is wrong with them; of the broker as `usize::MAX`.
    disturbed: BTreeMap<usize, Duration>,
    /// By partition, where brokers said that it ends.
    ends: BTreeMap<(String, i32), i64>,
    /// By partition and epoch, who said that it leads.
    leaders: BTreeMap<((String, i32), i32), usize>,
    pub acknowledged: u64,
    pub polled: u64,
    pub overlaps_seen: u64,
}

pub const BROKER: usize = usize::MAX;

impl Truth {
    pub fn new(believes_max: Duration) -> Truth {
        let (told, events) = mpsc::channel();
        Truth {
            sessions: BTreeMap::new(),
            groups: BTreeMap::new(),
            members: BTreeMap::new(),
            log: BTreeMap::new(),
            told,
            events,
            believes_max,
            disturbed: BTreeMap::new(),
            ends: BTreeMap::new(),
            leaders: BTreeMap::new(),
            acknowledged: 0,
            polled: 0,
            overlaps_seen: 0,
        }
    }

    // Producers.

    pub fn new_session(&mut self, promise: Promise) -> u64 {
        let session = self.sessions.len() as u64;
        self.sessions.insert(session, Session { promise: Some(promise), sent: BTreeMap::new() });
        session
    }

    /// The next record of a session for a partition.
    pub fn send(&mut self, session: u64, at: &TopicPartition) -> Name {
        let sent = self.session(session).sent.entry(at.clone()).or_default();
        let number = sent.len() as u64;
        sent.insert(number, Fate::Unknown);
        Name { session, number }
    }

    fn session(&mut self, session: u64) -> &mut Session {
        self.sessions.get_mut(&session).expect("it was begun")
    }

    /// What its producer was told of it.
    pub fn told(&mut self, name: Name, at: &TopicPartition, outcome: Result<Option<i64>, &Error>) {
        let fate = match outcome {
            Ok(offset) => {
                self.acknowledged += 1;
                Fate::Written(offset)
            }
            // Whether it is written is not known.
            Err(Error::NotAcknowledged { .. }) => Fate::Unknown,
            Err(error) => Fate::NotWritten(error.to_string()),
        };
        if let Fate::Written(Some(offset)) = fate {
            self.note(at, offset, name);
        }
        let sent = self.session(name.session).sent.get_mut(at).expect("it was sent");
        sent.insert(name.number, fate);
    }

    fn note(&mut self, at: &TopicPartition, offset: i64, name: Name) {
        let known = *self.log.entry(at.clone()).or_default().entry(offset).or_insert(name);
        assert_eq!(known, name, "{at} has two records at offset {offset}");
    }

    /// Behind the last record that is known to be there.
    pub fn known_end(&self, at: &TopicPartition) -> i64 {
        self.log.get(at).and_then(|log| log.keys().next_back()).map_or(0, |last| last + 1)
    }

    // Leaders.

    /// Where partitions end at the least: behind what was acknowledged or read, and where a leader said.
    pub fn ends_known(&self) -> BTreeMap<(String, i32), i64> {
        let mut ends = self.ends.clone();
        for (at, log) in &self.log {
            let end = log.keys().next_back().map_or(0, |last| last + 1);
            let known = ends.entry((at.topic.to_string(), at.partition)).or_default();
            *known = (*known).max(end);
        }
        ends
    }

    /// A broker says, as the leader in this epoch, that the partition ends here; before it was asked, it did at `floor`.
    pub fn ends_at(&mut self, at: (String, i32), floor: i64, end: i64, broker: usize, epoch: i32) {
        assert!(
            end >= floor,
            "broker {broker} says in epoch {epoch} that {at:?} ends at {end}, and it ended at {floor} before"
        );
        let known = self.ends.entry(at.clone()).or_default();
        *known = (*known).max(end);
        let first = *self.leaders.entry((at.clone(), epoch)).or_insert(broker);
        assert_eq!(first, broker, "two brokers lead {at:?} in epoch {epoch}");
    }

    // Members of groups.

    /// Who tells of rebalances, on the client's own task.
    pub fn listener(&mut self, member: usize) -> impl Fn(&RebalanceEvent) + Send + Sync + 'static {
        let told = self.told.clone();
        move |event| {
            let now = world_now();
            note(|| format!("{now:?}: member {member}: {event:?}"));
            let _ = told.send((member, now, event.clone()));
        }
    }

    pub fn new_member(&mut self, group: usize, machine: usize) -> usize {
        let member = self.members.len();
        self.members.insert(member, Member { group, machine, kept_out_until: world_now(), is_gone: false });
        self.groups.entry(group).or_default();
        member
    }

    /// It does not poll until then: the group may go on without it.
    pub fn keep_out(&mut self, member: usize, until: Duration) {
        self.settle();
        self.members.get_mut(&member).expect("it began").kept_out_until = until;
    }

    /// Its client is gone, and tells nothing more.
    pub fn gone(&mut self, member: usize) {
        self.settle();
        let it = self.members.get_mut(&member).expect("it began");
        it.is_gone = true;
        let owners = &mut self.groups.get_mut(&it.group).expect("it has members").owners;
        owners.values_mut().for_each(|owners| {
            owners.remove(&member);
        });
    }

    /// Members on this machine are gone without a word.
    pub fn machine_gone(&mut self, machine: usize) {
        let of_machine: Vec<usize> =
            self.members.iter().filter(|(_, it)| it.machine == machine).map(|(member, _)| *member).collect();
        of_machine.into_iter().for_each(|member| self.gone(member));
    }

    /// Something is wrong with a machine, or with the broker, until then.
    pub fn disturb(&mut self, machine: usize, until: Duration) {
        self.disturbed.insert(machine, until);
    }

    fn is_well(&self, member: usize, now: Duration) -> bool {
        let Member { machine, kept_out_until, .. } = self.members[&member];
        let until = |of: usize| self.disturbed.get(&of).copied().unwrap_or_default();
        let since = kept_out_until.max(until(machine)).max(until(BROKER));
        now > since.saturating_add(self.believes_max)
    }

    /// Takes what listeners told.
    pub fn settle(&mut self) {
        while let Ok((member, now, event)) = self.events.try_recv() {
            let Member { group, is_gone, .. } = self.members[&member];
            if is_gone {
                continue;
            }
            match event {
                RebalanceEvent::Assigned(partitions) => {
                    for at in partitions {
                        self.assigned(group, member, at, now);
                    }
                }
                RebalanceEvent::Revoked(partitions) | RebalanceEvent::Lost(partitions) => {
                    let owners = &mut self.groups.get_mut(&group).expect("it has members").owners;
                    for at in partitions {
                        let had = owners.entry(at.clone()).or_default().remove(&member);
                        assert!(had, "member {member} loses {at}, which it did not have");
                    }
                }
            }
        }
    }

    fn assigned(&mut self, group: usize, member: usize, at: TopicPartition, now: Duration) {
        let others = self.groups[&group].owners.get(&at).cloned().unwrap_or_default();
        for other in others {
            self.overlaps_seen += 1;
            assert!(
                !self.is_well(other, now),
                "at {now:?} {at} of group {group} has two owners, members {other} and {member}, and nothing kept {other} from knowing"
            );
        }
        let owners = &mut self.groups.get_mut(&group).expect("it has members").owners;
        assert!(owners.entry(at).or_default().insert(member), "member {member} was given it twice");
    }

    pub fn owners(&mut self, group: usize, at: &TopicPartition) -> usize {
        self.settle();
        self.groups.get(&group).and_then(|group| group.owners.get(at)).map_or(0, BTreeSet::len)
    }

    /// What a poll gave a member.
    pub fn gave(&mut self, member: usize, records: &[ConsumerRecord]) {
        self.settle();
        let group = self.members[&member].group;
        for record in records {
            self.polled += 1;
            let at = TopicPartition::new(record.topic.clone(), record.partition);
            let owns = self.groups[&group].owners.get(&at).is_some_and(|owners| owners.contains(&member));
            assert!(owns, "member {member} was given a record of {at}, which it does not own");
            self.note(&at, record.offset, Name::of(record));
        }
    }

    /// A member is done with these.
    pub fn processed(&mut self, member: usize, records: &[ConsumerRecord]) {
        let group = self.members[&member].group;
        let processed = &mut self.groups.get_mut(&group).expect("it has members").processed;
        for record in records {
            let at = TopicPartition::new(record.topic.clone(), record.partition);
            processed.entry(at).or_default().insert(record.offset);
        }
    }

    /// A member was told that all these are committed.
    pub fn committed(&mut self, member: usize, positions: &BTreeMap<TopicPartition, i64>) {
        let group = self.members[&member].group;
        let floor = &mut self.groups.get_mut(&group).expect("it has members").floor;
        for (at, offset) in positions {
            let known = floor.entry(at.clone()).or_default();
            *known = (*known).max(*offset);
        }
    }

    pub fn floor(&self, group: usize) -> BTreeMap<TopicPartition, i64> {
        self.groups.get(&group).map(|group| group.floor.clone()).unwrap_or_default()
    }

    /// What the broker said is committed; `floor` is what had to be when it was asked.
    pub fn observed(
        &mut self,
        group: usize,
        floor: &BTreeMap<TopicPartition, i64>,
        seen: &BTreeMap<TopicPartition, i64>,
    ) {
        let Some(state) = self.groups.get_mut(&group) else { return };
        for (at, least) in floor {
            let seen = seen.get(at).copied().unwrap_or_default();
            assert!(
                seen >= *least,
                "group {group} was told that {least} is committed for {at}, and it is {seen}"
            );
        }
        for (at, offset) in seen {
            let before = state.committed.insert(at.clone(), *offset).unwrap_or_default();
            assert!(
                before <= *offset,
                "what group {group} committed for {at} went back from {before} to {offset}"
            );
            let processed = state.processed.get(at);
            let missing = (0..*offset).find(|offset| !processed.is_some_and(|it| it.contains(offset)));
            assert_eq!(
                missing, None,
                "group {group} committed {offset} for {at}, and nobody has worked through that offset"
            );
        }
    }

    /// How many of a partition's records the group has worked through from the first on.
    pub fn worked_through(&self, group: usize, at: &TopicPartition) -> i64 {
        let processed = self.groups.get(&group).and_then(|group| group.processed.get(at));
        let Some(processed) = processed else { return 0 };
        (0..).find(|offset| !processed.contains(offset)).expect("logs end")
    }

    // The last judgement.

    /// A partition's whole log, read after all.
    pub fn judge(&mut self, at: &TopicPartition, records: &[ConsumerRecord]) {
        for (offset, record) in records.iter().enumerate() {
            assert_eq!(record.offset, offset as i64, "{at} has a gap");
            self.note(at, record.offset, Name::of(record));
        }
        let last = self.log.get(at).and_then(|log| log.keys().next_back().copied());
        assert!(last.is_none_or(|last| last < records.len() as i64), "{at} ends before offset {last:?}");
        let mut found: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
        for name in records.iter().map(Name::of) {
            found.entry(name.session).or_default().push(name.number);
        }
        for (id, session) in &self.sessions {
            let none = Vec::new();
            let found = found.get(id).unwrap_or(&none);
            let Some(sent) = session.sent.get(at) else {
                assert!(found.is_empty(), "session {id} sent nothing to {at}, and it is there");
                continue;
            };
            let promise = session.promise.expect("it has one");
            judge_session(at, *id, promise, sent, found);
        }
    }
}

fn judge_session(at: &TopicPartition, id: u64, promise: Promise, sent: &BTreeMap<u64, Fate>, found: &[u64]) {
    for (number, fate) in sent {
        let is_there = found.contains(number);
        match fate {
            Fate::Unknown => {}
            Fate::Written(_) => assert!(
                is_there || promise == Promise::Unheard,
                "record {number} of session {id} was acknowledged, and {at} does not have it"
            ),
            Fate::NotWritten(why) => assert!(
                !is_there,
                "record {number} of session {id} failed as not written, and {at} has it ({promise:?}): {why}"
            ),
        }
    }
    let stray = found.iter().find(|number| !sent.contains_key(number));
    assert_eq!(stray, None, "{at} has a record that session {id} never sent");
    let mut first = BTreeSet::new();
    let firsts: Vec<u64> = found.iter().copied().filter(|number| first.insert(*number)).collect();
    if promise == Promise::Idempotent {
        assert_eq!(firsts.len(), found.len(), "{at} has records of idempotent session {id} twice: {found:?}");
    }
    // What was given up may still come, by a connection that only its client knows to be gone. Without numbers nobody can tell.
    let was_told = |number: &u64| matches!(sent.get(number), Some(Fate::Written(_)));
    let ordered: Vec<u64> = match promise {
        Promise::Idempotent => firsts,
        Promise::Ordered => firsts.into_iter().filter(was_told).collect(),
        _ => Vec::new(),
    };
    assert!(ordered.is_sorted(), "{at} has records of session {id} out of order: {found:?}");
}
