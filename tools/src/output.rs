//! Results on standard output: tables or JSON; what went wrong on standard error.

use crate::table::Table;
use anyhow::Result;
use corelog_client::Outcomes;
use serde_json::{Value, json};
use std::fmt::Display;
use std::io::{self, Write};
use std::process::ExitCode;

pub struct Output {
    pub json: bool,
}

/// A line on standard error, in the form of `format!`. Where nobody reads it (`2>&1 | head`) it is lost, and no more.
macro_rules! tell {
    ($($text:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stderr().lock(), $($text)*);
    }};
}
pub(crate) use tell;

impl Output {
    /// A table, or an array.
    pub fn table(&self, table: &Table) -> Result<()> {
        match self.json {
            true => self.value(&table.to_json()),
            false => line(&table.to_text()),
        }
    }

    /// As JSON, indented.
    pub fn value(&self, value: &Value) -> Result<()> {
        line(&serde_json::to_string_pretty(value)?)
    }

    /// Text for people; nothing with --json.
    pub fn say(&self, text: impl Display) -> Result<()> {
        if self.json { Ok(()) } else { line(&text.to_string()) }
    }

    /// What came of each of several things: a line each, or an array; the exit code tells whether all went well.
    pub fn outcomes<N: Display, T>(
        &self,
        outcomes: &Outcomes<N, T>,
        key: &str,
        done: impl Fn(&N, &T) -> String,
    ) -> Result<ExitCode> {
        if self.json {
            let outcome = |(name, outcome): &(N, corelog_client::Result<T>)| match outcome {
                Ok(_) => json!({key: name.to_string(), "ok": true}),
                Err(error) => json!({key: name.to_string(), "ok": false, "error": error.to_string()}),
            };
            self.value(&Value::Array(outcomes.iter().map(outcome).collect()))?;
        }
        let mut code = ExitCode::SUCCESS;
        for (name, outcome) in outcomes {
            match outcome {
                Ok(value) => self.say(done(name, value))?,
                Err(error) => {
                    tell!("corectl: {error}");
                    code = ExitCode::FAILURE;
                }
            }
        }
        Ok(code)
    }
}

/// How many there are of something, as people say it; `unit` is of one.
pub fn count(number: usize, unit: &str) -> String {
    format!("{number} {unit}{}", if number == 1 { "" } else { "s" })
}

/// Text as it is, such as a script.
pub fn write(text: &[u8]) -> Result<()> {
    io::stdout().lock().write_all(text)?;
    Ok(())
}

fn line(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}")?;
    Ok(())
}

/// Whether what failed was writing to one who has stopped reading.
pub fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
    })
}
