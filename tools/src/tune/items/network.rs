//! The network stack under the connections.

use crate::tune::cpus;
use crate::tune::item::{Apply, Effect, Finding, Group, Item, holds, single};
use crate::tune::machine::Machine;

pub const GROUP: Group = Group {
    title: "Network",
    items: &[LISTEN_BACKLOG, PACKET_BACKLOG, SOCKET_BUFFERS, SLOW_START, RECEIVE_STEERING, TRANSMIT_STEERING],
};

const SOMAXCONN: &str = "/proc/sys/net/core/somaxconn";
/// What the broker asks for unless told otherwise (socket.listen.backlog.size).
const BACKLOG: u64 = 1024;

const LISTEN_BACKLOG: Item = Item {
    name: "listen-backlog",
    title: "Connections waiting to be accepted",
    looks_at: "/proc/sys/net/core/somaxconn",
    wanted: "1024 or more; no less than socket.listen.backlog.size",
    reason: "Each core has a listener of its own, each with this queue. When all clients come back at once after a \
             restart, they wait here; what does not fit is dropped, and the client's TCP tries again after a second, and again. The kernel cuts the size that the broker asks for to this limit without a word.",
    effect: Effect::Measured(
        "3000 clients connect at once while the broker, on 2 cores, is held for half a second (a network \
                              namespace, loopback, Linux 6.18): with 128 it is 258 that are connected within 0.9 s, \
                              and the last after 3.1 s; with 4096 2050, and the last after 1.1 s.",
    ),
    apply: Apply::Writes,
    lasting: "`net.core.somaxconn = 4096` in /etc/sysctl.d/90-corelog.conf",
    check: |machine| {
        vec![single(machine, SOMAXCONN, |now| match now.parse::<u64>() {
            Ok(now) if now >= BACKLOG => None,
            _ => Some(("4096".to_owned(), format!("cuts the {BACKLOG} that the broker asks for"))),
        })]
    },
};

const MAX_BACKLOG: &str = "/proc/sys/net/core/netdev_max_backlog";
/// Enough where 1000 was not, and no more packets than a core handles in some milliseconds.
const MAX_BACKLOG_RAISED: u64 = 5000;

const PACKET_BACKLOG: Item = Item {
    name: "packet-backlog",
    title: "Packets waiting for a CPU",
    looks_at: "/proc/net/softnet_stat, /proc/sys/net/core/netdev_max_backlog",
    wanted: "no packet dropped since the machine started; 5000 if there was",
    reason: "Packets that are passed from one CPU to another (receive steering), and those of interfaces without NAPI \
             (the loopback is one), wait in a queue of this length for the CPU to take them up, and are dropped beyond it: the sender then \
             waits for a retransmission. A busy data core takes them up between its turns. Interfaces with NAPI and \
             a queue per CPU never use it: the count of drops tells whether it matters here.",
    effect: Effect::NotMeasured(
        "on the machine the guide was written on only tests over loopback ever filled it (3000 connections \
                                 at once).",
    ),
    apply: Apply::Writes,
    lasting: "`net.core.netdev_max_backlog = 5000` in /etc/sysctl.d/90-corelog.conf",
    check: |machine| {
        let path = "/proc/net/softnet_stat";
        let rows = match machine.read(path) {
            Ok(rows) => rows,
            Err(error) => return vec![Finding::unreadable(path, &error)],
        };
        // A row per CPU in hexadecimal: packets, dropped, ...
        let dropped =
            rows.lines().filter_map(|row| u64::from_str_radix(row.split_whitespace().nth(1)?, 16).ok());
        let dropped: u64 = dropped.sum();
        let limit = machine.read(MAX_BACKLOG).unwrap_or_default();
        let now = format!("{limit}, {dropped} dropped");
        vec![match limit.parse::<u64>() {
            _ if dropped == 0 => Finding::ok(now),
            Ok(limit) if limit < MAX_BACKLOG_RAISED => {
                Finding::differs(now, "senders waited for retransmissions")
                    .change(MAX_BACKLOG, MAX_BACKLOG_RAISED.to_string())
            }
            _ => Finding::ok(now).note("raised already; drops are counted since the machine started"),
        }]
    },
};

