//! Which CPUs the disk and the network interrupt.

use crate::tune::cpus;
use crate::tune::item::{Apply, Effect, Finding, Group, Item};
use crate::tune::machine::Machine;
use std::collections::BTreeSet;

pub const GROUP: Group = Group { title: "Interrupts", items: &[DISK, NETWORK, NETWORK_QUEUES] };

const DISK: Item = Item {
    name: "irq-disk",
    title: "Interrupts of the disk",
    looks_at: "/sys/block/DISK/mq, /proc/interrupts, /proc/irq/N/effective_affinity_list",
    wanted: "a hardware queue for each CPU of the broker",
    reason: "Each core submits to the hardware queue of its own CPU. With a queue for each CPU the completion \
             interrupts that very CPU, where the core's ring lies in cache; with fewer, it arrives elsewhere and has \
             to be passed on. The kernel spreads the interrupts of NVMe queues itself and refuses to have them moved \
             (they are managed), so there is nothing to set: what can be too low is the number of queues.",
    effect: Effect::NotMeasured("the machine the guide was written on has one queue, set by its hypervisor."),
    apply: Apply::ByHand {
        how: "on a virtual machine give the disk as many queues as it has CPUs (virtio-blk: num-queues). An NVMe drive \
              has as many as its controller grants; use a drive with more, or fewer cores (`--cores`)",
        undo: "the former number of queues",
    },
    lasting: "it does: the queues are laid out when the driver starts",
    check: |machine| match machine.data_disks() {
        Err(why) => vec![Finding::not_applicable(why)],
        Ok(disks) => disks.iter().map(|disk| disk_queues(machine, disk).of(disk)).collect(),
    },
};

fn disk_queues(machine: &Machine, disk: &str) -> Finding {
    let queues = machine.list(&format!("/sys/block/{disk}/mq")).len();
    if queues == 0 {
        return Finding::unknown(format!("/sys/block/{disk}/mq has no queues"));
    }
    let device = machine.resolve(&format!("/sys/block/{disk}/device")).unwrap_or_default();
    let device = device.rsplit('/').next().unwrap_or_default();
    let on = effective_cpus(machine, |action| {
        // nvme0q3, virtio1-req.0
        action.strip_prefix(device).is_some_and(|rest| rest.starts_with('q') || rest.starts_with("-req"))
    });
    let mut now = format!("{queues} queue{}", if queues == 1 { "" } else { "s" });
    if !device.is_empty() && !on.is_empty() {
        let on: Vec<usize> = on.into_iter().collect();
        now += &format!(", on cpu {}", cpus::list(&on));
    }
    let cpus = machine.cpus().len();
    if queues >= cpus { Finding::ok(now) } else { Finding::differs(now, format!("{cpus} CPUs share them")) }
}

/// The CPUs that interrupts whose action is `chosen` arrive on.
fn effective_cpus(machine: &Machine, chosen: impl Fn(&str) -> bool) -> BTreeSet<usize> {
    let interrupts = machine.read("/proc/interrupts").unwrap_or_default();
    let chosen = parse(&interrupts).filter(|interrupt| interrupt.count > 0 && chosen(interrupt.action));
    chosen.filter_map(|interrupt| affinity(machine, interrupt.number)).flatten().collect()
}

fn affinity(machine: &Machine, number: u32) -> Option<Vec<usize>> {
    let list = machine
        .read(&format!("/proc/irq/{number}/effective_affinity_list"))
        .or_else(|_| machine.read(&format!("/proc/irq/{number}/smp_affinity_list")));
    cpus::parse(&list.ok()?).ok()
}

struct Interrupt<'a> {
    number: u32,
    /// Since the machine started, on all CPUs.
    count: u64,
    action: &'a str,
}

/// ` 36:          0    1111294 PCI-MSIX-0000:00:02.0   1-edge      virtio1-req.0`
fn parse(interrupts: &str) -> impl Iterator<Item = Interrupt<'_>> {
    interrupts.lines().filter_map(|line| {
        let (number, rest) = line.split_once(':')?;
        let counts = rest.split_whitespace().map_while(|word| word.parse::<u64>().ok());
        Some(Interrupt {
            number: number.trim().parse().ok()?,
            count: counts.sum(),
            action: rest.split_whitespace().next_back()?,
        })
    })
}

