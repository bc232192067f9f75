//! Connections: accepting them, reading frames, answering in order.

pub mod accept;
pub mod admission;
pub mod answers;
pub mod connection;
pub mod frame;
pub mod patience;
pub mod receive;
pub mod request;
pub mod transport;
