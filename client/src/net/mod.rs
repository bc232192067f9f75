//! Connections to brokers: one at a time per broker and lane, found by node id, remade when they break.

mod connection;
mod versions;

pub(crate) use connection::Connection;
pub(crate) use versions::Versions;
