//! Consumers, and the reader that checks everything in the end.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use corelog_io::sleep;
use corelog_wire::ErrorCode;
use corelog_wire::fetch::{FetchPartition, FetchRequest, FetchResponse, FetchTopic, ForgottenTopic};
use corelog_wire::messages::list_offsets_request::{Partition, Topic};
use corelog_wire::messages::{DeleteRecordsRequest, ListOffsetsRequest, delete_records_request};
use corelog_wire::records::split_batches;

use crate::connection::Connection;
use crate::shared::{Shared, below, topic_name};
use crate::truth::{Key, Place};

const TOPIC_IDS_FROM: i16 = 13;
const SESSIONS_FROM: i16 = 7;
/// ListOffsets' names of the log's ends.
const LATEST: i64 = -1;
const EARLIEST: i64 = -2;

/// How a consumer asks.
#[derive(Clone, Copy)]
struct Manner {
    version: i16,
    session: bool,
    max_wait_ms: i32,
    min_bytes: i32,
    max_bytes: i32,
    partition_max_bytes: i32,
}

impl Manner {
    fn random() -> Manner {
        let version = [4, 6, 7, 10, 11, 12, 13, 15, 17, 18][below(10) as usize];
        Manner {
            version,
            session: version >= SESSIONS_FROM && below(3) > 0,
            max_wait_ms: [0, 20, 500, 5_000][below(4) as usize],
            min_bytes: [0, 1, 1, 2_000][below(4) as usize],
            max_bytes: [1, 5_000, 1 << 20][below(3) as usize],
            partition_max_bytes: [1, 3_000, 1 << 20][below(3) as usize],
        }
    }

    /// Waits long for any news.
    fn tail() -> Manner {
        Manner {
            max_wait_ms: 60_000,
            min_bytes: 1,
            max_bytes: 1 << 20,
            partition_max_bytes: 1 << 20,
            ..Manner::random()
        }
    }
}

/// The client's side of a fetch session (KIP-227).
#[derive(Default)]
struct Session {
    id: i32,
    epoch: i32,
    /// Where the broker thinks the client is.
    known: BTreeMap<Place, i64>,
}

struct Fetcher<'a> {
    shared: &'a Shared,
    manner: Manner,
    session: Session,
    positions: BTreeMap<Place, i64>,
    /// What was found, if somebody wants to know.
    found: BTreeMap<(Place, i64), Key>,
}

/// What came of a fetch.
enum Fetched {
    /// Records came, or none.
    Records(usize),
    /// Try again.
    Again,
}

