//! When what changes, is seen and is answered.

use std::collections::VecDeque;

use super::*;

struct Bench {
    coordinator: Coordinator<Numbers>,
    now: Now,
    next_ticket: u64,
    /// In their order.
    answers: Vec<(u64, Answer)>,
    in_flight: VecDeque<(WriteId, Vec<RawRecord>)>,
    log: Vec<RawRecord>,
}

impl Bench {
    fn new(log: Vec<RawRecord>) -> Bench {
        let mut bench = Bench {
            coordinator: Coordinator::new(Numbers::default()),
            now: Now { mono_ms: 1_000, wall_ms: 5 },
            next_ticket: 0,
            answers: Vec::new(),
            in_flight: VecDeque::new(),
            log,
        };
        for raw in bench.log.clone() {
            bench.coordinator.replay(raw, bench.now).expect("numbers");
        }
        while !bench.coordinator.wake(bench.now) {}
        bench
    }

    fn send(&mut self, request: Request) -> u64 {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.coordinator.handle(Ticket(ticket), &(), request, self.now);
        self.take(Vec::new());
        ticket
    }

    fn take(&mut self, more: Vec<Effect<Answer>>) {
        for effect in self.coordinator.take_effects().into_iter().chain(more) {
            match effect {
                Effect::Respond { ticket, response } => self.answers.push((ticket.0, response)),
                Effect::Append { id, records, timestamp_ms } => {
                    assert_eq!(timestamp_ms, self.now.wall_ms);
                    self.in_flight.push_back((id, records));
                }
            }
        }
    }

    fn commit(&mut self) {
        let (id, records) = self.in_flight.pop_front().expect("a write");
        self.log.extend(records);
        self.coordinator.committed(id, self.now);
        self.take(Vec::new());
    }

    fn get(&mut self, name: &'static str) -> Option<u64> {
        self.send(Request::Get(name));
        match self.answers.pop() {
            Some((_, Answer::Is(value))) => value,
            other => panic!("{other:?}"),
        }
    }

    fn pass(&mut self, ms: u64) {
        self.now.mono_ms += ms;
        self.coordinator.expire(self.now);
        self.take(Vec::new());
    }
}

fn is(value: u64) -> Answer {
    Answer::Is(Some(value))
}

const REFUSED: Answer = Answer::Refused(ErrorCode::COORDINATOR_NOT_AVAILABLE);

#[test]
fn who_decides_sees_what_is_on_its_way_and_who_reads_what_is_committed() {
    let mut bench = Bench::new(Vec::new());
    for _ in 0..3 {
        bench.send(Request::Add("a", 1));
    }
    assert_eq!((bench.get("a"), bench.answers.len()), (None, 0));
    bench.commit();
    assert_eq!((bench.get("a"), &bench.answers[..]), (Some(1), &[(0, is(1))][..]));
    bench.commit();
    bench.commit();
    assert_eq!((bench.get("a"), &bench.answers[1..]), (Some(3), &[(1, is(2)), (2, is(3))][..]));
    assert!(bench.coordinator.machine.desk.pending().is_empty());
}

#[test]
fn a_refused_write_leaves_no_trace_nor_what_was_decided_after_it() {
    let mut bench = Bench::new(Vec::new());
    for name in ["a", "a", "b", "a"] {
        bench.send(Request::Add(name, 1));
    }
    bench.commit();
    // The log refuses the third, while the second is on its way still.
    let (third, _) = bench.in_flight[1];
    bench.in_flight.truncate(1);
    bench.coordinator.refused(third, WriteFailure::Unavailable, bench.now);
    bench.take(Vec::new());
    assert_eq!(bench.answers, [(0, is(1)), (2, REFUSED), (3, REFUSED)]);
    assert_eq!(bench.coordinator.machine.told, [("a", true), ("b", false), ("a", false)]);
    // What is decided now goes by the second.
    bench.send(Request::Add("a", 10));
    bench.send(Request::Add("b", 10));
    while !bench.in_flight.is_empty() {
        bench.commit();
    }
    assert_eq!(bench.answers[3..], [(1, is(2)), (4, is(12)), (5, is(10))]);
    assert_eq!((bench.get("a"), bench.get("b")), (Some(12), Some(10)));
}

#[test]
fn what_is_replayed_is_what_was_live() {
    let mut bench = Bench::new(Vec::new());
    for request in [Request::Add("a", 1), Request::End("end", 50), Request::Add("b", 2), Request::Add("a", 3)]
    {
        bench.send(request);
        bench.commit();
    }
    assert_eq!(Bench::new(bench.log.clone()).coordinator.machine.state, bench.coordinator.machine.state);
    bench.pass(50);
    bench.commit();
    assert_eq!(bench.get("end"), None);
    assert_eq!(Bench::new(bench.log.clone()).coordinator.machine.state, bench.coordinator.machine.state);
}

#[test]
fn deadlines_are_there_again_after_loading_whatever_the_number_of_turns() {
    let mut bench = Bench::new(Vec::new());
    for name in ["a", "b", "c", "d", "end-0", "end-1"] {
        bench.send(Request::End(name, 50));
        bench.commit();
    }
    assert!(bench.coordinator.machine.state.len() > 2 * A_TURN);
    bench.pass(40);
    let mut again = Bench::new(bench.log.clone());
    assert_eq!(again.coordinator.next_deadline(), Some(1_050));
    again.pass(49);
    assert_eq!(again.in_flight.len(), 0);
    again.pass(1);
    assert_eq!(again.in_flight.len(), 2);
}

#[test]
fn a_deadline_that_was_set_by_a_refused_write_is_not() {
    let mut bench = Bench::new(Vec::new());
    bench.send(Request::End("end", 50));
    let (id, _) = bench.in_flight.pop_front().expect("a write");
    bench.coordinator.refused(id, WriteFailure::Unavailable, bench.now);
    assert_eq!(bench.coordinator.next_deadline(), None);
}

#[test]
fn whoever_waits_when_the_state_goes_is_told_to_look_elsewhere() {
    let mut bench = Bench::new(Vec::new());
    bench.send(Request::Add("a", 1));
    bench.send(Request::Wait);
    bench.send(Request::Add("a", 1));
    let Bench { coordinator, .. } = bench;
    let effects = coordinator.unload();
    let refused = |ticket| Effect::Respond {
        ticket: Ticket(ticket),
        response: Answer::Refused(ErrorCode::NOT_COORDINATOR),
    };
    assert_eq!(effects, [refused(0), refused(2), refused(1)]);
}

#[test]
fn nothing_is_done_before_the_log_is_loaded() {
    let mut coordinator = Coordinator::new(Numbers::default());
    coordinator.handle(Ticket(0), &(), Request::Add("a", 1), Now::default());
    coordinator.act(|_| panic!("it does not serve yet"), Now::default());
    let response = Answer::Refused(ErrorCode::COORDINATOR_LOAD_IN_PROGRESS);
    assert_eq!(coordinator.take_effects(), [Effect::Respond { ticket: Ticket(0), response }]);
}

#[test]
#[should_panic(expected = "writes are reported on in their order")]
fn writes_are_reported_on_in_their_order() {
    let mut bench = Bench::new(Vec::new());
    bench.send(Request::Add("a", 1));
    bench.send(Request::Add("a", 1));
    bench.in_flight.pop_front();
    bench.commit();
}
