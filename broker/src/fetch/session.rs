//! Fetch sessions (KIP-227): a client names its partitions once and then only what changes; the broker answers
//! only with what changed.
//!
//! The cache belongs to one shard, since a client fetches over one connection; a client that reconnects elsewhere is
//! told that its session is unknown and begins a new one, as after a broker's restart.

use std::any::Any;
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::{Rc, Weak};
use std::time::Duration;

use corelog_io::Instant;
use corelog_wire::ErrorCode;
use corelog_wire::fetch::FetchRequest;

use super::list::{List, ListMemory};

/// Kafka's `MIN_INCREMENTAL_FETCH_SESSION_EVICTION_MS`: a session that was not used for this long may be given up for any
/// other, and one that is this old for a larger one, which saves more.
const EVICTION_AGE: Duration = Duration::from_secs(120);

/// Fetches without a session wait as long as they like while lists take less than this part of the room: the rest is for
/// sessions.
const WAITING_PART: usize = 2;
/// And then this long: a default of Kafka's clients (`fetch.max.wait.ms`).
const WAIT_WITHOUT_ROOM: Duration = Duration::from_millis(500);
/// With so many times the room used up they may not wait at all.
const OVERDRAWN: usize = 2;

const EPOCH_INITIAL: i32 = 0;
pub const EPOCH_FINAL: i32 = -1;

/// Whoever a session is for: all that is known of it is whether it is still there.
pub type Client = dyn Any;

struct Session {
    epoch: i32,
    used: Instant,
    created: Instant,
    /// The connection that it was last used on: a client that is gone begins a new session when it comes back.
    client: Weak<Client>,
    /// Away while an answer is made from it.
    list: Option<List>,
    /// What its list took when it was last answered, in bytes.
    bytes: usize,
}

pub struct Sessions {
    slots: usize,
    bytes_max: usize,
    sessions: RefCell<HashMap<i32, Session>>,
    memory: ListMemory,
}

/// What to fetch for a request, and how to answer.
pub struct Plan {
    /// 0 for none.
    pub session_id: i32,
    pub list: List,
    /// Only partitions with news are answered.
    pub incremental: bool,
    /// Where there is too little memory for lists: how long its fetch may wait.
    pub wait_max: Option<Duration>,
    lent: Option<Lent>,
}

/// The list of a session is out.
struct Lent {
    sessions: Rc<Sessions>,
    id: i32,
}

impl Sessions {
    /// `bytes_max`: of what all sessions and fetches that wait name together.
    pub fn new(slots: usize, bytes_max: usize) -> Rc<Sessions> {
        Rc::new(Sessions { slots, bytes_max, sessions: RefCell::default(), memory: ListMemory::default() })
    }

    /// What the sessions and the fetches under way take.
    pub fn bytes(&self) -> usize {
        self.memory.used()
    }

    fn count(&self) -> usize {
        self.sessions.borrow().len()
    }

