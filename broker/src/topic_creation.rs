//! Creating topics: on a client's request, by auto-creation, and the coordinator's own.

use std::rc::Rc;
use std::sync::Arc;

use corelog_wire::{ErrorCode, Str, Uuid};

use crate::audit::{self, Asker, Audited};
use crate::config::alter;
use crate::controller::{
    CONTROLLER_TOPIC_NAME, Change, ChangeError, INTERNAL_REPLICAS, NewTopic, OFFSETS_TOPIC, Placement, Terms,
    TopicImage, is_internal,
};
use crate::shard::Shard;
use crate::topic_name;

/// Checks a topic's name and configs and has the controller create it.
pub async fn create(
    shard: &Rc<Shard>,
    asker: &Asker,
    name: Str,
    placement: Placement,
    configs: &[(&str, Option<&str>)],
    terms: Terms,
) -> Result<Arc<TopicImage>, ChangeError> {
    let details = {
        let configs = configs.iter().map(|(name, value)| audit::setting(name, *value));
        audit::list([format!("partitions={}", placement.partitions())].into_iter().chain(configs))
    };
    let change = (!terms.validate_only).then(|| Audited::new(shard, asker, "create topic", &name, details));
    let created = checked_and_created(shard, name, placement, configs, terms).await;
    if let Some(change) = change {
        change.done(&created);
    }
    created
}

async fn checked_and_created(
    shard: &Rc<Shard>,
    name: Str,
    placement: Placement,
    configs: &[(&str, Option<&str>)],
    terms: Terms,
) -> Result<Arc<TopicImage>, ChangeError> {
    topic_name::check(&name).map_err(|why| {
        ChangeError::new(ErrorCode::INVALID_TOPIC_EXCEPTION, format!("Topic name is invalid: {why}"))
    })?;
    if &*name == CONTROLLER_TOPIC_NAME {
        // It is there, and it is no topic that a client could use.
        let message = "Creation of internal topic __cluster_metadata is prohibited.";
        return Err(ChangeError::new(ErrorCode::INVALID_REQUEST, message));
    }
    let overrides = {
        let image = shard.image();
        let (own, cluster) = image.broker_layers(shard.identity.node_id);
        alter::new_topic(&shard.settings.layers(own, cluster), configs)?
    };
    let id = Uuid::from_random((corelog_io::random_u64() as u128) << 64 | corelog_io::random_u64() as u128);
    let change = Change::CreateTopic(NewTopic { name, id, placement, overrides });
    let view = shard.change(change, terms).await?.view;
    // It may have been deleted by the time that this broker heard of it.
    let created = view.image.topic_by_id(id).cloned();
    created.ok_or_else(|| ChangeError::from(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION))
}

/// `auto.create.topics.enable`: a topic with the broker's defaults. One that came into being meanwhile will do.
pub async fn auto_create(
    shard: &Rc<Shard>,
    asker: &Asker,
    name: Str,
    terms: Terms,
) -> Result<Arc<TopicImage>, ChangeError> {
    if &*name == OFFSETS_TOPIC {
        return ensure_offsets_topic(shard, asker, terms).await;
    }
    let placement = {
        let config = shard.config();
        let replication_factor = config.default_replication_factor;
        Placement::Anywhere { partitions: config.num_partitions, replication_factor }
    };
    let created = create(shard, asker, name.clone(), placement, &[], terms).await;
    existing(shard, &name, created)
}

/// `__consumer_offsets`, created when the first group needs it.
pub async fn ensure_offsets_topic(
    shard: &Rc<Shard>,
    asker: &Asker,
    terms: Terms,
) -> Result<Arc<TopicImage>, ChangeError> {
    if let Some(topic) = shard.image().topic(OFFSETS_TOPIC) {
        return Ok(topic.clone());
    }
    let config = shard.config();
    let name = Str::from(OFFSETS_TOPIC);
    debug_assert!(is_internal(&name));
    let configs = config.offsets.configs();
    let configs: Vec<(&str, Option<&str>)> =
        configs.iter().map(|(name, value)| (name.as_str(), Some(value.as_str()))).collect();
    let there = shard.image().brokers_there().count() as i32;
    let replication_factor = there.clamp(1, INTERNAL_REPLICAS as i32);
    let placement = Placement::Anywhere { partitions: config.offsets.partitions, replication_factor };
    let created = create(shard, asker, name.clone(), placement, &configs, terms).await;
    existing(shard, &name, created)
}

fn existing(
    shard: &Rc<Shard>,
    name: &str,
    created: Result<Arc<TopicImage>, ChangeError>,
) -> Result<Arc<TopicImage>, ChangeError> {
    match created {
        Err(error) if error.code == ErrorCode::TOPIC_ALREADY_EXISTS => {
            shard.image().topic(name).cloned().ok_or(error)
        }
        other => other,
    }
}
