//! One damage at a time while the process is down: a flipped bit, or a part of the data directory that is missing. It costs
//! the log that it is in, at the most, and nothing for ever: mended, all is there.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use corelog_io::sleep;

use crate::broker::Start;
use crate::plan::DATA_DIR;
use crate::story::Story;

const ROUNDS: u32 = 2;
const CONTROLLER: &str = "topics/__cluster_metadata~AAAAAAAAAAAAAAAAAAAAAQ";

enum Harm {
    /// Of a byte; what it was.
    Flipped { file: PathBuf, bit: u64, was: u8 },
    /// What was moved aside.
    Missing(Vec<PathBuf>),
    /// Pages of a file that can be neither read nor written.
    Bad(PathBuf),
}

impl Story {
    /// Harm to one log, and to what all logs need, in turn.
    pub async fn damage(&mut self) {
        self.shared.truth.borrow_mut().storage_may_fail = true;
        for _ in 0..ROUNDS {
            self.take_down().await;
            let harm = self.harm_a_log().await;
            self.start_harmed().await;
            self.take_down().await;
            self.mend(harm).await;
            self.start();
            assert_eq!(self.broker.ready().await, Start::Ready, "mended");
            self.probe(0).await;
        }
        self.take_down().await;
        self.lose_what_all_need().await;
        self.start();
        assert_eq!(self.broker.ready().await, Start::Ready, "with everything back");
        self.probe(0).await;
        // What it does to the journal is not to be mended: its files are used again.
        self.take_down().await;
        let files = self.files(|name| {
            name.ends_with(".journal") || (name.contains(".checkpoint") && !name.ends_with(".tmp"))
        });
        self.flip(&files);
        self.start_harmed().await;
    }

    async fn take_down(&mut self) {
        match self.dice.below(4) {
            0 => self.broker.stopped().await,
            1 => self.broker.machine.crash(),
            _ => self.broker.machine.kill(),
        }
    }

    /// A start beside one damage: all else is served. A damaged controller's log is refused, since it may lack topics.
    async fn start_harmed(&mut self) {
        self.start();
        match self.broker.ready().await {
            Start::Ready => self.probe(1).await,
            Start::Failed(what) => {
                self.note(&format!("is refused: {what}"));
                assert!(what.contains("loading the controller's log"), "one damage costs all: {what}");
            }
            Start::Died => unreachable!("nothing strikes it"),
        }
    }

    fn files(&self, wanted: impl Fn(&str) -> bool) -> Vec<PathBuf> {
        let mut files = self.broker.machine.disk().files();
        files.retain(|file| file.starts_with(DATA_DIR) && wanted(&file.to_string_lossy()));
        files
    }

    async fn harm_a_log(&mut self) -> Harm {
        let segments = self.files(|name| name.ends_with(".log"));
        let file = segments[self.dice.below(segments.len() as u64) as usize].clone();
        match self.dice.below(5) {
            0 => self.lose(vec![file]).await,
            1 => self.wear_out(file),
            2 => {
                let index = self.files(|name| name.ends_with(".index"));
                self.flip(if index.is_empty() { &segments } else { &index })
            }
            _ => self.flip(&segments),
        }
    }

    /// A bit of what was written.
    fn flip(&mut self, files: &[PathBuf]) -> Harm {
        let disk = self.broker.machine.disk();
        loop {
            let file = files[self.dice.below(files.len() as u64) as usize].clone();
            let contents = disk.contents(&file).expect("it is there");
            let written: Vec<usize> = (0..contents.len()).filter(|at| contents[*at] != 0).collect();
            if written.is_empty() {
                continue;
            }
            // Headers, the last that was written, and anything.
            let at = match self.dice.below(3) {
                0 => written[self.dice.below(written.len().min(60) as u64) as usize],
                1 => written[written.len() - 1 - self.dice.below(written.len().min(200) as u64) as usize],
                _ => written[self.dice.below(written.len() as u64) as usize],
            };
            let bit = at as u64 * 8 + self.dice.below(8);
            self.note(&format!(
                "bit {} of byte {at} of {} in {} flips",
                bit % 8,
                contents.len(),
                file.display()
            ));
            disk.flip_bit(&file, bit).expect("the bit is there");
            return Harm::Flipped { file, bit, was: contents[at] };
        }
    }

