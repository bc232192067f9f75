//! One core's world: tasks, timers, files, sockets, mailboxes, randomness; on glommio or simulated.
