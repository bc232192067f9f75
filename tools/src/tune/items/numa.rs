//! Machines whose memory is nearer to some CPUs than to others.

use crate::tune::cpus;
use crate::tune::item::{Apply, Effect, Finding, Group, Item, single};
use crate::tune::machine::Machine;
use std::collections::BTreeSet;

pub const GROUP: Group = Group { title: "NUMA", items: &[BALANCING, PLACEMENT] };

const NODES: &str = "/sys/devices/system/node";
const BALANCING_PATH: &str = "/proc/sys/kernel/numa_balancing";
const ONE_NODE: &str = "the machine has one memory node";

const BALANCING: Item = Item {
    name: "numa-balancing",
    title: "Automatic NUMA balancing",
    looks_at: "/proc/sys/kernel/numa_balancing",
    wanted: "0 on a machine of several memory nodes",
    reason: "The kernel takes pages away from a process now and then to see from the faults which node uses them. Data \
             cores are pinned and touch their own memory first, so it lies on their node already: the faults tell \
             nothing new, and interrupt a core in the midst of its work.",
    effect: Effect::NotMeasured("the machine the guide was written on has one memory node."),
    apply: Apply::Writes,
    lasting: "`kernel.numa_balancing = 0` in /etc/sysctl.d/90-corelog.conf",
    check: |machine| {
        if nodes(machine).len() < 2 {
            return vec![Finding::not_applicable(ONE_NODE)];
        }
        vec![single(machine, BALANCING_PATH, |now| match now {
            "0" => None,
            _ => Some(("0".to_owned(), "pinned cores fault for nothing".to_owned())),
        })]
    },
};

const PLACEMENT: Item = Item {
    name: "numa-placement",
    title: "Cores near the disk and the network",
    looks_at: "/sys/block/DISK/device, /sys/class/net/INTERFACE/device/numa_node",
    wanted: "disk, interfaces and the broker's CPUs on one node, where one node has CPUs enough",
    reason: "The drive and the interface read and write the memory of cores; across nodes that takes the link between \
             the sockets, and so do mailboxes between cores. A broker on one node's cores with that node's drive and \
             interface has none of it. A second broker can have the other node.",
    effect: Effect::NotMeasured("the machine the guide was written on has one memory node."),
    apply: Apply::ByHand {
        how: "start the broker with `--cores LIST` of the node named here",
        undo: "start it without",
    },
    lasting: "`--cores` in the systemd unit, or `cores` in the broker's config file",
    check: |machine| {
        let nodes = nodes(machine);
        if nodes.len() < 2 {
            return vec![Finding::not_applicable(ONE_NODE)];
        }
        let node_of = |device: &str| {
            // A drive's namespace hangs below the controller, which has the node.
            let near = [format!("{device}/numa_node"), format!("{device}/device/numa_node")];
            let node = near.iter().find_map(|path| machine.read(path).ok())?;
            nodes.iter().find(|(name, _)| *name == format!("node{node}"))
        };
        let disks = machine.data_disks().unwrap_or_default();
        let devices = (disks.iter().map(|disk| (disk.clone(), format!("/sys/block/{disk}/device")))).chain(
            machine.interfaces().into_iter().map(|name| {
                let device = format!("/sys/class/net/{name}/device");
                (name, device)
            }),
        );
        let mine: BTreeSet<usize> = machine.cpus().iter().copied().collect();
        let look = |(name, device): (String, String)| match node_of(&device) {
            None => Finding::unknown("the device names no node").of(name),
            Some((node, near)) if mine.iter().all(|cpu| near.contains(cpu)) => Finding::ok(node).of(name),
            Some((node, near)) => Finding::differs(
                node,
                format!("the broker's CPUs are not all on it: --cores {}", cpus::list(near)),
            )
            .of(name),
        };
        let findings: Vec<Finding> = devices.map(look).collect();
        if findings.is_empty() {
            vec![Finding::unknown("neither disk nor interface is known")]
        } else {
            findings
        }
    },
};

/// Nodes that have CPUs, and which.
fn nodes(machine: &Machine) -> Vec<(String, Vec<usize>)> {
    let names = machine.list(NODES).into_iter().filter(|name| name.starts_with("node"));
    names
        .filter_map(|name| {
            let near = machine.read(&format!("{NODES}/{name}/cpulist")).ok()?;
            Some((name, cpus::parse(&near).ok()?))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tune::fixture::Fixture;
    use crate::tune::item::Verdict;

    #[test]
    fn devices_on_another_node_than_the_cores_are_named() {
        let fixture = Fixture::new("numa");
        fixture.file("/sys/devices/system/cpu/online", "0-3");
        fixture.file(&format!("{NODES}/node0/cpulist"), "0-1");
        assert_eq!((PLACEMENT.check)(&fixture.machine())[0].verdict, Verdict::NotApplicable);
        fixture.file(&format!("{NODES}/node1/cpulist"), "2-3");
        fixture.file("/sys/class/net/ens1/device/numa_node", "1");
        let found = (PLACEMENT.check)(&fixture.machine()).remove(0);
        assert_eq!((found.subject.as_str(), found.verdict), ("ens1", Verdict::Differs));
        assert!(found.note.ends_with("--cores 2-3"), "{}", found.note);
        let found = (PLACEMENT.check)(&fixture.machine_on(vec![2, 3])).remove(0);
        assert_eq!((found.verdict, found.now.as_str()), (Verdict::Ok, "node1"));
    }
}
