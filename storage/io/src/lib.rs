//! One core's world: tasks, timers, files, sockets, mailboxes, randomness; on glommio or simulated.
//!
//! Everything a data core does to the outside goes through this crate. It has two worlds behind the same
//! types: *glommio* (one pinned thread per core, io_uring) entered by [`run_glommio`], and *simulated*
//! (whole clusters on one OS thread, from one seed) entered by [`sim::Sim`]. The free functions
//! ([`spawn`], [`now`], [`sleep`], [`random_u64`], ...) act on the world of the core that calls them.

mod file;
pub mod fs;
mod memory;
mod mesh;
mod net;
pub mod planted;
mod preflight;
mod random;
mod real;
mod remote;
mod run;
pub mod sim;
pub mod sync;
mod task;
mod time;
mod turn;
mod world;

pub use file::{File, OpenOptions, is_cancelled};
pub use memory::{ALIGN, AlignedBuf, Block, is_aligned};
pub use mesh::{Disconnected, Received, Receiver, Seat, Senders, TrySendError, mesh};
pub use net::{Detached, ListenOptions, Listener, Part, Stream};
pub use preflight::{MEMLOCK_MIN, MEMLOCK_PER_CORE, NOFILE_MIN, Problem, preflight};
pub use random::{Dice, random_secret, random_u64};
pub use remote::{RemoteReceiver, RemoteSender, remote};
pub use run::{CoreCtx, Handle, RunConfig, available_cpus, run_glommio, run_glommio_with};
pub use task::{Queue, Task, compute, core, cores, spawn, yield_if_needed, yield_now};
pub use time::{Elapsed, Instant, now, sleep, sleep_until, timeout, wall_clock_ms};
pub use turn::worked;
