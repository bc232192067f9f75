//! What is no broker, or a broken one, is an error within the time allowed, never a hang nor a large allocation.

use corelog_client::{Client, ClientConfig, Error, block_on};
use corelog_wire::messages::api_versions_response::ApiVersion;
use corelog_wire::messages::metadata_response::Broker;
use corelog_wire::messages::{ApiVersionsResponse, MetadataResponse, Response};
use corelog_wire::{ApiKey, Reader, RequestHeader, frame};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

/// Connects to a listener that answers the first request with these bytes, and then closes, or keeps quiet.
fn meet(answer: &'static [u8], close: bool) -> (Error, Duration) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        let mut kept = Vec::new();
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 1024]);
            let _ = stream.write_all(answer);
            if !close {
                kept.push(stream);
            }
        }
    });
    let mut config = ClientConfig::new(&address);
    config.connect_timeout = Duration::from_millis(300);
    let started = Instant::now();
    let error = block_on(Client::connect(config)).unwrap_err();
    (error, started.elapsed())
}

#[test]
fn answers_that_are_none() {
    for (answer, close) in [
        (&b""[..], true),
        (b"", false),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", false),
        // A length of 2^31 - 1, and of less than nothing.
        (b"\x7f\xff\xff\xff\0\0\0\0", false),
        (b"\xff\xff\xff\xff\0\0\0\0", false),
        (b"\0\0\0\0", false),
        // An ApiVersions answer that claims 2^31 - 1 APIs.
        (b"\0\0\0\x0a\0\0\0\0\0\0\x7f\xff\xff\xff", false),
        (b"\0\0\0\x0f\0\0\0\0\0\0\xff\xff\xff\xff\x0f\0\0\0\0", false),
        // Half a frame.
        (b"\0\0\0\x10\0\0\0\0\0", true),
        // A TLS alert.
        (b"\x15\x03\x03\0\x02\x02\x46", false),
    ] {
        let (error, took) = meet(answer, close);
        assert!(took < Duration::from_secs(3), "{answer:?}: {took:?}");
        assert!(error.to_string().contains("127.0.0.1:"), "it says who: {error}");
    }
}

#[test]
fn many_that_do_not_answer_take_no_longer_than_a_call_may() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let mut config = ClientConfig::new(&[&*address; 8].join(","));
    (config.connect_timeout, config.api_timeout) = (Duration::from_secs(3), Duration::from_millis(300));
    let started = Instant::now();
    let error = block_on(Client::connect(config)).unwrap_err();
    assert!(matches!(error, Error::Timeout { .. }), "{error}");
    assert!(started.elapsed() < Duration::from_secs(12), "{:?}", started.elapsed());
}

#[test]
fn another_protocol_is_named() {
    for (answer, name) in
        [(&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], "HTTP"), (b"\x15\x03\x03\0\x02\x02\x46", "TLS")]
    {
        let (error, _) = meet(answer, false);
        assert!(error.to_string().contains(&format!("it speaks {name}")), "{error}");
    }
}

/// A broker that says it is elsewhere.
fn misplaced(mut stream: TcpStream) -> Option<()> {
    loop {
        let mut length = [0; 4];
        stream.read_exact(&mut length).ok()?;
        let mut request = vec![0; u32::from_be_bytes(length) as usize];
        stream.read_exact(&mut request).ok()?;
        let header = RequestHeader::decode(&mut Reader::new(request.into())).unwrap();
        let api = |(key, max_version): (ApiKey, i16)| ApiVersion {
            api_key: key.into(),
            min_version: 0,
            max_version,
        };
        let apis = [(ApiKey::ApiVersions, 3), (ApiKey::Metadata, 8)];
        let answer = match ApiKey::from_i16(header.api_key)? {
            ApiKey::ApiVersions => encoded(
                &ApiVersionsResponse { api_keys: apis.into_iter().map(api).collect(), ..Default::default() },
                &header,
            ),
            _ => {
                let elsewhere = Broker { node_id: 1, host: "127.0.0.1".into(), port: 1, rack: None };
                encoded(&MetadataResponse { brokers: vec![elsewhere], ..Default::default() }, &header)
            }
        };
        stream.write_all(&answer).ok()?;
    }
}

fn encoded<R: Response>(response: &R, to: &RequestHeader) -> Vec<u8> {
    frame::response(response, to.api_version, to.correlation_id).unwrap().concat()
}

#[test]
fn an_address_that_the_cluster_gave_is_told_as_such() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut config = ClientConfig::new(&listener.local_addr().unwrap().to_string());
    (config.api_timeout, config.connect_timeout) = (Duration::from_millis(500), Duration::from_millis(300));
    std::thread::spawn(move || listener.incoming().for_each(|stream| _ = misplaced(stream.unwrap())));
    let error = block_on(async { Client::connect(config).await?.admin().api_versions(1).await }).unwrap_err();
    let error = error.to_string();
    assert!(error.contains("127.0.0.1:1:") && error.contains("advertised.listeners"), "{error}");
}
