//! Records as text, by a format that the user gives.

use corelog_client::ConsumerRecord;
use std::io::{self, Write};

/// What `consume --format` can name.
pub const HELP: &str = "%t topic, %p partition, %o offset, %k key, %v value, %h headers, %T timestamp in ms, %D date and time, \
                        %K and %V lengths of key and value, %% a percent sign, \\n \\t \\0 \\\\ as usual";

enum Piece {
    Text(Vec<u8>),
    Field(char),
}

pub struct Format {
    pieces: Vec<Piece>,
    null: String,
}

const FIELDS: &str = "tpokvhTDKV";

impl Format {
    pub fn parse(text: &str, null: &str) -> Result<Format, String> {
        let mut pieces = Vec::new();
        let mut plain = Vec::new();
        let mut chars = text.chars();
        while let Some(next) = chars.next() {
            match (next, next == '%' || next == '\\') {
                ('%', _) => match chars.next() {
                    Some('%') => plain.push(b'%'),
                    Some(field) if FIELDS.contains(field) => {
                        pieces.push(Piece::Text(std::mem::take(&mut plain)));
                        pieces.push(Piece::Field(field));
                    }
                    other => {
                        return Err(format!(
                            "%{} is no field: {HELP}",
                            other.map_or(String::new(), String::from)
                        ));
                    }
                },
                ('\\', _) => match chars.next() {
                    Some('n') => plain.push(b'\n'),
                    Some('t') => plain.push(b'\t'),
                    Some('r') => plain.push(b'\r'),
                    Some('0') => plain.push(0),
                    Some('\\') => plain.push(b'\\'),
                    other => {
                        return Err(format!(
                            "\\{} is not known: {HELP}",
                            other.map_or(String::new(), String::from)
                        ));
                    }
                },
                (other, _) => plain.extend(other.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        pieces.push(Piece::Text(plain));
        Ok(Format { pieces, null: null.to_owned() })
    }

    pub fn write(&self, record: &ConsumerRecord, out: &mut impl Write) -> io::Result<()> {
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => out.write_all(text)?,
                Piece::Field(field) => self.field(*field, record, out)?,
            }
        }
        Ok(())
    }

    fn field(&self, field: char, record: &ConsumerRecord, out: &mut impl Write) -> io::Result<()> {
        let bytes = |part: &Option<bytes::Bytes>, out: &mut dyn Write| match part {
            Some(part) => out.write_all(part),
            None => out.write_all(self.null.as_bytes()),
        };
        // As kcat has it: the length of null is -1.
        let len = |part: &Option<bytes::Bytes>| part.as_ref().map_or(-1, |part| part.len() as i64);
        match field {
            't' => write!(out, "{}", record.topic),
            'p' => write!(out, "{}", record.partition),
            'o' => write!(out, "{}", record.offset),
            'k' => bytes(&record.key, out),
            'v' => bytes(&record.value, out),
            'T' => write!(out, "{}", record.timestamp),
            'D' => write!(out, "{}", crate::time::shown(record.timestamp)),
            'K' => write!(out, "{}", len(&record.key)),
            'V' => write!(out, "{}", len(&record.value)),
            'h' => {
                for (at, header) in record.headers.iter().enumerate() {
                    if at > 0 {
                        out.write_all(b",")?;
                    }
                    out.write_all(&header.key)?;
                    out.write_all(b"=")?;
                    bytes(&header.value, out)?;
                }
                Ok(())
            }
            _ => unreachable!("parsed fields only"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use corelog_client::{RecordHeader, TimestampType};

    fn shown(format: &str) -> String {
        let header =
            |value: Option<&'static str>| RecordHeader { key: "h".into(), value: value.map(Into::into) };
        let record = ConsumerRecord {
            topic: "t".into(),
            partition: 2,
            offset: 7,
            timestamp: 1500,
            timestamp_type: TimestampType::CreateTime,
            key: None,
            value: Some("value".into()),
            headers: vec![header(Some("x")), header(None)],
            leader_epoch: None,
        };
        let mut out = Vec::new();
        Format::parse(format, "NULL").unwrap().write(&record, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn formats() {
        assert_eq!(shown("%t-%p@%o\\t%k=%v\\n"), "t-2@7\tNULL=value\n");
        assert_eq!(shown("%h %T %D %K %V 100%%"), "h=x,h=NULL 1500 1970-01-01T00:00:01.500Z -1 5 100%");
        assert_eq!(shown(""), "");
        for wrong in ["%", "%x", "\\", "\\q"] {
            assert!(Format::parse(wrong, "").is_err(), "{wrong}");
        }
    }
}
