//! `corectl tune`: the machine under the broker. Checks it, explains, applies, checks again, and takes back.
//!
//! A table of items ([`items`]) says what is looked at, what is wanted and why; the commands and the guide
//! (`kernel-tuning.md`) are made from it. All access to the machine goes through [`machine`].

mod apply;
mod check;
mod cpus;
#[cfg(test)]
mod fixture;
mod guide;
mod item;
mod items;
mod machine;
mod mount;
mod script;
mod service;
mod state;
mod undo;

use crate::output::Output;
use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use machine::Machine;
use serde_json::json;
use state::State;
use std::io::{BufRead, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Not in the data directory: that is the broker's to write to, and `undo` believes this file as root.
const STATE: &str = "/var/lib/corectl/tune.json";

#[derive(Args)]
#[command(after_help = "Examples:
  corectl tune                                   how this machine stands; fails if anything differs
  corectl tune explain disk-scheduler            one item: what, why, how much, how to keep and to undo it
  corectl tune apply swap listen-backlog         change these, after asking, and read them again
  corectl tune --script                          the shell that `apply` stands for
  corectl tune undo                              give back what was there before")]
pub struct Tune {
    #[command(subcommand)]
    command: Option<Command>,
    /// The broker's data directory: its disk, file system and mount options are looked at
    #[arg(long, global = true, default_value = "./corelog-data", value_name = "DIR")]
    data_dir: PathBuf,
    /// The CPUs that the broker is to run on, such as 0-3,6 [default: all]
    #[arg(long, global = true, value_parser = cpu_list, value_name = "LIST")]
    cores: Option<CpuList>,
    /// Print the shell that would be run, and run nothing
    #[arg(long, global = true)]
    script: bool,
    /// Where former values are kept
    #[arg(long, global = true, default_value = STATE, value_name = "FILE")]
    state: PathBuf,
    /// Look at a machine below this directory
    #[arg(long, global = true, default_value = "/", value_name = "DIR", hide = true)]
    root: PathBuf,
}

#[derive(Clone)]
struct CpuList(Vec<usize>);

fn cpu_list(text: &str) -> Result<CpuList, String> {
    cpus::parse(text).map(CpuList)
}

#[derive(Subcommand)]
enum Command {
    /// Look at these items, or at all
    Check {
        #[arg(value_name = "ITEM")]
        items: Vec<String>,
    },
    /// What an item is, why it is wanted, what it brings, how to keep and undo it
    Explain {
        #[arg(value_name = "ITEM", required = true)]
        items: Vec<String>,
    },
    /// Change what differs, of these items or of all, and read it again
    Apply {
        #[arg(value_name = "ITEM")]
        items: Vec<String>,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
    /// Give back the values that were there before, of these items or of all
    Undo {
        #[arg(value_name = "ITEM")]
        items: Vec<String>,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
    /// Print a systemd unit for the broker
    Unit {
        /// The one that tunes the machine at every boot instead
        #[arg(long)]
        boot: bool,
    },
    /// Print what a container's seccomp profile must allow, or a profile with it added
    Seccomp {
        /// The runtime's profile, as JSON
        #[arg(value_name = "PROFILE")]
        profile: Option<PathBuf>,
    },
    /// Print all items as Markdown: kernel-tuning.md
    Guide,
}

pub fn run(tune: Tune, out: &Output) -> Result<ExitCode> {
    let data_dir = tune.data_dir.to_string_lossy();
    let cores = tune.cores.as_ref().map(|list| cpus::list(&list.0));
    let text = match &tune.command {
        Some(Command::Unit { boot: false }) => service::broker_unit(&data_dir, cores.as_deref()),
        Some(Command::Unit { boot: true }) => service::boot_unit(&data_dir, cores.as_deref()),
        Some(Command::Seccomp { profile }) => seccomp(profile.as_deref())?,
        Some(Command::Guide) => guide::page(),
        Some(Command::Explain { items }) => return explain(items, out),
        _ => return on_machine(&tune, out),
    };
    match out.json {
        true => out.value(&json!(text))?,
        false => out.say(text.trim_end())?,
    }
    Ok(ExitCode::SUCCESS)
}

fn on_machine(tune: &Tune, out: &Output) -> Result<ExitCode> {
    let machine = Machine::new(&tune.root, &tune.data_dir, tune.cores.clone().map(|list| list.0))
        .with_context(|| format!("cannot look at {}", tune.root.display()))?;
    if let Some(absent) = machine.absent_cpu() {
        bail!("--cores: this machine has no CPU {absent} that is online");
    }
    let state = || match tune.state.is_absolute() {
        true => State::open(machine.at(&tune.state.to_string_lossy())),
        false => State::open(tune.state.clone()),
    };
    match &tune.command {
        Some(Command::Undo { items, yes }) => {
            let mut state = state()?;
            let planned = undo::plan(&machine, &state, items)?;
            if tune.script {
                return print(out, &script::of_undo(&planned));
            }
            if planned.is_empty() {
                out.say("nothing was applied that is not undone already")?;
            } else if !*yes && !agreed(&script::of_undo(&planned), out)? {
                bail!("nothing was changed");
            }
            undo::run(&machine, &mut state, &planned, out)
        }
        Some(Command::Apply { items, yes }) => {
            let chosen = items::chosen(items)?;
            let checked = check::all(&machine, &chosen);
            let text = script::of_apply(&machine, &checked);
            if tune.script {
                return print(out, &text);
            }
            let any = checked.iter().any(|checked| !checked.changes().is_empty());
            if any && !*yes && !agreed(&text, out)? {
                bail!("nothing was changed");
            }
            apply::run(&machine, &mut state()?, &checked, out)
        }
        command => {
            let named = match command {
                Some(Command::Check { items }) => items.as_slice(),
                _ => &[],
            };
            let checked = check::all(&machine, &items::chosen(named)?);
            if tune.script {
                return print(out, &script::of_apply(&machine, &checked));
            }
            check::show(&checked, out)
        }
    }
}

fn print(out: &Output, text: &str) -> Result<ExitCode> {
    match out.json {
        true => out.value(&json!(text))?,
        false => out.say(text.trim_end())?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Whether a person at a terminal, shown what would be run, says yes.
fn agreed(script: &str, out: &Output) -> Result<bool> {
    if out.json || !std::io::stdin().is_terminal() {
        bail!("this changes the machine: say --yes, or look at it first with --script");
    }
    write!(std::io::stderr(), "{script}\nRun this? [y/N] ")?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

fn explain(names: &[String], out: &Output) -> Result<ExitCode> {
    let chosen = items::chosen(names)?;
    if out.json {
        out.value(&chosen.iter().map(|item| guide::item_json(item)).collect())?;
    } else {
        let pages: Vec<String> = chosen.iter().map(|item| guide::item_text(item)).collect();
        out.say(pages.join("\n").trim_end())?;
    }
    Ok(ExitCode::SUCCESS)
}

fn seccomp(profile: Option<&Path>) -> Result<String> {
    let profile = match profile {
        None => service::seccomp_rule(),
        Some(path) => {
            let text =
                std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
            service::seccomp_profile(&text).with_context(|| path.display().to_string())?
        }
    };
    Ok(serde_json::to_string_pretty(&profile)?)
}
