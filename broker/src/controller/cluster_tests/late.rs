//! Whoever asks for a change is answered in its time, whatever becomes of who decides.

use std::future::pending;

use corelog_io::{Instant, now};
use corelog_replicas::{Ask, What};
use corelog_wire::ErrorCode;
use futures_util::FutureExt;
use futures_util::future::LocalBoxFuture;

use super::*;
use crate::cluster::changes::{Answer, Place};
use crate::cluster::{CallKind, asks};
use crate::peer::{Callee, Frame};

/// As long as a change may take that says nothing of it, and a little more.
const LATEST: Duration = Duration::from_millis(15_500);

/// How brokers are that are asked by others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Served {
    #[default]
    Soundly,
    /// They live, and never answer: a disk has stalled.
    Never,
    /// They tell of a place that never comes.
    Lying,
}

/// Changes that are asked for once something is wrong, where another broker is to decide.
#[derive(Default)]
pub struct Late {
    served: Cell<Served>,
    is_asked: Cell<bool>,
    outcomes: RefCell<Vec<Outcome>>,
}

#[derive(Debug)]
struct Outcome {
    took: Duration,
    code: ErrorCode,
    in_doubt: bool,
}

impl Late {
    pub fn instead(&self) -> Option<LocalBoxFuture<'static, Result<Frame, String>>> {
        let place = Place { end_offset: i64::MAX, next_producer_id: 0 };
        match self.served.get() {
            Served::Soundly => None,
            Served::Never => Some(pending().boxed_local()),
            Served::Lying => {
                let answer = Answer(Ok(place)).encode().map(Frame::from);
                Some(async { answer.map_err(|error| error.to_string()) }.boxed_local())
            }
        }
    }

    fn has_come(&self, began: Instant, made: Result<Made, ChangeError>) {
        let error = made.expect_err("nobody can have made it");
        let (took, code, in_doubt) = (began.elapsed(), error.code, error.in_doubt);
        self.outcomes.borrow_mut().push(Outcome { took, code, in_doubt });
    }
}

/// Answers calls for changes, and asks for one when it is time.
pub fn serve(world: &Rc<World>, shard: &Rc<Shard>, carrier: &Carrier) {
    let (served, serving) = (shard.clone(), world.clone());
    carrier.serve(CallKind::Change, move |call| match serving.late.instead() {
        None => served.clone().serve_change(call).boxed_local(),
        Some(instead) => instead,
    });
    spawn(Queue::Control, ask(world.clone(), shard.clone())).detach();
}

async fn ask(world: Rc<World>, shard: Rc<Shard>) {
    let late = &world.late;
    while !late.is_asked.get() {
        sleep(MS * 10).await;
    }
    let decides = shard.controller().is_ok_and(|controller| controller.decides());
    if !decides {
        let began = now();
        let made = shard.change(Change::TakeProducerIds, Terms::MAKE).await;
        late.has_come(began, made);
        if late.served.get() == Served::Never {
            others_are_served(&shard).await;
        }
    }
}

/// However many changes wait for who decides, it answers calls of other kinds.
async fn others_are_served(shard: &Rc<Shard>) {
    for number in 0..40 {
        let (shard, terms) = (shard.clone(), Terms::new(false, Some(500)));
        let waits = async move { drop(shard.change(Change::TakeProducerIds, terms).await) };
        spawn(Queue::Control, waits).detach();
        // Some come when others have been given up.
        sleep(if number == 20 { MS * 600 } else { MS }).await;
    }
    let controller = shard.controller().expect("it is there");
    let Leader::Other(leader) = controller.leader(&shard.image()) else { panic!("another decides") };
    let callee = Callee::Peer(PeerId { broker: leader, shard: CONTROLLER_SHARD });
    let ask = Ask { log: LOG, replica: ReplicaId(99), what: What::Entries };
    let carrier = &controller.group().expect("it is of a cluster").carrier;
    let content = Frame::from(asks::encode_ask(&ask));
    let answer = carrier.call(callee, CallKind::Segments, content, MS * 500).await;
    assert!(answer.is_ok(), "{:?}", answer.err());
}

/// Brokers that follow one another, with nothing else to do.
fn at_rest(sim: &Sim) -> Rc<World> {
    let world = World::new(sim, KEEP_ALL.segment_bytes, || 1);
    world.settling.set(true);
    (0..BROKERS).for_each(|broker| start(&world, broker));
    sim.run_for(Duration::from_secs(10));
    alike(&world).expect("they come to one image");
    world
}

fn check_outcomes(world: &World, brokers: usize, code: ErrorCode, in_doubt: bool) {
    let outcomes = world.late.outcomes.borrow();
    assert_eq!(outcomes.len(), brokers, "{outcomes:?}");
    for outcome in &*outcomes {
        assert_eq!((outcome.code, outcome.in_doubt), (code, in_doubt), "{outcomes:?}");
        assert!(outcome.took <= LATEST, "{outcomes:?}");
    }
}

#[test]
fn who_decides_may_never_answer_or_lie() {
    for served in [Served::Never, Served::Lying] {
        let sim = Sim::new(7);
        let world = at_rest(&sim);
        world.late.served.set(served);
        world.late.is_asked.set(true);
        sim.run_for(Duration::from_secs(40));
        check_outcomes(&world, BROKERS - 1, ErrorCode::REQUEST_TIMED_OUT, true);
    }
}

#[test]
fn without_a_majority_nothing_is_made_and_that_is_known() {
    let sim = Sim::new(8);
    let world = at_rest(&sim);
    world.machines[..2].iter().for_each(Process::kill);
    sim.run_for(Duration::from_secs(10));
    world.late.is_asked.set(true);
    sim.run_for(Duration::from_secs(40));
    check_outcomes(&world, 1, ErrorCode::NOT_CONTROLLER, false);
}
