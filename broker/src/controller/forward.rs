//! Changes reach the broker that leads the controller's group, wherever they are asked for.

use std::rc::Rc;
use std::time::Duration;

use corelog_io::sync::oneshot;
use corelog_io::{Instant, Queue, now, spawn, timeout};
use corelog_wire::ErrorCode;

use super::CONTROLLER_SHARD;
use super::change::{CHANGE_BYTES_MAX, Change, ChangeError};
use super::handle::{Made, late, too_many};
use super::log::too_large;
use super::member::{Leader, Member, not_controller};
use crate::cluster::CallKind;
use crate::cluster::changes::{Answer, Place, decode, encode};
use crate::ids::BrokerId;
use crate::peer::{CallError, Callee, Frame, Lost, PeerId};
use crate::replication::Call;
use crate::shard::Shard;

/// For those who do not say how long they wait: clients' own patience is longer.
const PATIENCE: Duration = Duration::from_secs(15);
/// Who leads may be another without news of it.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// A change that nobody waits for any more keeps its place among those that the leader is told of, here and there, for so long at
/// the most. A leader that has no majority knows so long before.
const ANSWER_MAX: Duration = Duration::from_secs(30);

/// Has whoever leads carry out a change, and waits until this broker's shards have it.
pub async fn change(
    shard: &Rc<Shard>,
    member: &Member,
    change: Change,
    wait_until: Option<Instant>,
) -> Result<Made, ChangeError> {
    let _asked = member.asked.try_acquire(1).ok_or_else(too_many)?;
    let until = wait_until.unwrap_or_else(|| now() + PATIENCE);
    let given_up = |_| Err(ChangeError::in_doubt(ErrorCode::REQUEST_TIMED_OUT, late("may go on")));
    // A leader may take as long as its disk does. A moment more: who knows what the change came to says it.
    let limit = until.since(now()) + LOOK_AGAIN;
    timeout(limit, carried_out(shard, member, change, until)).await.unwrap_or_else(given_up)
}

async fn carried_out(
    shard: &Rc<Shard>,
    member: &Member,
    change: Change,
    until: Instant,
) -> Result<Made, ChangeError> {
    loop {
        let news = member.news.listen();
        let answer = match member.leader(&shard.image()) {
            Leader::This => here(shard, change.clone()).await,
            Leader::Other(leader) => ask(member, leader, &change, until).await,
            Leader::Unknown => Err(not_controller()),
        };
        match answer {
            Ok(place) => return wait_for(shard, member, place, until).await,
            Err(error) if !is_elsewhere(&error) || until <= now() => return Err(error),
            Err(_) => drop(timeout(until.since(now()).min(LOOK_AGAIN), news).await),
        }
    }
}

/// Nothing was done, and another broker may do it.
fn is_elsewhere(error: &ChangeError) -> bool {
    error.code == ErrorCode::NOT_CONTROLLER && !error.in_doubt
}

/// As the leader. Whether it is, the controller knows when it comes to that.
async fn here(shard: &Shard, change: Change) -> Result<Place, ChangeError> {
    let made = shard.controller()?.submit(change, false)?.await?;
    Ok(Place { end_offset: made.view.image.end_offset, next_producer_id: made.next_producer_id })
}

async fn ask(
    member: &Member,
    leader: BrokerId,
    change: &Change,
    until: Instant,
) -> Result<Place, ChangeError> {
    let content = encode(change).map_err(|error| malformed(&error))?;
    if content.len() > CHANGE_BYTES_MAX {
        return Err(too_large(content.len()));
    }
    let place = timeout(until.since(now()), member.told.acquire(1)).await.map_err(|_| not_begun())?;
    let callee = Callee::Peer(PeerId { broker: leader, shard: CONTROLLER_SHARD });
    let content = Frame { head: Default::default(), body: vec![content] };
    let called = member.group.carrier.call(callee, CallKind::Change, content, ANSWER_MAX);
    let (answer, answered) = oneshot();
    spawn(Queue::Control, async move {
        // Whoever asked may have given up.
        let _gone = answer.send(called.await);
        drop(place);
    })
    .detach();
    let left = until.since(now());
    let answer = match timeout(left, answered).await {
        Ok(answer) => answer.unwrap_or(Err(CallError::Lost(Lost::Closed))),
        Err(_) => Err(CallError::TimedOut(left)),
    };
    let answer = answer.map_err(|error| not_answered(leader, &error))?;
    Answer::decode(answer.head.clone()).map_err(|error| not_understood(leader, &error))?.0
}

fn not_begun() -> ChangeError {
    ChangeError::new(ErrorCode::REQUEST_TIMED_OUT, late("was not begun"))
}

/// Whether the change was made is not known, but where the leader never got it.
fn not_answered(leader: BrokerId, error: &CallError) -> ChangeError {
    let leader = leader.0;
    match error {
        CallError::NoAddress(_)
        | CallError::Unreachable(_)
        | CallError::Refused(_)
        | CallError::Busy(_)
        | CallError::Failed(_) => ChangeError::new(
            ErrorCode::NOT_CONTROLLER,
            format!("broker {leader} leads the controller's group, and cannot be asked: {error}"),
        ),
        CallError::TooLarge(bytes) | CallError::HeadTooLarge(bytes) => too_large(*bytes),
        CallError::TimedOut(_) | CallError::Lost(_) => ChangeError::in_doubt(
            match error {
                CallError::TimedOut(_) => ErrorCode::REQUEST_TIMED_OUT,
                _ => ErrorCode::NOT_CONTROLLER,
            },
            format!(
                "broker {leader}, which leads the controller's group, was asked for the change, and has not answered \
                 ({error}): look whether it is made"
            ),
        ),
    }
}

fn not_understood(leader: BrokerId, error: &dyn std::fmt::Display) -> ChangeError {
    ChangeError::in_doubt(
        ErrorCode::UNKNOWN_SERVER_ERROR,
        format!("broker {} was asked for the change, and its answer makes no sense: {error}", leader.0),
    )
}

fn malformed(error: &dyn std::fmt::Display) -> ChangeError {
    ChangeError::new(
        ErrorCode::INVALID_REQUEST,
        format!("the change cannot be handed to the controller: {error}"),
    )
}

/// The change holds. This broker's shards are to have it before whoever asked hears of it.
async fn wait_for(shard: &Shard, member: &Member, place: Place, until: Instant) -> Result<Made, ChangeError> {
    match timeout(until.since(now()), member.applied(place.end_offset)).await {
        Ok(()) => Ok(Made { view: shard.view(), next_producer_id: place.next_producer_id }),
        Err(_) => Err(ChangeError::in_doubt(
            ErrorCode::REQUEST_TIMED_OUT,
            late("is made, and this broker has not heard of it yet"),
        )),
    }
}

impl Shard {
    /// Answers another broker, which takes this one for the leader: for calls of [`CallKind::Change`], on the controller's
    /// shard.
    pub async fn serve_change(self: Rc<Shard>, call: Call) -> Result<Frame, String> {
        let mut change = decode(call.body.clone())?.detached();
        if let Change::Leaders(reports) = &mut change {
            // Of what another leads that one tells.
            reports.retain(|led| led.leader == call.from.broker);
        }
        let given_up = |_| Err(ChangeError::in_doubt(ErrorCode::REQUEST_TIMED_OUT, late("goes on")));
        let answer = timeout(ANSWER_MAX, here(&self, change)).await.unwrap_or_else(given_up);
        drop(call);
        Answer(answer).encode().map(Frame::from).map_err(|error| error.to_string())
    }
}
