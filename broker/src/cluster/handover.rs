//! A leader hands its partition's group over to another replica, asked by whichever broker.

use std::rc::Rc;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use corelog_storage::LogId;
use corelog_wire::Uuid;
use futures_util::FutureExt;

use super::CallKind;
use crate::ids::{BrokerId, ReplicaId};
use crate::partition::placement;
use crate::peer::{Callee, Frame, PeerId};
use crate::shard::Shard;

/// For an answer of a broker that is there.
const CALL_MAX: Duration = Duration::from_secs(2);
const REQUEST_BYTES: usize = 16 + 4 + 8;

/// Asks `leader` to have replica `to` lead the partition. It has begun to when this returns.
pub async fn ask(shard: &Rc<Shard>, leader: BrokerId, log: LogId, to: ReplicaId) -> Result<(), String> {
    if leader == shard.broker() {
        let handed = shard.on(shard.owner(log), move |shard| async move { hand_over(&shard, log, to) });
        return handed.await.unwrap_or_else(|gone| Err(gone.to_string()));
    }
    let member = shard.member.as_ref().ok_or("this broker is alone")?;
    let shards = shard.image().brokers.get(&leader).map_or(0, |broker| broker.shards);
    if shards == 0 {
        return Err(format!("broker {} is not known", leader.0));
    }
    let callee = Callee::Peer(PeerId { broker: leader, shard: placement::owner(log, shards) });
    let content = Frame::from(encode(log, to));
    let called = member.carrier.call(callee, CallKind::Handover, content, CALL_MAX).await;
    called.map(drop).map_err(|error| error.to_string())
}

/// From now on others may ask this shard.
pub fn serve(shard: &Rc<Shard>) {
    let Some(member) = &shard.member else { return };
    let shard = Rc::downgrade(shard);
    member.carrier.serve(CallKind::Handover, move |call| {
        let shard = shard.upgrade();
        async move {
            let shard = shard.ok_or("this broker is shutting down")?;
            let (log, to) = decode(&call.head).ok_or("a request of another size")?;
            hand_over(&shard, log, to)?;
            Ok(Frame::from(Bytes::new()))
        }
        .boxed_local()
    });
}

fn hand_over(shard: &Shard, log: LogId, to: ReplicaId) -> Result<(), String> {
    let member = shard.member.as_ref().ok_or("this broker is alone")?;
    member.replicas.transfer(log, to).map_err(|error| error.to_string())
}

fn encode(log: LogId, to: ReplicaId) -> Bytes {
    let mut bytes = BytesMut::with_capacity(REQUEST_BYTES);
    bytes.put_slice(&log.topic.0);
    bytes.put_i32(log.partition);
    bytes.put_u64(to.0);
    bytes.freeze()
}

fn decode(mut bytes: &[u8]) -> Option<(LogId, ReplicaId)> {
    if bytes.len() != REQUEST_BYTES {
        return None;
    }
    let mut topic = Uuid::default();
    bytes.copy_to_slice(&mut topic.0);
    Some((LogId { topic, partition: bytes.get_i32() }, ReplicaId(bytes.get_u64())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_comes_back() {
        let log = LogId { topic: Uuid([9; 16]), partition: 7 };
        let bytes = encode(log, ReplicaId(1 << 40));
        assert_eq!(decode(&bytes), Some((log, ReplicaId(1 << 40))));
        assert_eq!(decode(&bytes[1..]), None);
        assert_eq!(decode(&[]), None);
    }
}
