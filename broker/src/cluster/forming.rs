//! A broker with a data directory that belongs to no cluster yet: it founds one with its seeds, or joins theirs. It runs before
//! the broker proper, on a core of its own, and leaves nothing but an identity. [`super::founding`] has the rules.

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use corelog_io::{Instant, ListenOptions, Listener, compute, now, sleep};
use corelog_wire::Uuid;
use futures_util::FutureExt;
use futures_util::future::join_all;

use super::founding::{Candidate, Round, Step, is_of_a_cluster};
use super::join::{JoinAnswer, JoinRequest};
use super::status::{Standing, Status};
use super::{CallKind, FEATURE_LEVEL};
use crate::config::Endpoint;
use crate::identity::{Belongs, Identity};
use crate::peer::{BrokerId, Callee, Incarnation, LinkSeat, Links, LinksConfig};
use crate::replication::Carrier;

/// Between two rounds of questions.
const PAUSE: Duration = Duration::from_millis(100);
/// For an answer: who was not reached may have to be waited for a second before it is tried again.
const STATUS_MAX: Duration = Duration::from_secs(2);
/// The answer of a cluster is there when a majority has it.
const JOIN_MAX: Duration = Duration::from_secs(5);
/// Who leads may change while it is looked for.
const HOPS_MAX: usize = 5;
/// How often it is told what is waited for.
const TELL_INTERVAL: Duration = Duration::from_secs(5);
/// A port that is taken is asked for so long: a killed process may have it for a moment.
const PORT_PATIENCE: Duration = Duration::from_secs(1);
const PORT_RETRY: Duration = Duration::from_millis(20);
/// Those who form a cluster have no node ids yet, and call each other under numbers that nobody has for one.
const FORMING_IDS: i32 = 1 << 30;
const RECEIVE_BYTES: u64 = 4 << 20;

/// What a broker is to come to a cluster with.
#[derive(Debug, Clone)]
pub struct Forming {
    pub candidate: Candidate,
    pub data_dir: PathBuf,
    /// Of `candidate.peer`.
    pub listen: SocketAddr,
    pub shards: usize,
    pub rack: Option<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum FormingError {
    #[error(
        "cannot listen for brokers on {address}: {error}; choose an address of this machine with --peer HOST:PORT"
    )]
    Listening { address: SocketAddr, error: io::Error },
    #[error("cannot write the identity file in {}: {error}", data_dir.display())]
    Keeping { data_dir: PathBuf, error: io::Error },
    #[error("{0}")]
    Refused(String),
}

/// Completes when the broker belongs to a cluster, durably. It may be given up at any point.
pub async fn form(seat: LinkSeat, forming: Forming) -> Result<Identity, FormingError> {
    let carrier = Carrier::new();
    let is_wary = Rc::new(Cell::new(false));
    let (candidate, wary) = (forming.candidate.clone(), is_wary.clone());
    carrier.serve(CallKind::Status, move |_| {
        let status = status_of(&candidate, wary.get());
        async move { Ok(status.encode().into()) }.boxed_local()
    });
    let listening = |error| FormingError::Listening { address: forming.listen, error };
    await_port(forming.listen).await.map_err(listening)?;
    let config = links_config(&forming);
    let links = Rc::new(Links::start(config, seat, carrier.clone()).await.map_err(listening)?);
    carrier.set_links(&links);
    Former { forming: &forming, carrier, is_wary, told: Cell::new(None) }.run().await
}

fn status_of(candidate: &Candidate, is_wary: bool) -> Status {
    Status {
        directory: candidate.directory,
        node_id: candidate.node_id,
        seeds: candidate.seeds.clone(),
        standing: if is_wary { Standing::Wary } else { Standing::Empty },
    }
}

fn links_config(forming: &Forming) -> LinksConfig {
    LinksConfig {
        broker: BrokerId(FORMING_IDS + (corelog_io::random_u64() % FORMING_IDS as u64) as i32),
        incarnation: Incarnation(corelog_io::random_u64()),
        cluster: None,
        feature_level: FEATURE_LEVEL,
        feature_level_required: FEATURE_LEVEL,
        listen: Some(forming.listen),
        receive_bytes: RECEIVE_BYTES,
        frame_bytes_max: RECEIVE_BYTES as usize,
    }
}

/// Completes when nobody has the port, or with the error that it has for long.
pub async fn await_port(address: SocketAddr) -> io::Result<()> {
    let until = now() + PORT_PATIENCE;
    loop {
        match Listener::bind(address, ListenOptions { backlog: 1, dead_after: PORT_PATIENCE }) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && now() < until => {
                sleep(PORT_RETRY).await
            }
            bound => return bound.map(drop),
        }
    }
}

struct Former<'a> {
    forming: &'a Forming,
    carrier: Rc<Carrier>,
    /// It has heard of a cluster: it says so, and is nobody's founder.
    is_wary: Rc<Cell<bool>>,
    told: Cell<Option<Instant>>,
}

