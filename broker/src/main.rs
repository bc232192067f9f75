//! The Corelog broker.
fn main() {}
