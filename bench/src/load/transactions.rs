//! A producer's transactions: begun and committed by the clock, without holding up the thread's other producers.

use super::ledger::{Ledger, Written};
use anyhow::{Context as _, Result};
use corelog_client::{Error, Producer};
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

type Ending = Pin<Box<dyn Future<Output = Result<(), Error>> + Send>>;

pub struct Transactions {
    producer: Producer,
    every: u64,
    /// When the one that is open is to be committed, in nanoseconds since the run's start.
    pub due: u64,
    /// It has records.
    taken: bool,
    /// Since when it is being committed, and what it waits for.
    ending: Option<(u64, Ending)>,
    /// Told when there is something to look at.
    waker: Waker,
    /// Records of this transaction that were acknowledged, and in which partition. They count as sent when it is committed.
    acknowledged: Vec<(usize, Written)>,
}

/// What came of a transaction.
pub enum Ended {
    /// Since when it was being committed.
    Committed(u64),
    /// Why.
    Aborted(Error),
}

impl Transactions {
    /// Begins the first one. Of `parts` producers this is one: they do not all commit at the same time.
    pub async fn begin(
        producer: &Producer,
        every: Duration,
        (part, parts): (usize, usize),
        waker: Waker,
    ) -> Result<Transactions> {
        producer.init_transactions().await.context("beginning transactions")?;
        producer.begin_transaction()?;
        let every = every.as_nanos() as u64;
        let due = every * (part as u64 + 1) / parts as u64;
        let producer = producer.clone();
        Ok(Transactions { producer, every, due, taken: false, ending: None, waker, acknowledged: Vec::new() })
    }

    pub fn is_ending(&self) -> bool {
        self.ending.is_some()
    }

    /// A record was sent in the one that is open.
    pub fn sent(&mut self) {
        self.taken = true;
    }

    pub fn acknowledged(&mut self, partition: usize, written: Written) {
        self.acknowledged.push((partition, written));
    }

    /// Commits, or aborts what cannot be committed. One without records goes on: its commit would cost nothing, and say nothing.
    pub fn end(&mut self, now: u64) -> Result<Option<Ended>> {
        if !std::mem::take(&mut self.taken) {
            self.due = now + self.every;
            return Ok(None);
        }
        let producer = self.producer.clone();
        let commit = async move {
            let committed = producer.commit_transaction().await;
            if let Err(Error::TransactionFailed { .. }) = &committed {
                producer.abort_transaction().await?;
            }
            committed
        };
        self.ending = Some((now, Box::pin(commit)));
        self.look(now)
    }

    /// Looks whether the commit is done; then the next transaction has begun.
    pub fn look(&mut self, now: u64) -> Result<Option<Ended>> {
        let Some((since, ending)) = &mut self.ending else { return Ok(None) };
        let since = *since;
        let Poll::Ready(committed) = ending.as_mut().poll(&mut Context::from_waker(&self.waker)) else {
            return Ok(None);
        };
        self.ending = None;
        self.due = now.max(self.due) + self.every;
        let ended = match committed {
            Ok(()) => Ended::Committed(since),
            Err(error @ Error::TransactionFailed { .. }) => Ended::Aborted(error),
            Err(error) => return Err(error).context("committing a transaction"),
        };
        self.producer.begin_transaction()?;
        Ok(Some(ended))
    }

    /// How many acknowledged records went with the transaction that was aborted.
    pub fn forget(&mut self) -> u64 {
        self.acknowledged.drain(..).map(|(_, written)| written.count).sum()
    }

    /// Enters what was committed.
    pub fn settle(&mut self, ledger: &mut Ledger, producer: usize) {
        for (partition, written) in self.acknowledged.drain(..) {
            ledger.sent(producer, partition, written);
        }
    }
}
