//! What a connection and the API that answers its requests know of each other.

use std::cell::OnceCell;
use std::net::SocketAddr;

use bytes::Bytes;
use corelog_io::sync::Permit;
use corelog_wire::Str;
use futures_util::future::LocalBoxFuture;

use crate::access::Principal;

/// What the handlers know of the connection a request came on.
pub struct Connection {
    pub peer: SocketAddr,
    /// Place in the configuration of the listener that it came in through.
    pub listener: usize,
    /// Name and version of the client's software, once it has told them (KIP-511).
    pub software: OnceCell<(Str, Str)>,
    /// Who the client is, once that is known.
    principal: OnceCell<Principal>,
}

impl Connection {
    /// `principal`: who it is, where the listener need not be told.
    pub fn new(peer: SocketAddr, listener: usize, principal: Option<Principal>) -> Connection {
        let principal = principal.map_or_else(OnceCell::new, OnceCell::from);
        Connection { peer, listener, software: OnceCell::new(), principal }
    }

    /// Before it is, requests are answered strictly one after the other, since each decides what the next one may be; and
    /// only those for strangers ([`Api::is_for_strangers`](crate::api::Api::is_for_strangers)).
    pub fn is_authenticated(&self) -> bool {
        self.principal.get().is_some()
    }

    pub fn principal(&self) -> &Principal {
        self.principal.get().expect("strangers' requests ask nobody's name")
    }

    /// Who is at the other end, for the log.
    pub fn client(&self, client_id: Option<&str>) -> String {
        let id = client_id.unwrap_or_default().escape_debug();
        match self.software.get() {
            Some((name, version)) => format!("\"{id}\" ({name} {version}) at {}", self.peer),
            None => format!("\"{id}\" at {}", self.peer),
        }
    }
}

/// What becomes of a request.
pub enum Outcome {
    /// A whole frame, and the budget its records hold until they are sent.
    Answer { frame: Vec<Bytes>, held: Option<Permit> },
    /// acks=0: nothing is sent.
    Silence,
    /// The connection must be closed, after the answers before this one.
    Close(CloseReason),
}

/// Why the broker closes a connection on its own account.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CloseReason {
    #[error("request header: {0}")]
    Header(String),
    #[error("{api} v{version}: {error}")]
    Malformed { api: &'static str, version: i16, error: String },
    #[error("API key {key} v{version} is not supported")]
    Unsupported { key: i16, version: i16 },
    #[error("API key {key} v{version} was asked for before authentication")]
    NotAuthenticated { key: i16, version: i16 },
    #[error("produce with acks=0 failed: {0}")]
    SilentProduceFailed(String),
    #[error("an answer could not be encoded: {0}")]
    Encode(String),
    #[error("the broker is shutting down")]
    Shutdown,
}

impl CloseReason {
    /// Of what a client is refused for; lines of one kind are told sparingly.
    pub fn kind(&self) -> Option<&'static str> {
        match self {
            CloseReason::Header(_) | CloseReason::Malformed { .. } => Some("malformed request"),
            CloseReason::Unsupported { .. } => Some("unsupported request"),
            CloseReason::NotAuthenticated { .. } => Some("request before authentication"),
            CloseReason::SilentProduceFailed(_) => Some("failed produce with acks=0"),
            CloseReason::Encode(_) => Some("answer that cannot be encoded"),
            CloseReason::Shutdown => None,
        }
    }
}

/// A request that was taken in.
pub struct Begun {
    pub api_key: i16,
    /// Completes it; the connection awaits these in order.
    pub outcome: LocalBoxFuture<'static, Outcome>,
    /// Whether its answer may wait for what other clients do. It gives the request's room back before it waits.
    pub waits_for_others: bool,
    /// Memory of what of the answer is made already.
    pub made_bytes: usize,
}

impl Begun {
    pub fn new(api_key: i16, outcome: impl Future<Output = Outcome> + 'static) -> Begun {
        Begun { api_key, outcome: Box::pin(outcome), waits_for_others: false, made_bytes: 0 }
    }

    pub fn close(api_key: i16, reason: CloseReason) -> Begun {
        Begun::new(api_key, async move { Outcome::Close(reason) })
    }
}
