//! What is told of runs.

pub mod terminal;

use crate::host::cost::Cost;
use crate::load::ledger::Verdict;
use crate::stats::summary::Summary;
use serde::Serialize;

/// One run against one broker.
#[derive(Clone, Debug, Serialize)]
pub struct RunReport {
    pub name: String,
    pub parameters: Vec<(String, String)>,
    pub warm_up_s: f64,
    pub window_s: f64,
    pub produced: Option<Summary>,
    /// By all groups together.
    pub consumed: Option<Summary>,
    /// Afterwards, where nobody read while it was written.
    pub read_back: Option<ReadBack>,
    pub cost: Cost,
    pub client: ClientFigures,
    pub verdict: Verdict,
    /// Why the figures do not count; none if they do.
    pub problems: Vec<String>,
}

/// Reading a topic from its beginning to its end, as fast as it goes.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct ReadBack {
    pub bytes: u64,
    pub seconds: f64,
}

/// What the load generator says of itself.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct ClientFigures {
    /// Between a record's due time and its handing over to the client: part of the latencies.
    pub lag_p99_us: f64,
    /// Due in the window and never sent: the rate was not reached, and latencies are too low.
    pub unsent: u64,
}

impl RunReport {
    /// Bytes that clients wrote and read in the window.
    pub fn bytes(&self) -> u64 {
        let of = |side: &Option<Summary>| side.as_ref().map_or(0, |side| side.bytes);
        of(&self.produced) + of(&self.consumed)
    }

    pub fn broker_cpu_s(&self) -> Option<f64> {
        self.cost.broker.as_ref().map(|broker| broker.cpu_s).filter(|cpu| *cpu > 0.0)
    }
}
