//! A log that begins later from now on, on all its replicas: where it begins is no entry of its group, so its leader tells the
//! others. Who is not there keeps what it has; should it lead one day, the partition begins there again.

use std::rc::Rc;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use corelog_io::{Instant, now, sleep};
use corelog_storage::LogId;
use corelog_wire::Uuid;
use futures_util::FutureExt;
use futures_util::future::join_all;

use super::CallKind;
use crate::ids::BrokerId;
use crate::partition::{Leadership, placement};
use crate::peer::{Callee, Frame, PeerId};
use crate::shard::Shard;

const CALL_MAX: Duration = Duration::from_secs(2);
/// How long followers that are in sync have: what is to go must be committed there first.
const FOLLOW_MAX: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(20);
const REQUEST_BYTES: usize = 16 + 4 + 8;

/// When followers are to have been told, at the latest: all that one request deletes.
pub fn deadline(timeout_ms: i32) -> Instant {
    let asked = u64::try_from(timeout_ms).ok().filter(|ms| *ms > 0).map(Duration::from_millis);
    now() + asked.map_or(FOLLOW_MAX, |asked| asked.min(FOLLOW_MAX))
}

/// Has the replicas that are in sync begin where this one, the leader's, does. False: one of them does not yet.
pub async fn tell(shard: &Rc<Shard>, log: LogId, start: i64, until: Instant) -> bool {
    let image = shard.image();
    let found = image.topic_by_id(log.topic).and_then(|topic| topic.partition(log.partition));
    let Some(found) = found else { return true };
    let others = found.isr.iter().copied().filter(|broker| *broker != shard.broker());
    let told = join_all(others.map(|broker| tell_one(shard, broker, log, start, until))).await;
    told.into_iter().all(|told| told)
}

async fn tell_one(shard: &Rc<Shard>, broker: BrokerId, log: LogId, start: i64, until: Instant) -> bool {
    let Some(member) = &shard.member else { return true };
    while now() < until {
        let shards = shard.image().brokers.get(&broker).map_or(0, |broker| broker.shards);
        if shards > 0 {
            let callee = Callee::Peer(PeerId { broker, shard: placement::owner(log, shards) });
            let content = Frame::from(encode(log, start));
            let limit = CALL_MAX.min(until.since(now()));
            let called = member.carrier.call(callee, CallKind::Trim, content, limit).await;
            if called
                .is_ok_and(|answer| answer.head.as_ref().try_get_i64().is_ok_and(|begins| begins >= start))
            {
                return true;
            }
        }
        sleep(PAUSE).await;
    }
    false
}

/// From now on leaders may tell this shard.
pub fn serve(shard: &Rc<Shard>) {
    let Some(member) = &shard.member else { return };
    let shard = Rc::downgrade(shard);
    member.carrier.serve(CallKind::Trim, move |call| {
        let shard = shard.upgrade();
        async move {
            let shard = shard.ok_or("this broker is shutting down")?;
            let (log, start) = decode(&call.head).ok_or("a request of another size")?;
            let partition = shard.partitions.opened(log).ok_or("there is no such replica here")?;
            check_asker(partition.leadership(), call.from.broker)?;
            // No more than is committed here, so far.
            let before = start.min(partition.high_watermark());
            if before > partition.log_start_offset() {
                let trimmed = partition.delete_records(Some(before)).await;
                trimmed.map_err(|error| error.to_string())?;
            }
            let mut begins = BytesMut::new();
            begins.put_i64(partition.log_start_offset());
            Ok(Frame::from(begins.freeze()))
        }
        .boxed_local()
    });
}

/// What is gone is gone for good: who leads may say so, as far as this replica knows.
fn check_asker(known: Leadership, from: BrokerId) -> Result<(), String> {
    match known.leader {
        Some(leader) if leader == from => Ok(()),
        Some(leader) => Err(format!("broker {} leads the partition, and not broker {}", leader.0, from.0)),
        None => Err("nobody is known to lead the partition".into()),
    }
}

fn encode(log: LogId, start: i64) -> Bytes {
    let mut bytes = BytesMut::with_capacity(REQUEST_BYTES);
    bytes.put_slice(&log.topic.0);
    bytes.put_i32(log.partition);
    bytes.put_i64(start);
    bytes.freeze()
}

fn decode(mut bytes: &[u8]) -> Option<(LogId, i64)> {
    if bytes.len() != REQUEST_BYTES {
        return None;
    }
    let mut topic = Uuid::default();
    bytes.copy_to_slice(&mut topic.0);
    Some((LogId { topic, partition: bytes.get_i32() }, bytes.get_i64()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::LeaderEpoch;
    use crate::partition::Role;

    #[test]
    fn who_does_not_lead_deletes_nothing() {
        let of = |role, leader: Option<i32>| Leadership {
            role,
            epoch: LeaderEpoch(3),
            leader: leader.map(BrokerId),
        };
        assert_eq!(check_asker(of(Role::Follower, Some(2)), BrokerId(2)), Ok(()));
        for known in [of(Role::Follower, Some(2)), of(Role::Leader, Some(1)), of(Role::Follower, None)] {
            assert!(check_asker(known, BrokerId(3)).is_err(), "{known:?}");
        }
    }

    #[test]
    fn what_is_asked_comes_back() {
        let log = LogId { topic: Uuid([9; 16]), partition: 7 };
        assert_eq!(decode(&encode(log, 1 << 40)), Some((log, 1 << 40)));
        assert_eq!(decode(&encode(log, 1)[1..]), None);
    }
}
