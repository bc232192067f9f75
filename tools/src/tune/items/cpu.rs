//! How fast a CPU runs, and how fast it wakes.

use crate::tune::item::{Apply, Effect, Finding, Group, Item, by_cpus};
use crate::tune::machine::Machine;
use std::collections::BTreeMap;

pub const GROUP: Group = Group { title: "CPU", items: &[GOVERNOR, PROFILES, SIBLINGS, IDLE] };

const POLICIES: &str = "/sys/devices/system/cpu/cpufreq";
/// The longest that a core may take to wake, in microseconds: less than a flash write, more than the shallow states.
const WAKE_MAX_US: u64 = 20;

const GOVERNOR: Item = Item {
    name: "cpu-governor",
    title: "CPU frequency governor",
    looks_at: "/sys/devices/system/cpu/cpufreq/policyN/scaling_governor",
    wanted: "performance",
    reason: "A data core sleeps between requests, so a governor that goes by past load finds it idle and clocks it \
             down; the next request is then decoded, checked and written at the low clock until the governor has \
             seen enough. With `performance` the clock stays up (intel_pstate then also asks the hardware for it).",
    effect: Effect::NotMeasured("the machine the guide was written on is virtual and has no cpufreq."),
    apply: Apply::Writes,
    lasting: "`corectl tune apply` at boot: the unit that `corectl tune unit --boot` prints; or `cpupower frequency-set -g \
              performance` of your distribution's cpupower service",
    check: |machine| {
        let governors =
            machine.list(POLICIES).into_iter().filter(|name| name.starts_with("policy")).map(|policy| {
                let path = format!("{POLICIES}/{policy}/scaling_governor");
                let on = machine.read(&format!("{POLICIES}/{policy}/affected_cpus")).unwrap_or_default();
                let on = on.split_whitespace().filter_map(|cpu| cpu.parse().ok()).collect();
                let finding = match machine.read(&path) {
                    Err(error) => Finding::unreadable(&path, &error),
                    Ok(now) if now == "performance" => Finding::ok(now),
                    Ok(now) => {
                        Finding::differs(now, "the clock follows past load").change(path, "performance")
                    }
                };
                (on, finding)
            });
        let findings = by_cpus(governors.collect());
        if !findings.is_empty() {
            return findings;
        }
        vec![Finding::not_applicable("there is no cpufreq here: firmware or the hypervisor sets the clock")]
    },
};

/// Profiles of tuned that leave the governor at `performance`, and wake-ups fast or as they are.
const PROFILES_GOOD: [&str; 4] =
    ["latency-performance", "network-latency", "network-throughput", "throughput-performance"];

const PROFILES: Item = Item {
    name: "cpu-profiles",
    title: "Services that set the governor",
    looks_at: "/proc/PID/comm, /etc/tuned/active_profile",
    wanted: "no tuned and no power-profiles-daemon, or tuned with a profile for performance",
    reason: "tuned and power-profiles-daemon set governor, energy preference and more from their own profile when they start, \
             and again on events: a profile such as balanced or powersave takes back what cpu-governor set. Some profiles of \
             tuned also set vm.swappiness, transparent huge pages and read-ahead.",
    effect: Effect::NotMeasured("the machine the guide was written on is virtual and has no cpufreq."),
    apply: Apply::ByHand {
        how: "`tuned-adm profile latency-performance`, or `systemctl disable --now tuned power-profiles-daemon`; then \
              `corectl tune apply cpu-governor`",
        undo: "`tuned-adm profile` with the former one, or `systemctl enable --now` again",
    },
    lasting: "it does",
    check: |machine| {
        let mut findings = Vec::new();
        if machine.process_named("tuned").is_some() {
            let active = machine.read("/etc/tuned/active_profile").unwrap_or_default();
            let finding = match active.as_str() {
                "" => Finding::unknown("/etc/tuned/active_profile names none"),
                good if PROFILES_GOOD.contains(&good) => Finding::ok(good),
                other => Finding::differs(other, "sets the governor to its own"),
            };
            findings.push(finding.of("tuned"));
        }
        // The kernel cuts names at 15 bytes.
        if machine.process_named("power-profiles-").is_some() {
            findings
                .push(Finding::differs("runs", "sets the governor to its own").of("power-profiles-daemon"));
        }
        if findings.is_empty() {
            findings.push(Finding::ok("none runs"));
        }
        findings
    },
};