const NETWORK: Item = Item {
    name: "irq-nic",
    title: "Interrupts of the network interfaces",
    looks_at: "/sys/class/net/INTERFACE/device/msi_irqs, /proc/irq/N/smp_affinity_list",
    wanted: "the queues' interrupts spread over the CPUs of the broker, as evenly as their number allows",
    reason: "The CPU that a queue interrupts does the TCP work of its packets. With all queues on one CPU that CPU is \
             full long before the others, and the data core pinned to it starves, since every core serves connections. \
             A connection stays on the core that accepted it, whichever queue its packets come by: what counts is that \
             no core carries more than its part. irqbalance moves interrupts by load, ten seconds late: stop it \
             (`systemctl disable --now irqbalance`), or give it `--banirq=N` for each of these. \
             IRQBALANCE_BANNED_CPULIST is not for this: it moves interrupts away from the CPUs named, onto the others.",
    effect: Effect::NotMeasured("the machine the guide was written on has one receive queue."),
    apply: Apply::Writes,
    lasting: "`corectl tune apply` at boot, after the network is up: the unit that `corectl tune unit --boot` prints",
    check: |machine| {
        let interfaces = machine.interfaces();
        if interfaces.is_empty() {
            return vec![Finding::not_applicable("no interface has hardware behind it")];
        }
        interfaces.iter().map(|interface| network_queues(machine, interface).of(interface)).collect()
    },
};

fn network_queues(machine: &Machine, interface: &str) -> Finding {
    let device = format!("/sys/class/net/{interface}/device");
    // A virtio device hangs below the PCI device that has the interrupts.
    let mut numbers = machine.list(&format!("{device}/msi_irqs"));
    if numbers.is_empty()
        && let Ok(device) = machine.resolve(&device)
        && let Some((parent, _)) = device.rsplit_once('/')
    {
        numbers = machine.list(&format!("{parent}/msi_irqs"));
    }
    let interrupts = machine.read("/proc/interrupts").unwrap_or_default();
    // Those that have never come are for configuration, events and errors, or of queues not in use.
    let queues: Vec<u32> = parse(&interrupts)
        .filter(|interrupt| numbers.contains(&interrupt.number.to_string()))
        .filter(|interrupt| interrupt.count > 0 && !interrupt.action.contains("config"))
        .map(|interrupt| interrupt.number)
        .collect();
    if queues.is_empty() {
        return Finding::unknown("its interrupts cannot be told in /proc/interrupts");
    }
    let used: BTreeSet<usize> =
        queues.iter().filter_map(|&number| affinity(machine, number)).flatten().collect();
    let used: Vec<usize> = used.into_iter().collect();
    let cores = machine.cpus();
    let now = format!("{} interrupts on cpu {}", queues.len(), cpus::list(&used));
    let balancer = machine.process_named("irqbalance");
    let moved = balancer.map(|pid| format!("irqbalance (pid {pid}) runs and moves them by load"));
    if used.len() >= queues.len().min(cores.len()) {
        return Finding::ok(now).note(moved.unwrap_or_default());
    }
    let mut note = format!("{} CPUs could share them", queues.len().min(cores.len()));
    if let Some(moved) = moved {
        note += &format!("; {moved}");
    }
    queues.iter().zip(cores.iter().cycle()).fold(Finding::differs(now, note), |finding, (number, cpu)| {
        finding.change(format!("/proc/irq/{number}/smp_affinity_list"), cpu.to_string())
    })
}

