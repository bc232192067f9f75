use corelog_io::sim::Sim;
use corelog_wire::fetch::{FetchPartition, FetchTopic, ForgottenTopic};

use super::*;

fn request(session_id: i32, session_epoch: i32, partitions: &[(&str, i32, i64)]) -> FetchRequest {
    let topics = partitions.iter().map(|(topic, partition, offset)| FetchTopic {
        topic: (*topic).into(),
        partitions: vec![FetchPartition {
            partition: *partition,
            fetch_offset: *offset,
            ..Default::default()
        }],
        ..Default::default()
    });
    FetchRequest { session_id, session_epoch, topics: topics.collect(), ..Default::default() }
}

/// Enough for all but the tests of the bound.
const BYTES: usize = 1 << 20;

/// A connection that stays.
fn connected() -> Rc<Client> {
    let connection: Rc<Client> = Rc::new(());
    std::mem::forget(connection.clone());
    connection
}

fn offsets(plan: &Plan) -> Vec<(String, i32, i64)> {
    let mut asked: Vec<_> = plan.list.iter().map(|(_, asked)| asked).collect();
    asked.sort_by_key(|asked| asked.turn);
    asked.iter().map(|asked| (asked.topic.to_string(), asked.partition, asked.fetch_offset)).collect()
}

fn finished(plan: Plan) -> i32 {
    let id = plan.session_id;
    plan.finish();
    id
}

/// Runs `test` on a simulated core, where there are time and chance.
fn on_core(test: impl FnOnce() + 'static) {
    Sim::new(1).block_on(async move { test() });
}

#[test]
fn a_session_keeps_what_was_asked_and_takes_changes() {
    on_core(|| {
        let sessions = Sessions::new(10, BYTES);
        let now = corelog_io::now();
        let plan =
            sessions.begin(&request(0, 0, &[("a", 0, 5), ("b", 1, 7)]), false, &connected(), now).unwrap();
        assert!(!plan.incremental && plan.session_id != 0);
        let id = finished(plan);
        let plan =
            sessions.begin(&request(id, 1, &[("a", 0, 6), ("c", 2, 0)]), false, &connected(), now).unwrap();
        assert!(plan.incremental);
        let all = [("a".into(), 0, 6), ("b".into(), 1, 7), ("c".into(), 2, 0)];
        assert_eq!(offsets(&plan), all);
        finished(plan);
        let mut forgetting = request(id, 2, &[]);
        forgetting.forgotten_topics_data =
            vec![ForgottenTopic { topic: "a".into(), partitions: vec![0], ..Default::default() }];
        let plan = sessions.begin(&forgetting, false, &connected(), now).unwrap();
        assert_eq!(offsets(&plan), all[1..]);
    });
}

#[test]
fn wrong_ids_epochs_and_ways_of_naming_are_refused() {
    on_core(|| {
        let sessions = Sessions::new(10, BYTES);
        let now = corelog_io::now();
        let id = finished(sessions.begin(&request(0, 0, &[("a", 0, 0)]), false, &connected(), now).unwrap());
        let refusal =
            |id, epoch, by_id| sessions.begin(&request(id, epoch, &[]), by_id, &connected(), now).err();
        assert_eq!(refusal(id ^ 1, 1, false), Some(ErrorCode::FETCH_SESSION_ID_NOT_FOUND));
        assert_eq!(refusal(id, 2, false), Some(ErrorCode::INVALID_FETCH_SESSION_EPOCH));
        assert_eq!(refusal(id, 1, true), Some(ErrorCode::FETCH_SESSION_TOPIC_ID_ERROR));
        // One answer of a session is made at a time.
        let busy = sessions.begin(&request(id, 1, &[]), false, &connected(), now).unwrap();
        assert_eq!(refusal(id, 2, false), Some(ErrorCode::INVALID_FETCH_SESSION_EPOCH));
        finished(busy);
        // The final epoch ends it.
        assert_eq!(
            sessions.begin(&request(id, -1, &[("a", 0, 0)]), false, &connected(), now).unwrap().session_id,
            0
        );
        assert_eq!(refusal(id, 2, false), Some(ErrorCode::FETCH_SESSION_ID_NOT_FOUND));
        assert_eq!(sessions.count(), 0);
    });
}

#[test]
fn a_full_cache_gives_up_only_what_is_long_unused() {
    on_core(|| {
        let sessions = Sessions::new(2, BYTES);
        let now = corelog_io::now();
        let begin =
            |at| finished(sessions.begin(&request(0, 0, &[("a", 0, 0)]), false, &connected(), at).unwrap());
        let first = begin(now);
        begin(now + Duration::from_secs(1));
        assert_eq!(begin(now + Duration::from_secs(60)), 0, "nothing is old enough");
        assert_ne!(begin(now + EVICTION_AGE), 0);
        let refusal = sessions.begin(&request(first, 1, &[]), false, &connected(), now).err();
        assert_eq!(refusal, Some(ErrorCode::FETCH_SESSION_ID_NOT_FOUND), "the oldest went");
    });
}