const SIBLINGS: Item = Item {
    name: "cpu-siblings",
    title: "Hardware threads (SMT)",
    looks_at: "/sys/devices/system/cpu/cpuN/topology/thread_siblings_list",
    wanted: "all threads of each core that the broker is on, or one thread of each; not here this and there that",
    reason: "Two threads of a core share what it can do. A data core that shares is slower than one that is alone, and the \
             partitions are dealt out to all of them alike: the slowest sets the pace. All threads is more in sum, one of each \
             is steadier latency; then leave the other threads idle, for the kernel and for interrupts.",
    effect: Effect::NotMeasured(
        "the two CPUs of the machine the guide was written on are a hypervisor's, of unknown kinship.",
    ),
    apply: Apply::ByHand {
        how: "start the broker with `--cores LIST`: `lscpu -e` shows which CPUs are of one core",
        undo: "start it without",
    },
    lasting: "`--cores` in the systemd unit (`corectl tune unit --cores LIST`), or `cores` in the broker's config file",
    check: |machine| {
        let mut cores: BTreeMap<String, usize> = BTreeMap::new();
        for cpu in machine.cpus() {
            let path = format!("/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list");
            match machine.read(&path) {
                Ok(siblings) => *cores.entry(siblings).or_default() += 1,
                Err(error) => return vec![Finding::unreadable(&path, &error)],
            }
        }
        let (least, most) =
            (cores.values().min().copied().unwrap_or(0), cores.values().max().copied().unwrap_or(0));
        let now = |threads: String| format!("{} cores, {threads}", cores.len());
        vec![match least == most {
            true => Finding::ok(now(format!("{most} thread{} of each", if most == 1 { "" } else { "s" }))),
            false => Finding::differs(
                now(format!("{least} to {most} threads of each")),
                "some share a core, some do not",
            ),
        }]
    },
};

const IDLE: Item = Item {
    name: "cpu-idle",
    title: "CPU idle states",
    looks_at: "/sys/devices/system/cpu/cpuN/power/pm_qos_resume_latency_us, /sys/devices/system/cpu/cpuN/cpuidle/stateN/latency",
    wanted: "no state in reach whose exit latency is above 20 us, on the CPUs of the broker",
    reason: "A data core sleeps in the kernel whenever there is nothing to do, and is woken by the completion of a \
             journal write or by a request. Deep states take 100 us and more to leave, longer than a write to a \
             good NVMe drive takes, and each wake at low load pays it. The per-CPU latency limit keeps governors off \
             them; it is meant for machines whose programs are pinned to CPUs, as this one's are. It costs power, \
             and the turbo headroom that resting neighbours leave. Under full load it changes nothing.",
    effect: Effect::NotMeasured(
        "the machine the guide was written on is virtual; its one idle state wakes in 1 us by \
                                 its own account.",
    ),
    apply: Apply::Writes,
    lasting: "`corectl tune apply` at boot: the unit that `corectl tune unit --boot` prints",
    check: |machine| {
        let findings = machine.cpus().iter().map(|&cpu| (vec![cpu], idle(machine, cpu)));
        by_cpus(findings.collect())
    },
};

