//! What is no broker, or a broken one, is an error within the time allowed, never a hang nor a large allocation.

use corelog_client::{Client, ClientConfig, Error, block_on};
use std::io::{Read, Write};
use std::net::TcpListener;
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
