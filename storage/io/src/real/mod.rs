//! The glommio world. glommio gives the executor and its task queues; files, the readiness of sockets, timers and sleep
//! are the affair of a ring of the core's own ([`ring::Ring`]): one system call submits, waits and collects, where
//! glommio's three rings take about ten for each time it sleeps. No glommio or io-uring type leaves this module.

mod blocking;
mod core;
mod fd;
pub(crate) mod file;
pub(crate) mod fs;
pub(crate) mod net;
pub(crate) mod random;
mod ring;
mod roster;
pub(crate) mod run;
mod timers;

pub(crate) use self::core::{Core, Task};
pub(crate) use self::timers::Sleep;
