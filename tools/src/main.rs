//! corectl: topics, groups, produce, consume, log dump.
fn main() {}
