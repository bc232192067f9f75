//! Connection limits of the whole process, counted in one place: shard 0. A connection asks there once when it is
//! accepted and tells once when it has closed.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::IpAddr;

use crate::config::ConnectionLimits;

#[derive(Debug)]
pub struct Admission {
    descriptors: Descriptors,
    total: Cell<u32>,
    per_ip: RefCell<HashMap<IpAddr, u32>>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("the broker has {0} connections, its max.connections")]
    Total(u32),
    #[error(
        "the broker has {} connections, all that its limit of {} open files leaves beside what the logs need: raise \
         RLIMIT_NOFILE (LimitNOFILE= in a systemd unit)",
        .0.connections, .0.limit
    )]
    Descriptors(Descriptors),
    #[error("{ip} has {limit} connections, its max.connections.per.ip")]
    PerIp { ip: IpAddr, limit: u32 },
}

impl Refusal {
    /// Lines of one kind are told sparingly.
    pub fn kind(&self) -> &'static str {
        match self {
            Refusal::Total(_) => "max.connections",
            Refusal::Descriptors(_) => "open files",
            Refusal::PerIp { .. } => "max.connections.per.ip",
        }
    }
}

/// How many connections the process's limit of open files leaves room for: what the log needs is kept back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Descriptors {
    pub limit: u64,
    pub connections: u32,
}

/// Descriptors of the process itself (listeners, log files, admin connections), and of each core (rings, signals, the
/// connections that are accepted and not counted yet).
const OF_PROCESS: u64 = 32;
const OF_CORE: u64 = 24;
/// Of each core of a broker of a cluster: its links and lines to other brokers' cores, and theirs to it.
const OF_MEMBER_CORE: u64 = 128;

impl Descriptors {
    /// `of_storage`: what the storage of each of `cores` comes to use.
    pub fn share(limit: u64, cores: usize, of_storage: u64, is_member: bool) -> Descriptors {
        let of_links = if is_member { OF_MEMBER_CORE } else { 0 };
        let kept = OF_PROCESS.saturating_add((OF_CORE + of_links + of_storage).saturating_mul(cores as u64));
        let connections = u32::try_from(limit.saturating_sub(kept)).unwrap_or(u32::MAX).max(1);
        Descriptors { limit, connections }
    }
}

impl Admission {
    pub fn new(descriptors: Descriptors) -> Admission {
        Admission { descriptors, total: Cell::default(), per_ip: RefCell::default() }
    }

    /// Says how many connections there can be, where that is few.
    pub fn tell(&self) {
        let Descriptors { limit, connections } = self.descriptors;
        if limit < corelog_io::NOFILE_MIN {
            tracing::warn!(
                open_files = limit,
                connections,
                "the limit of open files leaves room for so many connections beside what the logs need; raise RLIMIT_NOFILE"
            );
        }
    }

    /// Counts a connection in, if the limits let it.
    pub fn enter(&self, ip: IpAddr, limits: &ConnectionLimits) -> Result<(), Refusal> {
        if self.total.get() >= limits.max {
            return Err(Refusal::Total(limits.max));
        }
        if self.total.get() >= self.descriptors.connections {
            return Err(Refusal::Descriptors(self.descriptors));
        }
        let limit = limits.per_ip_overrides.get(&ip).copied().unwrap_or(limits.per_ip_max);
        let mut per_ip = self.per_ip.borrow_mut();
        let count = per_ip.get(&ip).copied().unwrap_or(0);
        if count >= limit {
            return Err(Refusal::PerIp { ip, limit });
        }
        per_ip.insert(ip, count + 1);
        self.total.set(self.total.get() + 1);
        Ok(())
    }

    /// Counts a connection out.
    pub fn leave(&self, ip: IpAddr) {
        let mut per_ip = self.per_ip.borrow_mut();
        let count = per_ip.get_mut(&ip).expect("a connection leaves after it entered");
        *count -= 1;
        if *count == 0 {
            per_ip.remove(&ip);
        }
        self.total.set(self.total.get() - 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(max: u32, per_ip_max: u32) -> ConnectionLimits {
        ConnectionLimits {
            max,
            per_ip_max,
            per_ip_overrides: [(IpAddr::from([10, 0, 0, 9]), 0)].into(),
            idle_ms_max: None,
            request_bytes_wanted: 0,
            request_bytes_max: 0,
            backlog: 0,
        }
    }

    #[test]
    fn what_the_log_needs_of_the_open_files_is_kept_back() {
        let descriptors = Descriptors::share(300, 2, 51, false);
        assert_eq!(descriptors, Descriptors { limit: 300, connections: 300 - 32 - 2 * (24 + 51) });
        let admission = Admission::new(descriptors);
        let ip = IpAddr::from([10, 0, 0, 1]);
        let limits = limits(u32::MAX, u32::MAX);
        for _ in 0..descriptors.connections {
            assert_eq!(admission.enter(ip, &limits), Ok(()));
        }
        let refusal = admission.enter(ip, &limits).expect_err("the rest is the log's");
        assert!(refusal.to_string().contains("limit of 300 open files"), "{refusal}");
        assert_eq!(Descriptors::share(64, 8, 10, false).connections, 1, "one at the least, to look at it");
    }

    #[test]
    fn limits_hold_and_what_leaves_makes_room() {
        let admission = Admission::new(Descriptors::share(u64::MAX, 2, 100, false));
        let (a, b) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        let limits = limits(3, 2);
        assert_eq!(admission.enter(a, &limits), Ok(()));
        assert_eq!(admission.enter(a, &limits), Ok(()));
        assert_eq!(admission.enter(a, &limits), Err(Refusal::PerIp { ip: a, limit: 2 }));
        assert_eq!(admission.enter(b, &limits), Ok(()));
        assert_eq!(admission.enter(b, &limits), Err(Refusal::Total(3)));
        admission.leave(a);
        assert_eq!(admission.enter(b, &limits), Ok(()));
        admission.leave(b);
        let banned = IpAddr::from([10, 0, 0, 9]);
        assert_eq!(admission.enter(banned, &limits), Err(Refusal::PerIp { ip: banned, limit: 0 }));
    }
}
