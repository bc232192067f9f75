//! Where a partition's leader went: what Produce and Fetch answers carry beside a "not the leader" error (KIP-951), so that
//! the client need not ask for metadata first.

use crate::{DecodeError, EncodeError, Reader, Str, Writer};

/// Tagged in a partition's answer; both −1, and off the wire, where nothing is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaderIdAndEpoch {
    pub leader_id: i32,
    pub leader_epoch: i32,
}

impl Default for LeaderIdAndEpoch {
    fn default() -> Self {
        LeaderIdAndEpoch { leader_id: -1, leader_epoch: -1 }
    }
}

impl LeaderIdAndEpoch {
    pub(crate) fn read(r: &mut Reader) -> Result<Self, DecodeError> {
        let leader_id = r.i32("LeaderIdAndEpoch.leader_id")?;
        let leader_epoch = r.i32("LeaderIdAndEpoch.leader_epoch")?;
        r.skip_tags("LeaderIdAndEpoch")?;
        Ok(LeaderIdAndEpoch { leader_id, leader_epoch })
    }

    pub(crate) fn write(&self, w: &mut Writer) {
        w.i32(self.leader_id);
        w.i32(self.leader_epoch);
        w.uvarint(0);
    }
}

/// How to reach a broker that the answer names as a leader.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeEndpoint {
    pub node_id: i32,
    pub host: Str,
    pub port: i32,
    pub rack: Option<Str>,
}

impl NodeEndpoint {
    fn read(r: &mut Reader) -> Result<Self, DecodeError> {
        let node_id = r.i32("NodeEndpoint.node_id")?;
        let host = r.string("NodeEndpoint.host", true)?;
        let port = r.i32("NodeEndpoint.port")?;
        let rack = r.string_opt("NodeEndpoint.rack", true)?;
        r.skip_tags("NodeEndpoint")?;
        Ok(NodeEndpoint { node_id, host, port, rack })
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        w.i32(self.node_id);
        w.string("NodeEndpoint.host", true, &self.host)?;
        w.i32(self.port);
        w.string_opt("NodeEndpoint.rack", true, self.rack.as_deref())?;
        w.uvarint(0);
        Ok(())
    }

    pub(crate) fn read_all(r: &mut Reader) -> Result<Vec<Self>, DecodeError> {
        // id, empty host, port, null rack, no tags
        r.array("NodeEndpoint", true, const { crate::reader::smallest::<Self>(11) }, Self::read)
    }

    pub(crate) fn write_all(all: &[Self], w: &mut Writer) -> Result<(), EncodeError> {
        w.array_len("NodeEndpoint", true, all.len())?;
        all.iter().try_for_each(|endpoint| endpoint.write(w))
    }
}
