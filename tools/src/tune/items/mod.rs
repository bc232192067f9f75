//! All items, a file for each group.

mod clock;
mod cpu;
mod disk;
mod file_system;
mod interrupts;
mod kernel;
pub mod limits;
mod memory;
mod network;
mod numa;
mod service;

use super::item::{Group, Item};
use anyhow::{Result, bail};

pub const GROUPS: [&Group; 11] = [
    &kernel::GROUP,
    &limits::GROUP,
    &cpu::GROUP,
    &clock::GROUP,
    &interrupts::GROUP,
    &disk::GROUP,
    &file_system::GROUP,
    &network::GROUP,
    &memory::GROUP,
    &numa::GROUP,
    &service::GROUP,
];

pub fn all() -> impl Iterator<Item = &'static Item> {
    GROUPS.iter().flat_map(|group| group.items)
}

pub fn named(name: &str) -> Result<&'static Item> {
    match all().find(|item| item.name == name) {
        Some(item) => Ok(item),
        None => {
            let names: Vec<&str> = all().map(|item| item.name).collect();
            bail!("there is no item {name:?}; there are {}", names.join(", "))
        }
    }
}

/// Those named, or all.
pub fn chosen(names: &[String]) -> Result<Vec<&'static Item>> {
    if names.is_empty() { Ok(all().collect()) } else { names.iter().map(|name| named(name)).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tune::fixture::Fixture;
    use crate::tune::item::{Apply, Effect, Verdict};
    use crate::tune::machine::Machine;
    use std::collections::BTreeSet;
    use std::path::Path;

    #[test]
    fn items_have_names_of_their_own_and_say_everything() {
        let mut names = BTreeSet::new();
        for item in all() {
            assert!(names.insert(item.name), "{} twice", item.name);
            let (Effect::Measured(effect) | Effect::NotMeasured(effect)) = item.effect;
            for text in [item.title, item.looks_at, item.wanted, item.reason, item.lasting, effect] {
                assert!(!text.is_empty() && !text.contains('\n'), "{}: {text:?}", item.name);
            }
        }
    }

    /// An empty machine, and the one this runs on, which is only looked at.
    #[test]
    fn every_item_finds_something_and_changes_only_what_differs() {
        let fixture = Fixture::new("empty");
        let this = Machine::new(Path::new("/"), Path::new("."), None).unwrap();
        for machine in [fixture.machine(), this] {
            for item in all() {
                let found = (item.check)(&machine);
                assert!(!found.is_empty(), "{}", item.name);
                for finding in found {
                    let may_write =
                        finding.verdict == Verdict::Differs && matches!(item.apply, Apply::Writes);
                    assert!(may_write || finding.changes.is_empty(), "{}: {finding:?}", item.name);
                }
            }
        }
    }
}
