//! What the machine and its processes say of themselves, under /proc.

pub mod cache;
pub mod cost;
pub mod machine;
pub mod perf;
pub mod process;
pub mod settle;
