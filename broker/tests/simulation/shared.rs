//! What a story and its clients know together.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::Deref;
use std::rc::Rc;
use std::time::Duration;

use corelog_io::{random_u64, sleep};
use corelog_wire::{ErrorCode, Str, Uuid};

use crate::connection::Connection;
use crate::plan::{Faults, Plan};
use crate::pulse::{Pulse, Pulses};
use crate::truth::{Place, Truth};

/// What all clients share with the story around them.
pub struct Common {
    pub plan: Plan,
    pub truth: RefCell<Truth>,
    pub address: SocketAddr,
    pub stop: Cell<bool>,
    /// Topics are to stay as they are for a while.
    pub hold: Cell<bool>,
    /// Crowds are to leave for a while.
    pub is_quiet: Cell<bool>,
    pub finished: Cell<usize>,
    /// Where the followers are.
    pub followers: RefCell<BTreeMap<usize, BTreeMap<Place, i64>>>,
    pub pulses: Pulses,
    /// The largest request that the broker takes.
    pub request_bytes_max: Cell<usize>,
}

/// One client's view of it.
pub struct Shared {
    common: Rc<Common>,
    pub pulse: Rc<Pulse>,
}

impl Deref for Shared {
    type Target = Common;

    fn deref(&self) -> &Common {
        &self.common
    }
}

/// A random number below `n`, from the seed; for clients.
pub fn below(n: u64) -> u64 {
    random_u64() % n.max(1)
}

pub fn topic_name(topic: usize) -> Str {
    format!("topic-{topic}").into()
}

impl Shared {
    pub fn new(plan: &Plan, address: SocketAddr) -> Rc<Shared> {
        let common = Rc::new(Common {
            plan: plan.clone(),
            truth: RefCell::new(Truth::new(plan.faults)),
            address,
            stop: Cell::default(),
            hold: Cell::default(),
            is_quiet: Cell::default(),
            finished: Cell::default(),
            followers: RefCell::default(),
            pulses: Pulses::default(),
            request_bytes_max: Cell::default(),
        });
        let pulse = common.pulses.unwatched();
        Rc::new(Shared { common, pulse })
    }

    pub fn client(&self, name: &str) -> Rc<Shared> {
        Rc::new(Shared { common: self.common.clone(), pulse: self.pulses.watched(name) })
    }

    /// A client that need not be answered.
    pub fn guest(&self) -> Rc<Shared> {
        Rc::new(Shared { common: self.common.clone(), pulse: self.pulses.unwatched() })
    }

    fn note_answers(&self, connection: Connection) -> Connection {
        let pulse = self.pulse.clone();
        connection.noted(move || pulse.beat())
    }

    pub async fn connect(&self, client: &str) -> Option<Connection> {
        let connection = Connection::open(self.address, client, || self.stopped()).await?;
        Some(self.note_answers(connection))
    }

    pub async fn connect_to_finish(&self, client: &str) -> Option<Connection> {
        let connection = Connection::open(self.address, client, || self.damaged()).await?;
        Some(self.note_answers(connection))
    }
}

impl Common {
    /// Clients begin nothing new, and finish what they have begun.
    pub fn stopped(&self) -> bool {
        self.stop.get()
    }

    /// Damage was found: nobody needs to get anywhere any more.
    pub fn damaged(&self) -> bool {
        self.truth.borrow().damage_found
    }

    /// Waits until topics may be changed.
    pub async fn may_change(&self) {
        while self.hold.get() {
            sleep(Duration::from_millis(20)).await;
        }
    }

    pub fn is_quiet(&self) -> bool {
        self.is_quiet.get()
    }

    /// An answer was that it cannot be had. Whether who asked need not ask again.
    pub fn gives_up(&self, failures: &mut u32) -> bool {
        *failures += 1;
        self.damaged() || (self.plan.faults == Faults::OneDamage && *failures > 5)
    }

    pub fn places(&self) -> Vec<Place> {
        let topics = self.plan.topics.iter().enumerate();
        topics
            .flat_map(|(topic, partitions)| (0..*partitions).map(move |partition| (topic, partition)))
            .collect()
    }

    /// The number of a topic in an answer.
    pub fn topic_of(&self, name: &Str, id: Uuid, by_id: bool) -> usize {
        let truth = self.truth.borrow();
        let known = &truth.topic_ids;
        let found = match by_id {
            true => known.iter().find(|(_, known)| **known == id).map(|(topic, _)| *topic),
            false => known.keys().copied().find(|topic| topic_name(*topic) == *name),
        };
        found.unwrap_or_else(|| panic!("the answer names a topic {name:?} {id}"))
    }

    pub fn expect_explained(&self, code: ErrorCode, what: &str) {
        assert!(self.truth.borrow_mut().explains(code.0), "{what}: {code:?} {}", code.message());
    }

    pub async fn pause(&self) {
        sleep(Duration::from_millis(1 + below(40))).await;
    }
}
