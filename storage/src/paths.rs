//! Names of files and directories below the data directory.

use crate::ids::{LogId, Uuid};
use std::path::{Path, PathBuf};

/// Longest part of a topic's name that goes into its directory's name: with the id it stays below 255 bytes.
pub const NAME_MAX: usize = 200;

pub fn journal_dir(data_dir: &Path) -> PathBuf {
    data_dir.join("journal")
}

pub fn topics_dir(data_dir: &Path) -> PathBuf {
    data_dir.join("topics")
}

/// Where the journals of refused logs are put aside.
pub fn refused_dir(data_dir: &Path) -> PathBuf {
    journal_dir(data_dir).join("refused")
}

/// The directory in [`refused_dir`] of what `generation` put aside of `log`.
pub fn refused_log_dir(generation: u64, log: LogId) -> String {
    format!("{generation:08}-{}~{}", log.partition, log.topic)
}

/// What [`refused_log_dir`] made a name of.
pub fn parse_refused_log_dir(name: &str) -> Option<(u64, LogId)> {
    let (stem, topic) = name.split_once('~')?;
    let (generation, partition) = stem.split_once('-')?;
    let log = LogId { topic: topic.parse().ok()?, partition: partition.parse().ok()? };
    Some((generation.parse().ok()?, log))
}

/// A journal file's name: generation, shard, number in the ring.
pub fn journal_file(generation: u64, shard: u32, number: usize) -> String {
    format!("{generation:08}-{shard}-{number}.journal")
}

pub fn checkpoint_file(generation: u64, shard: u32) -> String {
    format!("{generation:08}-{shard}.checkpoint")
}

/// What a checkpoint says, once more, but for the last pages of segments.
pub fn checkpoint_copy_file(generation: u64, shard: u32) -> String {
    checkpoint_file(generation, shard) + COPY
}

/// Whether it is the name of [`checkpoint_copy_file`].
pub fn is_copy(path: &Path) -> bool {
    path.as_os_str().as_encoded_bytes().ends_with(COPY.as_bytes())
}

const COPY: &str = ".copy";

/// What a file in the journal directory is, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JournalName {
    Journal {
        generation: u64,
        shard: u32,
        number: usize,
    },
    /// One of both copies.
    Checkpoint {
        generation: u64,
        shard: u32,
    },
}

impl JournalName {
    pub fn parse(name: &str) -> Option<JournalName> {
        if let Some(stem) = name.strip_suffix(".journal") {
            let mut parts = stem.split('-');
            let generation = parts.next()?.parse().ok()?;
            let shard = parts.next()?.parse().ok()?;
            let number = parts.next()?.parse().ok()?;
            return parts.next().is_none().then_some(JournalName::Journal { generation, shard, number });
        }
        let stem = name.strip_suffix(COPY).unwrap_or(name).strip_suffix(".checkpoint")?;
        let (generation, shard) = stem.split_once('-')?;
        Some(JournalName::Checkpoint { generation: generation.parse().ok()?, shard: shard.parse().ok()? })
    }
}

/// A topic's directory: its name for people, its id so that a topic of the same name never meets its files.
pub fn topic_dir_name(log: LogId, name: &str) -> String {
    let mut end = name.len().min(NAME_MAX);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    let safe: String = name[..end].chars().map(|c| if c == '/' || c == '\0' { '_' } else { c }).collect();
    format!("{safe}~{}", log.topic)
}

/// The topic that a directory in [`topics_dir`] belongs to, by its name.
pub fn topic_of_dir(name: &str) -> Option<Uuid> {
    name.rsplit_once('~')?.1.parse().ok()
}

/// The directory of one log's segments.
pub fn log_dir(data_dir: &Path, log: LogId, name: &str) -> PathBuf {
    topics_dir(data_dir).join(topic_dir_name(log, name)).join(log.partition.to_string())
}

pub fn segment_file(base_offset: i64) -> String {
    format!("{base_offset:020}.log")
}

pub fn index_file(base_offset: i64) -> String {
    format!("{base_offset:020}.index")
}

/// A segment that is being received.
pub fn incoming_file(base_offset: i64) -> String {
    format!("{base_offset:020}{INCOMING}")
}

/// Whether it is a name of [`incoming_file`].
pub fn is_incoming(name: &str) -> bool {
    name.ends_with(INCOMING)
}

const INCOMING: &str = ".incoming";

/// The base offset in a segment's or index's name, and which of both it is.
pub fn parse_segment_name(name: &str) -> Option<(i64, SegmentFileKind)> {
    let (stem, kind) = match name.strip_suffix(".log") {
        Some(stem) => (stem, SegmentFileKind::Data),
        None => (name.strip_suffix(".index")?, SegmentFileKind::Index),
    };
    if stem.len() != 20 || !stem.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    Some((stem.parse().ok()?, kind))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SegmentFileKind {
    Data,
    Index,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Uuid;

    #[test]
    fn names_round_trip() {
        assert_eq!(
            JournalName::parse(&journal_file(12, 3, 1)),
            Some(JournalName::Journal { generation: 12, shard: 3, number: 1 })
        );
        assert_eq!(
            JournalName::parse(&checkpoint_file(u64::MAX, 3)),
            Some(JournalName::Checkpoint { generation: u64::MAX, shard: 3 })
        );
        assert_eq!(
            JournalName::parse(&checkpoint_copy_file(1, 3)),
            Some(JournalName::Checkpoint { generation: 1, shard: 3 })
        );
        for other in ["1-2.journal", "a-1-1.journal", "1-1.checkpoint.tmp", "notes", "1-1-1-1.journal"] {
            assert_eq!(JournalName::parse(other), None, "{other}");
        }
        assert_eq!(parse_segment_name(&segment_file(77)), Some((77, SegmentFileKind::Data)));
        assert_eq!(parse_segment_name(&index_file(i64::MAX)), Some((i64::MAX, SegmentFileKind::Index)));
        assert_eq!(parse_segment_name("77.log"), None);
        let log = LogId { topic: Uuid([0x5c; 16]), partition: 12 };
        assert_eq!(parse_refused_log_dir(&refused_log_dir(3, log)), Some((3, log)));
        assert_eq!(parse_refused_log_dir("notes"), None);
    }

    #[test]
    fn a_topic_directory_fits_a_file_name_and_stays_in_its_place() {
        let log = LogId { topic: Uuid([0xff; 16]), partition: 0 };
        assert!(topic_dir_name(log, &"x".repeat(249)).len() < 255);
        assert!(!topic_dir_name(log, "../../etc").contains('/'));
    }
}
