//! Idempotent producers: one batch at a time, sent again to whoever leads until it is acknowledged.

use crate::shared::{Acknowledged, Reply, Request, Shared};
use bytes::Bytes;
use corelog_io::{Queue, now, random_u64, sleep, spawn};
use std::rc::Rc;
use std::time::Duration;

use crate::world::produced;

const ANSWER_MAX: Duration = Duration::from_secs(1);

pub fn below(n: u64) -> u64 {
    random_u64() % n.max(1)
}

/// The same each time that it is sent.
pub fn batch(request: &Request) -> Bytes {
    let mut value = request.sequence.to_be_bytes().to_vec();
    value.resize(4 + (request.sequence as usize * 7919 + request.producer as usize) % 2_000, 7);
    produced(&[&value], 5, request.producer, 0, request.sequence)
}

pub async fn start(shared: Rc<Shared>) {
    for group in shared.groups() {
        for producer in 1..=2 {
            spawn(Queue::Produce, produce(shared.clone(), group, producer)).detach();
        }
    }
    std::future::pending::<()>().await;
}

async fn produce(shared: Rc<Shared>, group: u8, producer: i64) {
    let mut to = 0;
    for sequence in 0.. {
        sleep(Duration::from_millis(below(40))).await;
        loop {
            if shared.settling.get() {
                return;
            }
            match send(&shared, to, Request { number: 0, group, producer, sequence }).await {
                Some(Reply::At(offset)) => {
                    let mut acknowledged = shared.acknowledged.borrow_mut();
                    acknowledged.entry(group).or_default().push(Acknowledged { offset, producer, sequence });
                    break;
                }
                Some(Reply::OutOfOrder(what)) => panic!("group {group}, sequence {sequence}: {what}"),
                Some(Reply::Elsewhere) | None => {
                    shared.retried.set(shared.retried.get() + 1);
                    to = below(shared.plan.nodes as u64) as usize;
                    sleep(Duration::from_millis(below(50))).await;
                }
            }
        }
    }
}

async fn send(shared: &Shared, to: usize, request: Request) -> Option<Reply> {
    let number = shared.asked.get();
    shared.asked.set(number + 1);
    shared.requests.borrow_mut().entry(to).or_default().push_back(Request { number, ..request });
    let begun = now();
    while begun.elapsed() < ANSWER_MAX {
        sleep(Duration::from_millis(1)).await;
        let reply = shared.replies.borrow_mut().remove(&number);
        if reply.is_some() {
            return reply;
        }
    }
    None
}
