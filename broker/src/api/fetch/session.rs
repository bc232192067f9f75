//! Fetch sessions (KIP-227): a client names its partitions once and then only what changes; the broker answers
//! only with what changed.
//!
//! The cache belongs to one shard, since a client fetches over one connection; a client that reconnects elsewhere is
//! told that its session is unknown and begins a new one, as after a broker's restart.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use corelog_io::Instant;
use corelog_wire::fetch::FetchRequest;
use corelog_wire::{ErrorCode, Str, Uuid};

/// A full cache gives up sessions that were not used for this long (Kafka's
/// `MIN_INCREMENTAL_FETCH_SESSION_EVICTION_MS`); if there is none, a new client goes without a session.
const EVICTION_AGE: Duration = Duration::from_secs(120);
/// Partitions that the sessions of one shard may name together.
const PARTITIONS_MAX: usize = 200_000;

const EPOCH_INITIAL: i32 = 0;
const EPOCH_FINAL: i32 = -1;

/// A partition as its consumer last asked for it.
#[derive(Debug, Clone, PartialEq)]
pub struct Asked {
    pub topic: Str,
    pub topic_id: Uuid,
    pub partition: i32,
    pub current_leader_epoch: i32,
    pub last_fetched_epoch: i32,
    pub fetch_offset: i64,
    pub max_bytes: i32,
    /// High watermark and log start offset as the client was last told them; `None` before the first answer.
    pub told: Option<(i64, i64)>,
}

#[derive(Debug)]
struct Session {
    epoch: i32,
    by_id: bool,
    asked: Vec<Asked>,
    used: Instant,
    /// An answer is being made from it, and holds its list.
    busy: bool,
    /// How many partitions the cache's bound counts for it.
    counted: usize,
}

pub struct Sessions {
    slots: usize,
    sessions: RefCell<HashMap<i32, Session>>,
    partitions: Cell<usize>,
}

/// What to fetch for a request, and how to answer.
pub struct Plan {
    /// 0 for none.
    pub session_id: i32,
    pub asked: Vec<Asked>,
    /// Only partitions with news are answered.
    pub incremental: bool,
    sessions: Option<Rc<Sessions>>,
}

impl Sessions {
    pub fn new(slots: usize) -> Rc<Sessions> {
        Rc::new(Sessions { slots, sessions: RefCell::default(), partitions: Cell::new(0) })
    }

    fn count(&self) -> usize {
        self.sessions.borrow().len()
    }

    /// Finds or makes the session of a request and brings its list up to date.
    pub fn begin(
        self: &Rc<Self>,
        request: FetchRequest,
        by_id: bool,
        now: Instant,
    ) -> Result<Plan, ErrorCode> {
        let (id, epoch) = (request.session_id, request.session_epoch);
        if epoch == EPOCH_FINAL || epoch == EPOCH_INITIAL {
            self.remove(id);
            let asked = asked(&request);
            let session_id = if epoch == EPOCH_INITIAL { self.create(by_id, asked.len(), now) } else { 0 };
            let sessions = (session_id != 0).then(|| self.clone());
            return Ok(Plan { session_id, asked, incremental: false, sessions });
        }
        let mut sessions = self.sessions.borrow_mut();
        let session = sessions.get_mut(&id).ok_or(ErrorCode::FETCH_SESSION_ID_NOT_FOUND)?;
        if session.epoch != epoch || session.busy {
            return Err(ErrorCode::INVALID_FETCH_SESSION_EPOCH);
        }
        if session.by_id != by_id {
            return Err(ErrorCode::FETCH_SESSION_TOPIC_ID_ERROR);
        }
        session.epoch = if epoch == i32::MAX { 1 } else { epoch + 1 };
        session.used = now;
        session.busy = true;
        for topic in &request.forgotten_topics_data {
            session.asked.retain(|asked| {
                !(same_topic(asked, &topic.topic, topic.topic_id, by_id)
                    && topic.partitions.contains(&asked.partition))
            });
        }
        merge(&mut session.asked, asked(&request), by_id);
        if session.asked.is_empty() {
            // As Kafka does: its client begins a new session when there is something to fetch again.
            drop(sessions);
            self.remove(id);
            return Ok(Plan { session_id: 0, asked: Vec::new(), incremental: false, sessions: None });
        }
        let asked = std::mem::take(&mut session.asked);
        Ok(Plan { session_id: id, asked, incremental: true, sessions: Some(self.clone()) })
    }

