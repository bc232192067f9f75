//! `Client`: the way in.

use crate::admin::Admin;
use crate::config::ClientConfig;
use crate::core::Core;
use crate::driver::Handle;
use crate::error::{Error, Result};
use std::fmt;

/// A cluster, and the thread that talks to it. Producers, consumers and admins made from one client share that thread, and each has
/// connections of its own where it needs them. Cheap to clone; the thread ends when the last of them is dropped.
#[derive(Clone)]
pub struct Client {
    pub(crate) handle: Handle<Core>,
}

impl Client {
    /// Starts the client's thread and asks a bootstrap broker for the cluster.
    ///
    /// Errors: a config that cannot be; [`Error::Connect`] if no bootstrap broker can be reached; [`Error::Timeout`] after `api_timeout`.
    pub async fn connect(config: ClientConfig) -> Result<Client> {
        let bootstrap = config.addresses()?;
        let config = config.bounded();
        let handle =
            Handle::start("corelog-client", move || Core::new(config, bootstrap)).map_err(|error| {
                Error::config(
                    format!("cannot start the client's thread: {error}"),
                    "raise the limit of threads or open files",
                )
            })?;
        let client = Client { handle };
        client.handle.call(async |core| core.begin().await).await?;
        Ok(client)
    }

    pub fn admin(&self) -> Admin {
        Admin::new(self.handle.clone())
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}