#[test]
fn sessions_of_clients_that_are_gone_make_room_at_once() {
    on_core(|| {
        let sessions = Sessions::new(1000, 3 * 10_000);
        let now = corelog_io::now();
        let many: Vec<_> = (0..18).map(|partition| ("a", partition, 0)).collect();
        let begin = |client: &Rc<Client>| {
            finished(sessions.begin(&request(0, 0, &many), false, client, now).unwrap())
        };
        let living = connected();
        let kept = begin(&living);
        for _ in 0..50 {
            let gone: Rc<Client> = Rc::new(());
            assert_ne!(begin(&gone), 0, "those before have gone");
        }
        assert!(sessions.bytes() <= 30_000 && sessions.count() == 3, "{} bytes", sessions.bytes());
        sessions.begin(&request(kept, 1, &[]), false, &living, now).unwrap().finish();
        let (second, third) = (connected(), connected());
        assert!(begin(&second) != 0 && begin(&third) != 0);
        assert_eq!(begin(&living), 0, "all are in use");
    });
}

#[test]
fn a_larger_session_takes_the_place_of_a_smaller_one_that_has_lasted() {
    on_core(|| {
        let sessions = Sessions::new(1, BYTES);
        let now = corelog_io::now();
        let small =
            finished(sessions.begin(&request(0, 0, &[("a", 0, 0)]), false, &connected(), now).unwrap());
        let later = now + EVICTION_AGE;
        sessions.begin(&request(small, 1, &[]), false, &connected(), later).unwrap().finish();
        let asked = |count| (0..count).map(|partition| ("a", partition, 0)).collect::<Vec<_>>();
        let begin = |count| {
            finished(sessions.begin(&request(0, 0, &asked(count)), false, &connected(), later).unwrap())
        };
        assert_eq!(begin(1), 0, "it saves no more");
        let large = begin(2);
        assert_ne!(large, 0);
        assert_eq!(begin(3), 0, "that has not lasted");
    });
}

#[test]
fn fetches_that_wait_without_a_session_count_and_leave_sessions_be() {
    on_core(|| {
        let sessions = Sessions::new(10, 20_000);
        let now = corelog_io::now();
        let many: Vec<_> = (0..8).map(|partition| ("a", partition, 0)).collect();
        let begin = |epoch| sessions.begin(&request(0, epoch, &many), false, &connected(), now).unwrap();
        let id = finished(begin(EPOCH_INITIAL));
        let waiting: Vec<Plan> = (0..10).map(|_| begin(EPOCH_FINAL)).collect();
        let waits: Vec<_> = waiting.iter().map(|plan| plan.wait_max).collect();
        let short = Some(WAIT_WITHOUT_ROOM);
        assert_eq!(waits[..2], [None, short]);
        assert_eq!(waits[9], Some(Duration::ZERO));
        assert_eq!(finished(begin(EPOCH_INITIAL)), 0, "there is no room for another");
        let plan = sessions.begin(&request(id, 1, &[("a", 3, 7)]), false, &connected(), now).unwrap();
        assert!(plan.incremental && plan.wait_max.is_none());
        assert_eq!(finished(plan), id);
        drop(waiting);
        assert!(sessions.bytes() < 5_000, "{}", sessions.bytes());
        assert_ne!(finished(begin(EPOCH_INITIAL)), 0);
    });
}

#[test]
fn names_count() {
    on_core(|| {
        let sessions = Sessions::new(10, 10_000);
        let name = "n".repeat(9_500);
        let plan =
            sessions.begin(&request(0, 0, &[(name.as_str(), 0, 0)]), false, &connected(), corelog_io::now());
        assert_eq!(finished(plan.unwrap()), 0);
    });
}

#[test]
fn served_partitions_go_to_the_end() {
    on_core(|| {
        let sessions = Sessions::new(2, BYTES);
        let asked = [("a", 0, 0), ("b", 0, 0), ("c", 0, 0)];
        let mut plan =
            sessions.begin(&request(0, 0, &asked), false, &connected(), corelog_io::now()).unwrap();
        let places: Vec<_> = plan.list.iter().map(|(place, _)| place).collect();
        plan.list.put_last(places[0]);
        plan.list.put_last(places[2]);
        let names: Vec<_> = offsets(&plan).into_iter().map(|(name, _, _)| name).collect();
        assert_eq!(names, ["b", "a", "c"]);
    });
}

#[test]
fn a_session_whose_answer_was_not_made_is_over() {
    on_core(|| {
        let sessions = Sessions::new(10, BYTES);
        let now = corelog_io::now();
        let id = finished(sessions.begin(&request(0, 0, &[("a", 0, 0)]), false, &connected(), now).unwrap());
        drop(sessions.begin(&request(id, 1, &[]), false, &connected(), now).unwrap());
        let refusal = sessions.begin(&request(id, 2, &[]), false, &connected(), now).err();
        assert_eq!(refusal, Some(ErrorCode::FETCH_SESSION_ID_NOT_FOUND));
        assert_eq!((sessions.count(), sessions.bytes()), (0, 0));
    });
}

#[test]
fn a_partition_is_in_a_list_once() {
    on_core(|| {
        let sessions = Sessions::new(10, BYTES);
        let now = corelog_io::now();
        let plan =
            sessions.begin(&request(0, 0, &[("a", 0, 5), ("a", 0, 7)]), false, &connected(), now).unwrap();
        assert_eq!(offsets(&plan), [("a".into(), 0, 7)]);
        let id = finished(plan);
        // Its place is taken by another.
        let mut change = request(id, 1, &[("b", 1, 1)]);
        change.forgotten_topics_data =
            vec![ForgottenTopic { topic: "a".into(), partitions: vec![0, 3], ..Default::default() }];
        let plan = sessions.begin(&change, false, &connected(), now).unwrap();
        assert_eq!(offsets(&plan), [("b".into(), 1, 1)]);
    });
}
