//! The frame with a small state machine: named numbers that are added to, and that may end by themselves.

mod fake_log;
mod frame;
mod partition;

use std::collections::BTreeMap;

use bytes::Bytes;
use corelog_wire::ErrorCode;

pub use fake_log::FakeLog;

use super::*;

/// A number; `None` removes it.
#[derive(Clone, Debug, PartialEq)]
pub struct Number {
    name: String,
    value: Option<u64>,
    /// Bytes of no meaning behind the value.
    ballast: usize,
}

impl Record for Number {
    type Key = String;
    type DecodeError = String;

    fn key(&self) -> String {
        self.name.clone()
    }

    fn encode(&self) -> RawRecord {
        let value = |value: u64| [&value.to_be_bytes()[..], &vec![0; self.ballast]].concat().into();
        RawRecord { key: Bytes::copy_from_slice(self.name.as_bytes()), value: self.value.map(value) }
    }

    fn decode(raw: RawRecord) -> Result<Option<Number>, String> {
        let name = String::from_utf8(raw.key.to_vec()).map_err(|error| error.to_string())?;
        let value = raw.value.map(|bytes| match bytes.split_first_chunk() {
            Some((value, _)) => Ok(u64::from_be_bytes(*value)),
            None => Err(format!("{name} has no number")),
        });
        Ok(Some(Number { value: value.transpose()?, name, ballast: 0 }))
    }
}

#[derive(Clone, Debug)]
pub enum Request {
    /// Answered with the sum, as it will be.
    Add(&'static str, u64),
    /// As `Add`, in a record that is so large.
    AddLarge(&'static str, usize),
    /// Sets a number that is removed after as many milliseconds.
    End(&'static str, u64),
    Get(&'static str),
    /// Answered by nobody.
    Wait,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Answer {
    Is(Option<u64>),
    Refused(ErrorCode),
}

#[derive(Default)]
pub struct Numbers {
    /// Replicated.
    state: BTreeMap<String, u64>,
    desk: Desk<Numbers>,
    /// Soft.
    waiting: Vec<Ticket>,
    woken: usize,
    /// What was told of writes.
    told: Vec<(&'static str, bool)>,
}

/// Names that get their soft state in one turn.
const A_TURN: usize = 2;
/// Numbers of these names end.
const ENDING: &str = "end";

impl Numbers {
    fn write(&mut self, ticket: Ticket, name: &'static str, value: u64, ballast: usize) {
        let record = Number { name: name.to_owned(), value: Some(value), ballast };
        self.desk.write(vec![record], Some((ticket, Answer::Is(Some(value)))), |_| name);
    }

    fn latest(&self, name: &str) -> Option<u64> {
        match self.desk.pending().latest(&name.to_owned()) {
            Some((_, record)) => record.value,
            None => self.state.get(name).copied(),
        }
    }

    fn end_later(&mut self, name: &str) {
        if let Some(value) = self.state.get(name).filter(|_| name.starts_with(ENDING)) {
            let at = self.desk.now.mono_ms + value;
            self.desk.timers.schedule(name.to_owned(), at);
        }
    }
}

impl StateMachine for Numbers {
    type Context = ();
    type Request = Request;
    type Answer = Answer;
    type Record = Number;
    type Timer = String;
    type Then = &'static str;

    const LINES: Lines = Lines {
        damaged: "numbers cannot be loaded",
        begins_anew: "numbers begin anew",
        large_record: "a number is too large",
        large_record_kind: "large number",
    };

    fn desk(&mut self) -> &mut Desk<Numbers> {
        &mut self.desk
    }

    fn desk_ref(&self) -> &Desk<Numbers> {
        &self.desk
    }

    fn replay(&mut self, record: Number) {
        match record.value {
            Some(value) => self.state.insert(record.name, value),
            None => self.state.remove(&record.name),
        };
    }

    fn wake(&mut self) -> bool {
        let turn: Vec<String> = self.state.keys().skip(self.woken).take(A_TURN).cloned().collect();
        self.woken += turn.len();
        for name in turn {
            self.end_later(&name);
        }
        self.woken == self.state.len()
    }

    fn handle(&mut self, ticket: Ticket, (): &(), request: Request) {
        match request {
            Request::Add(name, more) => {
                let sum = self.latest(name).unwrap_or(0) + more;
                self.write(ticket, name, sum, 0);
            }
            Request::AddLarge(name, ballast) => {
                let sum = self.latest(name).unwrap_or(0) + 1;
                self.write(ticket, name, sum, ballast);
            }
            Request::End(name, after_ms) => self.write(ticket, name, after_ms, 0),
            Request::Get(name) => {
                let value = self.state.get(name).copied();
                self.desk.respond(ticket, Answer::Is(value));
            }
            Request::Wait => self.waiting.push(ticket),
        }
    }

    fn due(&mut self, name: String) {
        self.desk.write(vec![Number { name, value: None, ballast: 0 }], None, |_| "");
    }

    fn committed(&mut self, _: WriteId, name: &'static str) {
        self.told.push((name, true));
        self.end_later(name);
    }

    fn refused(&mut self, _: WriteId, name: &'static str, _: WriteFailure) {
        self.told.push((name, false));
    }

    fn unload(&mut self, error: ErrorCode) {
        for ticket in std::mem::take(&mut self.waiting) {
            self.desk.respond(ticket, Answer::Refused(error));
        }
    }

    fn tell_loaded(&self, _: i32, _: usize, _: i64) {}

    fn refuse(_: Request, (): &(), why: NotServing) -> Answer {
        Answer::Refused(why.error())
    }

    fn failed(_: Answer, error: ErrorCode) -> Answer {
        Answer::Refused(error)
    }
}
