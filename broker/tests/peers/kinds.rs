//! Calls by their kind: each reaches its handler, and who asks for what is not served is told so.

use std::cell::RefCell;
use std::rc::Rc;

use bytes::Bytes;
use corelog_broker::cluster::CallKind;
use corelog_broker::peer::envelope::HEAD_BYTES_MAX;
use corelog_broker::peer::{self, BrokerId, CallError, Callee, Frame, Incarnation, Links, LinksConfig, Lost};
use corelog_broker::replication::{Call, Carrier};
use corelog_io::sim::Sim;
use corelog_io::sync::oneshot;
use corelog_io::{Queue, sleep, spawn};
use futures_util::FutureExt;

use crate::world::{CLUSTER, MS, PORT, SECOND};

fn error_of(result: Result<peer::Answer, CallError>) -> CallError {
    result.err().expect("it is not served")
}

/// Says what it was asked, doubled, with the body that it was given.
async fn doubled(call: Call) -> Result<Frame, String> {
    sleep(MS * 5).await;
    if *call.head == *b"fail" {
        return Err("as it was told".into());
    }
    if *call.head == *b"long" {
        return Ok(Bytes::from(vec![0; HEAD_BYTES_MAX + 1]).into());
    }
    assert_eq!(call.from.broker, BrokerId(1));
    let head = [&call.head[..], &call.head[..]].concat();
    Ok(Frame { head: head.into(), body: vec![call.body.clone()] })
}

#[test]
fn calls_reach_the_handler_of_their_kind() {
    let sim = Sim::new(5);
    let machines = ["caller", "callee"].map(|name| sim.process(name));
    let addresses = [0, 1].map(|at| (machines[at].ip(), PORT).into());
    let config = move |at: usize| LinksConfig {
        broker: BrokerId(at as i32 + 1),
        incarnation: Incarnation(at as u64),
        cluster: Some(CLUSTER.into()),
        feature_level: 1,
        feature_level_required: 1,
        listen: Some(addresses[at]),
        receive_bytes: 4 << 20,
        frame_bytes_max: 3 << 20,
    };
    let seat = |_| peer::seats(1);
    machines[1].start_with(seat(1), move |_, seat| async move {
        let carrier = Carrier::new();
        carrier.serve(CallKind::Status, |call| doubled(call).boxed_local());
        let _links = Links::start(config(1), seat, carrier).await.expect("the port is free");
        std::future::pending::<()>().await;
    });
    let (done, finished) = oneshot();
    let done = Rc::new(RefCell::new(Some(done)));
    machines[0].start_with(seat(0), move |_, seat| {
        let done = done.clone();
        async move {
            let carrier = Carrier::new();
            let there = Callee::Address(addresses[1]);
            let call = |kind, content: Frame| carrier.call(there, kind, content, SECOND);
            let early = error_of(call(CallKind::Status, Frame::default()).await);
            assert_eq!(early, CallError::Lost(Lost::Closed));
            let links = Links::start(config(0), seat, carrier.clone()).await.expect("the port is free");
            let links = Rc::new(links);
            carrier.set_links(&links);
            let body = Bytes::from(vec![7; 100_000]);
            let content = Frame { head: Bytes::from_static(b"ab"), body: vec![body.clone()] };
            let answer = call(CallKind::Status, content).await.expect("it is served");
            assert_eq!((&answer.head[..], &answer.body), (&b"abab"[..], &body));
            let failed = error_of(call(CallKind::Status, Bytes::from_static(b"fail").into()).await);
            assert_eq!(failed, CallError::Failed("as it was told".into()));
            let CallError::Failed(what) =
                error_of(call(CallKind::Status, Bytes::from_static(b"long").into()).await)
            else {
                panic!("an answer that is too long")
            };
            assert!(what.contains("limit"), "{what}");
            let CallError::Failed(what) = error_of(call(CallKind::Join, Frame::default()).await) else {
                panic!("nobody serves it")
            };
            assert!(what.contains("Join"), "{what}");
            for unknown in [&b""[..], b"\xff"] {
                let called = links.call(there, Bytes::from_static(unknown).into(), SECOND).await;
                assert!(matches!(error_of(called), CallError::Failed(_)));
            }
            // What is under way does not keep the links from ending.
            let late = spawn(Queue::Control, call(CallKind::Status, Frame::default()));
            sleep(MS).await;
            drop(links);
            assert_eq!(error_of(late.await), CallError::Lost(Lost::Closed));
            let _ = done.take().expect("it is one shard").send(());
        }
    });
    sim.block_on(async move { finished.await.expect("the caller comes to its end") });
}
