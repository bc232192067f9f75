//! Batches that are wrong in one way each.

use super::super::Case;
use super::super::session::Session;
use super::fetch::{fetch_all, one};
use super::produce::{served, to};
use super::records::{TIME, batch, compressed, joined, with_bytes, with_header, with_payload};
use anyhow::Result;
use bytes::Bytes;
use corelog_wire::fetch::FetchRequest;
use corelog_wire::records::{
    BATCH_HEADER_LEN, BATCH_LENGTH_AT, BatchBuilder, BatchOptions, CODEC_MASK, CONTROL_BIT, CRC_AT,
    Compression, DELETE_HORIZON_BIT, MAGIC_AT, TRANSACTIONAL_BIT,
};

pub const CASES: &[Case] = &[
    Case { name: "bad batches", run: headers },
    Case { name: "bad records", run: payloads },
    Case { name: "bad compression", run: compression },
    Case { name: "old message formats", run: old_formats },
];

/// Each batch goes to a partition of its own, since what is taken of the one must not move the others.
fn try_all(s: &mut Session, batches: Vec<(&str, Bytes)>) -> Result<()> {
    let topic = s.topic("t", batches.len() as i32, &[])?;
    fetch_all(s, "learn the id", &topic, 0);
    let newest = s.newest::<FetchRequest>();
    for (index, (step, bytes)) in batches.into_iter().enumerate() {
        for v in served(s) {
            s.ask(step, v, &to(v, &topic, index as i32, bytes.clone()));
        }
        s.ask(&format!("{step}: what became of it"), newest, &one(newest, &topic, index as i32, 0));
    }
    Ok(())
}

fn headers(s: &mut Session) -> Result<()> {
    let good = batch(&["a", "b"]);
    let header = |change: fn(&mut corelog_wire::records::BatchHeader)| with_header(&good, change);
    // The second record's time is 2^63-1 after the first one's.
    let mut far = BatchBuilder::new(BatchOptions::default());
    for time in [TIME, TIME.wrapping_add(i64::MAX)] {
        far.append(time, None, Some(b"a"), &[])?;
    }
    let length = |length: i32| with_bytes(&good, BATCH_LENGTH_AT, &length.to_be_bytes());
    try_all(
        s,
        vec![
            ("checksum", with_bytes(&good, CRC_AT, &[0, 1, 2, 3])),
            ("magic 3", with_bytes(&good, MAGIC_AT, &[3])),
            ("magic -1", with_bytes(&good, MAGIC_AT, &[0xff])),
            ("magic 0 in a batch of format 2", with_bytes(&good, MAGIC_AT, &[0])),
            ("magic 1 in a batch of format 2", with_bytes(&good, MAGIC_AT, &[1])),
            ("length too small for a header", length(48)),
            ("length 0", length(0)),
            ("length negative", length(-1)),
            ("length one too small", length(good.len() as i32 - 13)),
            ("length one too large", length(good.len() as i32 - 11)),
            ("length 2^31-1", length(i32::MAX)),
            ("cut within the header", good.slice(..30)),
            ("cut within the length", good.slice(..10)),
            ("one byte", good.slice(..1)),
            ("cut within the records", good.slice(..good.len() - 1)),
            ("a byte after the batch", joined(&[good.clone(), Bytes::from_static(&[0])])),
            ("two batches", joined(&[good.clone(), good.clone()])),
            ("a good and a broken batch", joined(&[good.clone(), with_bytes(&good, CRC_AT, &[0, 1, 2, 3])])),
            ("count too small", header(|h| h.records_count = 1)),
            ("count too large", header(|h| h.records_count = 3)),
            ("count 0", header(|h| h.records_count = 0)),
            ("count negative", header(|h| h.records_count = -1)),
            ("count 2^31-1", header(|h| h.records_count = i32::MAX)),
            ("last offset delta too small", header(|h| h.last_offset_delta = 0)),
            ("last offset delta too large", header(|h| h.last_offset_delta = 5)),
            ("last offset delta negative", header(|h| h.last_offset_delta = -1)),
            ("control", header(|h| h.attributes |= CONTROL_BIT)),
            ("transactional", header(|h| h.attributes |= TRANSACTIONAL_BIT)),
            ("delete horizon", header(|h| h.attributes |= DELETE_HORIZON_BIT)),
            ("unknown attribute", header(|h| h.attributes |= 1 << 9)),
            ("highest attribute", header(|h| h.attributes |= i16::MIN)),
            ("base sequence without a producer", header(|h| h.base_sequence = 5)),
            ("epoch without a producer", header(|h| h.producer_epoch = 5)),
            ("producer without an epoch", header(|h| (h.producer_id, h.base_sequence) = (1 << 41, 0))),
            ("producer without a sequence", header(|h| (h.producer_id, h.producer_epoch) = (1 << 42, 0))),
            ("base timestamp 2^63-1", header(|h| h.base_timestamp = i64::MAX)),
            ("timestamp delta 2^63-1", far.build()?),
            ("producer id -2", header(|h| (h.producer_id, h.producer_epoch, h.base_sequence) = (-2, 0, 0))),
        ],
    )
}

