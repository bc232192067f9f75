//! The version with its commit, as BUILD_VERSION: `0.1.0 (1a2b3c4d5e6f)`. A commit is asked of git, or given by who builds from
//! an archive (CORELOG_COMMIT); without either the version stands alone. Only builds for release have it: others would be
//! built anew after each commit.

use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=CORELOG_COMMIT");
    let version = std::env::var("CARGO_PKG_VERSION").expect("set by cargo");
    let release = std::env::var("PROFILE").is_ok_and(|profile| profile == "release");
    let given = std::env::var("CORELOG_COMMIT").ok().filter(|commit| !commit.is_empty());
    let commit = given.or_else(|| if release { of_git() } else { None });
    let version = commit.map_or(version.clone(), |commit| format!("{version} ({commit})"));
    // Cargo sets it for what it runs too (`cargo run`, `cargo test`), where a name with CORELOG_ would be taken for a setting.
    println!("cargo::rustc-env=BUILD_VERSION={version}");
}

/// The commit that is checked out, and whether tracked files differ from it.
fn of_git() -> Option<String> {
    // In an archive within another repository git would name that one's commit.
    git(&["ls-files", "--error-unmatch", "build.rs"])?;
    for code in ["src", "../storage/src", "../storage/io/src", "../client/wire/src"] {
        println!("cargo::rerun-if-changed={code}");
    }
    for name in ["HEAD", "logs/HEAD"] {
        let path = git(&["rev-parse", "--git-path", name])?;
        if Path::new(&path).exists() {
            println!("cargo::rerun-if-changed={path}");
        }
    }
    let commit = git(&["rev-parse", "--short=12", "HEAD"])?;
    let changed =
        git(&["status", "--porcelain", "--untracked-files=no"]).is_none_or(|changes| !changes.is_empty());
    Some(if changed { format!("{commit}, changed") } else { commit })
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
