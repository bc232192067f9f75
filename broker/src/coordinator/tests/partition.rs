//! A coordinator at work: loading, the log's failures, the end.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use corelog_io::sim::Sim;
use corelog_io::{Queue, Task, sleep, spawn};
use corelog_wire::records::{BatchBuilder, BatchOptions, patch_base_offset};

use super::*;

type Partition = CoordinatorPartition<Numbers, Rc<FakeLog>>;

const APPEND_BYTES_MAX: usize = 1_000;

fn start(log: &Rc<FakeLog>) -> (Rc<Partition>, Rc<Cell<usize>>) {
    let append_bytes_max = Rc::new(Cell::new(APPEND_BYTES_MAX));
    let settings = CoordinatorSettings {
        machine: Box::new(Numbers::default),
        append_bytes_max: append_bytes_max.clone(),
        lines: Rc::default(),
    };
    (Rc::new(CoordinatorPartition::start(0, Rc::clone(log), settings)), append_bytes_max)
}

async fn ask(partition: &Partition, request: Request) -> Answer {
    match partition.ready().await {
        Ok(()) => partition.ask(&(), request, None).await,
        Err(why) => Answer::Refused(why.error()),
    }
}

fn send(partition: &Rc<Partition>, request: Request) -> Task<Answer> {
    let partition = Rc::clone(partition);
    spawn(Queue::Control, async move { ask(&partition, request).await })
}

fn is(value: u64) -> Answer {
    Answer::Is(Some(value))
}

const NOT_AVAILABLE: Answer = Answer::Refused(ErrorCode::COORDINATOR_NOT_AVAILABLE);
const ELSEWHERE: Answer = Answer::Refused(ErrorCode::NOT_COORDINATOR);

#[test]
fn each_write_is_decided_on_those_before_it_and_survives() {
    Sim::new(1).block_on(async {
        let log = Rc::new(FakeLog::default());
        log.append_takes.set(Duration::from_millis(1));
        log.durable_takes.set(Duration::from_millis(20));
        let (partition, _) = start(&log);
        let sums: Vec<_> = (0..200).map(|_| send(&partition, Request::Add("a", 1))).collect();
        let mut answers = Vec::new();
        for sum in sums {
            let Answer::Is(Some(sum)) = sum.await else { panic!("refused") };
            answers.push(sum);
        }
        answers.sort_unstable();
        assert_eq!(answers, (1..=200).collect::<Vec<_>>(), "each was decided on those before it");
        partition.close();
        let (again, _) = start(&log);
        assert_eq!(ask(&again, Request::Get("a")).await, is(200));
    });
}

/// The log refuses while what it took before is on its way to the disk.
#[test]
fn a_refusal_does_not_touch_what_the_log_has_taken() {
    Sim::new(2).block_on(async {
        let log = Rc::new(FakeLog::default());
        let (partition, _) = start(&log);
        log.durable_takes.set(Duration::from_millis(50));
        let taken = send(&partition, Request::Add("a", 1));
        sleep(Duration::from_millis(5)).await;
        log.refuse.set(Some(WriteFailure::Unavailable));
        let begin = corelog_io::now();
        assert_eq!(ask(&partition, Request::Add("a", 1)).await, NOT_AVAILABLE);
        assert!(begin.elapsed() < Duration::from_millis(40), "it waits for nobody");
        log.refuse.set(None);
        let next = send(&partition, Request::Add("a", 1));
        assert_eq!((taken.await, next.await), (is(1), is(2)));
        partition.close();
        let (again, _) = start(&log);
        assert_eq!(ask(&again, Request::Get("a")).await, is(2));
    });
}

