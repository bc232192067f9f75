//! What this program is.

/// Its version, as the log, `/metrics` and a terminal are told.
pub fn version() -> &'static str {
    env!("CARGO_PKG_VERSION")
}