fn idle(machine: &Machine, cpu: usize) -> Finding {
    let dir = format!("/sys/devices/system/cpu/cpu{cpu}");
    let states = machine.list(&format!("{dir}/cpuidle"));
    let of = |state: &String, what: &str| {
        machine.read(&format!("{dir}/cpuidle/{state}/{what}")).unwrap_or_default()
    };
    let deepest = states
        .iter()
        .filter(|state| of(state, "disable") != "1")
        .filter_map(|state| Some((of(state, "latency").parse::<u64>().ok()?, of(state, "name"))))
        .max();
    let Some((latency, name)) = deepest else {
        return Finding::not_applicable(
            "there is no cpuidle here: the hypervisor decides, or the kernel was told off",
        );
    };
    let now = format!("{name}, {latency} us");
    if latency <= WAKE_MAX_US {
        return Finding::ok(now);
    }
    let path = format!("{dir}/power/pm_qos_resume_latency_us");
    match machine.read(&path) {
        Err(error) => Finding::unreadable(&path, &error),
        // 0 stands for no limit, and n/a for no latency at all.
        Ok(limit) if limit == "n/a" => Finding::ok(format!("{now}, out of reach")),
        Ok(limit) if limit.parse().is_ok_and(|limit| (1..=WAKE_MAX_US).contains(&limit)) => {
            Finding::ok(format!("{now}, out of reach: at most {limit} us"))
        }
        Ok(_) => {
            Finding::differs(now, format!("takes {latency} us to wake")).change(path, WAKE_MAX_US.to_string())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tune::fixture::Fixture;
    use crate::tune::item::Verdict;

    #[test]
    fn only_deep_states_in_reach_count() {
        let fixture = Fixture::new("idle");
        fixture.file("/sys/devices/system/cpu/online", "0-1");
        for cpu in 0..2 {
            let dir = format!("/sys/devices/system/cpu/cpu{cpu}");
            for (state, name, latency) in [(0, "POLL", 0), (1, "C1", 2), (2, "C6", 133)] {
                fixture.file(&format!("{dir}/cpuidle/state{state}/name"), name);
                fixture.file(&format!("{dir}/cpuidle/state{state}/latency"), &latency.to_string());
                fixture.file(&format!("{dir}/cpuidle/state{state}/disable"), "0");
            }
            fixture.file(&format!("{dir}/power/pm_qos_resume_latency_us"), "0");
        }
        let look = || (IDLE.check)(&fixture.machine());
        let found = look();
        assert_eq!((found.len(), found[0].subject.as_str(), found[0].changes.len()), (1, "cpu 0-1", 2));
        fixture.file("/sys/devices/system/cpu/cpu0/power/pm_qos_resume_latency_us", "20");
        fixture.file("/sys/devices/system/cpu/cpu1/cpuidle/state2/disable", "1");
        assert!(look().iter().all(|found| found.verdict == Verdict::Ok), "{:?}", look());
        fixture.file("/sys/devices/system/cpu/cpu0/power/pm_qos_resume_latency_us", "500");
        assert_eq!(look()[0].verdict, Verdict::Differs);
    }

    #[test]
    fn profiles_that_set_the_governor_back_are_found() {
        let fixture = Fixture::new("profiles");
        let look = || (PROFILES.check)(&fixture.machine());
        assert_eq!(look()[0].verdict, Verdict::Ok);
        fixture.file("/proc/8/comm", "tuned");
        for (profile, verdict) in [("balanced", Verdict::Differs), ("latency-performance", Verdict::Ok)] {
            fixture.file("/etc/tuned/active_profile", profile);
            assert_eq!(look()[0].verdict, verdict, "{profile}");
        }
        fixture.file("/proc/9/comm", "power-profiles-");
        assert_eq!((look().len(), look()[1].verdict), (2, Verdict::Differs));
    }

    #[test]
    fn cores_of_which_some_share_and_some_do_not_are_found() {
        let fixture = Fixture::new("siblings");
        for (cpu, siblings) in [(0, "0,2"), (1, "1,3"), (2, "0,2"), (3, "1,3")] {
            fixture
                .file(&format!("/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list"), siblings);
        }
        for (cpus, verdict) in
            [(vec![0, 1], Verdict::Ok), (vec![0, 1, 2, 3], Verdict::Ok), (vec![0, 1, 2], Verdict::Differs)]
        {
            assert_eq!((SIBLINGS.check)(&fixture.machine_on(cpus))[0].verdict, verdict);
        }
    }

    #[test]
    fn governors_of_the_same_kind_are_one_line() {
        let fixture = Fixture::new("governor");
        assert_eq!((GOVERNOR.check)(&fixture.machine())[0].verdict, Verdict::NotApplicable);
        for (policy, governor) in [(0, "schedutil"), (1, "performance"), (2, "schedutil")] {
            fixture.file(&format!("{POLICIES}/policy{policy}/scaling_governor"), governor);
            fixture.file(&format!("{POLICIES}/policy{policy}/affected_cpus"), &policy.to_string());
        }
        let found = (GOVERNOR.check)(&fixture.machine());
        let lines: Vec<_> = found.iter().map(|it| (it.subject.as_str(), it.now.as_str())).collect();
        assert_eq!(lines, [("cpu 0,2", "schedutil"), ("cpu 1", "performance")]);
    }
}
