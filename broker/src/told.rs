//! Why the broker ends, in one line.

use std::io::{self, ErrorKind};

use corelog_storage::StorageError;

use crate::identity::IdentityError;

/// An error and its causes, each said once (some say theirs themselves), and what a person can do who started the broker
/// as another user than before.
pub fn told(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        match text.as_str() {
            "" => text = cause,
            said if said.ends_with(&cause) => {}
            _ => text = format!("{text}: {cause}"),
        }
    }
    let denied = |error: &io::Error| error.kind() == ErrorKind::PermissionDenied;
    let is_denied = error.chain().any(|cause| match (cause.downcast_ref(), cause.downcast_ref()) {
        (Some(StorageError::Io { source, .. }), _) => denied(source),
        (_, Some(IdentityError::Io { error, .. })) => denied(error),
        _ => false,
    });
    if is_denied {
        text += "; the data directory and all in it must belong to the user that the broker runs as (chown -R USER DIR)";
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cause_is_said_once() {
        let denied = || io::Error::from(ErrorKind::PermissionDenied);
        let error = || IdentityError::Io { action: "open", path: "d/.lock".into(), error: denied() };
        let text = told(&anyhow::Error::from(error()).context("starting"));
        assert!(text.starts_with("starting: cannot open d/.lock: "), "{text}");
        assert_eq!(text.matches("permission denied").count(), 1, "{text}");
        assert!(text.contains("chown"), "{text}");
        let error = StorageError::Io { action: "open", path: "f".into(), source: denied().into() };
        let text = told(&anyhow::Error::from(error).context("reading the journals"));
        assert!(text.starts_with("reading the journals: open f: permission denied; "), "{text}");
        assert_eq!(told(&anyhow::anyhow!("a").context("b")), "b: a");
    }
}
