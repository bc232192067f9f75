//! What Corelog must show from outside, over sockets: the answers of Apache Kafka (`differential`), nothing lost by kill -9
//! (`crash`), and nothing lost by hostile clients (`hostile`).
//!
//! Threads and blocking sockets throughout: the order of what is sent is the order of the code.

pub mod broker;
mod clock;
pub mod connection;
pub mod crash;
pub mod differential;
pub mod hostile;
pub mod random;
pub mod value;
