//! What a broker makes of the image: the effective configs, by what it was started with and by its dynamic configs.

use std::sync::Arc;

use corelog_io::{worked, yield_if_needed};
use corelog_wire::Uuid;
use rpds::RedBlackTreeMapSync;

use super::delta::Delta;
use super::image::{Image, TopicImage};
use crate::config::{ConfigMap, TopicConfig};
use crate::settings::Settings;

/// To resolve a config takes as long as to go through so many bytes.
const RESOLVED_BYTES: usize = 4 << 10;

#[derive(Debug, Clone)]
pub struct View {
    pub image: Arc<Image>,
    /// Of topics that set nothing.
    defaults: Arc<TopicConfig>,
    /// Of those that do.
    configs: RedBlackTreeMapSync<Uuid, Arc<TopicConfig>>,
}

/// Whose view it is.
#[derive(Clone, Copy)]
pub struct Viewer<'a> {
    pub settings: &'a Settings,
    pub node_id: i32,
}

impl Viewer<'_> {
    fn resolve(&self, image: &Image, overrides: &ConfigMap) -> TopicConfig {
        let (own, cluster) = image.broker_layers(self.node_id);
        TopicConfig::resolve(&self.settings.layers(own, cluster), overrides)
    }
}

impl View {
    pub fn new(image: Arc<Image>, viewer: Viewer<'_>) -> View {
        let defaults = Arc::new(viewer.resolve(&image, &ConfigMap::new()));
        let mut view = View { image, defaults, configs: RedBlackTreeMapSync::new_sync() };
        view.topics_with_configs().into_iter().for_each(|id| view.resolve(id, viewer));
        view
    }

    /// The view of `image`, to which `delta` leads from this one's.
    pub async fn follow(&self, image: Arc<Image>, delta: &Delta, viewer: Viewer<'_>) -> View {
        let mut view = View { image, ..self.clone() };
        for topic in &delta.removed {
            view.configs.remove_mut(&topic.id);
        }
        if delta.touches_broker(viewer.node_id) {
            let defaults = viewer.resolve(&view.image, &ConfigMap::new());
            if *view.defaults != defaults {
                view.defaults = Arc::new(defaults);
            }
            for id in view.topics_with_configs() {
                yield_if_needed().await;
                view.resolve(id, viewer);
            }
        } else {
            for (id, _) in delta.topics.iter().filter(|(_, topic)| topic.is_new || topic.configs) {
                view.resolve(*id, viewer);
            }
        }
        view
    }

    /// The effective config of a topic of this view's image.
    pub fn config(&self, topic: &TopicImage) -> &Arc<TopicConfig> {
        if topic.overrides.is_empty() {
            return &self.defaults;
        }
        debug_assert!(self.configs.contains_key(&topic.id), "a topic of another image");
        self.configs.get(&topic.id).unwrap_or(&self.defaults)
    }

    fn topics_with_configs(&self) -> Vec<Uuid> {
        let topics = self.image.topics().filter(|topic| !topic.overrides.is_empty());
        topics.map(|topic| topic.id).collect()
    }

    fn resolve(&mut self, id: Uuid, viewer: Viewer<'_>) {
        let Some(topic) = self.image.topic_by_id(id).filter(|topic| !topic.overrides.is_empty()) else {
            self.configs.remove_mut(&id);
            return;
        };
        worked(RESOLVED_BYTES);
        let config = viewer.resolve(&self.image, &topic.overrides);
        // What is the same stays the same, so that followers see it.
        if self.configs.get(&id).is_none_or(|before| **before != config) {
            self.configs.insert_mut(id, Arc::new(config));
        }
    }
}

#[cfg(test)]
impl PartialEq for View {
    fn eq(&self, other: &View) -> bool {
        self.image == other.image && self.defaults == other.defaults && self.configs == other.configs
    }
}