impl Fetcher<'_> {
    fn request(&mut self) -> FetchRequest {
        let by_id = self.manner.version >= TOPIC_IDS_FROM;
        let full = !self.manner.session || self.session.id == 0;
        let known = &self.session.known;
        let mut topics: BTreeMap<usize, Vec<FetchPartition>> = BTreeMap::new();
        for (place, offset) in
            self.positions.iter().filter(|(place, at)| full || known.get(place) != Some(at))
        {
            topics.entry(place.0).or_default().push(FetchPartition {
                partition: place.1,
                fetch_offset: *offset,
                partition_max_bytes: self.manner.partition_max_bytes,
                current_leader_epoch: if below(2) == 0 { 0 } else { -1 },
                ..Default::default()
            });
        }
        let forgotten: Vec<Place> = match full {
            true => Vec::new(),
            false => known.keys().filter(|place| !self.positions.contains_key(place)).copied().collect(),
        };
        let truth = self.shared.truth.borrow();
        let topic_id = |topic: usize| if by_id { truth.topic_ids[&topic] } else { Default::default() };
        let name = |topic: usize| if by_id { Default::default() } else { topic_name(topic) };
        let topics = topics.into_iter().map(|(topic, partitions)| FetchTopic {
            topic: name(topic),
            topic_id: topic_id(topic),
            partitions,
        });
        let forgotten_topics_data = forgotten.into_iter().map(|place| ForgottenTopic {
            topic: name(place.0),
            topic_id: topic_id(place.0),
            partitions: vec![place.1],
        });
        FetchRequest {
            max_wait_ms: self.manner.max_wait_ms,
            min_bytes: self.manner.min_bytes,
            max_bytes: self.manner.max_bytes,
            isolation_level: below(2) as i8,
            session_id: self.session.id,
            session_epoch: if self.manner.session { self.session.epoch } else { -1 },
            topics: topics.collect(),
            forgotten_topics_data: forgotten_topics_data.collect(),
            ..Default::default()
        }
    }

    async fn fetch(&mut self, connection: &mut Connection) -> std::io::Result<Fetched> {
        let request = self.request();
        // What must be there, as far as anybody knows.
        let told: BTreeMap<Place, (i64, i64)> = {
            let mut truth = self.shared.truth.borrow_mut();
            let places = self.positions.keys();
            places
                .map(|place| {
                    let partition = truth.partition(*place);
                    (*place, (partition.high_watermark.max(partition.acked_end), partition.start_told))
                })
                .collect()
        };
        let response = connection.call(&request, self.manner.version).await?;
        match ErrorCode(response.error_code) {
            ErrorCode::NONE => {}
            ErrorCode::FETCH_SESSION_ID_NOT_FOUND | ErrorCode::INVALID_FETCH_SESSION_EPOCH => {
                assert_ne!(self.session.id, 0, "there was no session");
                self.session = Session::default();
                return Ok(Fetched::Again);
            }
            code => panic!("fetch: {}", code.message()),
        }
        if self.manner.session {
            let known = self.positions.clone();
            match (self.session.id, response.session_id) {
                (_, 0) => self.session = Session::default(),
                (0, id) => self.session = Session { id, epoch: 1, known },
                (id, same) => {
                    assert_eq!(id, same, "the session's id");
                    self.session.epoch += 1;
                    self.session.known = known;
                }
            }
        }
        Ok(self.take(response, &told))
    }

    fn take(&mut self, response: FetchResponse, told: &BTreeMap<Place, (i64, i64)>) -> Fetched {
        let mut bytes_taken = 0;
        let mut failed = false;
        for topic in response.responses {
            let number =
                self.shared.topic_of(&topic.topic, topic.topic_id, self.manner.version >= TOPIC_IDS_FROM);
            for data in topic.partitions {
                let place = (number, data.partition_index);
                let at = *self.positions.get(&place).unwrap_or_else(|| panic!("{place:?} was not asked for"));
                let (high_watermark, start) = told[&place];
                match ErrorCode(data.error_code) {
                    ErrorCode::NONE => {}
                    ErrorCode::OFFSET_OUT_OF_RANGE => {
                        let mut truth = self.shared.truth.borrow_mut();
                        let asked = truth.partition(place).start_asked;
                        assert!(at < asked, "{place:?}: offset {at} is out of range");
                        self.positions.insert(place, asked);
                        failed = true;
                        continue;
                    }
                    code => {
                        self.shared.expect_explained(code, "fetch");
                        failed = true;
                        continue;
                    }
                }
                assert!(
                    data.high_watermark >= high_watermark,
                    "{place:?}: the high watermark is {}, and was {high_watermark}",
                    data.high_watermark
                );
                assert!(data.last_stable_offset <= data.high_watermark || data.last_stable_offset == -1);
                if data.log_start_offset >= 0 {
                    assert!(
                        data.log_start_offset >= start,
                        "{place:?}: the log starts at {}",
                        data.log_start_offset
                    );
                }
                let records = Bytes::from(data.records.unwrap_or_default().concat());
                bytes_taken += records.len();
                let end = self.read(place, at, &records);
                assert!(
                    end <= data.high_watermark,
                    "{place:?}: {end} is above the high watermark {}",
                    data.high_watermark
                );
                self.positions.insert(place, end);
                let mut truth = self.shared.truth.borrow_mut();
                let partition = truth.partition(place);
                partition.high_watermark = partition.high_watermark.max(data.high_watermark);
            }
        }
        if failed {
            return Fetched::Again;
        }
        if bytes_taken == 0 && !self.shared.plan.is_crowded() {
            let missed = told.iter().find(|(place, (end, _))| self.positions[*place] < *end);
            assert!(missed.is_none(), "nothing was served, and there is more: {missed:?}");
        }
        Fetched::Records(bytes_taken)
    }

    /// Goes through the batches served at `at`; where they end.
    fn read(&mut self, place: Place, at: i64, records: &Bytes) -> i64 {
        let mut truth = self.shared.truth.borrow_mut();
        let mut end = at;
        for view in split_batches(records) {
            let view = view.unwrap_or_else(|error| panic!("{place:?} at {end}: {error}"));
            let header = *view.header();
            let starts_right = if end == at {
                header.base_offset <= at && at < header.next_offset()
            } else {
                header.base_offset == end
            };
            assert!(starts_right, "{place:?}: a gap at {end}: {header:?}");
            let key = truth.show(place, &view);
            self.found.insert((place, header.base_offset), key);
            end = header.next_offset();
        }
        end
    }
}

