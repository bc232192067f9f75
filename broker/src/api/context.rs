//! What handlers have beside their requests, and what they do with requests and answers alike.

use std::rc::Rc;

use corelog_wire::{DecodeError, Reader, Request, Str, frame};

use crate::audit::{Asker, Audited};
use crate::net::receive::RequestRoom;
use crate::net::request::{CloseReason, Connection, Outcome};
use crate::shard::Shard;

/// Of an error message; the longest names and values that a request can carry are 32767 bytes.
const MESSAGE_BYTES_MAX: usize = 2048;

/// What a handler knows besides its request.
#[derive(Clone)]
pub struct Context {
    pub shard: Rc<Shard>,
    pub connection: Rc<Connection>,
    pub api_version: i16,
    pub client_id: Option<Str>,
    /// For handlers that wait: what the request's bytes hold of the receive budget.
    pub room: RequestRoom,
}

impl Context {
    /// Who asks, as the log names clients: the client id, the software if it told, and the address.
    pub fn client(&self) -> String {
        self.connection.client(self.client_id.as_deref())
    }

    /// Who asks, for the audit.
    pub fn asker(&self) -> Asker {
        Asker {
            principal: self.connection.principal().clone(),
            client_id: self.client_id.clone(),
            address: self.connection.peer,
        }
    }

    pub fn change(&self, what: &'static str, on: &str, details: String) -> Audited {
        Audited::new(&self.shard, &self.asker(), what, on, details)
    }
}

/// An error message for an answer. It may repeat what the client sent, and a string that is longer than an INT16 tells could
/// not be sent at all.
pub fn told(mut message: String) -> Option<Str> {
    if message.len() > MESSAGE_BYTES_MAX {
        message.truncate(message.floor_char_boundary(MESSAGE_BYTES_MAX));
        message.push_str("...");
    }
    Some(message.into())
}

/// Before a request of another API asks the controller for changes: gives up the room that others need, and waits among those
/// that do the same; meanwhile it is what it came in as, for which it has room.
pub async fn wait_for_changes<R: Request>(context: &Context, request: R) -> R {
    let version = context.api_version;
    let Some(decoded) = context.room.take_decoded() else { return request };
    let count = decoded.count();
    let Ok(bytes) = request.to_bytes(version) else {
        context.room.add(decoded);
        return request;
    };
    drop((request, decoded));
    context.room.add(context.shard.decoded_changes.acquire(count).await);
    R::decode(&mut Reader::new(bytes), version).expect("it was just encoded")
}

/// Decodes a request. Bytes behind it are let pass, as Kafka does: librdkafka 2.16 sends three behind a Metadata v13.
pub fn decode<R: Request>(reader: &mut Reader, version: i16) -> Result<R, CloseReason> {
    let malformed =
        |error: DecodeError| CloseReason::Malformed { api: R::NAME, version, error: error.to_string() };
    let request = R::decode(reader, version).map_err(malformed)?;
    if reader.remaining() > 0 {
        tracing::debug!(api = R::NAME, version, bytes = reader.remaining(), "bytes follow the request");
    }
    Ok(request)
}

pub fn encode<R: corelog_wire::Response>(response: &R, version: i16, correlation_id: i32) -> Outcome {
    match frame::response(response, version, correlation_id) {
        Ok(frame) => Outcome::Answer { frame, held: None },
        Err(error) => Outcome::Close(CloseReason::Encode(error.to_string())),
    }
}
