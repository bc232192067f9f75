//! Connection limits of the whole process, counted in one place: shard 0. A connection asks there once when it is
//! accepted and tells once when it has closed.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::IpAddr;

use crate::config::ConnectionLimits;

#[derive(Debug, Default)]
pub struct Admission {
    total: Cell<u32>,
    per_ip: RefCell<HashMap<IpAddr, u32>>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("the broker has {0} connections, its max.connections")]
    Total(u32),
    #[error("{ip} has {limit} connections, its max.connections.per.ip")]
    PerIp { ip: IpAddr, limit: u32 },
}

impl Refusal {
    /// Lines of one kind are told sparingly.
    pub fn kind(&self) -> &'static str {
        match self {
            Refusal::Total(_) => "max.connections",
            Refusal::PerIp { .. } => "max.connections.per.ip",
        }
    }
}

impl Admission {
    /// Counts a connection in, if the limits let it.
    pub fn enter(&self, ip: IpAddr, limits: &ConnectionLimits) -> Result<(), Refusal> {
        if self.total.get() >= limits.max {
            return Err(Refusal::Total(limits.max));
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
    fn limits_hold_and_what_leaves_makes_room() {
        let admission = Admission::default();
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