#[test]
fn a_record_that_no_batch_can_hold_is_refused_alone() {
    Sim::new(3).block_on(async {
        let log = Rc::new(FakeLog::default());
        let (partition, append_bytes_max) = start(&log);
        log.append_takes.set(Duration::from_millis(10));
        let before = send(&partition, Request::Add("a", 1));
        let large = send(&partition, Request::AddLarge("a", 2 * APPEND_BYTES_MAX));
        let after = send(&partition, Request::Add("a", 1));
        assert_eq!(large.await, Answer::Refused(ErrorCode::UNKNOWN_SERVER_ERROR));
        assert_eq!((before.await, after.await), (is(1), is(2)));

        // The limit is lowered while a record waits: with it goes what was decided after it.
        let busy = send(&partition, Request::Add("a", 1));
        sleep(Duration::from_millis(5)).await;
        let large = send(&partition, Request::AddLarge("a", 800));
        let after = send(&partition, Request::Add("a", 1));
        sleep(Duration::from_millis(1)).await;
        append_bytes_max.set(500);
        let refused = Answer::Refused(ErrorCode::UNKNOWN_SERVER_ERROR);
        assert_eq!((busy.await, large.await, after.await), (is(3), refused, NOT_AVAILABLE));
        assert_eq!(ask(&partition, Request::Add("a", 1)).await, is(4));
    });
}

#[test]
fn a_lost_write_ends_the_state_and_it_is_loaded_again() {
    Sim::new(4).block_on(async {
        let log = Rc::new(FakeLog::default());
        let (partition, _) = start(&log);
        assert_eq!(ask(&partition, Request::End("end", 5_000)).await, is(5_000));
        let waiting = send(&partition, Request::Wait);
        log.lose.set(true);
        log.durable_takes.set(Duration::from_millis(5));
        let (lost, behind) = (send(&partition, Request::Add("a", 1)), send(&partition, Request::Add("a", 1)));
        assert_eq!((waiting.await, lost.await, behind.await), (ELSEWHERE, ELSEWHERE, ELSEWHERE));
        log.lose.set(false);
        let loading = Answer::Refused(ErrorCode::COORDINATOR_LOAD_IN_PROGRESS);
        assert_eq!(ask(&partition, Request::Get("a")).await, loading);
        sleep(Duration::from_secs(2)).await;
        // What was lost was in the log after all: the state is what the log has.
        assert_eq!(ask(&partition, Request::Get("a")).await, is(2));
        assert_eq!(ask(&partition, Request::Add("a", 1)).await, is(3));
        // Deadlines run anew.
        sleep(Duration::from_secs(3)).await;
        assert_eq!(ask(&partition, Request::Get("end")).await, is(5_000));
        sleep(Duration::from_secs(3)).await;
        assert_eq!(ask(&partition, Request::Get("end")).await, Answer::Is(None));
    });
}

/// What the log had taken by then is told; nobody is served what others may have written over.
#[test]
fn a_coordinator_ends_whose_log_is_led_in_another_epoch() {
    Sim::new(12).block_on(async {
        let log = Rc::new(FakeLog::default());
        let (partition, _) = start(&log);
        assert_eq!(ask(&partition, Request::Add("a", 1)).await, is(1));
        let waiting = send(&partition, Request::Wait);
        log.durable_takes.set(Duration::from_millis(20));
        let before = send(&partition, Request::Add("a", 1));
        sleep(Duration::from_millis(5)).await;
        log.fences.set(true);
        let after = send(&partition, Request::Add("a", 1));
        assert_eq!((before.await, after.await, waiting.await), (is(2), ELSEWHERE, ELSEWHERE));
        sleep(Duration::from_secs(60)).await;
        assert_eq!(ask(&partition, Request::Get("a")).await, ELSEWHERE);
    });
}