    /// Finds or makes the session of a request and brings its list up to date.
    pub fn begin(
        self: &Rc<Self>,
        request: &FetchRequest,
        by_id: bool,
        client: &Rc<Client>,
        now: Instant,
    ) -> Result<Plan, ErrorCode> {
        let (id, epoch) = (request.session_id, request.session_epoch);
        if epoch == EPOCH_FINAL || epoch == EPOCH_INITIAL {
            self.remove(id);
            let mut list = List::new(by_id, self.memory.clone());
            list.update(request);
            let session_id = if epoch == EPOCH_INITIAL { self.create(list.bytes(), client, now) } else { 0 };
            let wait_max = if session_id == 0 { self.wait_max(now) } else { None };
            let lent = (session_id != 0).then(|| Lent { sessions: self.clone(), id: session_id });
            return Ok(Plan { session_id, list, incremental: false, wait_max, lent });
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
        session.client = Rc::downgrade(client);
        let before = session.bytes;
        drop(sessions);
        let lent = Some(Lent { sessions: self.clone(), id });
        let mut plan = Plan { session_id: id, list, incremental: true, wait_max: None, lent };
        plan.list.update(request);
        let bytes = plan.list.bytes();
        let has_room = bytes <= before || self.make_room(bytes, self.slots, now);
        if plan.list.is_empty() || !has_room {
            // As Kafka does with an empty one: its client begins a new session when there is something to fetch again.
            let wait_max = self.wait_max(now);
            return Ok(Plan { session_id: 0, incremental: false, wait_max, lent: None, ..plan });
        }
        Ok(plan)
    }

    /// How long a fetch may wait that has no session, by what lists take with its own.
    fn wait_max(&self, now: Instant) -> Option<Duration> {
        // Of sessions only those go that are of no use to anybody.
        self.make_room(0, usize::MAX, now);
        match self.bytes() {
            bytes if bytes <= self.bytes_max / WAITING_PART => None,
            bytes if bytes <= OVERDRAWN * self.bytes_max => Some(WAIT_WITHOUT_ROOM),
            _ => Some(Duration::ZERO),
        }
    }

    /// Makes a session whose list is away until its first answer; 0 if there is no room.
    fn create(&self, bytes: usize, client: &Rc<Client>, now: Instant) -> i32 {
        // Without a slot (max.incremental.fetch.session.cache.slots=0) there is no session.
        let Some(others) = self.slots.checked_sub(1) else { return 0 };
        if !self.make_room(bytes, others, now) {
            return 0;
        }
        let mut sessions = self.sessions.borrow_mut();
        loop {
            let id = (corelog_io::random_u64() & 0x7fff_ffff) as i32;
            if id != 0 && !sessions.contains_key(&id) {
                let client = Rc::downgrade(client);
                let session = Session { epoch: 1, used: now, created: now, client, list: None, bytes };
                sessions.insert(id, session);
                return id;
            }
        }
    }

    /// Gives sessions up until one of `bytes`, which are counted, fits beside at most `slots`.
    fn make_room(&self, bytes: usize, slots: usize, now: Instant) -> bool {
        loop {
            if self.bytes() <= self.bytes_max && self.count() <= slots {
                return true;
            }
            match self.least_valuable(bytes, now) {
                Some(id) if bytes <= self.bytes_max => self.remove(id),
                _ => return false,
            }
        }
    }

    /// The session to give up for one of `bytes`: first those whose clients are gone, then as Kafka (KIP-227) what was long
    /// unused, then the smallest, once it has lasted.
    fn least_valuable(&self, bytes: usize, now: Instant) -> Option<i32> {
        let sessions = self.sessions.borrow();
        let idle = || sessions.iter().filter(|(_, session)| session.list.is_some());
        let is_gone = |session: &Session| session.client.strong_count() == 0;
        let gone = idle().filter(|(_, session)| is_gone(session)).min_by_key(|(_, session)| session.used);
        let unused = || {
            let oldest = idle().min_by_key(|(_, session)| session.used);
            oldest.filter(|(_, session)| now - session.used >= EVICTION_AGE)
        };
        let smaller = || {
            let lasted = idle().filter(|(_, session)| now - session.created >= EVICTION_AGE);
            let smallest = lasted.min_by_key(|(_, session)| session.bytes);
            smallest.filter(|(_, session)| session.bytes < bytes)
        };
        gone.or_else(unused).or_else(smaller).map(|(id, _)| *id)
    }

    fn remove(&self, id: i32) {
        let session = self.sessions.borrow_mut().remove(&id);
        drop(session);
    }
}

impl Plan {
    /// The answer is made: the session can go on from it.
    pub fn finish(self) {
        let Some(lent) = self.lent else { return };
        let sessions = &lent.sessions;
        if let Some(session) = sessions.sessions.borrow_mut().get_mut(&lent.id) {
            session.bytes = self.list.bytes();
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
