//! The port for brokers, on shard 0: who connects is asked who it is, and goes to the shard that it wants.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use corelog_io::sync::{Permit, Semaphore};
use corelog_io::{Listener, Queue, sleep, spawn, yield_if_needed};

use super::GREETING_MAX;
use super::handshake::{self, Failed};
use super::hello::{Greeting, Hello, Purpose, Refusal, RefusalKind};
use super::links::{Arrival, Local};
use crate::net::transport::Transport;

/// Connections from addresses of no known broker that have not greeted yet; each may take [`GREETING_MAX`].
const STRANGERS_MAX: u64 = 16;
/// And from addresses of brokers: a broker that starts connects with all its shards at once.
const KNOWN_MAX: u64 = 256;
/// Out of descriptors, accepting again at once would only fail again.
const RETRY: Duration = Duration::from_millis(100);

pub(super) async fn run(local: Rc<Local>, listener: Listener) {
    let (strangers, known) = (Semaphore::new(STRANGERS_MAX), Semaphore::new(KNOWN_MAX));
    loop {
        match listener.accept().await {
            Ok((stream, from)) => {
                let places = if local.knows(from.ip()) { &known } else { &strangers };
                match places.try_acquire(1) {
                    Some(place) => {
                        spawn(Queue::Control, ask(local.clone(), Transport::plain(stream), from, place))
                            .detach();
                    }
                    None => {
                        local.metrics.strangers_turned_away.add(1);
                        local.sparingly("crowd", |left_out| {
                            tracing::warn!(%from, left_out, "too many connections to the port for brokers have not said who they are: closed");
                        });
                    }
                }
            }
            Err(error) => {
                local.sparingly("accepting", |left_out| {
                    tracing::warn!(%error, left_out, "accepting a broker's connection failed; is the open-file limit reached?");
                });
                sleep(RETRY).await;
            }
        }
        yield_if_needed().await;
    }
}

/// Awaits the greeting of who has connected.
async fn ask(local: Rc<Local>, transport: Transport, from: SocketAddr, _place: Permit) {
    let hello = match greeting(&local, &transport).await {
        Ok(hello) => hello,
        Err(failed) => {
            local.metrics.strangers_turned_away.add(1);
            if let Failed::Unsuitable(refusal) = &failed {
                local.refuse(&transport, refusal.clone()).await;
            }
            local.sparingly(failed.kind(), |left_out| {
                tracing::warn!(%from, left_out, "a connection to the port for brokers is closed: {failed}");
            });
            return;
        }
    };
    let to = hello.to_shard;
    let Some(detached) = transport.detach() else {
        // Nothing is under way on it.
        return debug_assert!(false, "a connection that was greeted is held by nobody else");
    };
    if let Some(arrival) = local.hand_over(to, Arrival { detached, hello, from }) {
        let transport = Transport::attach(arrival.detached);
        let text = format!("shard {} has its hands full", to.0);
        local.refuse(&transport, Refusal::new(RefusalKind::Busy, text)).await;
    }
}

async fn greeting(local: &Local, transport: &Transport) -> Result<Hello, Failed> {
    let (greeting, versions) = handshake::receive(transport, GREETING_MAX).await?;
    let Greeting::Hello(hello) = greeting else {
        let text = "the first greeting is a hello".to_owned();
        return Err(Failed::Unsuitable(Refusal::new(RefusalKind::Malformed, text)));
    };
    let own = local.introduction();
    handshake::check(&own, &hello, versions).map_err(Failed::Unsuitable)?;
    if hello.purpose == Purpose::Frames && (own.cluster.is_none() || hello.from.cluster.is_none()) {
        let text = "one of the two belongs to no cluster yet".to_owned();
        return Err(Failed::Unsuitable(Refusal::new(RefusalKind::Forming, text)));
    }
    Ok(hello)
}
