//! Whole frames: four bytes of length, header, message.

use crate::messages::{Request, Response};
use crate::{DecodeError, EncodeError, Reader, RequestHeader, ResponseHeader, Str, Writer};
use bytes::Bytes;

/// The protocol whose peers begin with what stands in place of a frame's length, for one too large: where it says why
/// two do not understand each other.
pub fn foreign_protocol(length: [u8; 4]) -> Option<&'static str> {
    match &length {
        b"HTTP" | b"GET " | b"HEAD" | b"POST" | b"PUT " | b"DELE" | b"OPTI" | b"CONN" | b"PATC" | b"PRI " => {
            Some("HTTP")
        }
        // A handshake or an alert, of any version.
        [0x15 | 0x16, 3, ..] => Some("TLS"),
        _ => None,
    }
}

/// A request ready for a vectored write.
pub fn request<R: Request>(
    request: &R,
    version: i16,
    correlation_id: i32,
    client_id: Option<&Str>,
) -> Result<Vec<Bytes>, EncodeError> {
    frame(|w| {
        let header = RequestHeader {
            api_key: R::API_KEY.into(),
            api_version: version,
            correlation_id,
            client_id: client_id.cloned(),
        };
        header.encode(w)?;
        request.encode(w, version)
    })
}

/// A response ready for a vectored write.
pub fn response<R: Response>(
    response: &R,
    version: i16,
    correlation_id: i32,
) -> Result<Vec<Bytes>, EncodeError> {
    frame(|w| {
        ResponseHeader { correlation_id }.encode(w, R::API_KEY, version);
        response.encode(w, version)
    })
}

/// Decodes a response frame without its length; the whole of it.
pub fn decode_response<R: Response>(frame: Bytes, version: i16) -> Result<(ResponseHeader, R), DecodeError> {
    let mut r = Reader::new(frame);
    let header = ResponseHeader::decode(&mut r, R::API_KEY, version)?;
    let response = R::decode(&mut r, version)?;
    r.finish(R::NAME)?;
    Ok((header, response))
}

fn frame(content: impl FnOnce(&mut Writer) -> Result<(), EncodeError>) -> Result<Vec<Bytes>, EncodeError> {
    let mut w = Writer::with_capacity(256);
    w.i32(0);
    content(&mut w)?;
    let (len, limit) = (w.len() - 4, i32::MAX as usize);
    if len > limit {
        return Err(EncodeError::TooLong { field: "frame", len, limit });
    }
    w.patch_i32(0, len as i32);
    Ok(w.into_parts())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_length_is_named() {
        for (prefix, expected) in [
            (b"HTTP", Some("HTTP")),
            (b"GET ", Some("HTTP")),
            (b"\x16\x03\x01\x02", Some("TLS")),
            (b"\x15\x03\x03\x00", Some("TLS")),
            (b"\x00\x00\x00\x20", None),
            (b"\x16\x00\x00\x00", None),
        ] {
            assert_eq!(foreign_protocol(*prefix), expected);
        }
    }
}
