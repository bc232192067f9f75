//! A partition's log: append, read, index, recover, retain.

mod batch;
mod config;
mod epochs;
mod error;
mod format;
mod ids;
mod producers;
mod tail;
