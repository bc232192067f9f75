//! What consumers say to each other through JoinGroup and SyncGroup: opaque to the coordinator, read by clients and admin tools.

use crate::messages::Message;
use crate::{DecodeError, EncodeError, Reader, Writer};
use bytes::Bytes;

include!(concat!(env!("OUT_DIR"), "/consumer_protocol.rs"));

/// Reads a subscription or assignment. It begins with its version; one newer than ours is read as our newest, and what
/// follows is left unread, since newer versions only append.
pub fn from_bytes<M: Message>(bytes: Bytes) -> Result<M, DecodeError> {
    let mut r = Reader::new(bytes);
    let version = r.i16(M::NAME)?;
    M::decode(&mut r, version.min(M::MAX_VERSION))
}

pub fn to_bytes<M: Message>(value: &M, version: i16) -> Result<Bytes, EncodeError> {
    let mut w = Writer::new();
    w.i16(version);
    value.encode(&mut w, version)?;
    Ok(w.into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Str;

    #[test]
    fn newer_versions_are_read_as_far_as_they_are_known() {
        let subscription = ConsumerProtocolSubscription {
            topics: vec![Str::from("t")],
            rack_id: Some(Str::from("r")),
            generation_id: 4,
            ..Default::default()
        };
        let bytes = to_bytes(&subscription, 3).unwrap();
        assert_eq!(from_bytes(bytes.clone()), Ok(subscription.clone()));
        let mut newer = bytes.to_vec();
        newer[1] = 9;
        newer.extend([1, 2, 3]);
        assert_eq!(from_bytes(newer.into()), Ok(subscription));
    }
}
