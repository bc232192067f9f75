//! The last judgement: what was acknowledged is there, and stays there; and nothing is there that should not.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use corelog_io::sleep;
use corelog_wire::Uuid;

use crate::broker::Start;
use crate::plan::{DATA_DIR, Faults};
use crate::story::Story;
use crate::{changes, committer, consumer};

/// Changes of topics that were asked for are carried out, if the disk does its work.
const SETTLED: Duration = Duration::from_secs(15);

impl Story {
    /// Everything is there, and stays there.
    pub async fn judge(&mut self) {
        let mut committed = None;
        let flips = self.plan().faults == Faults::BitFlips;
        let rounds = if flips { 4 } else { 2 };
        for round in 0..rounds {
            if round > 0 && !self.restart(flips).await {
                return;
            }
            if !consumer::audit(self.shared.clone(), round == 0).await {
                return;
            }
            let offsets = committer::audit(self.shared.clone()).await;
            if flips && offsets.is_none() {
                return;
            }
            if let Some(before) = committed.replace(offsets.clone()) {
                assert_eq!(before, offsets, "committed offsets after a restart");
            }
        }
        if !flips && self.plan().faults != Faults::OneDamage {
            self.expect_no_leftovers().await;
            self.expect_no_leaks().await;
        }
    }

    /// `false`: it was damaged, and is refused.
    async fn restart(&mut self, flips: bool) -> bool {
        // What is proved durable must be found damaged: the journal comes to rest first.
        sleep(Duration::from_millis(500)).await;
        match self.dice.below(3) {
            0 => self.broker.stopped().await,
            1 => self.broker.machine.kill(),
            _ => self.broker.machine.crash(),
        }
        if flips {
            self.shared.truth.borrow_mut().storage_may_fail = true;
            self.flip_bits();
        }
        self.start();
        match self.broker.ready().await {
            Start::Ready => true,
            Start::Failed(_) if flips => false,
            start => panic!("the broker does not start: {start:?}"),
        }
    }

    /// Whether the controller's log is sound, and somebody changes topics.
    pub fn topics_are_compared(&self) -> bool {
        let plan = self.plan();
        plan.faults.spares_storage() && plan.is_unhurried() && plan.guests.leavers > 0 && self.broker.is_up()
    }

    /// What the broker serves of topics is what it serves after a restart: nobody changes them meanwhile.
    pub async fn compare_topics(&mut self) {
        self.shared.hold.set(true);
        sleep(SETTLED).await;
        let address = self.shared.address;
        let served = changes::look(address).await;
        self.note("is killed, and its topics compared");
        self.broker.machine.kill();
        self.start();
        let started = self.broker.ready().await;
        assert_eq!(started, Start::Ready, "with a sound controller's log");
        let replayed = changes::look(address).await;
        assert_eq!(served, replayed, "what was served is not what the controller's log says");
        self.shared.hold.set(false);
        self.end().await;
    }

    /// What is on disk is of topics that there are: starts know what is left of deleted ones.
    async fn expect_no_leftovers(&self) {
        sleep(SETTLED).await;
        let served = changes::look(self.shared.address).await;
        let controller = Uuid(1_u128.to_be_bytes());
        let is_known = |id: Uuid| id == controller || served.values().any(|(known, ..)| *known == id);
        for file in self.broker.machine.disk().files() {
            let names = file.iter().filter_map(|name| name.to_str());
            let topic = names.filter_map(corelog_storage::topic_of_dir).next();
            assert!(topic.is_none_or(is_known), "{} is of no topic", file.display());
        }
    }

    /// Clients come, use everything and leave: what they had opened is closed, what they took of memory is free. And a
    /// start keeps every file that it finds, and makes none that is not there the next time.
    async fn expect_no_leaks(&mut self) {
        let mut files = Vec::new();
        // The first may still end what members of groups have left behind.
        for _ in 0..3 {
            self.broker.stopped().await;
            self.start();
            assert_eq!(self.broker.ready().await, Start::Ready, "after a stop in good order");
            let open = [self.open_after_clients().await, self.open_after_clients().await];
            assert_eq!(open[0], open[1], "descriptors after the same clients came and left again");
            files.push(self.kept_files());
        }
        assert_eq!(files[1], files[2], "files after the same start again");
    }

    /// Descriptors that are open when clients have read everything and left.
    async fn open_after_clients(&self) -> usize {
        consumer::audit(self.shared.clone(), false).await;
        committer::audit(self.shared.clone()).await;
        sleep(SETTLED).await;
        self.expect_free_memory().await;
        self.broker.machine.descriptors()
    }

    /// All but the journal, whose files are used again in turn.
    fn kept_files(&self) -> BTreeSet<PathBuf> {
        let files = self.broker.machine.disk().files().into_iter();
        files.filter(|file| !file.starts_with(Path::new(DATA_DIR).join("journal"))).collect()
    }

    async fn expect_free_memory(&self) {
        let text: String = self.broker.scraper().scrape().await.pieces().collect();
        let idle = [
            "corelog_connections{",
            "corelog_queue_length{",
            "corelog_memory_used_bytes{part=\"receive\"}",
            "corelog_memory_used_bytes{part=\"fetch\"}",
            "corelog_memory_used_bytes{part=\"answers\"}",
        ];
        for line in text.lines().filter(|line| idle.iter().any(|name| line.starts_with(name))) {
            assert!(line.ends_with(" 0"), "nobody is there, and {line}");
        }
    }

    fn flip_bits(&mut self) {
        let disk = self.broker.machine.disk();
        for _ in 0..1 + self.dice.below(3) {
            let files = disk.files();
            let file: &Path = &files[self.dice.below(files.len() as u64) as usize];
            let len = disk.contents(file).expect("it is there").len() as u64;
            // Half of the flips go to the first pages, where headers are.
            let span = if self.dice.below(2) == 0 { len.min(8192) } else { len };
            if span > 0 {
                let bit = self.dice.below(span * 8);
                self.note(&format!("a bit of byte {} of {} in {} flips", bit / 8, len, file.display()));
                disk.flip_bit(file, bit).expect("the bit is there");
            }
        }
    }
}
