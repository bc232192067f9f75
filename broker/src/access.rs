//! Who a client is, and what requests are allowed on: principals, operations and resources as Kafka names them (KIP-11).
//! There are no rules yet that forbid anything: who may reach a listener may do all of it.

use std::fmt;

use corelog_wire::Str;

/// Who is at the other end of a connection. The log, and later the rules, know clients by it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    kind: Str,
    name: Str,
}

impl Principal {
    /// Whoever comes in through a listener that authenticates nobody.
    pub fn anonymous() -> Principal {
        Principal { kind: "User".into(), name: "ANONYMOUS".into() }
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.kind, self.name)
    }
}

/// What may be done to a resource, with Kafka's code of it (AclOperation).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    Read = 3,
    Write = 4,
    Create = 5,
    Delete = 6,
    Alter = 7,
    Describe = 8,
    ClusterAction = 9,
    DescribeConfigs = 10,
    AlterConfigs = 11,
    IdempotentWrite = 12,
}

/// What it may be done to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resource {
    Topic,
    Group,
    Cluster,
    TransactionalId,
}

impl Resource {
    /// All that may be done to one, as the answers tell it that name authorized operations (KIP-430): bits by the codes.
    pub const fn operations(self) -> i32 {
        use Operation::*;
        match self {
            Resource::Topic => {
                bits(&[Read, Write, Create, Delete, Alter, Describe, DescribeConfigs, AlterConfigs])
            }
            Resource::Group => bits(&[Read, Delete, Describe, DescribeConfigs, AlterConfigs]),
            Resource::Cluster => bits(&[
                Create,
                Alter,
                Describe,
                ClusterAction,
                DescribeConfigs,
                AlterConfigs,
                IdempotentWrite,
            ]),
            Resource::TransactionalId => bits(&[Write, Describe]),
        }
    }
}

const fn bits(operations: &[Operation]) -> i32 {
    let (mut bits, mut i) = (0, 0);
    while i < operations.len() {
        bits |= 1 << operations[i] as i32;
        i += 1;
    }
    bits
}

/// One thing that a request does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Access {
    pub operation: Operation,
    pub resource: Resource,
}