/// Reads here and there, and goes on from there for a while.
pub async fn wander(shared: Rc<Shared>) {
    while !shared.stopped() {
        let Some(mut connection) = shared.connect("wanderer").await else { return };
        let mut positions = BTreeMap::new();
        for place in shared.places() {
            let mut truth = shared.truth.borrow_mut();
            let partition = truth.partition(place);
            let end = partition.high_watermark.max(partition.acked_end);
            let span = (end - partition.start_told) as u64 + 1;
            if below(3) > 0 || positions.is_empty() {
                positions.insert(place, partition.start_told + below(span) as i64);
            }
        }
        let manner = Manner::random();
        let mut fetcher = Fetcher {
            shared: &shared,
            manner,
            session: Session::default(),
            positions,
            found: BTreeMap::new(),
        };
        for _ in 0..2 + below(20) {
            if shared.stopped() || fetcher.fetch(&mut connection).await.is_err() {
                break;
            }
            if below(10) == 0 && fetcher.positions.len() > 1 {
                fetcher.positions.pop_first();
            }
            sleep(shared.plan.pace.mul_f64(below(30) as f64 / 10.0)).await;
        }
    }
}

/// Follows every partition from its start, for as long as it lives; tells `number`'s positions to the story.
pub async fn follow(shared: Rc<Shared>, number: usize) {
    let places = shared.places();
    let mut positions: BTreeMap<Place, i64> = places.into_iter().map(|place| (place, 0)).collect();
    loop {
        let Some(mut connection) = shared.connect_to_finish("follower").await else { return };
        let (manner, session) = (Manner::tail(), Session::default());
        let mut fetcher = Fetcher { shared: &shared, manner, session, positions, found: BTreeMap::new() };
        while let Ok(fetched) = fetcher.fetch(&mut connection).await {
            shared.followers.borrow_mut().insert(number, fetcher.positions.clone());
            if let Fetched::Again = fetched {
                sleep(Duration::from_millis(20)).await;
            }
        }
        positions = fetcher.positions;
    }
}

/// Deletes records now and then.
pub async fn delete_records(shared: Rc<Shared>) {
    while !shared.stopped() {
        let Some(mut connection) = shared.connect("deleter").await else { return };
        loop {
            sleep(shared.plan.pace * (20 + below(200) as u32)).await;
            if shared.stopped() {
                return;
            }
            let places = shared.places();
            let place = places[below(places.len() as u64) as usize];
            let offset = {
                let mut truth = shared.truth.borrow_mut();
                let partition = truth.partition(place);
                let span = (partition.acked_end - partition.start_asked).max(0) as u64;
                let offset = partition.start_asked + below(span / 2 + 1) as i64;
                partition.start_asked = offset;
                offset
            };
            let request = DeleteRecordsRequest {
                topics: vec![delete_records_request::Topic {
                    name: topic_name(place.0),
                    partitions: vec![delete_records_request::Partition { partition_index: place.1, offset }],
                }],
                timeout_ms: 30_000,
            };
            let Ok(response) = connection.call(&request, below(3) as i16).await else { break };
            let answer = &response.topics[0].partitions[0];
            match answer.error_code {
                0 => {
                    assert!(answer.low_watermark >= offset, "{place:?}: deleted before {offset}");
                    let mut truth = shared.truth.borrow_mut();
                    let partition = truth.partition(place);
                    partition.start_told = partition.start_told.max(offset);
                }
                code => shared.expect_explained(ErrorCode(code), "DeleteRecords"),
            }
        }
    }
}