    async fn lose(&mut self, gone: Vec<PathBuf>) -> Harm {
        self.note(&format!("{gone:?} are missing"));
        self.rename(gone.iter().enumerate().map(|(n, path)| (path.clone(), aside(n))).collect()).await;
        Harm::Missing(gone)
    }

    fn wear_out(&mut self, file: PathBuf) -> Harm {
        let disk = self.broker.machine.disk();
        let at = self.dice.below(disk.contents(&file).expect("it is there").len() as u64);
        self.note(&format!("the page of byte {at} of {} is bad", file.display()));
        disk.make_bad(&file, at, 1).expect("it is there");
        Harm::Bad(file)
    }

    async fn mend(&mut self, harm: Harm) {
        match harm {
            Harm::Missing(gone) => {
                let back = gone.iter().enumerate().map(|(n, path)| (aside(n), path.clone()));
                self.rename(back.collect()).await;
            }
            Harm::Bad(file) => {
                // It may be gone with old records.
                let _ = self.broker.machine.disk().mend(&file);
            }
            Harm::Flipped { file, bit, was } => {
                let disk = self.broker.machine.disk();
                let now =
                    disk.contents(&file).ok().and_then(|contents| contents.get(bit as usize / 8).copied());
                // It may have been written anew, or be gone with old records.
                if now == Some(was ^ (1 << (bit % 8))) {
                    disk.flip_bit(&file, bit).expect("the bit is there");
                }
            }
        }
    }

    /// Without a part that all logs need, no start takes what is missing for empty: it is refused and touches nothing.
    async fn lose_what_all_need(&mut self) {
        let data = Path::new(DATA_DIR);
        let (controller, journal) = (data.join(CONTROLLER), data.join("journal"));
        // A checkpoint with all its copies.
        let mut checkpoints: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
        for file in self.files(|name| name.contains(".checkpoint") && !name.ends_with(".tmp")) {
            if let Some((stem, _)) = file.to_string_lossy().split_once(".checkpoint") {
                checkpoints.entry(stem.to_owned()).or_default().push(file.clone());
            }
        }
        let mut parts: Vec<Vec<PathBuf>> = checkpoints.into_values().collect();
        assert!(!parts.is_empty(), "there are checkpoints");
        parts.extend([vec![controller.clone()], vec![journal.clone()], vec![journal, controller]]);
        let part = parts[self.dice.below(parts.len() as u64) as usize].clone();
        self.go_without(part).await;
    }

    async fn go_without(&mut self, part: Vec<PathBuf>) {
        let disk = self.broker.machine.disk();
        let name = format!("{part:?}");
        let harm = self.lose(part).await;
        let before = disk.files();
        self.start();
        match self.broker.ready().await {
            Start::Failed(what) => assert!(what.contains("corectl log repair"), "{what}"),
            start => panic!("without {name}: {start:?}"),
        }
        sleep(Duration::from_secs(1)).await;
        self.broker.machine.kill();
        // A refused start may have begun files of its own.
        let after = disk.files();
        let lost: Vec<_> = before.iter().filter(|file| !after.contains(file)).collect();
        assert!(lost.is_empty(), "without {name} the start took {lost:?} away");
        self.mend(harm).await;
    }

    /// Renames on the broker's disk while it is down.
    async fn rename(&self, renames: Vec<(PathBuf, PathBuf)>) {
        let done = Rc::new(Cell::new(false));
        let (renames, told) = (Rc::new(renames), done.clone());
        self.broker.machine.start(1, move |_| {
            let (renames, told) = (renames.clone(), told.clone());
            async move {
                for (from, to) in &*renames {
                    corelog_io::fs::rename(from, to).await.expect("it is there");
                }
                told.set(true);
            }
        });
        while !done.get() {
            sleep(Duration::from_millis(1)).await;
        }
        self.broker.machine.kill();
    }
}

/// Where what is missing lies meanwhile.
fn aside(n: usize) -> PathBuf {
    format!("/aside-{n}").into()
}
