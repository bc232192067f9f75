//! What Corelog must show from outside, over sockets: the answers of Apache Kafka (`differential`), nothing lost by kill -9
//! (`crash`), nor by what befalls the brokers of a cluster (`cluster`), nor by hostile clients (`hostile`).
//!
//! Threads and blocking sockets throughout: the order of what is sent is the order of the code.

pub mod broker;
mod clock;
pub mod cluster;
pub mod connection;
pub mod crash;
pub mod differential;
pub mod hostile;
pub mod random;
pub mod record;
pub mod value;