impl Former<'_> {
    async fn run(&self) -> Result<Identity, FormingError> {
        let candidate = &self.forming.candidate;
        let mut before = None;
        loop {
            let round = self.ask_all().await;
            let was_wary = self.is_wary.replace(is_of_a_cluster(&round));
            match candidate.step(was_wary, before.as_ref(), &round) {
                Step::Wait(lines) => {
                    self.tell(&lines);
                    sleep(PAUSE).await;
                }
                Step::AskAgain => {}
                Step::Found(founders) => {
                    self.is_wary.set(true);
                    let own = founders.iter().find(|founder| founder.directory == candidate.directory);
                    let node_id = own.expect("it is one of them").node_id;
                    let id = Uuid::from_random(u128::from_be_bytes(corelog_io::random_secret())).to_string();
                    return self.enter(candidate.founder_of(id, node_id, founders)).await;
                }
                Step::Enter(identity) => return self.enter(identity).await,
                Step::Join { cluster_id, at } => {
                    match self.join(&cluster_id, at).await.map_err(FormingError::Refused)? {
                        Ok(identity) => return self.enter(identity).await,
                        Err(why) => {
                            self.tell(&[format!(
                                "cluster {cluster_id} does not take this broker yet: {why}"
                            )]);
                            sleep(PAUSE).await;
                        }
                    }
                }
                Step::Refuse(why) => return Err(FormingError::Refused(why)),
            }
            before = Some(round).filter(|_| !self.is_wary.get());
        }
    }

    async fn enter(&self, identity: Identity) -> Result<Identity, FormingError> {
        let data_dir = &self.forming.data_dir;
        identity
            .keep(data_dir)
            .await
            .map_err(|error| FormingError::Keeping { data_dir: data_dir.clone(), error })?;
        let how = match &identity.belongs {
            Belongs::Founder(founders) if founders[0].directory == identity.directory => "founded",
            Belongs::Founder(_) => "founded with others",
            Belongs::Joined { .. } | Belongs::Alone => "joined",
        };
        tracing::info!(
            cluster = identity.cluster_id,
            node_id = identity.node_id,
            how,
            "belongs to a cluster"
        );
        Ok(identity)
    }

    async fn ask_all(&self) -> Round {
        let asked = self.forming.candidate.others().map(async |seed| {
            let said = self.call(seed, CallKind::Status, Bytes::new(), STATUS_MAX).await;
            (seed.clone(), said.and_then(Status::decode))
        });
        join_all(asked).await
    }

    async fn call(
        &self,
        to: &Endpoint,
        kind: CallKind,
        content: Bytes,
        limit: Duration,
    ) -> Result<Bytes, String> {
        let address = resolve(to.clone()).await?;
        let answer = self.carrier.call(Callee::Address(address), kind, content.into(), limit).await;
        Ok(answer.map_err(|error| error.to_string())?.head)
    }

    /// Asks these, and whomever they name. The outer error is for ever, the inner one for now.
    async fn join(&self, cluster_id: &str, at: Vec<Endpoint>) -> Result<Result<Identity, String>, String> {
        let Forming { candidate, shards, rack, listen, .. } = self.forming;
        let request = JoinRequest {
            directory: candidate.directory,
            node_id: candidate.node_id,
            // Who lets it in must be able to reach it without looking up a name.
            peer: Endpoint { host: listen.ip().to_string(), port: listen.port() },
            shards: *shards,
            rack: rack.clone(),
        };
        let mut to_ask = at;
        let mut why = "nobody answers".to_owned();
        for _ in 0..HOPS_MAX {
            let Some(asked) = to_ask.pop() else { break };
            let answer = self.call(&asked, CallKind::Join, request.encode(), JOIN_MAX).await;
            why = match answer.and_then(JoinAnswer::decode) {
                Ok(JoinAnswer::Joined { cluster_id: joined, node_id, replica, founders })
                    if joined == cluster_id =>
                {
                    candidate.check_node_id(node_id)?;
                    let belongs = Belongs::Joined { replica, founders };
                    return Ok(Ok(Identity {
                        cluster_id: joined,
                        node_id,
                        directory: candidate.directory,
                        belongs,
                    }));
                }
                Ok(JoinAnswer::Joined { cluster_id: other, .. }) => {
                    format!("{asked} belongs to cluster {other} now")
                }
                Ok(JoinAnswer::Ask(leader)) => {
                    let why = format!("{asked} says that {leader} leads it");
                    to_ask.push(leader);
                    why
                }
                Ok(JoinAnswer::NotNow(what)) => format!("{asked} says: {what}"),
                Ok(JoinAnswer::Refused(what)) => {
                    return Err(format!("cluster {cluster_id} does not take this broker: {what}"));
                }
                Err(what) => format!("{asked}: {what}"),
            };
        }
        Ok(Err(why))
    }

    /// What is waited for: told at once, and then again from time to time.
    fn tell(&self, lines: &[String]) {
        let is_time = self.told.get().is_none_or(|told| told.elapsed() >= TELL_INTERVAL);
        if is_time && !lines.is_empty() {
            self.told.set(Some(now()));
            tracing::info!("this broker belongs to no cluster yet: {}", lines.join("; "));
        }
    }
}

/// A name may be known only when its machine is up, and be another address later: so it is looked up each time. That may block.
async fn resolve(endpoint: Endpoint) -> Result<SocketAddr, String> {
    compute(move || endpoint.resolve()).await
}