const NETWORK_QUEUES: Item = Item {
    name: "nic-queues",
    title: "Receive queues of the network interfaces",
    looks_at: "/sys/class/net/INTERFACE/queues",
    wanted: "a receive queue for each CPU of the broker, or as many as the interface has",
    reason: "Every core serves connections. With a queue for each, the interface deals packets out by itself, and the TCP \
             work of all connections is spread without an interrupt from CPU to CPU. Many drivers begin with fewer queues \
             than the hardware has.",
    effect: Effect::NotMeasured("the machine the guide was written on has one receive queue."),
    apply: Apply::ByHand {
        how: "`ethtool -l INTERFACE` tells how many there may be, `ethtool -L INTERFACE combined N` sets it (the link may go \
              down for a moment). Then `corectl tune apply irq-nic transmit-steering`. Where there are too few for \
              all CPUs, receive-steering spreads the work",
        undo: "`ethtool -L INTERFACE combined` with the former number",
    },
    lasting: "a .link file of systemd (`[Link] CombinedChannels=N`), or the network configuration of the distribution",
    check: |machine| {
        let interfaces = machine.interfaces();
        if interfaces.is_empty() {
            return vec![Finding::not_applicable("no interface has hardware behind it")];
        }
        let look = |interface: &String| {
            let queues = machine.list(&format!("/sys/class/net/{interface}/queues"));
            let receive = queues.iter().filter(|name| name.starts_with("rx-")).count();
            let cpus = machine.cpus().len();
            let now = format!("{receive} receive queue{}", if receive == 1 { "" } else { "s" });
            match receive {
                0 => Finding::unknown(format!("/sys/class/net/{interface}/queues names none")),
                _ if receive >= cpus => Finding::ok(now),
                _ => Finding::differs(now, format!("{cpus} CPUs share them")),
            }
            .of(interface)
        };
        interfaces.iter().map(look).collect()
    },
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tune::fixture::Fixture;
    use crate::tune::item::Verdict;

    const INTERRUPTS: &str = "           CPU0       CPU1
 27:         12          0 PCI-MSIX-0000:01:00.0   0-edge      nvme0q0
 28:       1000          0 PCI-MSIX-0000:01:00.0   1-edge      nvme0q1
 29:          0       1000 PCI-MSIX-0000:01:00.0   2-edge      nvme0q2
 40:          0          0 PCI-MSIX-0000:02:00.0   0-edge      ens1-config
 41:       5000          0 PCI-MSIX-0000:02:00.0   1-edge      ens1-TxRx-0
 42:       5000          3 PCI-MSIX-0000:02:00.0   2-edge      ens1-TxRx-1
NMI:          0          0   Non-maskable interrupts";

    #[test]
    fn queues_of_one_interface_on_one_cpu_are_spread() {
        let fixture = Fixture::new("irqs");
        fixture.file("/sys/devices/system/cpu/online", "0-1");
        fixture.file("/proc/interrupts", INTERRUPTS);
        for number in [40, 41, 42] {
            fixture.file(&format!("/sys/class/net/ens1/device/msi_irqs/{number}"), "msix");
            fixture.file(&format!("/proc/irq/{number}/effective_affinity_list"), "0");
        }
        let found = (NETWORK.check)(&fixture.machine()).remove(0);
        let values: Vec<_> = found.changes.iter().map(|it| (it.path.as_str(), it.value.as_str())).collect();
        assert_eq!(
            values,
            [("/proc/irq/41/smp_affinity_list", "0"), ("/proc/irq/42/smp_affinity_list", "1")]
        );
        fixture.file("/proc/irq/42/effective_affinity_list", "1");
        assert_eq!((NETWORK.check)(&fixture.machine())[0].verdict, Verdict::Ok);
        // Spread as it is, and not for long.
        fixture.file("/proc/7/comm", "irqbalance");
        assert!((NETWORK.check)(&fixture.machine())[0].note.contains("irqbalance (pid 7)"));
        // Banning CPUs drives interrupts off them: no advice to keep any there.
        assert!(!NETWORK.reason.contains("(`IRQBALANCE_BANNED_CPULIST`"));
    }

    #[test]
    fn receive_queues_are_counted() {
        let fixture = Fixture::new("nic-queues");
        fixture.file("/sys/devices/system/cpu/online", "0-1");
        fixture.file("/sys/class/net/ens1/device/vendor", "0x8086");
        fixture.file("/sys/class/net/ens1/queues/tx-0/xps_cpus", "1");
        fixture.file("/sys/class/net/ens1/queues/rx-0/rps_cpus", "0");
        assert_eq!((NETWORK_QUEUES.check)(&fixture.machine())[0].verdict, Verdict::Differs);
        fixture.file("/sys/class/net/ens1/queues/rx-1/rps_cpus", "0");
        assert_eq!((NETWORK_QUEUES.check)(&fixture.machine())[0].verdict, Verdict::Ok);
    }

    #[test]
    fn queues_of_the_disk_are_counted_and_found() {
        let fixture = Fixture::new("disk-queues");
        fixture.file("/sys/devices/system/cpu/online", "0-1");
        fixture.file("/proc/interrupts", INTERRUPTS);
        fixture.file("/proc/irq/28/effective_affinity_list", "0");
        fixture.file("/proc/irq/29/effective_affinity_list", "1");
        fixture.disk("nvme0n1", "xfs", "rw");
        fixture.file("/sys/block/nvme0n1/mq/0/cpu_list", "0");
        let found = (DISK.check)(&fixture.machine()).remove(0);
        assert_eq!((found.verdict, found.now.as_str()), (Verdict::Differs, "1 queue, on cpu 0-1"));
        fixture.file("/sys/block/nvme0n1/mq/1/cpu_list", "1");
        assert_eq!((DISK.check)(&fixture.machine())[0].verdict, Verdict::Ok);
    }
}
