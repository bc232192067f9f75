//! What brokers say to each other while they form a cluster, or join one: Corelog's own, with two bytes of version before it
//! ([`crate::coordinator_records::value_from_bytes`]).

include!(concat!(env!("OUT_DIR"), "/broker_calls.rs"));
