//! Kafka's messages, record batches and compression: bytes in, values out.

pub mod records;
