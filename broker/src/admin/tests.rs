//! The service over real sockets.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;

use super::{Configs, Health, Scrape, bind, serve};
use crate::config::describe::{self, Wanted};
use crate::config::{ConfigMap, Endpoint, Layers, StaticConfig};
use crate::metrics::{Page, ShardMetrics};

fn configs() -> Configs {
    Arc::new(|| {
        let fixed = StaticConfig::of([("num.partitions", "3")]).unwrap();
        let none = ConfigMap::new();
        let layers = Layers { broker: &none, cluster: &none, fixed: &fixed };
        let entries = describe::broker(&layers, Wanted(None));
        Box::pin(std::future::ready(entries))
    })
}

fn scrape() -> Scrape {
    Arc::new(|| {
        Box::pin(async {
            let metrics = ShardMetrics::new();
            metrics.request_received(5);
            Page { snapshots: vec![metrics.snapshot(0)], entities: None }
        })
    })
}

async fn ask(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

async fn get(address: SocketAddr, path: &str) -> String {
    ask(address, &format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")).await
}

fn local() -> Endpoint {
    Endpoint { host: "127.0.0.1".into(), port: 0 }
}

#[tokio::test]
async fn paths() {
    let listener = bind(&local()).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (health, watch) = watch::channel(Health::Starting("opening logs".into()));
    let service = tokio::spawn(serve(listener, watch, scrape(), configs()));

    let answer = get(address, "/health/live").await;
    assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.ends_with("live\n"), "{answer}");
    let answer = get(address, "/health/ready").await;
    assert!(answer.starts_with("HTTP/1.1 503") && answer.ends_with("starting: opening logs\n"), "{answer}");
    health.send_replace(Health::Ready);
    assert!(get(address, "/health/ready").await.starts_with("HTTP/1.1 200 OK"));
    health.send_replace(Health::Stopping);
    let answer = get(address, "/health/ready").await;
    assert!(answer.starts_with("HTTP/1.1 503") && answer.ends_with("stopping\n"), "{answer}");

    let answer = get(address, "/metrics").await;
    assert!(answer.contains("content-type: text/plain; version=0.0.4; charset=utf-8"), "{answer}");
    assert!(answer.contains("\ncorelog_received_bytes_total{core=\"0\"} 5\n"), "{answer}");
    assert!(answer.contains("\nprocess_open_fds "), "{answer}");

    let answer = get(address, "/config").await;
    let body = answer.split_once("\r\n\r\n").unwrap().1;
    let entries: Vec<serde_json::Value> = serde_json::from_str(body).unwrap();
    let entry = entries.iter().find(|entry| entry["name"] == "num.partitions").unwrap();
    assert_eq!((&entry["value"], &entry["source"]), (&"3".into(), &"STATIC_BROKER_CONFIG".into()));

    assert!(get(address, "/").await.starts_with("HTTP/1.1 404"));
    let answer =
        ask(address, "POST /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
            .await;
    assert!(answer.starts_with("HTTP/1.1 405"), "{answer}");
    let answer = ask(address, &format!("GET /{} HTTP/1.1\r\n", "x".repeat(32 << 10))).await;
    assert!(answer.starts_with("HTTP/1.1 4"), "{answer}");
    service.abort();
}

#[tokio::test]
async fn an_address_in_use_is_said() {
    let first = bind(&local()).await.unwrap();
    let taken = Endpoint { host: "127.0.0.1".into(), port: first.local_addr().unwrap().port() };
    let error = bind(&taken).await.unwrap_err().to_string();
    assert!(
        error.contains(&taken.to_string()) && error.contains("choose another address with --admin"),
        "{error}"
    );
    let nowhere = Endpoint { host: "name.invalid".into(), port: 1 };
    let error = bind(&nowhere).await.unwrap_err().to_string();
    assert!(error.contains("can't find the address of 'name.invalid'"), "{error}");
}

/// Time is virtual: what waits for a timeout gets it at once.
#[tokio::test(start_paused = true)]
async fn silent_connections_make_room() {
    let listener = bind(&local()).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (_health, watch) = watch::channel(Health::Ready);
    let service = tokio::spawn(serve(listener, watch, scrape(), configs()));
    let mut silent = Vec::new();
    for _ in 0..100 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET /health").await.unwrap();
        silent.push(stream);
    }
    let answer = tokio::time::timeout(Duration::from_secs(300), get(address, "/health/live")).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    service.abort();
}

/// An answer that is not read fills the kernel's memory first: more of them are asked for than it takes.
#[tokio::test]
async fn connections_that_do_not_read_make_room() {
    let listener = bind(&local()).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (_health, watch) = watch::channel(Health::Ready);
    let service = tokio::spawn(serve(listener, watch, scrape(), configs()));
    let mut stopped = Vec::new();
    for _ in 0..100 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all("GET /config HTTP/1.1\r\nhost: x\r\n\r\n".repeat(300).as_bytes()).await.unwrap();
        stopped.push(stream);
    }
    // Until the kernel takes no more.
    tokio::time::sleep(Duration::from_secs(5)).await;
    tokio::time::pause();
    let answer = tokio::time::timeout(Duration::from_secs(300), get(address, "/health/live")).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    service.abort();
}
