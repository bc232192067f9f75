//! The glommio world. glommio gives the executor, its task queues and timers; files and socket readiness run on a
//! second ring per core ([`ring::Ring`]). No glommio or io-uring type leaves this module.

mod core;
mod fd;
pub(crate) mod file;
pub(crate) mod fs;
pub(crate) mod net;
mod ring;
pub(crate) mod run;
mod sentinel;

pub(crate) use self::core::Core;
