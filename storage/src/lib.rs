//! A partition's log: append, read, index, recover, retain.
