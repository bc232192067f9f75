//! Making load and measuring it: producing and consuming threads, each with a client of its own, and the run that they are part of.

#[cfg(test)]
mod bad_brokers;
pub mod consumer;
pub mod ledger;
pub mod payload;
pub mod plan;
pub mod probe;
pub mod producer;
pub mod reading;
pub mod run;
pub mod schedule;
pub mod stage;
pub mod transactions;
