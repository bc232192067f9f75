//! Bytes that other implementations wrote.

use super::compression::Compression;
use super::header::TimestampType;
use super::legacy::LegacyFormat;

/// One line of `message_sets.txt`.
pub(super) struct MessageSet {
    pub(super) format: LegacyFormat,
    pub(super) codec: Compression,
    pub(super) timestamp_type: TimestampType,
    pub(super) bytes: Vec<u8>,
}

pub(super) const OFFSETS: [i64; 3] = [100, 101, 105];
pub(super) const KEYS: [Option<&[u8]>; 3] = [Some(b"k0"), None, Some(b"k2")];
pub(super) const VALUES: [Option<&[u8]>; 3] = [Some(b"value zero"), Some(b"value one"), None];
pub(super) const TIMESTAMPS: [i64; 3] = [1000, 3000, 2000];
pub(super) const LOG_APPEND_TIME: i64 = 5000;

pub(super) fn message_sets() -> Vec<MessageSet> {
    let lines = include_str!("message_sets.txt").lines().filter(|line| !line.starts_with('#'));
    let sets: Vec<MessageSet> = lines.map(parse).collect();
    assert_eq!(sets.len(), 12);
    sets
}

fn parse(line: &str) -> MessageSet {
    let fields: Vec<&str> = line.split(' ').collect();
    let [magic, codec, timestamp_type, hex] = fields[..] else { panic!("four fields: {line}") };
    MessageSet {
        format: if magic == "0" { LegacyFormat::V0 } else { LegacyFormat::V1 },
        codec: Compression::ALL.into_iter().find(|known| known.name() == codec).unwrap(),
        timestamp_type: if timestamp_type == "log" {
            TimestampType::LogAppendTime
        } else {
            TimestampType::CreateTime
        },
        bytes: (0..hex.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
            .collect(),
    }
}
