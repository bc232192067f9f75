//! Journal files: groups of entries of many logs.

use super::report::Report;
use anyhow::{Context, Result};
use bytes::Bytes;
use corelog_storage::format::PAGE;
use corelog_storage::format::entry::{ENTRY_HEADER, EntryHeader, EntryKind, HardState, unprotected};
use corelog_storage::format::group::{GROUP_HEADER, GroupHeader};
use corelog_storage::format::journal_file::JournalFileHeader;
use corelog_storage::paths::JournalName;
use corelog_wire::records::BatchView;
use serde_json::json;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// A journal file, open for reading.
pub struct Journal {
    pub path: PathBuf,
    file: File,
    len: u64,
    /// None: unused so far, or damaged.
    pub header: Option<JournalFileHeader>,
}

/// One group that is whole.
pub struct Group {
    pub header: GroupHeader,
    pub position: u64,
    payload: Bytes,
}

/// One entry, and where its payload lies in the file.
pub struct Entry {
    pub header: EntryHeader,
    pub payload_at: u64,
    pub payload: Bytes,
}

impl Journal {
    pub fn open(path: &Path) -> Result<Journal> {
        let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
        let len = file.metadata()?.len();
        let mut page = vec![0; PAGE];
        let header = match len >= PAGE as u64 {
            true => {
                file.read_exact_at(&mut page, 0)?;
                JournalFileHeader::decode(&page).ok()
            }
            false => None,
        };
        Ok(Journal { path: path.to_owned(), file, len, header })
    }

    /// Of a file whose header is damaged: takes what its name, its groups and the other files of the journal tell for it. `salt`:
    /// theirs. Of a file without groups nothing is to be told.
    pub fn without_header(&mut self, salt: impl Fn(u64, u32) -> Option<u64>) -> Result<()> {
        let name = self.path.file_name().and_then(|name| name.to_str()).and_then(JournalName::parse);
        let Some(JournalName::Journal { generation, shard, .. }) = name else { return Ok(()) };
        let salt = salt(generation, shard);
        let mut page = vec![0; GROUP_HEADER];
        for position in (PAGE as u64..self.len.saturating_sub(PAGE as u64 - 1)).step_by(PAGE) {
            self.file.read_exact_at(&mut page, position)?;
            if let Ok(GroupHeader { generation: g, shard: s, salt: of, sequence, .. }) =
                GroupHeader::decode(&page)
                && (g, s) == (generation, shard)
                && salt.is_none_or(|salt| salt == of)
            {
                self.header =
                    Some(JournalFileHeader { generation, shard, salt: of, first_sequence: sequence });
                break;
            }
        }
        Ok(())
    }

    /// Its groups in order, until one is not as it was written: that is where the journal ends, or goes on in another file.
    pub fn groups(&self) -> impl Iterator<Item = Result<Group>> {
        let mut position = PAGE as u64;
        let mut sequence = self.header.map(|header| header.first_sequence);
        std::iter::from_fn(move || {
            let (header, expected) = (self.header?, sequence?);
            let group = match self.group(&header, position, expected) {
                Ok(group) => group?,
                Err(error) => return Some(Err(error)),
            };
            position += group.header.disk_len();
            sequence = Some(expected + 1);
            Some(Ok(group))
        })
    }

    /// As [`Journal::groups`], but damage does not end it: it goes on with the next whole group.
    pub fn groups_that_are_left(&self) -> impl Iterator<Item = Result<Group>> {
        let mut position = PAGE as u64;
        let mut sequence = self.header.map(|header| header.first_sequence);
        std::iter::from_fn(move || {
            let of = self.header?;
            while position + PAGE as u64 <= self.len {
                match self.group_from(&of, position, sequence?) {
                    Ok(Some(group)) => {
                        position += group.header.disk_len();
                        sequence = Some(group.header.sequence + 1);
                        return Some(Ok(group));
                    }
                    Ok(None) => position += PAGE as u64,
                    Err(error) => return Some(Err(error)),
                }
            }
            None
        })
    }

    fn group(&self, of: &JournalFileHeader, position: u64, sequence: u64) -> Result<Option<Group>> {
        Ok(self.group_from(of, position, sequence)?.filter(|group| group.header.sequence == sequence))
    }

    /// The whole group at `position`, if its number is not below `sequence`.
    fn group_from(&self, of: &JournalFileHeader, position: u64, sequence: u64) -> Result<Option<Group>> {
        if position + PAGE as u64 > self.len {
            return Ok(None);
        }
        let mut page = vec![0; GROUP_HEADER];
        self.file.read_exact_at(&mut page, position)?;
        let Ok(header) = GroupHeader::decode(&page) else { return Ok(None) };
        let is_ours = (header.generation, header.shard, header.salt) == (of.generation, of.shard, of.salt);
        // The length is no more than what is there.
        if !is_ours || header.sequence < sequence || position + header.disk_len() > self.len {
            return Ok(None);
        }
        let mut payload = vec![0; header.payload_len as usize];
        self.file.read_exact_at(&mut payload, position + GROUP_HEADER as u64)?;
        let group = Group { header, position, payload: payload.into() };
        Ok(group.is_whole().then_some(group))
    }