    /// Makes an empty session, busy until its first answer; 0 if there is no room.
    fn create(&self, by_id: bool, partitions: usize, now: Instant) -> i32 {
        if self.partitions.get() + partitions > PARTITIONS_MAX {
            return 0;
        }
        if self.count() >= self.slots {
            let oldest = {
                let sessions = self.sessions.borrow();
                let idle = sessions.iter().filter(|(_, session)| !session.busy);
                idle.min_by_key(|(_, session)| session.used).map(|(id, session)| (*id, session.used))
            };
            match oldest {
                Some((id, used)) if now - used >= EVICTION_AGE => self.remove(id),
                _ => return 0,
            }
        }
        let mut sessions = self.sessions.borrow_mut();
        loop {
            let id = (corelog_io::random_u64() & 0x7fff_ffff) as i32;
            if id != 0 && !sessions.contains_key(&id) {
                let session =
                    Session { epoch: 1, by_id, asked: Vec::new(), used: now, busy: true, counted: 0 };
                sessions.insert(id, session);
                return id;
            }
        }
    }

    fn remove(&self, id: i32) {
        if let Some(session) = self.sessions.borrow_mut().remove(&id) {
            self.partitions.set(self.partitions.get() - session.counted);
        }
    }
}

impl Plan {
    /// Moves the partitions that `served` tells of to the end, so that a small `max_bytes` reaches all in turn.
    pub fn rotate(&mut self, served: &[bool]) {
        let list = std::mem::take(&mut self.asked);
        let (served, mut rest): (Vec<_>, Vec<_>) =
            list.into_iter().zip(served).partition(|(_, served)| **served);
        rest.extend(served);
        self.asked = rest.into_iter().map(|(asked, _)| asked).collect();
    }
}

impl Drop for Plan {
    /// Gives the list back to its session.
    fn drop(&mut self) {
        let Some(sessions) = &self.sessions else { return };
        if let Some(session) = sessions.sessions.borrow_mut().get_mut(&self.session_id) {
            session.asked = std::mem::take(&mut self.asked);
            session.busy = false;
            let count = session.asked.len();
            sessions.partitions.set(sessions.partitions.get() - session.counted + count);
            session.counted = count;
        }
    }
}

fn same_topic(asked: &Asked, topic: &Str, id: Uuid, by_id: bool) -> bool {
    if by_id { asked.topic_id == id } else { asked.topic == *topic }
}

fn asked(request: &FetchRequest) -> Vec<Asked> {
    let partitions = request.topics.iter().flat_map(|topic| {
        // Names are slices of the request's frame; a session outlives it.
        let name = topic.topic.detach();
        topic.partitions.iter().map(move |partition| Asked {
            topic: name.clone(),
            topic_id: topic.topic_id,
            partition: partition.partition,
            current_leader_epoch: partition.current_leader_epoch,
            last_fetched_epoch: partition.last_fetched_epoch,
            fetch_offset: partition.fetch_offset,
            max_bytes: partition.partition_max_bytes,
            told: None,
        })
    });
    partitions.collect()
}

fn merge(list: &mut Vec<Asked>, news: Vec<Asked>, by_id: bool) {
    if news.is_empty() {
        return;
    }
    let key = |asked: &Asked| {
        let topic = if by_id { Str::default() } else { asked.topic.clone() };
        let id = if by_id { asked.topic_id } else { Uuid::default() };
        (topic, id, asked.partition)
    };
    let places: HashMap<_, usize> =
        list.iter().enumerate().map(|(place, asked)| (key(asked), place)).collect();
    for mut new in news {
        match places.get(&key(&new)) {
            Some(&place) => {
                new.told = list[place].told;
                list[place] = new;
            }
            None => list.push(new),
        }
    }
}

#[cfg(test)]
mod tests;
