//! Every config that is accepted does what it says: a case for each, and a config without a case fails.

mod ask;
mod broker;
mod topic;
