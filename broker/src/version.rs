//! What this program is.

/// Its version, as the log, `/metrics` and a terminal are told: with the commit in builds for release (see build.rs).
pub fn version() -> &'static str {
    env!("BUILD_VERSION")
}
