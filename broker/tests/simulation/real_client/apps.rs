//! What all programs share with the story around them, and the one that watches what groups commit.

use std::cell::{Cell, RefCell, RefMut};
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::rc::Rc;
use std::time::Duration;

use corelog_client::{Client, TopicPartition};
use corelog_io::sim::Process;
use corelog_io::sleep;

use super::plan::{
    API_TIMEOUT, CLOSE_TIMEOUT, DELIVERY_TIMEOUT, Plan, client_config, group_name, topic_name,
};
use super::truth::{Awake, SLACK, Truth};
use crate::shared::below;

pub struct Shared {
    pub plan: Plan,
    pub truth: RefCell<Truth>,
    /// Where the brokers are.
    pub bootstrap: String,
    /// Nothing strikes any more, and programs behave.
    pub calm: Cell<bool>,
    pub stop: Cell<bool>,
    pub working: Cell<usize>,
    /// Machines whose producers had something acknowledged since it is calm.
    pub heard: RefCell<BTreeSet<usize>>,
}

/// A program on a machine of its own.
pub struct App {
    pub shared: Rc<Shared>,
    pub machine: usize,
    pub process: Process,
    pub awake: Awake,
}

impl App {
    pub fn truth(&self) -> RefMut<'_, Truth> {
        self.shared.truth.borrow_mut()
    }

    pub fn plan(&self) -> &Plan {
        &self.shared.plan
    }

    pub fn stopped(&self) -> bool {
        self.shared.stop.get()
    }

    pub fn is_calm(&self) -> bool {
        self.shared.calm.get()
    }

    /// Once in `n` times, as long as anything may go wrong.
    pub fn misbehaves(&self, n: u64) -> bool {
        !self.is_calm() && below(n) == 0
    }

    pub fn heard(&self) {
        if self.is_calm() {
            self.shared.heard.borrow_mut().insert(self.machine);
        }
    }

    pub fn pace(&self) -> Duration {
        self.plan().pace.mul_f64(below(2_000) as f64 / 1_000.0)
    }

    pub async fn work(&self) {
        sleep(self.pace() / 2).await;
    }

    pub fn any_partition(&self) -> TopicPartition {
        let topic = below(self.plan().topics.len() as u64) as usize;
        TopicPartition::new(topic_name(topic), below(self.plan().topics[topic] as u64) as i32)
    }

    /// What `future` comes to, which must not take longer, whatever happens; the time in which the machine stands still does not count.
    pub async fn within<T>(&self, limit: Duration, what: &str, future: impl Future<Output = T>) -> T {
        let begun = self.awake.now();
        let value = future.await;
        let took = self.awake.now().saturating_sub(begun);
        assert!(took <= limit + SLACK, "{what} took {took:?}, and has {limit:?}");
        value
    }

    pub async fn connect(&self) -> Option<Client> {
        let connecting = Client::connect(client_config(&self.shared.bootstrap, self.plan().request_timeout));
        match self.within(API_TIMEOUT, "connect", connecting).await {
            Ok(client) => Some(client),
            Err(error) => {
                assert!(error.is_retriable(), "connect: {error}");
                sleep(Duration::from_millis(100)).await;
                None
            }
        }
    }

    /// Nothing is left of producers and consumers when their time is over, as long as their client lives.
    pub async fn check_leftovers(&self) {
        sleep(CLOSE_TIMEOUT.max(DELIVERY_TIMEOUT) + SLACK).await;
        let open = self.process.descriptors();
        // A client keeps its shared connections: to each bootstrap address, and to each broker by its id.
        let shared = 2 * self.plan().brokers;
        assert!(open <= shared, "{open} connections are left of producers and consumers that are gone");
    }
}

/// Looks at what groups have committed.
pub async fn watch(app: Rc<App>) {
    while !app.stopped() {
        let Some(client) = app.connect().await else { continue };
        let admin = client.admin();
        while !app.stopped() {
            for group in 0..app.plan().groups.len() {
                let floor = app.truth().floor(group);
                let name = group_name(group);
                let asked = admin.group_offsets(&name);
                if let Ok(seen) = app.within(API_TIMEOUT, "reading offsets", asked).await {
                    let seen: BTreeMap<TopicPartition, i64> =
                        seen.into_iter().map(|(at, committed)| (at, committed.offset)).collect();
                    app.truth().observed(group, &floor, &seen);
                }
            }
            sleep(Duration::from_millis(below(300))).await;
        }
    }
}
