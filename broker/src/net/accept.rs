//! Accepts connections, within the limits.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use corelog_io::planted::{Fault, planted};
use corelog_io::sync::{Permit, Semaphore};
use corelog_io::{Listener, Queue, Stream, sleep, spawn, yield_if_needed};
use futures_util::future::{Either, select};

use super::connection;
use super::request::Connection;
use super::transport::Transport;
use crate::access::Principal;
use crate::controller::CONTROLLER_SHARD;
use crate::shard::Shard;

/// Out of descriptors, accepting again at once would only fail again.
const RETRY: Duration = Duration::from_millis(100);

/// Connections of one listener that are accepted and not admitted yet: each has a descriptor already.
const ADMITTING_MAX: u64 = 8;

/// Runs until the shard stops. Every shard has a listener on the same address; the kernel deals connections out.
/// `index` is the listener's place in the configuration.
pub async fn run(shard: Rc<Shard>, listener: Listener, index: usize) {
    let admitting = Rc::new(Semaphore::new(ADMITTING_MAX));
    loop {
        let turn = admitting.acquire(1).await;
        let accepted = {
            let accept = std::pin::pin!(listener.accept());
            match select(std::pin::pin!(shard.stopping()), accept).await {
                Either::Left(_) => return,
                Either::Right((accepted, _)) => accepted,
            }
        };
        match accepted {
            Ok((stream, peer)) => {
                spawn(Queue::Produce, admit(shard.clone(), stream, peer, index, turn)).detach();
            }
            Err(error) => {
                shard.sparingly("accepting", move |left_out| {
                    tracing::warn!(%error, left_out, "accepting a connection failed; is the open-file limit reached?");
                });
                sleep(RETRY).await;
            }
        }
        // Connections may wait by the hundred.
        yield_if_needed().await;
    }
}

async fn admit(shard: Rc<Shard>, stream: Stream, peer: SocketAddr, listener: usize, turn: Permit) {
    shard.connections.set(shard.connections.get() + 1);
    let is_admitted = is_admitted(&shard, peer).await;
    drop(turn);
    if is_admitted {
        shard.metrics.connection_opened();
        // Listeners are PLAINTEXT, and know clients by their addresses alone.
        let principal = (!planted(Fault::EveryoneIsAStranger)).then(Principal::anonymous);
        let connection = Connection::new(peer, listener, principal);
        let serving = connection::serve(shard.clone(), Transport::plain(stream.clone()), connection);
        let serving = std::pin::pin!(serving);
        select(std::pin::pin!(shard.stopping.is_cut()), serving).await;
        shard.metrics.connection_closed();
        let ip = peer.ip();
        shard.post(CONTROLLER_SHARD, move |shard| shard.admission.leave(ip));
    }
    stream.shutdown();
    shard.connections.set(shard.connections.get() - 1);
}

async fn is_admitted(shard: &Rc<Shard>, peer: SocketAddr) -> bool {
    let ip = peer.ip();
    let entered = shard
        .on(
            CONTROLLER_SHARD,
            move |shard| async move { shard.admission.enter(ip, &shard.config().connections) },
        )
        .await;
    if let Ok(Err(refusal)) = &entered {
        let refusal = refusal.clone();
        shard.sparingly(refusal.kind(), move |left_out| {
            tracing::warn!(%peer, left_out, "connection refused: {refusal}");
        });
        shard.metrics.connection_refused();
    }
    matches!(entered, Ok(Ok(())))
}
