//! What can be wrong with a configuration, and where it was written.

use std::fmt;

/// Where a start-up value was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A flag of the command line, as typed: `--listen`, `--set`.
    Flag(&'static str),
    /// An environment variable.
    Env(String),
    /// A line of the TOML file, counted from 1.
    File { path: String, line: usize },
    /// What the data directory has been from its beginning.
    Directory(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Flag(flag) => write!(f, "{flag}"),
            Origin::Env(name) => write!(f, "environment variable {name}"),
            Origin::File { path, line } => write!(f, "{path} line {line}"),
            Origin::Directory(path) => write!(f, "{path}"),
        }
    }
}

/// A reason not to start: what is wrong, which limit, what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// Where it was written, when it was written anywhere.
    pub origin: Option<Origin>,
    pub what: String,
}

impl ConfigError {
    pub fn at(origin: Origin, what: impl Into<String>) -> ConfigError {
        ConfigError { origin: Some(origin), what: what.into() }
    }

    pub fn new(what: impl Into<String>) -> ConfigError {
        ConfigError { origin: None, what: what.into() }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.origin {
            Some(origin) => write!(f, "{origin}: {}", self.what),
            None => write!(f, "{}", self.what),
        }
    }
}

impl std::error::Error for ConfigError {}

/// A value that a config does not take. Displayed in Kafka's words, which its clients show to people and match.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("Invalid value {value} for configuration {name}: {why}")]
pub struct BadValue {
    pub name: &'static str,
    pub value: String,
    pub why: String,
}