#[test]
fn closing_answers_whoever_waits_and_gives_room_back() {
    Sim::new(5).block_on(async {
        let log = Rc::new(FakeLog::default());
        let (partition, _) = start(&log);
        assert_eq!(ask(&partition, Request::Add("a", 1)).await, is(1));
        let room = corelog_io::sync::Semaphore::new(10);
        let permit = room.try_acquire(4);
        let waiting = {
            let partition = Rc::clone(&partition);
            spawn(Queue::Control, async move { partition.ask(&(), Request::Wait, permit).await })
        };
        log.append_takes.set(Duration::from_secs(60));
        let unwritten = send(&partition, Request::Add("a", 1));
        sleep(Duration::from_millis(10)).await;
        assert_eq!(room.available(), 6);
        partition.close();
        assert_eq!((waiting.await, unwritten.await, room.available()), (ELSEWHERE, ELSEWHERE, 10));
        assert_eq!(ask(&partition, Request::Get("a")).await, ELSEWHERE);
        partition.act(|_| panic!("it does not serve any more"));
    });
}

fn changed(batch: &Bytes) -> Bytes {
    let mut bytes = batch.to_vec();
    *bytes.last_mut().expect("a batch") ^= 1;
    bytes.into()
}

fn cut_short(batch: &Bytes) -> Bytes {
    batch.slice(..batch.len() - 1)
}

/// A sound batch of a record that is no number.
fn senseless(_: &Bytes) -> Bytes {
    let mut batch = BatchBuilder::new(BatchOptions::default());
    batch.append(0, Some(b"a"), Some(b"short"), &[]).expect("a record");
    let mut bytes = batch.build().expect("a batch").to_vec();
    patch_base_offset(&mut bytes, 1);
    bytes.into()
}

#[test]
fn a_damaged_log_is_refused_until_it_is_mended() {
    Sim::new(6).block_on(async {
        for damaged in [changed, cut_short, senseless] {
            let log = Rc::new(FakeLog::default());
            let (partition, _) = start(&log);
            for name in ["b", "a"] {
                assert_eq!(ask(&partition, Request::Add(name, 1)).await, is(1));
            }
            partition.close();
            let sound = log.batches.borrow()[1].clone();
            log.batches.borrow_mut()[1].0 = damaged(&sound.0);
            let (again, _) = start(&log);
            assert_eq!(ask(&again, Request::Get("b")).await, NOT_AVAILABLE);
            assert!(again.has_failed());
            assert_eq!(again.look(|numbers| numbers.state.len()), 0, "nothing is kept of what was read");
            log.batches.borrow_mut()[1] = sound;
            again.load_again();
            sleep(Duration::from_millis(10)).await;
            assert_eq!(ask(&again, Request::Add("a", 1)).await, is(2));
        }
    });
}

/// What a coordinator before this one appended may be on its way to the disk still: it is in the log, and so in the state.
#[test]
fn what_was_appended_before_is_waited_for_and_loaded() {
    Sim::new(11).block_on(async {
        let log = Rc::new(FakeLog::default());
        let (partition, _) = start(&log);
        log.durable_takes.set(Duration::from_secs(2));
        let appended = send(&partition, Request::Add("a", 1));
        sleep(Duration::from_millis(5)).await;
        partition.close();
        assert_eq!(appended.await, ELSEWHERE);
        log.durable_takes.set(Duration::ZERO);
        let (again, _) = start(&log);
        let loading = Answer::Refused(ErrorCode::COORDINATOR_LOAD_IN_PROGRESS);
        assert_eq!(ask(&again, Request::Get("a")).await, loading);
        sleep(Duration::from_secs(3)).await;
        assert_eq!(ask(&again, Request::Add("a", 1)).await, is(2));
        again.close();
        // One that never comes to the disk is told of, and the log is tried again.
        log.durable_takes.set(Duration::from_secs(50));
        let (third, _) = start(&log);
        let appended = send(&third, Request::Add("a", 1));
        sleep(Duration::from_millis(5)).await;
        third.close();
        assert_eq!(appended.await, ELSEWHERE);
        let (fourth, _) = start(&log);
        sleep(Duration::from_secs(40)).await;
        assert_eq!(ask(&fourth, Request::Get("a")).await, NOT_AVAILABLE);
        sleep(Duration::from_secs(40)).await;
        assert_eq!(ask(&fourth, Request::Get("a")).await, is(3));
    });
}
