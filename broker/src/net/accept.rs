//! Accepts connections, within the limits.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use corelog_io::sync::{Permit, Semaphore};
use corelog_io::{Listener, Queue, Stream, sleep, spawn};
use futures_util::future::{Either, select};

use super::connection;
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
                tracing::warn!(%error, "accepting a connection failed; is the open-file limit reached?");
                sleep(RETRY).await;
            }
        }
    }
}

async fn admit(shard: Rc<Shard>, stream: Stream, peer: SocketAddr, listener: usize, turn: Permit) {
    let ip = peer.ip();
    let entered = shard
        .on(
            CONTROLLER_SHARD,
            move |shard| async move { shard.admission.enter(ip, &shard.config().connections) },
        )
        .await;
    match entered {
        Err(_) => return stream.shutdown(),
        Ok(Err(refusal)) => {
            shard.sparingly(refusal.kind(), move |left_out| {
                tracing::warn!(%peer, left_out, "connection refused: {refusal}");
            });
            shard.metrics.connection_refused();
            return stream.shutdown();
        }
        Ok(Ok(())) => drop(turn),
    }
    shard.connections.set(shard.connections.get() + 1);
    shard.metrics.connection_opened();
    connection::serve(shard.clone(), stream, peer, listener).await;
    shard.connections.set(shard.connections.get() - 1);
    shard.metrics.connection_closed();
    shard.post(CONTROLLER_SHARD, move |shard| shard.admission.leave(ip));
}
