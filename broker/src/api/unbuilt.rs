//! What clients ask for and this version does not have. Each client gives up at some answers and tries again for ever at
//! others, and shows its user some texts and not others: so the answer is one at which it gives up at once and says
//! why, as the suites in `tools/clients` hold it to. The log says who asked for what.

use corelog_wire::messages::{
    ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse, SaslAuthenticateRequest,
    SaslAuthenticateResponse, SaslHandshakeRequest, SaslHandshakeResponse,
};
use corelog_wire::{ErrorCode, Str};

use super::context::Context;
use crate::config::rows::UNCOMPACTED;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unbuilt {
    Transactions,
    /// KIP-848.
    ConsumerProtocol,
    /// A topic is made or altered to have it.
    Compaction,
    Sasl,
}

impl Unbuilt {
    /// For people: what is not there, and what is in its place.
    pub fn message(self) -> &'static str {
        match self {
            Unbuilt::Transactions => {
                "Corelog has no transactions yet: without transactional.id, idempotent producers work"
            }
            Unbuilt::ConsumerProtocol => {
                "Corelog has no consumer group protocol of KIP-848 yet: set group.protocol=classic"
            }
            Unbuilt::Compaction => UNCOMPACTED,
            Unbuilt::Sasl => "Corelog has no authentication yet: set security.protocol=PLAINTEXT",
        }
    }

    /// Tells the log that a client asked for it.
    pub fn tell(self, context: &Context) {
        self.tell_of(context, String::new());
    }

    fn tell_of(self, context: &Context, topic: String) {
        let client = context.client();
        let kind = match self {
            Unbuilt::Transactions => "transactions",
            Unbuilt::ConsumerProtocol => "consumer protocol",
            Unbuilt::Compaction => "compaction",
            Unbuilt::Sasl => "authentication",
        };
        context.shard.sparingly(kind, move |left_out| {
            let topic = Some(topic).filter(|topic| !topic.is_empty());
            tracing::warn!(%client, topic, left_out, "a client asks for what is not built: {}", self.message());
        });
    }
}

/// What an answer says of a topic that was made or altered to be compacted. Most clients pass over the message of an
/// answer without an error; corectl shows it.
pub fn remark(context: &Context, topic: &str, compacted: bool) -> Option<&'static str> {
    if !compacted {
        return None;
    }
    Unbuilt::Compaction.tell_of(context, topic.to_owned());
    Some(UNCOMPACTED)
}

/// How a transactional producer's search for its coordinator ends. librdkafka gives up at this code alone, with the
/// message; it and KafkaJS speak versions up to 2. Others (Java since 2.4, franz-go, kafka-python) give up at any
/// error that is not to be tried again: with the truth they do not look for missing ACLs.
pub fn no_transaction_coordinator(api_version: i16) -> ErrorCode {
    if api_version <= 2 {
        ErrorCode::TRANSACTIONAL_ID_AUTHORIZATION_FAILED
    } else {
        ErrorCode::UNSUPPORTED_VERSION
    }
}

/// ConsumerGroupHeartbeat (KIP-848) is advertised, and refused as by a Kafka whose `group.version` is 0: where it is not
/// advertised at all librdkafka waits for it without a word.
pub async fn consumer_group_heartbeat(
    context: Context,
    _request: ConsumerGroupHeartbeatRequest,
) -> ConsumerGroupHeartbeatResponse {
    Unbuilt::ConsumerProtocol.tell(&context);
    ConsumerGroupHeartbeatResponse {
        error_code: ErrorCode::UNSUPPORTED_VERSION.0,
        error_message: Some(Str::from(Unbuilt::ConsumerProtocol.message())),
        ..Default::default()
    }
}

/// SaslHandshake and SaslAuthenticate are refused as on any PLAINTEXT listener of Kafka: clients give up at it, and show
/// that the listener is the reason.
pub async fn sasl_handshake(context: Context, _request: SaslHandshakeRequest) -> SaslHandshakeResponse {
    Unbuilt::Sasl.tell(&context);
    SaslHandshakeResponse { error_code: ErrorCode::ILLEGAL_SASL_STATE.0, ..Default::default() }
}

pub async fn sasl_authenticate(
    context: Context,
    _request: SaslAuthenticateRequest,
) -> SaslAuthenticateResponse {
    Unbuilt::Sasl.tell(&context);
    SaslAuthenticateResponse {
        error_code: ErrorCode::ILLEGAL_SASL_STATE.0,
        error_message: Some(Str::from(Unbuilt::Sasl.message())),
        ..Default::default()
    }
}
