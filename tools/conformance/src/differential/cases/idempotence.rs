use super::super::Case;
use super::super::normalise::MADE_UP_PRODUCER_ID;
use super::super::session::{Session, Topic};
use super::delete_records;
use super::fetch::{fetch_all, fetch_from};
use super::produce::{served, to};
use super::records::{batch, idempotent, joined};
use anyhow::Result;
use corelog_wire::messages::InitProducerIdRequest;
use corelog_wire::produce::ProduceRequest;

pub const CASES: &[Case] = &[
    Case { name: "idempotence", run: sequences },
    Case { name: "idempotence every version", run: versions },
    Case { name: "idempotence epochs", run: epochs },
    Case { name: "idempotence unknown producers", run: unknown },
    Case { name: "idempotence wraps", run: wraps },
    Case { name: "idempotence with log append time", run: append_time },
];

/// Kafka needs a moment before it can give out the first id of all.
pub fn new_producer(s: &mut Session) -> Result<i64> {
    let request = InitProducerIdRequest { transaction_timeout_ms: 60_000, ..Default::default() };
    s.until("a producer id", |s| {
        let answer = s.quiet(0, &request)?;
        Ok((answer.error_code == 0).then_some(answer.producer_id))
    })
}

fn send(s: &mut Session, step: &str, topic: &Topic, id: i64, epoch: i16, sequence: i32, count: usize) {
    let values = vec!["x"; count];
    s.ask(step, 9, &to(9, topic, 0, idempotent(id, epoch, sequence, &values)));
}

fn sequences(s: &mut Session) -> Result<()> {
    let t = s.topic("t", 2, &[])?;
    let id = new_producer(s)?;
    for i in 0..7 {
        send(s, &format!("batch {i}"), &t, id, 0, i * 3, 3);
    }
    // The last five are known, and answered as the first time; those before are not.
    for i in (0..7).rev() {
        send(s, &format!("batch {i} again"), &t, id, 0, i * 3, 3);
    }
    send(s, "a part of the last batch", &t, id, 0, 18, 2);
    send(s, "the end of the last batch", &t, id, 0, 20, 1);
    send(s, "the last two batches as one", &t, id, 0, 15, 6);
    send(s, "a gap", &t, id, 0, 22, 1);
    send(s, "a large gap", &t, id, 0, 1000, 1);
    send(s, "next", &t, id, 0, 21, 1);
    send(s, "the very first again", &t, id, 0, 0, 3);
    send(s, "from 0 with another length", &t, id, 0, 0, 1);
    let two = joined(&[idempotent(id, 0, 22, &["a"]), idempotent(id, 0, 23, &["b"])]);
    s.ask("two batches at once", 9, &to(9, &t, 0, two));
    s.ask("acks 1", 9, &ProduceRequest { acks: 1, ..to(9, &t, 0, idempotent(id, 0, 22, &["c"])) });
    s.ask("another partition from 0", 9, &to(9, &t, 1, idempotent(id, 0, 0, &["d"])));
    s.ask("another partition with a gap", 9, &to(9, &t, 1, idempotent(id, 0, 5, &["e"])));
    fetch_all(s, "all", &t, 0);
    fetch_all(s, "all of the other", &t, 1);
    Ok(())
}

fn versions(s: &mut Session) -> Result<()> {
    let t = s.topic("t", 1, &[])?;
    fetch_all(s, "learn the id", &t, 0);
    for v in served(s) {
        let id = new_producer(s)?;
        s.ask("first", v, &to(v, &t, 0, idempotent(id, 0, 0, &["a", "b"])));
        s.ask("second", v, &to(v, &t, 0, idempotent(id, 0, 2, &["c"])));
        s.ask("first again", v, &to(v, &t, 0, idempotent(id, 0, 0, &["a", "b"])));
        s.ask("gap", v, &to(v, &t, 0, idempotent(id, 0, 9, &["d"])));
        s.ask("new epoch, not from 0", v, &to(v, &t, 0, idempotent(id, 1, 3, &["d"])));
        s.ask("new epoch", v, &to(v, &t, 0, idempotent(id, 1, 0, &["d"])));
        s.ask("old epoch", v, &to(v, &t, 0, idempotent(id, 0, 3, &["d"])));
    }
    Ok(())
}