/// Reads every partition from its start to its end and has the truth check it. `last`: nobody produces any more, and
/// nothing is under way. `false`: damage was found.
pub async fn audit(shared: Rc<Shared>, last: bool) -> bool {
    for place in shared.places() {
        if !check(&shared, place, last).await {
            return false;
        }
    }
    true
}

/// As [`audit`], of one partition.
pub async fn check(shared: &Shared, place: Place, last: bool) -> bool {
    let Some((start, end)) = ends(shared, place).await else { return false };
    let mut manner = Manner { max_wait_ms: 0, ..Manner::random() };
    manner.max_bytes = 1 << 20;
    manner.partition_max_bytes = 200_000;
    let (session, positions) = (Session::default(), BTreeMap::from([(place, start)]));
    let mut fetcher = Fetcher { shared, manner, session, positions, found: BTreeMap::new() };
    let (mut connection, mut failures) = (None, 0);
    while fetcher.positions[&place] < end {
        if connection.is_none() {
            connection = shared.connect_to_finish("auditor").await;
            fetcher.session = Session::default();
        }
        let Some(open) = &mut connection else { return false };
        match fetcher.fetch(open).await {
            Ok(Fetched::Records(bytes)) => {
                assert!(bytes > 0 || shared.plan.is_crowded(), "{place:?}: the end is {end}");
            }
            Ok(Fetched::Again) if shared.gives_up(&mut failures) => return false,
            Ok(Fetched::Again) => sleep(Duration::from_millis(20)).await,
            Err(_) => connection = None,
        }
    }
    let found = fetcher.found.into_iter().map(|((_, offset), key)| (offset, key)).collect();
    shared.truth.borrow_mut().check(place, &found, start, end, last);
    true
}

/// Asks for all that there is, and leaves at once or reads nothing for a long time.
pub async fn ask_for_all(shared: &Shared, connection: &mut Connection) {
    let positions = shared.places().into_iter().map(|place| {
        let start = shared.truth.borrow_mut().partition(place).start_told;
        (place, start)
    });
    let manner = Manner { session: false, max_bytes: 50 << 20, ..Manner::tail() };
    let (session, positions) = (Session::default(), positions.collect());
    let mut fetcher = Fetcher { shared, manner, session, positions, found: BTreeMap::new() };
    let request = fetcher.request();
    let _left = connection.send(&request, manner.version).await;
}

/// The log start offset and the log end offset. `None`: damage was found.
async fn ends(shared: &Shared, place: Place) -> Option<(i64, i64)> {
    let mut connection = shared.connect_to_finish("auditor").await?;
    let (mut offsets, mut failures) = (Vec::new(), 0);
    while offsets.len() < 2 {
        let timestamp = if offsets.is_empty() { EARLIEST } else { LATEST };
        let request = ListOffsetsRequest {
            replica_id: -1,
            topics: vec![Topic {
                name: topic_name(place.0),
                partitions: vec![Partition { partition_index: place.1, timestamp, ..Default::default() }],
            }],
            ..Default::default()
        };
        let Ok(response) = connection.call(&request, 1 + below(11) as i16).await else {
            connection = shared.connect_to_finish("auditor").await?;
            continue;
        };
        let answer = &response.topics[0].partitions[0];
        if answer.error_code != 0 {
            shared.expect_explained(ErrorCode(answer.error_code), "ListOffsets");
            if shared.gives_up(&mut failures) {
                return None;
            }
            sleep(Duration::from_millis(20)).await;
            continue;
        }
        offsets.push(answer.offset);
    }
    Some((offsets[0], offsets[1]))
}
