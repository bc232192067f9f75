//! The beginning of a connection: who greets whom, and what either will not have.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::BytesMut;
use corelog_io::{Stream, timeout};

use super::hello::{
    BadGreeting, Greeting, Hello, Introduction, PREFIX_BYTES, Prefix, Refusal, RefusalKind, VERSIONS,
    Versions, decode, encode,
};
use super::{CONNECT_MAX, GREETING_MAX, STALL_MAX, WELCOME_MAX};
use crate::net::transport::Transport;

/// Why there is no connection.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Failed {
    #[error("it cannot be reached: {0}")]
    Unreachable(String),
    #[error("it refuses: {0}")]
    Refused(Refusal),
    #[error("it is refused: {0}")]
    Unsuitable(Refusal),
    #[error("{0}")]
    Bad(#[from] BadGreeting),
}

impl Failed {
    /// For lines that are told sparingly.
    pub fn kind(&self) -> &'static str {
        match self {
            Failed::Unreachable(_) => "unreachable",
            Failed::Refused(refusal) | Failed::Unsuitable(refusal) => refusal.kind.name(),
            Failed::Bad(_) => "bad_greeting",
        }
    }

    pub fn refusal(&self) -> Option<&Refusal> {
        match self {
            Failed::Refused(refusal) | Failed::Unsuitable(refusal) => Some(refusal),
            Failed::Unreachable(_) | Failed::Bad(_) => None,
        }
    }
}

fn unreachable(error: impl ToString) -> Failed {
    Failed::Unreachable(error.to_string())
}

/// Connects, says `hello`, and awaits to be welcome.
pub(super) async fn dial(address: SocketAddr, hello: Hello) -> Result<(Transport, Introduction), Failed> {
    let connecting = timeout(CONNECT_MAX, Stream::connect(address)).await;
    let stream = connecting
        .map_err(|_| unreachable(format!("nobody answered within {CONNECT_MAX:?}")))?
        .map_err(unreachable)?;
    stream.set_dead_after(STALL_MAX).map_err(unreachable)?;
    let transport = Transport::plain(stream);
    let own = hello.from.clone();
    let (to_broker, to_shard) = (hello.to_broker, hello.to_shard);
    send(&transport, &Greeting::Hello(hello)).await?;
    let (greeting, versions) = receive(&transport, WELCOME_MAX).await?;
    let who = match greeting {
        Greeting::Welcome(who) => who,
        Greeting::Refusal(refusal) => return Err(Failed::Refused(refusal)),
        Greeting::Hello(_) => return Err(BadGreeting::Senseless("a hello in answer to one").into()),
    };
    let is_it = to_broker.is_none_or(|broker| broker == who.broker) && to_shard == who.shard;
    if !is_it {
        let text =
            format!("this is {}, and broker {to_broker:?} shard {} was wanted", who.peer(), to_shard.0);
        return Err(Failed::Unsuitable(Refusal::new(RefusalKind::Broker, text)));
    }
    suits(&own, &who, versions).map_err(Failed::Unsuitable)?;
    Ok((transport, who))
}

pub(super) async fn send(transport: &Transport, greeting: &Greeting) -> Result<(), Failed> {
    match timeout(GREETING_MAX, transport.send(vec![encode(greeting)])).await {
        Ok(sent) => sent.map_err(unreachable),
        Err(_) => Err(unreachable(format!("it did not take a greeting within {GREETING_MAX:?}"))),
    }
}

/// A greeting, and not a byte more than it.
pub(super) async fn receive(transport: &Transport, limit: Duration) -> Result<(Greeting, Versions), Failed> {
    let received = timeout(limit, async {
        let prefix = read_exactly(transport, PREFIX_BYTES).await?;
        let prefix = Prefix::parse(*prefix.first_chunk().expect("as many as were asked for"))?;
        let content = read_exactly(transport, prefix.length).await?;
        Ok((decode(prefix, &content)?, prefix.versions))
    });
    received.await.unwrap_or_else(|_| Err(unreachable(format!("no greeting within {limit:?}"))))
}

async fn read_exactly(transport: &Transport, bytes: usize) -> Result<BytesMut, Failed> {
    let mut buffer = BytesMut::with_capacity(bytes);
    while buffer.len() < bytes {
        let missing = bytes - buffer.len();
        if transport.read(&mut buffer, missing).await.map_err(unreachable)? == 0 {
            return Err(unreachable("the other end closed the connection"));
        }
    }
    Ok(buffer)
}

/// Whether this end takes `hello`, as far as all shards know.
pub(super) fn check(own: &Introduction, hello: &Hello, versions: Versions) -> Result<(), Refusal> {
    let from = &hello.from;
    if from.broker == own.broker {
        let (id, address) = (own.broker.0, "give each broker a node.id of its own");
        return Err(match from.incarnation == own.incarnation {
            true => Refusal::new(RefusalKind::Itself, format!("this is broker {id} itself")),
            false => Refusal::new(RefusalKind::OwnId, format!("this is broker {id} too: {address}")),
        });
    }
    if let Some(wanted) = hello.to_broker
        && wanted != own.broker
    {
        let text = format!("this is broker {}, and broker {} was wanted", own.broker.0, wanted.0);
        return Err(Refusal::new(RefusalKind::Broker, text));
    }
    suits(own, from, versions)?;
    if hello.to_shard.0 >= own.shards {
        let text =
            format!("this broker has {} shards, and shard {} was wanted", own.shards, hello.to_shard.0);
        let shards = Some(own.shards);
        return Err(Refusal { shards, ..Refusal::new(RefusalKind::Shard, text) });
    }
    Ok(())
}

/// Whether two brokers can work with each other at all.
fn suits(own: &Introduction, other: &Introduction, versions: Versions) -> Result<(), Refusal> {
    if VERSIONS.common(versions).is_none() {
        let text = format!(
            "broker {} speaks versions {} to {} of the protocol between brokers, and broker {} {} to {}",
            own.broker.0, VERSIONS.min, VERSIONS.max, other.broker.0, versions.min, versions.max
        );
        return Err(Refusal::new(RefusalKind::Version, text));
    }
    if let (Some(here), Some(there)) = (&own.cluster, &other.cluster)
        && here != there
    {
        let text = format!(
            "broker {} belongs to cluster {here}, and broker {} to cluster {}",
            own.broker.0,
            other.broker.0,
            there.escape_debug()
        );
        return Err(Refusal::new(RefusalKind::Cluster, text));
    }
    for (requires, has) in [(own, other), (other, own)] {
        if has.feature_level < requires.feature_level_required {
            let text = format!(
                "broker {} works with feature level {} or higher, and broker {} has {}: upgrade that one",
                requires.broker.0, requires.feature_level_required, has.broker.0, has.feature_level
            );
            return Err(Refusal::new(RefusalKind::FeatureLevel, text));
        }
    }
    Ok(())
}
