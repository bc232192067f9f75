//! Timers of glommio's that end a sleep it should not have begun.
//!
//! The core sleeps in its own ring, and glommio always has something to run. But glommio 0.9.0 parks on a turn that ran
//! nothing, and takes a turn that was preempted before its first task for one (the same in its fork glommio-ng 0.12.0;
//! the fork has the correction merged, not released). That takes a thread that loses its CPU, just then, for longer
//! than the preemption time ([`super::run::PREEMPT`]). Only an event of glommio's ends that sleep, and a timer due is
//! one: so some timer is always set; two, because one that fires into the same trap again is used up.

use super::core::Core;
use std::time::Duration;

/// The longest such sleep.
const FIRST: Duration = Duration::from_millis(20);
/// Behind the other.
const SECOND: Duration = Duration::from_millis(300);

/// Starts the core's sentinels. They end with its executor, and cost nothing while the core sleeps: glommio looks at
/// its timers when it is preempted or parks.
pub(super) fn start(core: &Core) {
    for period in [FIRST, SECOND] {
        core.spawn_untracked(async move {
            loop {
                glommio::timer::sleep(period).await;
            }
        });
    }
}
