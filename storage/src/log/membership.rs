//! Who replicates a log, kept for whoever replicates it.

use super::Log;
use crate::error::AppendError;
use crate::format::log_sections::{MEMBERSHIP_BYTES_MAX, Membership};
use crate::ids::RaftIndex;
use bytes::Bytes;

impl Log {
    /// The membership last set, and the index of the entry that says so; after a start, of what was known to be committed if
    /// that is later: nothing before it says otherwise.
    pub fn membership(&self) -> Option<Membership> {
        self.state.borrow().membership.clone()
    }

    /// The entry at `index` says who replicates the log. To be told before that entry counts as committed here
    /// ([`Log::advance_commit`]). It is in the next checkpoint; after a crash the owner reads it again from the entries above the index that [`Log::membership`] tells, and none of these goes before.
    ///
    /// # Errors
    /// More than [`MEMBERSHIP_BYTES_MAX`].
    pub fn set_membership(&self, index: RaftIndex, bytes: Bytes) -> Result<(), AppendError> {
        if bytes.len() > MEMBERSHIP_BYTES_MAX {
            let len = bytes.len();
            let what = format!("a membership of {len} bytes; at most {MEMBERSHIP_BYTES_MAX} are kept");
            return Err(AppendError::Invalid(what));
        }
        let mut state = self.state.borrow_mut();
        state.membership = Some(Membership { index, bytes });
        // One that is being written may have passed this log already.
        state.membership_saved_by = self.shard.checkpoints_begun.get() + 1;
        Ok(())
    }

    /// Whether a durable checkpoint has the membership: until then the entry that says it is all there is.
    pub(super) fn is_membership_saved(&self) -> bool {
        self.state.borrow().membership_saved_by <= self.shard.checkpoints_written.get()
    }
}
