//! Changes of the metadata on their way to the broker that leads the controller's group, and the answer: Corelog's own, framed
//! as the controller's records are.

use crate::framed::framed_records;

include!(concat!(env!("OUT_DIR"), "/cluster_changes.rs"));

framed_records!(
    ClusterChange: CreateTopicChange DeleteTopicChange CreatePartitionsChange AlterConfigsChange RegisterBrokerChange
    TakeProducerIdsChange LeadersChange JoinChange FenceChange UnregisterChange ReassignChange RenewChange
);
