//! The HTTP service: metrics, health, configs. It runs on the service thread, where tokio is, and asks the shards by
//! message for what only they know.
//!
//! | path | |
//! |---|---|
//! | `/metrics` | every shard's numbers, and those of partitions and groups, for Prometheus |
//! | `/health/live` | 200 while the process runs |
//! | `/health/ready` | 200 while clients are served, else 503 with the reason |
//! | `/config` | every broker config in effect, with its source, as JSON |
//!
//! There is no authentication: the default address is loopback.

mod http;
mod impatient;
mod routes;
mod scrape;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use futures_util::future::BoxFuture;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::config::Endpoint;
use crate::config::describe::Entry;
use crate::metrics::Page;

pub use scrape::Scraper;

/// Whether clients are served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// Not yet, and what is being waited for.
    Starting(String),
    Ready,
    Stopping,
}

/// Asks every shard for its numbers. Gives those of the shards that answered in time.
pub type Scrape = Arc<dyn Fn() -> BoxFuture<'static, Page> + Send + Sync>;

/// Gives this broker's configs in effect.
pub type Configs = Arc<dyn Fn() -> BoxFuture<'static, Vec<Entry>> + Send + Sync>;

/// Why the service can't be had.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    #[error("corelog.admin: {0}")]
    Address(String),
    #[error("can't serve HTTP on {endpoint}: {error}; choose another address with --admin")]
    Bind { endpoint: String, error: std::io::Error },
}

/// Binds the address of `corelog.admin`. The listener tells the port where that was 0.
pub async fn bind(endpoint: &Endpoint) -> Result<TcpListener, AdminError> {
    let address = endpoint.resolve().map_err(AdminError::Address)?;
    TcpListener::bind(address)
        .await
        .map_err(|error| AdminError::Bind { endpoint: endpoint.to_string(), error })
}

/// Serves until it is dropped; connections end with it.
pub async fn serve(listener: TcpListener, health: watch::Receiver<Health>, scrape: Scrape, configs: Configs) {
    http::serve(listener, routes::router(health, scrape, configs)).await;
}