fn payloads(s: &mut Session) -> Result<()> {
    let good = batch(&["a", "b"]);
    let payload = &good[BATCH_HEADER_LEN..];
    let changed = |at: usize, byte: u8| {
        let mut changed = payload.to_vec();
        changed[at] = byte;
        with_payload(&good, &changed)
    };
    // Of the first record: length, attributes, time, offset, key length, value length, value, header count.
    try_all(
        s,
        vec![
            ("no payload", with_payload(&good, &[])),
            ("only one of two", with_payload(&good, &payload[..8])),
            ("byte after the records", with_payload(&good, &[payload, &[0]].concat())),
            ("record length too large", changed(0, 100)),
            ("record length too small", changed(0, 8)),
            ("record length negative", changed(0, 1)),
            ("record length without end", with_payload(&good, &[0xff; 16])),
            ("offset delta", changed(3, 4)),
            ("offset delta negative", changed(3, 1)),
            ("second offset delta the same", changed(payload.len() / 2 + 3, 0)),
            ("key length too large", changed(4, 40)),
            ("key length -2", changed(4, 3)),
            ("value length too large", changed(5, 40)),
            ("value length too small", changed(5, 0)),
            ("header count 1 and no header", changed(7, 2)),
            ("header count negative", changed(7, 1)),
            ("record attributes", changed(1, 0x55)),
        ],
    )
}

fn compression(s: &mut Session) -> Result<()> {
    let mut bad = Vec::new();
    let names: [(Compression, [&str; 4]); 4] = [
        (Compression::Gzip, ["gzip rubbish", "gzip of nothing", "gzip cut off", "gzip with a bit flipped"]),
        (
            Compression::Snappy,
            ["snappy rubbish", "snappy of nothing", "snappy cut off", "snappy with a bit flipped"],
        ),
        (Compression::Lz4, ["lz4 rubbish", "lz4 of nothing", "lz4 cut off", "lz4 with a bit flipped"]),
        (Compression::Zstd, ["zstd rubbish", "zstd of nothing", "zstd cut off", "zstd with a bit flipped"]),
    ];
    for (codec, [rubbish, nothing, cut, flipped]) in names {
        let good = compressed(codec, &["aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "b"]);
        let payload = good[BATCH_HEADER_LEN..].to_vec();
        bad.push((rubbish, with_payload(&good, b"this was never compressed by anything")));
        bad.push((nothing, with_payload(&good, &[])));
        bad.push((cut, with_payload(&good, &payload[..payload.len() - 5])));
        let mut flip = payload.clone();
        flip[payload.len() / 2] ^= 0x10;
        bad.push((flipped, with_payload(&good, &flip)));
    }
    let good = batch(&["a", "b"]);
    bad.push(("plain records called gzip", with_header(&good, |h| h.attributes |= 1)));
    for (step, codec) in [("codec 5", 5), ("codec 6", 6), ("codec 7", 7)] {
        bad.push((step, with_header(&good, |h| h.attributes = h.attributes & !CODEC_MASK | codec)));
    }
    let options = BatchOptions { encoding: Compression::Zstd.into(), ..Default::default() };
    let count = super::records::build(options, super::records::TIME, &["a", "b"]);
    bad.push((
        "compressed, count too large",
        with_header(&count, |h| (h.records_count, h.last_offset_delta) = (3, 2)),
    ));
    try_all(s, bad)
}

/// Formats 0 and 1 are not taken in versions from 3 on.
fn old_formats(s: &mut Session) -> Result<()> {
    let message = |magic: u8| {
        let mut body = vec![magic, 0];
        if magic == 1 {
            body.extend(super::records::TIME.to_be_bytes());
        }
        body.extend((-1i32).to_be_bytes());
        body.extend(1i32.to_be_bytes());
        body.push(b'a');
        let crc = crc32(&body);
        let mut bytes = vec![0; 8];
        bytes.extend((body.len() as i32 + 4).to_be_bytes());
        bytes.extend(crc.to_be_bytes());
        bytes.extend(body);
        Bytes::from(bytes)
    };
    try_all(s, vec![("format 0", message(0)), ("format 1", message(1))])
}

/// CRC-32 as in gzip.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, byte| {
        (0..8).fold(
            crc ^ u32::from(*byte),
            |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 },
        )
    })
}
