//! What a broker of a cluster tells those that are to become brokers of it, and how it finds the others at its own start.

use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use corelog_io::{Queue, sleep, spawn};
use futures_util::FutureExt;
use futures_util::future::join_all;

use super::join::{JoinAnswer, JoinRequest};
use super::{CallKind, Member, balancer, liveness, status};
use crate::config;
use crate::controller::{self, CONTROLLER_SHARD, Change, ChangeError, Endpoint, Leader, Terms};
use crate::ids::BrokerId;
use crate::peer::{Callee, Frame};
use crate::shard::Shard;

/// How often seeds are asked who they are, while nobody is known to lead the controller's group.
const ASK_PAUSE: Duration = Duration::from_millis(300);
const ASK_MAX: Duration = Duration::from_secs(1);
/// How often it is looked whether somebody leads.
const LOOK_PAUSE: Duration = Duration::from_secs(1);
/// How long a change is waited for that lets a broker in: less than who asks waits.
const JOIN_MAX_MS: i32 = 3_000;

/// From now on shard 0 says who this broker is, and lets others in where it decides.
pub fn serve(shard: &Rc<Shard>) {
    let Some(member) = &shard.member else { return };
    let said = status::answer(&shard.identity, &shard.config().seeds);
    member.carrier.serve(CallKind::Status, move |_| {
        let said = said.clone();
        async move { Ok(Frame::from(said)) }.boxed_local()
    });
    let serving = Rc::downgrade(shard);
    member.carrier.serve(CallKind::Join, move |call| {
        let shard = serving.upgrade();
        async move {
            let shard = shard.ok_or("this broker is shutting down")?;
            let answer = admit(&shard, JoinRequest::decode(call.head.clone())?).await;
            Ok(Frame::from(answer.encode()))
        }
        .boxed_local()
    });
    spawn(Queue::Background, look_for_others(shard.clone(), member.clone())).detach();
    spawn(Queue::Background, balancer::run(shard.clone())).detach();
    spawn(Queue::Background, liveness::run(shard.clone())).detach();
}

async fn admit(shard: &Rc<Shard>, request: JoinRequest) -> JoinAnswer {
    let (image, directory) = (shard.image(), request.directory);
    let leader = match shard.controller() {
        Ok(controller) if controller.decides() => None,
        Ok(controller) => Some(controller.leader(&image)),
        Err(error) => return JoinAnswer::NotNow(error.message),
    };
    if let Some(leader) = leader {
        let Leader::Other(leader) = leader else {
            return JoinAnswer::NotNow("nobody leads the controller's group for now".into());
        };
        let peer = image.brokers.get(&leader).and_then(|broker| broker.peer.clone());
        return match peer {
            Some(Endpoint { host, port }) => {
                JoinAnswer::Ask(config::Endpoint { host: host.to_string(), port })
            }
            None => JoinAnswer::NotNow(format!("broker {} leads, and its address is not known", leader.0)),
        };
    }
    let config::Endpoint { host, port } = request.peer;
    let change = Change::Join(controller::JoinRequest {
        directory,
        wanted: request.node_id.map(BrokerId),
        peer: Endpoint { host: host.into(), port },
        shards: request.shards,
        rack: request.rack.map(Into::into),
    });
    let made = match shard.change(change, Terms::new(false, Some(JOIN_MAX_MS))).await {
        Ok(made) => made,
        Err(ChangeError { code, message, in_doubt }) => {
            let is_for_ever = !in_doubt && code == corelog_wire::ErrorCode::INVALID_REQUEST;
            return if is_for_ever { JoinAnswer::Refused(message) } else { JoinAnswer::NotNow(message) };
        }
    };
    let joined = made.view.image.brokers.values().find(|broker| broker.directory == directory);
    let joined = joined.and_then(|broker| Some((broker.id, broker.controller_replica?)));
    let Some((id, replica)) = joined else {
        return JoinAnswer::NotNow("it was let in, and is not there any more".into());
    };
    JoinAnswer::Joined {
        cluster_id: shard.identity.cluster_id.clone(),
        node_id: id.0,
        replica,
        founders: shard.identity.founding_replicas().len() as u32,
    }
}

/// While nobody is known to lead the controller's group, seeds are asked who they are: who joined does not know the founders, and
/// addresses change.
async fn look_for_others(shard: Rc<Shard>, member: Rc<Member>) {
    while !shard.is_stopping() {
        let leader = shard.controller().map(|controller| controller.leader(&shard.image()));
        if matches!(leader, Ok(Leader::This | Leader::Other(_))) {
            sleep(LOOK_PAUSE).await;
            continue;
        }
        let asked = member.plan.seeds.iter().map(async |seed| {
            let (callee, nothing) = (Callee::Address(*seed), Frame::from(Bytes::new()));
            let answer = member.carrier.call(callee, CallKind::Status, nothing, ASK_MAX).await.ok()?;
            let is_of_ours = answer.from.cluster.as_deref() == Some(&*shard.identity.cluster_id);
            is_of_ours.then_some((answer.from.broker, *seed))
        });
        for (broker, address) in join_all(asked).await.into_iter().flatten() {
            if broker != shard.broker() {
                member.links.set_address(broker, Some(address));
                member.want_first(broker);
            }
        }
        sleep(ASK_PAUSE).await;
    }
}

const _: () = assert!(CONTROLLER_SHARD.0 == 0, "shard 0 is who is asked");