/// Of the largest socket buffers, in bytes: what the kernel gives a machine with memory enough.
const BUFFER_MIN: u64 = 4 << 20;

const SOCKET_BUFFERS: Item = Item {
    name: "socket-buffers",
    title: "Socket buffers",
    looks_at: "/proc/sys/net/ipv4/tcp_rmem, /proc/sys/net/ipv4/tcp_wmem",
    wanted: "a maximum (the third value) of 4 MiB or more",
    reason: "The broker sets no buffer sizes (SO_SNDBUF, SO_RCVBUF), so the kernel sizes each connection's by what it \
             carries, up to this maximum. A fetch response of 1 MiB goes out in one vectored send when the buffer \
             has room, or else in several, with a wait for the socket between. The maximum also bounds what is under \
             way to a client far off: bandwidth times round-trip time. 4 MiB does for 10 Gbit/s at 3 ms; for clients \
             farther away raise it by that rule. rmem_max and wmem_max bound only sizes that programs set: they do \
             not matter to the broker.",
    effect: Effect::NotMeasured("loopback has no distance, and this kernel has no netem to make one."),
    apply: Apply::Writes,
    lasting: "`net.ipv4.tcp_rmem = 4096 131072 6291456` and `net.ipv4.tcp_wmem = 4096 16384 4194304` in \
              /etc/sysctl.d/90-corelog.conf",
    check: |machine| {
        ["tcp_rmem", "tcp_wmem"]
            .map(|name| {
                single(machine, &format!("/proc/sys/net/ipv4/{name}"), |now| {
                    let (rest, most) = now.rsplit_once(' ')?;
                    let too_small = most.parse::<u64>().is_ok_and(|most| most < BUFFER_MIN);
                    too_small.then(|| {
                        (format!("{rest} {BUFFER_MIN}"), "a large response takes several sends".to_owned())
                    })
                })
                .of(name)
            })
            .into()
    },
};

const SLOW_START: Item = Item {
    name: "slow-start",
    title: "Slow start after idleness",
    looks_at: "/proc/sys/net/ipv4/tcp_slow_start_after_idle",
    wanted: "0",
    reason: "Clients keep their connections open, and many are silent for seconds. With 1 the kernel halves what a connection may have under way for each retransmission timeout (200 ms and more) that it was silent, down to some 10 packets: a response of 1 MiB then takes about seven round trips where it took one. That is nothing \
             within a rack and much between regions.",
    effect: Effect::NotMeasured("loopback has no distance, and this kernel has no netem to make one."),
    apply: Apply::Writes,
    lasting: "`net.ipv4.tcp_slow_start_after_idle = 0` in /etc/sysctl.d/90-corelog.conf",
    check: |machine| {
        vec![single(machine, "/proc/sys/net/ipv4/tcp_slow_start_after_idle", |now| match now {
            "0" => None,
            _ => Some(("0".to_owned(), "large answers after a pause take more round trips".to_owned())),
        })]
    },
};

const FLOWS: &str = "/proc/sys/net/core/rps_sock_flow_entries";
/// As the kernel's documentation advises for a server of moderate load (networking/scaling).
const FLOW_ENTRIES: usize = 32768;

const RECEIVE_STEERING: Item = Item {
    name: "receive-steering",
    title: "Receive steering (RPS and RFS)",
    looks_at: "/sys/class/net/INTERFACE/queues/rx-N/rps_cpus and rps_flow_cnt, /proc/sys/net/core/rps_sock_flow_entries",
    wanted: "with fewer receive queues than CPUs: the broker's CPUs, and flow tables; with a queue for each CPU: off",
    reason: "With few receive queues few CPUs do all TCP receive work, and the data cores pinned to them fall behind \
             the others. RPS spreads that work over the broker's CPUs, and RFS sends each packet to the CPU whose \
             program last read from the connection: here that is always the core that owns it, so packet, socket and \
             request meet in one cache. It costs an interrupt from CPU to CPU for each batch of packets; where the \
             interface has a queue for each CPU the hardware does the same for nothing.",
    effect: Effect::NotMeasured(
        "the one interface of the machine the guide was written on is not the test's to load.",
    ),
    apply: Apply::Writes,
    lasting: "`corectl tune apply` at boot, after the network is up: the unit that `corectl tune unit --boot` prints",
    check: |machine| per_interface(machine, receive),
};

