use super::super::Case;
use super::super::session::Session;
use anyhow::Result;
use corelog_wire::messages::{ApiVersionsRequest, ApiVersionsResponse, Message, MetadataRequest, Request};
use corelog_wire::{RequestHeader, Writer};

pub const CASES: &[Case] = &[
    Case { name: "api versions", run: offered },
    Case { name: "api versions client names", run: client_names },
    Case { name: "unknown versions and keys", run: unknown },
];

fn request(name: &str, version: &str) -> ApiVersionsRequest {
    ApiVersionsRequest { client_software_name: name.into(), client_software_version: version.into() }
}

fn offered(s: &mut Session) -> Result<()> {
    s.each("ask", |_| request("conformance", "1.0"));
    Ok(())
}

fn client_names(s: &mut Session) -> Result<()> {
    for (step, name, version) in [
        ("no name", "", "1.0"),
        ("no version", "conformance", ""),
        ("space", "con formance", "1.0"),
        ("dash first", "-conformance", "1.0"),
        ("dot last", "conformance", "1.0."),
        ("one letter", "c", "1"),
        ("dots and dashes", "a.b-c.d", "1-2.3"),
        ("not ascii", "é", "1"),
    ] {
        for v in 3..=s.newest::<ApiVersionsRequest>() {
            s.ask(step, v, &request(name, version));
        }
    }
    Ok(())
}

/// A frame with a header of any key and version, and a body of bytes.
fn frame(key: i16, version: i16, body: &[u8]) -> Result<Vec<u8>> {
    let mut w = Writer::new();
    let header = RequestHeader {
        api_key: key,
        api_version: version,
        correlation_id: 77,
        client_id: Some("conformance".into()),
    };
    header.encode(&mut w)?;
    let content = [&w.into_bytes(), body].concat();
    Ok([&(content.len() as i32).to_be_bytes(), content.as_slice()].concat())
}

/// ApiVersions says what it knows when asked in a version that it does not know (KIP-511); all else closes the connection.
fn unknown(s: &mut Session) -> Result<()> {
    let body = request("conformance", "1.0").to_bytes(3)?;
    for version in [5, 99, i16::MAX] {
        s.send_frame::<ApiVersionsResponse>(&format!("version {version}"), &frame(18, version, &body)?, 0)?;
    }
    s.send_frame::<ApiVersionsResponse>("version -1", &frame(18, -1, &body)?, 0)?;
    let newest = s.newest::<MetadataRequest>();
    s.send_frame::<<MetadataRequest as Request>::Response>(
        "metadata too new",
        &frame(3, newest + 1, &[0; 8])?,
        0,
    )?;
    for key in [-1, 4, 7, 95, i16::MAX] {
        s.send_frame::<ApiVersionsResponse>(&format!("key {key}"), &frame(key, 0, &[0; 8])?, 0)?;
    }
    s.send_frame::<ApiVersionsResponse>("body cut off", &frame(18, 3, &body[..3])?, 0)?;
    s.send_frame::<ApiVersionsResponse>("bytes after the body", &frame(18, 0, &[1, 2, 3])?, 0)?;
    s.send_frame::<ApiVersionsResponse>("length -1", &(-1i32).to_be_bytes(), 0)?;
    s.send_frame::<ApiVersionsResponse>("length 0", &[0; 4], 0)?;
    s.send_frame::<ApiVersionsResponse>("length 2^31-1", &i32::MAX.to_be_bytes(), 0)?;
    Ok(())
}
