//! DeleteTopics, by name or id (KIP-516).

use std::collections::HashMap;

use corelog_wire::messages::delete_topics_request::State;
use corelog_wire::messages::delete_topics_response::DeletableTopicResult;
use corelog_wire::messages::{DeleteTopicsRequest, DeleteTopicsResponse};
use corelog_wire::{ErrorCode, Str, Uuid};

use super::context::{Context, told};
use crate::controller::{Change, ChangeError, Image, Terms};

pub async fn handle(context: Context, request: DeleteTopicsRequest) -> DeleteTopicsResponse {
    let terms = Terms::new(false, Some(request.timeout_ms));
    let by_name =
        request.topic_names.into_iter().map(|name| State { name: Some(name), ..Default::default() });
    let topics: Vec<State> = request.topics.into_iter().chain(by_name).collect();
    // One topic may be named twice, or by its name and by its id.
    let image = context.shard.image();
    let mut named: HashMap<Key, usize> = HashMap::new();
    for topic in &topics {
        *named.entry(key(&image, topic)).or_default() += 1;
    }
    let mut responses = Vec::new();
    for topic in topics {
        let mut answer =
            DeletableTopicResult { name: topic.name.clone(), topic_id: topic.topic_id, ..Default::default() };
        let result = match named.remove(&key(&image, &topic)) {
            // Answered with the first of its kind.
            None => continue,
            Some(1) => delete(&context, topic, terms).await,
            Some(_) => {
                Err(ChangeError::new(ErrorCode::INVALID_REQUEST, "The topic is named more than once."))
            }
        };
        match result {
            Ok((name, id)) => {
                answer.name = Some(name);
                answer.topic_id = id;
            }
            Err(error) => {
                answer.error_code = error.code.0;
                answer.error_message = told(error.message);
            }
        }
        responses.push(answer);
    }
    DeleteTopicsResponse { responses, ..Default::default() }
}

/// What a topic is known by: its id where it exists, else what the request says.
type Key = (Option<Str>, Uuid);

fn key(image: &Image, topic: &State) -> Key {
    match topic.name.as_ref().and_then(|name| image.topic(name)) {
        Some(known) => (None, known.id),
        None => (topic.name.clone(), topic.topic_id),
    }
}

async fn delete(context: &Context, topic: State, terms: Terms) -> Result<(Str, Uuid), ChangeError> {
    let shard = &context.shard;
    if topic.name.is_some() && !topic.topic_id.is_zero() {
        return Err(ChangeError::new(
            ErrorCode::INVALID_REQUEST,
            "You may not specify both topic name and topic id.",
        ));
    }
    if !shard.config().delete_topics {
        let code = if context.api_version < 3 {
            ErrorCode::INVALID_REQUEST
        } else {
            ErrorCode::TOPIC_DELETION_DISABLED
        };
        return Err(ChangeError::new(code, ErrorCode::TOPIC_DELETION_DISABLED.message()));
    }
    let image = shard.image();
    let unknown = |code: ErrorCode| ChangeError::new(code, code.message());
    let found = match &topic.name {
        Some(name) => image.topic(name).ok_or_else(|| unknown(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION))?,
        None if topic.topic_id.is_zero() => {
            return Err(ChangeError::new(
                ErrorCode::INVALID_REQUEST,
                "Neither topic name nor id were specified.",
            ));
        }
        None => image.topic_by_id(topic.topic_id).ok_or_else(|| unknown(ErrorCode::UNKNOWN_TOPIC_ID))?,
    };
    let (name, id) = (found.name.clone(), found.id);
    let audited = context.change("delete topic", &name, format!("id={id}"));
    let deleted = shard.change(Change::DeleteTopic { id }, terms).await;
    audited.done(&deleted);
    deleted.map(|_| (name, id))
}
