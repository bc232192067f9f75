//! Kafka producer, consumer and admin for Rust programs.
