//! Clients that no broker wishes for: who leave at any moment, who do not read what they asked for, who begin a request and
//! do not go on, who come in crowds. And who send as much as they may: these must be answered like everybody.

use std::rc::Rc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use corelog_io::{Queue, Stream, sleep, spawn, timeout};
use corelog_wire::messages::JoinGroupRequest;
use corelog_wire::messages::join_group_request::Protocol;

use crate::shared::{Shared, below};
use crate::{changes, consumer, producer};

/// All of the plan's, each with what `guest` makes for it.
pub fn come(shared: &Shared, guest: impl Fn() -> Rc<Shared>) {
    let guests = shared.plan.guests;
    for _ in 0..guests.leavers {
        spawn(Queue::Control, leave(guest())).detach();
        spawn(Queue::Control, change_and_leave(guest())).detach();
    }
    for _ in 0..guests.mutes {
        spawn(Queue::Control, read_nothing(guest())).detach();
    }
    for _ in 0..guests.halting {
        spawn(Queue::Control, halt(guest())).detach();
    }
    for _ in 0..guests.crowds {
        spawn(Queue::Control, crowd(guest())).detach();
    }
}

async fn change_and_leave(shared: Rc<Shared>) {
    loop {
        sleep(shared.plan.pace * (10 + below(200) as u32)).await;
        shared.may_change().await;
        changes::change_something(shared.address).await;
    }
}

async fn leave(shared: Rc<Shared>) {
    loop {
        sleep(shared.plan.pace * (10 + below(100) as u32)).await;
        let Some(mut connection) = shared.connect("leaver").await else { return };
        if shared.truth.borrow().topic_ids.len() < shared.plan.topics.len() {
            continue;
        }
        match below(4) {
            0 | 1 => producer::send_and_leave(&shared, &mut connection).await,
            2 => consumer::ask_for_all(&shared, &mut connection).await,
            _ => {
                let protocol = Protocol { name: "range".into(), metadata: Bytes::new() };
                let request = JoinGroupRequest {
                    group_id: "left".into(),
                    session_timeout_ms: 10_000,
                    rebalance_timeout_ms: 10_000,
                    protocol_type: "consumer".into(),
                    protocols: vec![protocol],
                    ..Default::default()
                };
                let _left = connection.send(&request, 3).await;
            }
        }
        sleep(Duration::from_millis(below(3) * below(200))).await;
    }
}

async fn read_nothing(shared: Rc<Shared>) {
    loop {
        sleep(Duration::from_millis(below(300))).await;
        let Some(mut connection) = shared.connect("mute").await else { return };
        if shared.truth.borrow().topic_ids.len() < shared.plan.topics.len() {
            continue;
        }
        for _ in 0..20 {
            consumer::ask_for_all(&shared, &mut connection).await;
        }
        // Its connection is closed long before; who reads nothing does not notice.
        sleep(Duration::from_secs(below(300))).await;
    }
}

/// Sends most of a large request, and then nothing, or a byte now and then.
async fn halt(shared: Rc<Shared>) {
    loop {
        sleep(Duration::from_millis(below(1_000))).await;
        let Ok(Ok(stream)) = timeout(Duration::from_secs(5), Stream::connect(shared.address)).await else {
            continue;
        };
        let request = ask(shared.request_bytes_max.get());
        let (begun, rest) = request.split_at(request.len() / 4 + below(request.len() as u64 / 2) as usize);
        if stream.send(vec![Bytes::copy_from_slice(begun).into()]).await.is_err() {
            continue;
        }
        let pause = Duration::from_secs(if below(2) == 0 { 4 } else { 3600 });
        for byte in rest {
            let mut nothing = BytesMut::new();
            // Nothing is to come but the end.
            if timeout(pause, stream.read(&mut nothing, 1)).await.is_ok()
                || stream.send(vec![Bytes::copy_from_slice(&[*byte]).into()]).await.is_err()
            {
                break;
            }
        }
    }
}

async fn crowd(shared: Rc<Shared>) {
    loop {
        sleep(Duration::from_millis(100 + below(1_000))).await;
        if shared.is_quiet() {
            continue;
        }
        let mut held = Vec::new();
        for _ in 0..2 * shared.plan.descriptors.unwrap_or_default() {
            match timeout(Duration::from_millis(200), Stream::connect(shared.address)).await {
                Ok(Ok(stream)) => held.push(stream),
                _ => break,
            }
        }
        sleep(Duration::from_millis(below(2_000))).await;
    }
}

/// An ApiVersions request of `size` bytes: what follows a request is let pass.
fn ask(size: usize) -> Vec<u8> {
    let mut frame = ((size - 4) as i32).to_be_bytes().to_vec();
    frame.extend_from_slice(&[0, 18, 0, 0, 0, 0, 0, 7, 0xff, 0xff]);
    frame.resize(size, 0);
    frame
}

/// Sends requests of the largest size, and some less large, and has each answered.
pub async fn large(shared: Rc<Shared>) {
    while !shared.stopped() {
        let Some(mut connection) = shared.connect("large").await else { return };
        while !shared.stopped() {
            let most = shared.request_bytes_max.get();
            let size = if below(2) == 0 { most } else { most / 2 + below(most as u64 / 2) as usize };
            if connection.send_bytes(vec![ask(size).into()]).await.is_err()
                || connection.next().await.is_err()
            {
                break;
            }
            sleep(shared.plan.pace * (1 + below(20) as u32)).await;
        }
    }
}
