//! The same on cores, sockets and clocks that are real: two brokers of one process, on loopback.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use corelog_broker::peer::{self, BrokerId, Incarnation, LinkSeat, Links, LinksConfig, PeerId};
use corelog_io::{Handle, RunConfig, available_cpus, now, run_glommio_with, sleep};

use crate::shard::{Traveller, call, peers_of};

fn free_port() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

struct Plan {
    broker: BrokerId,
    incarnation: u64,
    listen: SocketAddr,
    /// The other broker: its id, its address and its shards.
    other: (BrokerId, SocketAddr, usize),
    frames: u64,
}

/// A shard that ends when it has had its frames of all its peers, and its calls were answered.
async fn run(plan: Rc<Plan>, seat: LinkSeat) {
    let config = LinksConfig {
        broker: plan.broker,
        incarnation: Incarnation(plan.incarnation),
        cluster: Some("real".into()),
        feature_level: 1,
        feature_level_required: 0,
        listen: Some(plan.listen),
        receive_bytes: 16 << 20,
        frame_bytes_max: 4 << 20,
    };
    let traveller = Traveller::new(config.incarnation);
    let links = Links::start(config, seat, traveller.clone()).await.expect("the port is free");
    let (broker, address, shards) = plan.other;
    links.set_address(broker, Some(address));
    let peers: Vec<PeerId> = peers_of(broker, shards).collect();
    peers.iter().for_each(|peer| links.want(*peer));
    let since = now();
    let mut calls = peers.iter().cycle();
    while !peers.iter().all(|peer| traveller.received(*peer) >= Some(plan.frames))
        || traveller.answered.get() < 20
    {
        assert!(since.elapsed() < Duration::from_secs(20), "{:?}", traveller.told.borrow());
        traveller.owe(&links, 20);
        let _ = call(&links, &traveller, *calls.next().unwrap(), Duration::from_secs(3)).await;
        sleep(Duration::from_millis(1)).await;
    }
    // The other end has not had all of its own yet.
    let until = now() + Duration::from_secs(1);
    while now() < until {
        traveller.owe(&links, 20);
        sleep(Duration::from_millis(5)).await;
    }
}

fn start(plan: Plan, shards: usize) -> Handle<()> {
    let cpus = available_cpus().unwrap();
    let config = RunConfig::new((0..shards).map(|shard| cpus[shard % cpus.len()]).collect());
    let plan = std::sync::Arc::new(plan);
    run_glommio_with(config, peer::seats(shards), move |_, seat| {
        let Plan { broker, incarnation, listen, other, frames } = *plan;
        run(Rc::new(Plan { broker, incarnation, listen, other, frames }), seat)
    })
    .unwrap()
}

#[test]
fn two_brokers_on_loopback() {
    let (low, high) = (BrokerId(1), BrokerId(2));
    for [shards_low, shards_high] in [[1, 1], [2, 3]] {
        let [at_low, at_high] = [free_port(), free_port()];
        let low_plan = Plan {
            broker: low,
            incarnation: 1,
            listen: at_low,
            other: (high, at_high, shards_high),
            frames: 500,
        };
        let high_plan = Plan {
            broker: high,
            incarnation: 1,
            listen: at_high,
            other: (low, at_low, shards_low),
            frames: 500,
        };
        // Who connects starts first, and finds nobody at first.
        let first = start(low_plan, shards_low);
        std::thread::sleep(Duration::from_millis(300));
        let second = start(high_plan, shards_high);
        first.join().unwrap();
        second.join().unwrap();
    }
}
