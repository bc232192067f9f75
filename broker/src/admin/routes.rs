//! The paths.

use std::convert::Infallible;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures_util::stream;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::{Configs, Health, Scrape};
use crate::config::describe::Entry;
use crate::metrics;

#[derive(Clone)]
struct Asked {
    health: watch::Receiver<Health>,
    scrape: Scrape,
    configs: Configs,
}

pub fn router(health: watch::Receiver<Health>, scrape: Scrape, configs: Configs) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/health/live", get(|| async { "live\n" }))
        .route("/health/ready", get(ready))
        .route("/config", get(config))
        .fallback(nothing_here)
        .with_state(Asked { health, scrape, configs })
}

async fn metrics(State(asked): State<Asked>) -> Response {
    let mut page = (asked.scrape)().await;
    page.snapshots.push(metrics::process());
    // The text is made as it is sent: it may be megabytes.
    let pieces = stream::iter(page.pieces().map(Ok::<_, Infallible>));
    ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], Body::from_stream(pieces)).into_response()
}

async fn ready(State(asked): State<Asked>) -> (StatusCode, String) {
    match &*asked.health.borrow() {
        Health::Ready => (StatusCode::OK, "ready\n".to_owned()),
        Health::Starting(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("starting: {why}\n")),
        Health::Stopping => (StatusCode::SERVICE_UNAVAILABLE, "stopping\n".to_owned()),
    }
}

async fn config(State(asked): State<Asked>) -> Response {
    let entries: Vec<Value> = (asked.configs)().await.iter().map(shown).collect();
    let text = serde_json::to_string_pretty(&entries).expect("plain values");
    ([(header::CONTENT_TYPE, "application/json")], text + "\n").into_response()
}

fn shown(entry: &Entry) -> Value {
    let synonyms: Vec<Value> = entry
        .synonyms
        .iter()
        .map(|synonym| json!({"name": synonym.name, "value": synonym.value, "source": synonym.source.name()}))
        .collect();
    json!({
        "name": entry.name,
        "value": entry.value,
        "source": entry.source.name(),
        "type": entry.kind.map(|kind| kind.name()),
        "dynamic": !entry.read_only,
        "documentation": entry.documentation,
        "synonyms": synonyms,
    })
}

async fn nothing_here() -> (StatusCode, &'static str) {
    (StatusCode::NOT_FOUND, "there are /metrics, /health/live, /health/ready and /config\n")
}
