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
use corelog_wire::ErrorCode;
use corelog_wire::fetch::FetchRequest;

use super::list::List;

/// A full cache gives up sessions that were not used for this long (Kafka's
/// `MIN_INCREMENTAL_FETCH_SESSION_EVICTION_MS`); if there is none, a new client goes without a session.
const EVICTION_AGE: Duration = Duration::from_secs(120);
/// Partitions that the sessions of one shard may name together.
const PARTITIONS_MAX: usize = 200_000;

const EPOCH_INITIAL: i32 = 0;
pub const EPOCH_FINAL: i32 = -1;

struct Session {
    epoch: i32,
    used: Instant,
    /// Away while an answer is made from it.
    list: Option<List>,
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
    pub list: List,
    /// Only partitions with news are answered.
    pub incremental: bool,
    lent: Option<Lent>,
}

/// The list of a session is out.
struct Lent {
    sessions: Rc<Sessions>,
    id: i32,
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
        request: &FetchRequest,
        by_id: bool,
        now: Instant,
    ) -> Result<Plan, ErrorCode> {
        let (id, epoch) = (request.session_id, request.session_epoch);
        if epoch == EPOCH_FINAL || epoch == EPOCH_INITIAL {
            self.remove(id);
            let mut list = List::new(by_id);
            list.update(request);
            let session_id = if epoch == EPOCH_INITIAL { self.create(list.len(), now) } else { 0 };
            let lent = (session_id != 0).then(|| Lent { sessions: self.clone(), id: session_id });
            return Ok(Plan { session_id, list, incremental: false, lent });
        }
        let mut sessions = self.sessions.borrow_mut();
        let session = sessions.get_mut(&id).ok_or(ErrorCode::FETCH_SESSION_ID_NOT_FOUND)?;
        let Some(list) = session.list.take_if(|_| session.epoch == epoch) else {
            return Err(ErrorCode::INVALID_FETCH_SESSION_EPOCH);
        };
        if list.is_by_id() != by_id {
            session.list = Some(list);
            return Err(ErrorCode::FETCH_SESSION_TOPIC_ID_ERROR);
        }
        session.epoch = if epoch == i32::MAX { 1 } else { epoch + 1 };
        session.used = now;
        let others = self.partitions.get() - session.counted;
        drop(sessions);
        let mut plan =
            Plan { session_id: id, list, incremental: true, lent: Some(Lent { sessions: self.clone(), id }) };
        plan.list.update(request);
        if plan.list.is_empty() || others + plan.list.len() > PARTITIONS_MAX {
            // As Kafka does with an empty one: its client begins a new session when there is something to fetch again.
            return Ok(Plan { session_id: 0, incremental: false, lent: None, ..plan });
        }
        Ok(plan)
    }

    /// Makes a session whose list is away until its first answer; 0 if there is no room.
    fn create(&self, partitions: usize, now: Instant) -> i32 {
        if self.partitions.get() + partitions > PARTITIONS_MAX {
            return 0;
        }
        if self.count() >= self.slots {
            let oldest = {
                let sessions = self.sessions.borrow();
                let idle = sessions.iter().filter(|(_, session)| session.list.is_some());
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
                sessions.insert(id, Session { epoch: 1, used: now, list: None, counted: 0 });
                return id;
            }
        }
    }

    fn remove(&self, id: i32) {
        let session = self.sessions.borrow_mut().remove(&id);
        if let Some(session) = session {
            self.partitions.set(self.partitions.get() - session.counted);
        }
    }
}

impl Plan {
    /// The answer is made: the session can go on from it.
    pub fn finish(self) {
        let Some(lent) = self.lent else { return };
        let sessions = &lent.sessions;
        if let Some(session) = sessions.sessions.borrow_mut().get_mut(&lent.id) {
            let count = self.list.len();
            sessions.partitions.set(sessions.partitions.get() - session.counted + count);
            session.counted = count;
            session.list = Some(self.list);
        }
    }
}

impl Drop for Lent {
    /// A session whose list does not come back is over: what its client was told is not known.
    fn drop(&mut self) {
        let is_away = |session: &Session| session.list.is_none();
        if self.sessions.sessions.borrow().get(&self.id).is_some_and(is_away) {
            self.sessions.remove(self.id);
        }
    }
}

#[cfg(test)]
mod tests;
