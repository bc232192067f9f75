//! A broker with an empty disk joins, as its process does before its cores run.

use std::cell::RefCell;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use corelog_broker::cluster::forming::{Forming, form};
use corelog_broker::cluster::founding::Candidate;
use corelog_broker::config::Endpoint;
use corelog_broker::identity::Identity;
use corelog_broker::peer;
use corelog_io::fs;
use corelog_wire::Uuid;

use crate::plan::DATA_DIR;
use crate::real_client::story::{PEER_PORT, Story};

const JOINED_MAX: Duration = Duration::from_secs(60);

impl Story {
    pub fn join(&mut self, at: usize) {
        let endpoint =
            |at: usize| Endpoint { host: self.brokers[at].machine.ip().to_string(), port: PEER_PORT };
        let mut directory = [0; 16];
        directory[..8].copy_from_slice(&self.dice.next().to_be_bytes());
        let forming = Forming {
            candidate: Candidate {
                directory: Uuid(directory),
                node_id: Some(at as i32 + 1),
                peer: endpoint(at),
                seeds: (0..self.brokers.len()).map(endpoint).collect(),
            },
            data_dir: PathBuf::from(DATA_DIR),
            listen: (self.brokers[at].machine.ip(), PEER_PORT).into(),
            shards: 1,
            rack: None,
        };
        let joined: Rc<RefCell<Option<Identity>>> = Rc::default();
        let told = joined.clone();
        let machine = self.brokers[at].machine.clone();
        machine.start_with(peer::seats(1), move |_, seat| {
            let (forming, told) = (forming.clone(), told.clone());
            async move {
                fs::create_dir_all(&forming.data_dir).await.expect("the disk is new");
                let identity = form(seat, forming).await.unwrap_or_else(|error| panic!("joining: {error}"));
                told.replace(Some(identity));
            }
        });
        let until = self.sim.elapsed() + JOINED_MAX;
        while joined.borrow().is_none() {
            assert!(self.sim.elapsed() < until, "broker {} has not joined after {JOINED_MAX:?}", at + 1);
            self.sim.run_steps(50);
        }
        machine.kill();
        self.identities[at] = joined.take();
    }
}