fn receive(machine: &Machine, interface: &str) -> Finding {
    let queues = queues(machine, interface, "rx-");
    let cores = machine.cpus();
    let now = count(queues.len(), "receive queue");
    if cores.len() < 2 {
        return Finding::not_applicable("one CPU has nobody to share with");
    }
    if queues.is_empty() {
        return Finding::unknown(format!("{interface} shows no receive queues"));
    }
    let missing = format!("{}/rps_cpus", queues[0]);
    if !machine.exists(&missing) {
        return Finding::not_applicable("the kernel was built without RPS");
    }
    if queues.len() >= cores.len() {
        return Finding::ok(now);
    }
    let (mask, flows) = (cpus::mask(cores), (FLOW_ENTRIES / queues.len().next_power_of_two()).to_string());
    let entries = FLOW_ENTRIES.to_string();
    let enough = |path: &str, least: &str| {
        let number = |text: &str| text.parse::<usize>().unwrap_or(0);
        machine.read(path).is_ok_and(|now| number(&now) >= number(least))
    };
    let mut finding = Finding::differs(
        now.clone(),
        format!("{} of {} CPUs do the receive work", queues.len(), cores.len()),
    );
    // The global table first: queues use it from the moment their own is there.
    if !enough(FLOWS, &entries) {
        finding = finding.change(FLOWS, entries);
    }
    for queue in queues {
        if !enough(&format!("{queue}/rps_flow_cnt"), &flows) {
            finding = finding.change(format!("{queue}/rps_flow_cnt"), flows.clone());
        }
        let path = format!("{queue}/rps_cpus");
        if !machine.read(&path).is_ok_and(|now| holds(&now, &mask)) {
            finding = finding.change(path, mask.clone());
        }
    }
    if finding.changes.is_empty() {
        Finding::ok(format!("{now}, steered to cpu {}", cpus::list(cores)))
    } else {
        finding
    }
}

const TRANSMIT_STEERING: Item = Item {
    name: "transmit-steering",
    title: "Transmit steering (XPS)",
    looks_at: "/sys/class/net/INTERFACE/queues/tx-N/xps_cpus",
    wanted: "each transmit queue with CPUs of its own, as most drivers set it",
    reason: "A core sends through the queue of its own CPU when the queues are dealt out among the CPUs: no two cores \
             take one queue's lock, and the completion comes back where the memory is warm. Without the map the kernel \
             picks a queue by connection, and cores meet.",
    effect: Effect::NotMeasured("the machine the guide was written on has one transmit queue."),
    apply: Apply::Writes,
    lasting: "`corectl tune apply` at boot, after the network is up: the unit that `corectl tune unit --boot` prints",
    check: |machine| per_interface(machine, transmit),
};

fn transmit(machine: &Machine, interface: &str) -> Finding {
    let queues = queues(machine, interface, "tx-");
    if queues.len() < 2 {
        return Finding::not_applicable("one transmit queue for all");
    }
    let now = count(queues.len(), "transmit queue");
    let masks: Vec<String> =
        queues.iter().filter_map(|queue| machine.read(&format!("{queue}/xps_cpus")).ok()).collect();
    if masks.len() < queues.len() {
        return Finding::unknown("the queues' maps cannot be read");
    }
    if masks.iter().any(|mask| !cpus::is_empty_mask(mask)) {
        return Finding::ok(format!("{now}, mapped"));
    }
    let cores = machine.cpus();
    queues.iter().enumerate().fold(
        Finding::differs(now, "cores meet at the queues' locks"),
        |finding, (at, queue)| {
            let mine: Vec<usize> = cores.iter().copied().skip(at).step_by(queues.len()).collect();
            // More queues than CPUs: the rest are not needed.
            if mine.is_empty() {
                finding
            } else {
                finding.change(format!("{queue}/xps_cpus"), cpus::mask(&mine))
            }
        },
    )
}

