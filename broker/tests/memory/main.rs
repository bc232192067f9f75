//! What clients can have a broker hold that no budget counts. The production server in a simulated world, whose memory
//! is counted as it is allocated: what an attacker gets in many steps shows in one here.

// The others', used in part.
#[allow(dead_code)]
#[path = "../simulation/connection.rs"]
mod connection;
#[allow(dead_code)]
#[path = "../answers/world.rs"]
mod world;

mod answers;
mod requests;
mod waits;

use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use corelog_io::{Stream, sleep};
use corelog_wire::messages::CreateTopicsRequest;
use corelog_wire::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use corelog_wire::testing::CountingAllocator;
use corelog_wire::{Request, Uuid, frame};

use connection::Connection;
use world::{Client, World};

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

/// From here on what is held is compared with what was held here.
struct Since(isize);

impl Since {
    async fn now() -> Since {
        // What the steps before have left is let go.
        sleep(Duration::from_secs(1)).await;
        CountingAllocator::forget_peak();
        Since(CountingAllocator::held())
    }

    #[track_caller]
    fn holds_at_most(&self, bytes: usize) {
        let more = CountingAllocator::held() - self.0;
        assert!(more <= bytes as isize, "{more} bytes more are held, and {bytes} may be");
    }

    #[track_caller]
    fn held_at_most(&self, bytes: usize) {
        let more = CountingAllocator::peak() - self.0;
        assert!(more <= bytes as isize, "{more} bytes more were held, and {bytes} may be");
    }
}

/// A broker of one core with 64 MiB: 16 MiB for requests, 8 for answers to fetches, 4 for groups, 2 for fetch sessions.
fn broker() -> World {
    World::start(&[
        ("corelog.cores", "0"),
        ("corelog.memory", "64MiB"),
        ("group.initial.rebalance.delay.ms", "500"),
    ])
}

async fn open(client: Client) -> Stream {
    Stream::connect(client.address).await.expect("the broker is there")
}

async fn send(stream: &Stream, bytes: impl Into<Bytes>) {
    stream.send(vec![bytes.into().into()]).await.expect("the broker reads");
}

fn framed<R: Request>(request: &R, version: i16) -> Vec<u8> {
    frame::request(request, version, 1, None).expect("it is a request").concat()
}

/// `request` as a frame of `size` bytes: what follows a request is let pass.
fn padded(mut request: Vec<u8>, size: usize) -> Vec<u8> {
    assert!(request.len() <= size);
    request.resize(size, 0);
    request[..4].copy_from_slice(&((size - 4) as i32).to_be_bytes());
    request
}

/// An answer's bytes, or `None` when the connection ends.
async fn answer(stream: &Stream) -> Option<Bytes> {
    let mut buffer = BytesMut::new();
    loop {
        if let Some(prefix) = buffer.first_chunk() {
            let size = u32::from_be_bytes(*prefix) as usize;
            if buffer.len() >= 4 + size {
                buffer.advance(4);
                return Some(buffer.split_to(size).freeze());
            }
        }
        if stream.read(&mut buffer, 64 * KIB).await.ok()? == 0 {
            return None;
        }
    }
}

async fn create_topic(connection: &mut Connection, partitions: i32, configs: &[(&str, &str)]) -> Uuid {
    let config =
        |&(name, value): &(&str, &str)| CreatableTopicConfig { name: name.into(), value: Some(value.into()) };
    let topic = CreatableTopic {
        name: "t".into(),
        num_partitions: partitions,
        replication_factor: 1,
        configs: configs.iter().map(config).collect(),
        ..Default::default()
    };
    let request = CreateTopicsRequest { topics: vec![topic], ..Default::default() };
    let created = connection.call(&request, 7).await.expect("an answer").topics.remove(0);
    assert_eq!(created.error_code, 0, "{:?}", created.error_message);
    created.topic_id
}
