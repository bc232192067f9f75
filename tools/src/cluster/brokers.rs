//! `corectl cluster brokers`: who is there, and what each has to do.

use super::view::{Load, View};
use crate::output::Output;
use crate::table::Table;
use anyhow::Result;
use corelog_client::Admin;
use serde_json::json;
use std::process::ExitCode;

pub async fn run(admin: &Admin, out: &Output) -> Result<ExitCode> {
    let cluster = admin.describe_cluster().await?;
    let view = View::load(admin).await?;
    let table = table(&view);
    if out.json {
        let controller = view.quorum.as_ref().map_or(cluster.controller, |quorum| quorum.leader);
        out.value(&json!({"cluster_id": cluster.id, "controller": controller, "brokers": table.to_json()}))?;
    } else {
        out.say(format!("cluster {}\n", cluster.id.as_deref().unwrap_or("-")))?;
        out.table(&table)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn table(view: &View) -> Table {
    let mut table = Table::new(&[
        ("id", "id"),
        ("address", "address"),
        ("rack", "rack"),
        ("state", "state"),
        ("leads", "leads"),
        ("replicas", "replicas"),
        ("behind", "behind"),
        ("controller", "controller"),
    ]);
    for broker in view.brokers.values() {
        let Load { leads, replicas, behind } = view.load_of(broker.id);
        table.row([
            json!(broker.id),
            json!(broker.address),
            json!(broker.rack),
            json!(state(view, broker.id)),
            json!(leads),
            json!(replicas),
            json!(behind),
            json!(view.controller_role(broker.id)),
        ]);
    }
    table
}

/// One that is not there is fenced, as Kafka calls it.
fn state(view: &View, broker: i32) -> &'static str {
    match () {
        () if !view.is_there(broker) => "fenced",
        () if view.draining.contains(&broker) => "draining",
        () => "there",
    }
}

#[cfg(test)]
mod tests {
    use super::super::view::tests::view;
    use super::*;

    #[test]
    fn each_broker_has_its_row() {
        let mut view = view(&[(Some(1), &[1, 2, 3], &[1, 2]), (Some(1), &[1, 3], &[1])], &[3]);
        view.draining.insert(2);
        let rows = table(&view).to_json();
        let row = |at: usize, key: &str| rows[at][key].clone();
        assert_eq!(
            (row(0, "state"), row(0, "leads"), row(0, "replicas")),
            (json!("there"), json!(2), json!(2))
        );
        assert_eq!((row(1, "state"), row(1, "controller")), (json!("draining"), json!("voter")));
        assert_eq!(
            (row(2, "state"), row(2, "behind"), row(2, "leads")),
            (json!("fenced"), json!(2), json!(0))
        );
    }
}