fn queues(machine: &Machine, interface: &str, kind: &str) -> Vec<String> {
    let dir = format!("/sys/class/net/{interface}/queues");
    let names = machine.list(&dir).into_iter().filter(|name| name.starts_with(kind));
    names.map(|name| format!("{dir}/{name}")).collect()
}

fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

fn per_interface(machine: &Machine, look: impl Fn(&Machine, &str) -> Finding) -> Vec<Finding> {
    let interfaces = machine.interfaces();
    if interfaces.is_empty() {
        return vec![Finding::not_applicable("no interface has hardware behind it")];
    }
    interfaces.iter().map(|interface| look(machine, interface).of(interface)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tune::fixture::Fixture;
    use crate::tune::item::Verdict;

    #[test]
    fn few_receive_queues_are_steered_and_many_are_left() {
        let fixture = Fixture::new("rps");
        fixture.file("/sys/devices/system/cpu/online", "0-3");
        fixture.file(FLOWS, "0");
        fixture.file("/sys/class/net/ens1/device/vendor", "0x8086");
        let queue = |at: usize| format!("/sys/class/net/ens1/queues/rx-{at}");
        for at in 0..2 {
            fixture.file(&format!("{}/rps_cpus", queue(at)), "0");
            fixture.file(&format!("{}/rps_flow_cnt", queue(at)), "0");
        }
        let found = (RECEIVE_STEERING.check)(&fixture.machine()).remove(0);
        let values: Vec<_> = found.changes.iter().map(|it| it.value.as_str()).collect();
        assert_eq!(values, ["32768", "16384", "f", "16384", "f"]);
        for change in &found.changes {
            fixture.machine().write(&change.path, &change.value).unwrap();
        }
        assert_eq!((RECEIVE_STEERING.check)(&fixture.machine())[0].verdict, Verdict::Ok);
        for at in 2..4 {
            fixture.file(&format!("{}/rps_cpus", queue(at)), "0");
        }
        assert_eq!((RECEIVE_STEERING.check)(&fixture.machine())[0].now, "4 receive queues");
    }

    #[test]
    fn transmit_queues_are_dealt_out_unless_the_driver_did() {
        let fixture = Fixture::new("xps");
        fixture.file("/sys/devices/system/cpu/online", "0-3");
        fixture.file("/sys/class/net/ens1/device/vendor", "0x8086");
        for at in 0..2 {
            fixture.file(&format!("/sys/class/net/ens1/queues/tx-{at}/xps_cpus"), "00000000");
        }
        let found = (TRANSMIT_STEERING.check)(&fixture.machine()).remove(0);
        let values: Vec<_> = found.changes.iter().map(|it| it.value.as_str()).collect();
        assert_eq!(values, ["5", "a"]);
        fixture.file("/sys/class/net/ens1/queues/tx-0/xps_cpus", "00000003");
        assert_eq!((TRANSMIT_STEERING.check)(&fixture.machine())[0].verdict, Verdict::Ok);
    }

    #[test]
    fn only_a_maximum_that_is_too_small_is_raised() {
        let fixture = Fixture::new("buffers");
        fixture.file("/proc/sys/net/ipv4/tcp_rmem", "4096\t131072\t33554432");
        fixture.file("/proc/sys/net/ipv4/tcp_wmem", "4096\t16384\t212992");
        let found = (SOCKET_BUFFERS.check)(&fixture.machine());
        assert_eq!((found[0].verdict, found[1].verdict), (Verdict::Ok, Verdict::Differs));
        assert_eq!(found[1].changes[0].value, "4096 16384 4194304");
    }

    #[test]
    fn drops_alone_lengthen_the_packet_queue() {
        let fixture = Fixture::new("softnet");
        fixture.file(MAX_BACKLOG, "1000");
        for (dropped, verdict) in [("00000000", Verdict::Ok), ("0000000a", Verdict::Differs)] {
            fixture.file(
                "/proc/net/softnet_stat",
                &format!("00001000 00000000 00000001\n00001000 {dropped} 00000000"),
            );
            assert_eq!((PACKET_BACKLOG.check)(&fixture.machine())[0].verdict, verdict);
        }
    }
}
