//! The systemd unit: one text for what is printed and for what is checked.

use crate::tune::item::{Apply, Effect, Finding, Group, Item};
use crate::tune::service;

pub const GROUP: Group = Group { title: "Service", items: &[UNIT] };

const UNIT: Item = Item {
    name: "systemd-unit",
    title: "systemd unit with limits",
    looks_at: "/etc/systemd/system/corelog.service, /usr/lib/systemd/system/corelog.service",
    wanted: "the limits of the unit that `corectl tune unit` prints",
    reason: "Limits set in a shell or in limits.conf do not reach services: what the unit says is what the broker gets. \
             MemorySwapMax keeps the broker alone out of swap, OOMScoreAdjust has the kernel take others first when \
             memory runs out.",
    effect: Effect::NotMeasured("limits, not speeds; see open-files, locked-memory, swap and huge-pages."),
    apply: Apply::ByHand {
        how: "`corectl tune unit > /etc/systemd/system/corelog.service && systemctl daemon-reload && systemctl enable --now \
              corelog`",
        undo: "`systemctl disable --now corelog && rm /etc/systemd/system/corelog.service && systemctl daemon-reload`",
    },
    lasting: "it does, once enabled",
    check: |machine| {
        if !machine.exists("/run/systemd/system") {
            return vec![Finding::not_applicable("systemd does not run here")];
        }
        let units = ["/etc/systemd/system/corelog.service", "/usr/lib/systemd/system/corelog.service"];
        let Some((path, text)) = units.iter().find_map(|path| Some((path, machine.read(path).ok()?))) else {
            return vec![Finding::differs("no unit", "`corectl tune unit` prints one")];
        };
        let lacks: Vec<&str> =
            service::LIMITS.iter().copied().filter(|line| !has_line(&text, line)).collect();
        vec![match lacks.as_slice() {
            [] => Finding::ok("has all limits").of(*path),
            lacks => Finding::differs("lacks limits", lacks.join(", ")).of(*path),
        }]
    },
};

fn has_line(unit: &str, wanted: &str) -> bool {
    unit.lines().any(|line| line.trim() == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tune::fixture::Fixture;
    use crate::tune::item::Verdict;

    #[test]
    fn an_installed_unit_is_held_against_the_printed_one() {
        let fixture = Fixture::new("unit");
        let look = || (UNIT.check)(&fixture.machine()).remove(0);
        assert_eq!(look().verdict, Verdict::NotApplicable);
        fixture.file("/run/systemd/system/.keep", "");
        assert_eq!(look().now, "no unit");
        fixture.file("/etc/systemd/system/corelog.service", &service::broker_unit("/var/lib/corelog", None));
        assert_eq!(look().verdict, Verdict::Ok);
        fixture.file("/etc/systemd/system/corelog.service", "[Service]\nLimitNOFILE=1024\nMemorySwapMax=0");
        assert!(
            look().note.contains("LimitNOFILE=1048576") && !look().note.contains("MemorySwapMax"),
            "{}",
            look().note
        );
    }
}
