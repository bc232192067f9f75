//! A log in memory that is slow, refuses and loses writes when told to.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use corelog_io::{Instant, sleep};
use corelog_wire::records::{BatchHeader, patch_base_offset};

use crate::coordinator::{CoordinatorLog, LogRead, NotAppended, ReadFailed, WriteFailure, WriteLost};

#[derive(Default)]
pub struct FakeLog {
    /// Each with the offset behind it.
    pub batches: RefCell<Vec<(Bytes, i64)>>,
    pub append_takes: Cell<Duration>,
    pub durable_takes: Cell<Duration>,
    /// When a batch can be read, by the offset behind it.
    readable_from: RefCell<BTreeMap<i64, Instant>>,
    pub leader_epoch: Cell<i32>,
    pub refuse: Cell<Option<WriteFailure>>,
    /// It is led in another epoch.
    pub fences: Cell<bool>,
    /// The next writes are lost; in the log all the same.
    pub lose: Cell<bool>,
}

type Durable = Pin<Box<dyn Future<Output = Result<(), WriteLost>>>>;

impl CoordinatorLog for Rc<FakeLog> {
    type Durable = Durable;

    async fn append(&self, batch: Bytes) -> Result<Durable, NotAppended> {
        sleep(self.append_takes.get()).await;
        if let Some(failure) = self.refuse.get() {
            return Err(NotAppended::Refused(failure));
        }
        if self.fences.get() {
            return Err(NotAppended::Fenced);
        }
        let mut bytes = batch.to_vec();
        let mut batches = self.batches.borrow_mut();
        patch_base_offset(&mut bytes, batches.last().map_or(0, |(_, end)| *end));
        let end = BatchHeader::parse(&bytes).unwrap().next_offset();
        batches.push((bytes.into(), end));
        self.readable_from.borrow_mut().insert(end, corelog_io::now() + self.durable_takes.get());
        let (takes, lost) = (self.durable_takes.get(), self.lose.get());
        Ok(Box::pin(async move {
            sleep(takes).await;
            if lost { Err(WriteLost("the disk is gone".to_owned())) } else { Ok(()) }
        }))
    }

    async fn read(&self, offset: i64, _bytes_max: usize) -> Result<LogRead, ReadFailed> {
        sleep(Duration::from_micros(100)).await;
        let batches = self.batches.borrow();
        let readable_from = self.readable_from.borrow();
        let is_readable = |end: &i64| readable_from.get(end).is_none_or(|from| *from <= corelog_io::now());
        let found = batches.iter().find(|(_, end)| *end > offset).filter(|(_, end)| is_readable(end));
        let (batches, next_offset) = found.cloned().unwrap_or((Bytes::new(), offset));
        Ok(LogRead { batches, next_offset })
    }

    fn start_offset(&self) -> i64 {
        0
    }

    fn end_offset(&self) -> i64 {
        self.batches.borrow().last().map_or(0, |(_, end)| *end)
    }

    fn leader_epoch(&self) -> i32 {
        self.leader_epoch.get()
    }
}
