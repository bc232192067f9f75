//! What befalls brokers.

use super::brokers::Brokers;
use crate::random::Random;
use anyhow::Result;
use std::thread;
use std::time::Duration;

/// How long a broker is away.
const AWAY_MS: (u64, u64) = (200, 12_000);
/// One start in this many after a kill is cut short by another.
const CUT_SHORT_ONE_IN: u64 = 4;
const CUT_SHORT_MS_MAX: u64 = 400;
/// Between the restarts of a rolling one, a broker is to be ready within this.
const READY_TIMEOUT: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// kill -9, and started again after a while.
    Kill,
    /// The same of the broker that leads the controllers.
    KillController,
    /// All but one, at once.
    KillMajority,
    KillAll,
    /// SIGSTOP, SIGCONT after a while: it has not noticed.
    Pause,
    /// One is paused, another one killed.
    PauseAndKill,
    /// SIGTERM and a start, one after the other.
    RollingRestart,
}

/// Kinds of faults with their names.
pub type Kinds = Vec<(&'static str, Kind)>;

/// What may befall brokers.
pub const KINDS: [(&str, Kind); 7] = [
    ("kill", Kind::Kill),
    ("kill-controller", Kind::KillController),
    ("kill-majority", Kind::KillMajority),
    ("kill-all", Kind::KillAll),
    ("pause", Kind::Pause),
    ("pause-and-kill", Kind::PauseAndKill),
    ("rolling-restart", Kind::RollingRestart),
];

/// One fault, drawn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    pub name: &'static str,
    pub kind: Kind,
    /// In the order in which they are struck.
    pub brokers: Vec<usize>,
    pub away: Duration,
    /// A broker that was killed is killed once more so long after it was started.
    pub cut_short: Option<Duration>,
}

impl Fault {
    pub fn draw(
        kinds: &[(&'static str, Kind)],
        count: usize,
        controller: Option<usize>,
        random: &mut Random,
    ) -> Fault {
        let (name, kind) = kinds[random.below(kinds.len() as u64) as usize];
        let mut order: Vec<usize> = (0..count).collect();
        for at in (1..count).rev() {
            order.swap(at, random.below(at as u64 + 1) as usize);
        }
        let struck = match kind {
            Kind::Kill | Kind::Pause => 1,
            Kind::KillController => {
                let at = order.iter().position(|index| Some(*index) == controller);
                order.swap(0, at.unwrap_or(0));
                1
            }
            Kind::KillMajority => (count - 1).max(1),
            Kind::PauseAndKill => 2.min(count),
            Kind::KillAll | Kind::RollingRestart => count,
        };
        order.truncate(struck);
        let away = Duration::from_millis(random.log_uniform(AWAY_MS.0, AWAY_MS.1));
        let cut_short = (random.below(CUT_SHORT_ONE_IN) == 0)
            .then(|| Duration::from_millis(random.below(CUT_SHORT_MS_MAX)));
        Fault { name, kind, brokers: order, away, cut_short }
    }

    /// From the first strike until all run again.
    pub fn strike(&self, brokers: &mut Brokers) -> Result<()> {
        match (self.kind, self.brokers.as_slice()) {
            (Kind::RollingRestart, all) => {
                for index in all {
                    brokers.stop(*index)?;
                    brokers.start(*index)?;
                    brokers.await_all(READY_TIMEOUT)?;
                }
            }
            (Kind::Pause, [paused]) => {
                brokers.pause(*paused);
                thread::sleep(self.away);
                brokers.resume(*paused);
            }
            (Kind::PauseAndKill, [paused, killed @ ..]) => {
                brokers.pause(*paused);
                killed.iter().try_for_each(|index| brokers.kill(*index))?;
                thread::sleep(self.away);
                brokers.resume(*paused);
                self.start(killed, brokers)?;
            }
            (_, killed) => {
                killed.iter().try_for_each(|index| brokers.kill(*index))?;
                thread::sleep(self.away);
                self.start(killed, brokers)?;
            }
        }
        Ok(())
    }

    fn start(&self, killed: &[usize], brokers: &mut Brokers) -> Result<()> {
        killed.iter().try_for_each(|index| brokers.start(*index))?;
        let Some(after) = self.cut_short else { return Ok(()) };
        thread::sleep(after);
        killed.iter().try_for_each(|index| brokers.kill(*index))?;
        killed.iter().try_for_each(|index| brokers.start(*index))
    }
}

/// The kinds that are named, separated by commas; all if none is.
pub fn kinds(names: &str) -> Result<Kinds, String> {
    if names.is_empty() {
        return Ok(KINDS.to_vec());
    }
    let known = || KINDS.map(|(name, _)| name).join(", ");
    let named = |name: &str| KINDS.into_iter().find(|(known, _)| *known == name);
    names
        .split(',')
        .map(|name| named(name).ok_or_else(|| format!("no fault {name:?}: there are {}", known())))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_repeats_the_faults() {
        let draw = |seed| {
            let mut random = Random::new(seed);
            (0..50).map(|_| Fault::draw(&KINDS, 3, Some(2), &mut random)).collect::<Vec<_>>()
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
        for fault in draw(9) {
            let brokers = match fault.kind {
                Kind::Kill | Kind::Pause => 1,
                Kind::KillController => {
                    assert_eq!(fault.brokers, [2]);
                    1
                }
                Kind::KillMajority | Kind::PauseAndKill => 2,
                Kind::KillAll | Kind::RollingRestart => 3,
            };
            let mut distinct = fault.brokers.clone();
            distinct.sort_unstable();
            distinct.dedup();
            assert_eq!((distinct.len(), fault.brokers.len()), (brokers, brokers), "{fault:?}");
        }
    }

    #[test]
    fn faults_have_names() {
        assert_eq!(kinds("").unwrap(), KINDS);
        assert_eq!(kinds("pause,kill").unwrap(), [KINDS[4], KINDS[0]]);
        assert!(kinds("kill,flood").unwrap_err().contains("\"flood\": there are kill, kill-controller"));
    }
}
