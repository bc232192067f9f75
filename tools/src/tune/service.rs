//! What is printed for services and containers: systemd units, a seccomp profile.

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

/// The lines of the unit that an installed one is held against.
pub const LIMITS: [&str; 4] =
    ["LimitNOFILE=1048576", "LimitMEMLOCK=infinity", "MemorySwapMax=0", "OOMScoreAdjust=-500"];

const DEFAULT_DATA_DIR: &str = "/var/lib/corelog";

/// Where the unit has the broker's configuration.
const CONFIG: &str = "/etc/corelog/corelog.toml";

/// The broker as a service, on these CPUs if not on all. A data directory that is not absolute means nothing to a service.
pub fn broker_unit(data_dir: &str, cores: Option<&str>) -> String {
    let data_dir = if data_dir.starts_with('/') { data_dir } else { DEFAULT_DATA_DIR };
    let place = match data_dir {
        DEFAULT_DATA_DIR => "StateDirectory=corelog".to_owned(),
        other => format!("ReadWritePaths={other}"),
    };
    format!(
        "# /etc/systemd/system/corelog.service\n\
         # Needs a user: useradd --system --home-dir {DEFAULT_DATA_DIR} --shell /usr/sbin/nologin corelog\n\
         # Needs {CONFIG} (corelog --print-config lists what can be in it). By default clients on this\n\
         # machine alone are served; for others it says:\n\
         #   listen = \"0.0.0.0:9092\"\n\
         #   advertise = \"NAME-OF-THIS-MACHINE:9092\"\n\
         [Unit]\n\
         Description=Corelog, a streaming broker that speaks Kafka's protocol\n\
         After=network-online.target corelog-tune.service\n\
         Wants=network-online.target\n\
         RequiresMountsFor={data_dir}\n\
         \n\
         [Service]\n\
         ExecStart=/usr/local/bin/corelog --config {CONFIG} --data-dir {data_dir}{cores}\n\
         User=corelog\n\
         {place}\n\
         Restart=on-failure\n\
         RestartSec=1\n\
         {limits}\n\
         NoNewPrivileges=yes\n\
         ProtectSystem=strict\n\
         ProtectHome=yes\n\
         PrivateTmp=yes\n\
         \n\
         [Install]\n\
         WantedBy=multi-user.target\n",
        limits = LIMITS.join("\n"),
        cores = cores.map(|list| format!(" --cores {list}")).unwrap_or_default(),
    )
}

/// What sets the machine up at every boot.
pub fn boot_unit(data_dir: &str, cores: Option<&str>) -> String {
    let data_dir = if data_dir.starts_with('/') { data_dir } else { DEFAULT_DATA_DIR };
    format!(
        "# /etc/systemd/system/corelog-tune.service\n\
         [Unit]\n\
         Description=Tune the machine for Corelog\n\
         After=network-online.target systemd-sysctl.service\n\
         Wants=network-online.target\n\
         Before=corelog.service\n\
         RequiresMountsFor={data_dir}\n\
         \n\
         [Service]\n\
         Type=oneshot\n\
         RemainAfterExit=yes\n\
         ExecStart=/usr/local/bin/corectl tune apply --yes --data-dir {data_dir}{cores}\n\
         ExecStop=/usr/local/bin/corectl tune undo --yes\n\
         \n\
         [Install]\n\
         WantedBy=multi-user.target\n",
        cores = cores.map(|list| format!(" --cores {list}")).unwrap_or_default(),
    )
}

/// What a container must be allowed beyond the profiles that runtimes come with.
pub const IO_URING_CALLS: [&str; 3] = ["io_uring_setup", "io_uring_enter", "io_uring_register"];

/// The rule to add to a profile's `syscalls`, in the form that Docker, containerd, Podman and Kubernetes share.
pub fn seccomp_rule() -> Value {
    json!({"names": IO_URING_CALLS, "action": "SCMP_ACT_ALLOW"})
}

/// A profile with the rule added.
pub fn seccomp_profile(text: &str) -> Result<Value> {
    let mut profile: Value = serde_json::from_str(text).context("the profile is no JSON")?;
    let Some(rules) = profile.get_mut("syscalls").and_then(Value::as_array_mut) else {
        bail!("the profile has no list \"syscalls\": is it a seccomp profile?");
    };
    // Runtimes take the stricter rule where two name the same call.
    for rule in rules.iter_mut() {
        if let Some(names) = rule.get_mut("names").and_then(Value::as_array_mut) {
            names.retain(|name| !IO_URING_CALLS.iter().any(|call| name == call));
        }
    }
    rules.retain(|rule| rule.get("names").and_then(Value::as_array).is_none_or(|names| !names.is_empty()));
    rules.push(seccomp_rule());
    Ok(profile)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_say_where_the_broker_runs_and_reads() {
        for (unit, command) in [
            (
                broker_unit("/d", Some("0-3")),
                "corelog --config /etc/corelog/corelog.toml --data-dir /d --cores 0-3\n",
            ),
            (broker_unit("/d", None), "corelog --config /etc/corelog/corelog.toml --data-dir /d\n"),
            (boot_unit("/d", Some("0-3")), "corectl tune apply --yes --data-dir /d --cores 0-3\n"),
        ] {
            assert!(unit.contains(command), "{unit}");
        }
        assert!(broker_unit("/d", None).contains("listen = \"0.0.0.0:9092\""));
    }

    #[test]
    fn a_profile_gets_the_rule_once() {
        let profile = r#"{"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [
            {"names": ["read", "io_uring_setup"], "action": "SCMP_ACT_ERRNO"},
            {"names": ["io_uring_enter"], "action": "SCMP_ACT_ERRNO"}]}"#;
        let once = seccomp_profile(profile).unwrap();
        assert_eq!(
            once["syscalls"],
            json!([{"names": ["read"], "action": "SCMP_ACT_ERRNO"}, seccomp_rule()])
        );
        assert_eq!(seccomp_profile(&once.to_string()).unwrap(), once);
        assert!(seccomp_profile("[]").is_err() && seccomp_profile("{").is_err());
    }
}
