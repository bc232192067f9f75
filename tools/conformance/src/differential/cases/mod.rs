//! The cases, by API.

mod alter_configs;
mod api_versions;
mod cluster;
mod create_partitions;
mod create_topics;
mod delete_records;
mod delete_topics;
mod describe_configs;
mod fetch;
mod fetch_sessions;
mod group_admin;
mod group_life;
mod group_offsets;
mod group_rebalance;
mod idempotence;
mod list_offsets;
mod metadata;
mod produce;
mod produce_bad_batches;
mod records;
mod restricted_topics;
mod static_members;

use super::Case;

pub fn all() -> impl Iterator<Item = &'static Case> {
    [
        // First: it lists all topics, and later ones would only make the list longer.
        metadata::CASES,
        api_versions::CASES,
        cluster::CASES,
        create_topics::CASES,
        delete_topics::CASES,
        create_partitions::CASES,
        produce::CASES,
        produce_bad_batches::CASES,
        idempotence::CASES,
        restricted_topics::CASES,
        fetch::CASES,
        fetch_sessions::CASES,
        list_offsets::CASES,
        delete_records::CASES,
        describe_configs::CASES,
        alter_configs::CASES,
        group_life::CASES,
        group_rebalance::CASES,
        static_members::CASES,
        group_offsets::CASES,
        group_admin::CASES,
    ]
    .into_iter()
    .flatten()
}
