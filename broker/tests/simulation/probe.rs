//! What a new client finds: whether every partition is there, takes batches and serves them, whether topics can be changed,
//! and what groups have committed.

use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use corelog_io::timeout;
use corelog_wire::ErrorCode;
use corelog_wire::messages::create_topics_request::CreatableTopic;
use corelog_wire::messages::delete_topics_request::State;
use corelog_wire::messages::{CreateTopicsRequest, DeleteTopicsRequest};

use crate::connection::Connection;
use crate::plan::Faults;
use crate::shared::Shared;
use crate::truth::Place;
use crate::{committer, consumer, producer};

/// Each of the things that a probe does takes less.
const SOON: Duration = Duration::from_secs(30);
/// Beside one damage it produces as much as fills journals and tail caches several times.
const LOAD_BYTES: u64 = 2 << 20;
const VALUE_BYTES: u64 = 12_000;

/// At most `broken_max` logs are damaged: all others serve what they had, and take batches.
pub async fn probe(shared: Rc<Shared>, broken_max: usize) {
    let mut broken = BTreeSet::new();
    let places = shared.places();
    let mut sender = (shared.truth.borrow_mut().next_sender(), 0);
    // A batch for each, so that a damaged one has something to write, too.
    for place in &places {
        if !append(&shared, *place, &mut sender, 100).await {
            broken.insert(*place);
        }
    }
    for place in &places {
        if !check(&shared, *place).await {
            broken.insert(*place);
        }
    }
    let sound: Vec<Place> = places.into_iter().filter(|place| !broken.contains(place)).collect();
    let load = if shared.plan.faults == Faults::OneDamage { LOAD_BYTES } else { 0 };
    for _ in 0..load / VALUE_BYTES / sound.len().max(1) as u64 {
        for place in &sound {
            if !append(&shared, *place, &mut sender, VALUE_BYTES).await {
                broken.insert(*place);
            }
        }
    }
    for place in &sound {
        if !check(&shared, *place).await {
            broken.insert(*place);
        }
    }
    if shared.plan.reset_one_in == 0 {
        let changed = timeout(SOON, change_topics(&shared)).await;
        changed.unwrap_or_else(|_| panic!("topics cannot be changed"));
    }
    let group_log = usize::from(!groups_are_served(&shared).await);
    assert!(
        broken.len() + group_log <= broken_max,
        "more than {broken_max} are broken: {broken:?}, and {group_log} logs of groups"
    );
}

/// `false`: the storage does not serve it.
async fn check(shared: &Shared, place: Place) -> bool {
    let checked = timeout(SOON, consumer::check(shared, place, false)).await;
    checked.unwrap_or_else(|_| panic!("{place:?} is not served"))
}

/// `false`: the storage does not take it.
async fn append(shared: &Shared, place: Place, sender: &mut (u64, u64), size: u64) -> bool {
    let appended = timeout(SOON, async {
        loop {
            let mut connection = connect(shared).await;
            sender.1 += 1;
            // The network may break it.
            if let Ok(code) = producer::append(shared, &mut connection, place, *sender, size).await {
                return code;
            }
        }
    });
    appended.await.unwrap_or_else(|_| panic!("{place:?}: a sound partition takes no batch")).is_ok()
}

async fn change_topics(shared: &Shared) {
    let mut connection = connect(shared).await;
    let topic = CreatableTopic {
        name: "probe".into(),
        num_partitions: 3,
        replication_factor: 1,
        ..Default::default()
    };
    let request = CreateTopicsRequest { topics: vec![topic], timeout_ms: 10_000, ..Default::default() };
    let created = connection.call(&request, 7).await.expect("the broker answers").topics.remove(0);
    assert_eq!(created.error_code, 0, "a topic is created: {:?}", created.error_message);
    let topics = vec![State { topic_id: created.topic_id, ..Default::default() }];
    let request = DeleteTopicsRequest { topics, timeout_ms: 10_000, ..Default::default() };
    let deleted = connection.call(&request, 6).await.expect("the broker answers").responses.remove(0);
    assert_eq!(ErrorCode(deleted.error_code), ErrorCode::NONE, "and deleted");
}

/// Whether every group tells what it has committed.
async fn groups_are_served(shared: &Shared) -> bool {
    let mut served = true;
    let mut connection = connect(shared).await;
    let groups = shared.truth.borrow().groups();
    for (group, place) in groups {
        let told = timeout(Duration::from_secs(5), async {
            while let Ok(None) = committer::check(shared, &mut connection, &group, place).await {
                shared.pause().await;
            }
        });
        served &= told.await.is_ok();
    }
    served
}

async fn connect(shared: &Shared) -> Connection {
    shared.connect_to_finish("probe").await.expect("it is tried until it works")
}