    /// The bytes of an entry's payload, read again.
    pub fn read(&self, at: u64, len: u32) -> Result<Bytes> {
        let mut bytes = vec![0; (len as usize).min(self.len.saturating_sub(at) as usize)];
        self.file.read_exact_at(&mut bytes, at)?;
        Ok(bytes.into())
    }
}

impl Group {
    fn is_whole(&self) -> bool {
        let (mut crc, mut at, mut entries) = (0, 0, 0);
        while at < self.payload.len() {
            let Ok(entry) = EntryHeader::decode(&self.payload[at..]) else { return false };
            let Some(this) = self.payload.get(at..at + entry.span()) else { return false };
            crc = crc32c::crc32c_append(crc, &this[..ENTRY_HEADER]);
            crc = crc32c::crc32c_append(
                crc,
                unprotected(&this[ENTRY_HEADER..ENTRY_HEADER + entry.len as usize]),
            );
            entries += 1;
            at += entry.span();
        }
        (crc, entries) == (self.header.entries_crc, self.header.entries)
    }

    pub fn entries(&self) -> impl Iterator<Item = Entry> {
        let mut at = 0;
        std::iter::from_fn(move || {
            let header = self.payload.get(at..).and_then(|rest| EntryHeader::decode(rest).ok())?;
            let from = at + ENTRY_HEADER;
            let payload = self.payload.slice(from..from + header.len as usize);
            let payload_at = self.position + (GROUP_HEADER + from) as u64;
            at += header.span();
            Some(Entry { header, payload_at, payload })
        })
    }
}

/// A journal file by itself.
pub fn dump(path: &Path, report: &mut Report) -> Result<()> {
    let journal = Journal::open(path)?;
    let Some(header) = journal.header else {
        return report.problem(path, 0, "it has no journal header: it is not used yet, or damaged");
    };
    let text = format!(
        "journal {}: generation {}, shard {}, from group {}",
        path.display(),
        header.generation,
        header.shard,
        header.first_sequence
    );
    let fields = json!({
        "path": path,
        "generation": header.generation,
        "shard": header.shard,
        "first_sequence": header.first_sequence,
    });
    report.heading(&text, "journal", fields)?;
    let mut end = PAGE as u64;
    for group in journal.groups() {
        let group = group?;
        let Group { header, position, .. } = &group;
        let text = format!(
            "{position:>10}  group {} of {} entries, {} bytes; groups up to {} were durable",
            header.sequence, header.entries, header.payload_len, header.durable_through
        );
        let fields = json!({
            "position": position,
            "sequence": header.sequence,
            "entries": header.entries,
            "bytes": header.payload_len,
            "durable_through": header.durable_through,
        });
        report.line(&text, "group", fields)?;
        for entry in group.entries() {
            dump_entry(&journal, &entry, report)?;
        }
        end = position + header.disk_len();
    }
    let text = format!("{end:>10}  here it ends, or goes on in another file");
    report.line(&text, "end", json!({"position": end}))
}

fn dump_entry(journal: &Journal, entry: &Entry, report: &mut Report) -> Result<()> {
    let header = &entry.header;
    let (kind, text) = match header.kind {
        EntryKind::Append => ("append", format!("append index {} term {}", header.index, header.term)),
        EntryKind::Truncate => {
            ("truncate", format!("truncate from index {}, to offset {}", header.index, header.base_offset))
        }
        EntryKind::HardState => {
            let HardState { term, vote } = HardState::decode(&entry.payload);
            ("hard_state", format!("hard state: term {term}, vote {vote}"))
        }
        EntryKind::LogStart => ("log_start", format!("log start offset {}", header.base_offset)),
        EntryKind::Reset => {
            ("reset", format!("begins anew at index {}, offset {}", header.index, header.base_offset))
        }
    };
    let fields = json!({
        "entry": kind,
        "topic_id": header.log.topic.to_string(),
        "partition": header.log.partition,
        "index": header.index.0,
        "offset": header.base_offset,
        "term": header.term,
    });
    report.line(&format!("    {} {text}", header.log), "entry", fields)?;
    if header.kind == EntryKind::Append {
        return batch(journal, entry.payload_at, header, entry.payload.clone(), report);
    }
    Ok(())
}

/// Checks and shows the batch of an append.
pub fn batch(
    journal: &Journal,
    at: u64,
    header: &EntryHeader,
    payload: Bytes,
    report: &mut Report,
) -> Result<()> {
    match BatchView::parse(&payload) {
        Ok(batch) => {
            if batch.header().base_offset != header.base_offset {
                let what = format!(
                    "the entry says offset {}, its batch {}",
                    header.base_offset,
                    batch.header().base_offset
                );
                report.problem(&journal.path, at, what)?;
            }
            report.batch(&journal.path, at, header.index.0, &batch)
        }
        Err(error) => report.problem(&journal.path, at, error.to_string()),
    }
}
