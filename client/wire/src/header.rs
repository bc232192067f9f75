//! What stands before every request and response, after the four bytes of length.

use crate::{ApiKey, DecodeError, EncodeError, Reader, Str, Writer};

/// Header versions 1 (with a client id) and 2 (with tagged fields as well), chosen by the API and its version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestHeader {
    /// As it came: [`ApiKey::from_i16`] says whether it is one. A broker closes the connection on a key that it does not know.
    pub api_key: i16,
    pub api_version: i16,
    pub correlation_id: i32,
    /// Shares the frame's bytes: detach it before keeping it.
    pub client_id: Option<Str>,
}

impl RequestHeader {
    /// Also succeeds for keys and versions that have no codec, so that the caller can say what was asked for; the body may
    /// then not be decodable.
    pub fn decode(r: &mut Reader) -> Result<Self, DecodeError> {
        let api_key = r.i16("RequestHeader.api_key")?;
        let api_version = r.i16("RequestHeader.api_version")?;
        let correlation_id = r.i32("RequestHeader.correlation_id")?;
        // Never compact, not even in version 2: a broker must be able to read the header of any ApiVersions request.
        let client_id = r.string_opt("RequestHeader.client_id", false)?;
        let header = RequestHeader { api_key, api_version, correlation_id, client_id };
        if header.is_flexible() {
            r.skip_tags("RequestHeader")?;
        }
        Ok(header)
    }

    pub fn encode(&self, w: &mut Writer) -> Result<(), EncodeError> {
        w.i16(self.api_key);
        w.i16(self.api_version);
        w.i32(self.correlation_id);
        w.string_opt("RequestHeader.client_id", false, self.client_id.as_deref())?;
        if self.is_flexible() {
            w.uvarint(0);
        }
        Ok(())
    }

    fn is_flexible(&self) -> bool {
        ApiKey::from_i16(self.api_key).is_some_and(|key| key.is_flexible(self.api_version))
    }
}

/// Header versions 0 and 1 (with tagged fields), chosen by the API and its version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResponseHeader {
    pub correlation_id: i32,
}

impl ResponseHeader {
    pub fn decode(r: &mut Reader, key: ApiKey, version: i16) -> Result<Self, DecodeError> {
        let correlation_id = r.i32("ResponseHeader.correlation_id")?;
        if Self::is_flexible(key, version) {
            r.skip_tags("ResponseHeader")?;
        }
        Ok(ResponseHeader { correlation_id })
    }

    pub fn encode(&self, w: &mut Writer, key: ApiKey, version: i16) {
        w.i32(self.correlation_id);
        if Self::is_flexible(key, version) {
            w.uvarint(0);
        }
    }

    /// ApiVersions is always answered with header version 0: the client does not yet know what the broker speaks (KIP-511).
    fn is_flexible(key: ApiKey, version: i16) -> bool {
        key != ApiKey::ApiVersions && key.is_flexible(version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn bytes(encode: impl FnOnce(&mut Writer)) -> Bytes {
        let mut w = Writer::new();
        encode(&mut w);
        w.into_bytes()
    }

    #[test]
    fn request_headers() {
        // Metadata 8 is not flexible, 9 is; key 4 is dead; ApiVersions 99 is from the future and still flexible.
        for (api_key, api_version, tags) in
            [(3, 8, false), (3, 9, true), (17, 1, false), (4, 9, false), (18, 99, true)]
        {
            for client_id in [None, Some(Str::new()), Some(Str::from("kcat"))] {
                let header = RequestHeader { api_key, api_version, correlation_id: 7, client_id };
                let encoded = bytes(|w| header.encode(w).unwrap());
                assert_eq!(
                    encoded.len(),
                    10 + header.client_id.as_ref().map_or(0, |id| id.len()) + usize::from(tags)
                );
                let mut r = Reader::new(encoded);
                assert_eq!(RequestHeader::decode(&mut r), Ok(header));
                r.finish("RequestHeader").unwrap();
            }
        }
    }

    #[test]
    fn response_headers() {
        for (key, version, len) in [
            (ApiKey::Metadata, 8, 4),
            (ApiKey::Metadata, 9, 5),
            (ApiKey::ApiVersions, 0, 4),
            (ApiKey::ApiVersions, 4, 4),
        ] {
            let encoded = bytes(|w| ResponseHeader { correlation_id: -5 }.encode(w, key, version));
            assert_eq!(encoded.len(), len);
            let mut r = Reader::new(encoded);
            assert_eq!(
                ResponseHeader::decode(&mut r, key, version),
                Ok(ResponseHeader { correlation_id: -5 })
            );
            r.finish("ResponseHeader").unwrap();
        }
    }
}
