//! Which topic bears a name.

use std::rc::Rc;

use corelog_wire::Uuid;

type LookUp = dyn Fn(&str) -> Option<Uuid>;

/// The id of the topic that bears a name now, by the metadata of this shard; `None` if none does. A topic that was
/// deleted and created anew under its name is another one, and offsets of the former are nothing to it.
#[derive(Clone)]
pub struct TopicIds(Rc<LookUp>);

impl TopicIds {
    pub fn new(look_up: impl Fn(&str) -> Option<Uuid> + 'static) -> TopicIds {
        TopicIds(Rc::new(look_up))
    }

    pub fn id(&self, name: &str) -> Option<Uuid> {
        (self.0)(name)
    }

    /// Whether who asked for `name`, and took it for the topic `asked`, meant the topic of now. Zero: did not say.
    pub fn agree(&self, name: &str, asked: Uuid) -> bool {
        asked.is_zero() || self.id(name) == Some(asked)
    }
}