fn epochs(s: &mut Session) -> Result<()> {
    let t = s.topic("t", 1, &[])?;
    let id = new_producer(s)?;
    send(s, "epoch 3 first", &t, id, 3, 0, 2);
    send(s, "epoch 2", &t, id, 2, 2, 1);
    send(s, "epoch 2 from 0", &t, id, 2, 0, 2);
    send(s, "epoch 5 not from 0", &t, id, 5, 2, 1);
    send(s, "epoch 5 from 0", &t, id, 5, 0, 2);
    send(s, "epoch 5 from 0 again", &t, id, 5, 0, 2);
    send(s, "epoch 3 next", &t, id, 3, 2, 1);
    send(s, "epoch 3 duplicate", &t, id, 3, 0, 2);
    send(s, "greatest epoch", &t, id, i16::MAX, 0, 1);
    fetch_all(s, "all", &t, 0);
    Ok(())
}

/// Takes the log's beginning away: who wrote to it before is not known for certain then. A log that has all it ever had wants
/// a new producer to begin with 0, where Kafka takes any sequence.
fn forget_beginning(s: &mut Session, topic: &Topic) {
    s.ask("the beginning", 9, &to(9, topic, 0, batch(&["x"])));
    s.ask("is deleted", 2, &delete_records::request(&topic.name, &[(0, 1)]));
}

/// Ids that no broker gave out. Where nothing is known of a producer, any sequence is taken.
fn unknown(s: &mut Session) -> Result<()> {
    let t = s.topic("t", 1, &[])?;
    forget_beginning(s, &t);
    let id = MADE_UP_PRODUCER_ID + 1;
    send(s, "unknown, from 7", &t, id, 0, 7, 2);
    send(s, "its next", &t, id, 0, 9, 1);
    send(s, "its gap", &t, id, 0, 11, 1);
    send(s, "its past", &t, id, 0, 3, 1);
    send(s, "unknown, later epoch", &t, id + 1, 4, 0, 1);
    send(s, "unknown, later epoch from 7", &t, id + 2, 4, 7, 1);
    fetch_from(s, "all", &t, 0, 1);
    Ok(())
}

/// After 2^31-1 comes 0.
fn wraps(s: &mut Session) -> Result<()> {
    let t = s.topic("t", 1, &[])?;
    let id = MADE_UP_PRODUCER_ID + 9;
    forget_beginning(s, &t);
    send(s, "up to the last but one", &t, id, 0, i32::MAX - 2, 2);
    send(s, "across the end", &t, id, 0, i32::MAX, 3);
    send(s, "across the end again", &t, id, 0, i32::MAX, 3);
    send(s, "after the end", &t, id, 0, 2, 2);
    send(s, "past", &t, id, 0, i32::MAX - 2, 1);
    send(s, "gap", &t, id, 0, 5, 1);
    fetch_from(s, "all", &t, 0, 1);
    Ok(())
}

/// A retry is told the time that the batch was given at first.
fn append_time(s: &mut Session) -> Result<()> {
    let t = s.topic("t", 1, &[("message.timestamp.type", "LogAppendTime")])?;
    let id = new_producer(s)?;
    for sequence in 0..3 {
        let times = [(); 2].map(|()| {
            let batch = idempotent(id, 0, sequence, &["a"]);
            let answer = s.ask(&format!("sequence {sequence}"), 9, &to(9, &t, 0, batch));
            // The clock goes on.
            std::thread::sleep(std::time::Duration::from_millis(3));
            answer.responses[0].partition_responses[0].log_append_time_ms
        });
        s.note(&format!("same time, sequence {sequence}"), times[0] == times[1]);
    }
    fetch_all(s, "all", &t, 0);
    Ok(())
}
