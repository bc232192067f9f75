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
        let sessions = Sessions::new(10);
        let now = corelog_io::now();
        let plan = sessions.begin(&request(0, 0, &[("a", 0, 5), ("b", 1, 7)]), false, now).unwrap();
        assert!(!plan.incremental && plan.session_id != 0);
        let id = finished(plan);
        let plan = sessions.begin(&request(id, 1, &[("a", 0, 6), ("c", 2, 0)]), false, now).unwrap();
        assert!(plan.incremental);
        let all = [("a".into(), 0, 6), ("b".into(), 1, 7), ("c".into(), 2, 0)];
        assert_eq!(offsets(&plan), all);
        finished(plan);
        let mut forgetting = request(id, 2, &[]);
        forgetting.forgotten_topics_data =
            vec![ForgottenTopic { topic: "a".into(), partitions: vec![0], ..Default::default() }];
        let plan = sessions.begin(&forgetting, false, now).unwrap();
        assert_eq!(offsets(&plan), all[1..]);
    });
}

#[test]
fn wrong_ids_epochs_and_ways_of_naming_are_refused() {
    on_core(|| {
        let sessions = Sessions::new(10);
        let now = corelog_io::now();
        let id = finished(sessions.begin(&request(0, 0, &[("a", 0, 0)]), false, now).unwrap());
        let refusal = |id, epoch, by_id| sessions.begin(&request(id, epoch, &[]), by_id, now).err();
        assert_eq!(refusal(id ^ 1, 1, false), Some(ErrorCode::FETCH_SESSION_ID_NOT_FOUND));
        assert_eq!(refusal(id, 2, false), Some(ErrorCode::INVALID_FETCH_SESSION_EPOCH));
        assert_eq!(refusal(id, 1, true), Some(ErrorCode::FETCH_SESSION_TOPIC_ID_ERROR));
        // One answer of a session is made at a time.
        let busy = sessions.begin(&request(id, 1, &[]), false, now).unwrap();
        assert_eq!(refusal(id, 2, false), Some(ErrorCode::INVALID_FETCH_SESSION_EPOCH));
        finished(busy);
        // The final epoch ends it.
        assert_eq!(sessions.begin(&request(id, -1, &[("a", 0, 0)]), false, now).unwrap().session_id, 0);
        assert_eq!(refusal(id, 2, false), Some(ErrorCode::FETCH_SESSION_ID_NOT_FOUND));
        assert_eq!(sessions.count(), 0);
    });
}

#[test]
fn a_full_cache_gives_up_only_what_is_long_unused() {
    on_core(|| {
        let sessions = Sessions::new(2);
        let now = corelog_io::now();
        let begin = |at| finished(sessions.begin(&request(0, 0, &[("a", 0, 0)]), false, at).unwrap());
        let first = begin(now);
        begin(now + Duration::from_secs(1));
        assert_eq!(begin(now + Duration::from_secs(60)), 0, "nothing is old enough");
        assert_ne!(begin(now + EVICTION_AGE), 0);
        let refusal = sessions.begin(&request(first, 1, &[]), false, now).err();
        assert_eq!(refusal, Some(ErrorCode::FETCH_SESSION_ID_NOT_FOUND), "the oldest went");
    });
}

#[test]
fn served_partitions_go_to_the_end() {
    on_core(|| {
        let sessions = Sessions::new(2);
        let asked = [("a", 0, 0), ("b", 0, 0), ("c", 0, 0)];
        let mut plan = sessions.begin(&request(0, 0, &asked), false, corelog_io::now()).unwrap();
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
        let sessions = Sessions::new(10);
        let now = corelog_io::now();
        let id = finished(sessions.begin(&request(0, 0, &[("a", 0, 0)]), false, now).unwrap());
        drop(sessions.begin(&request(id, 1, &[]), false, now).unwrap());
        let refusal = sessions.begin(&request(id, 2, &[]), false, now).err();
        assert_eq!(refusal, Some(ErrorCode::FETCH_SESSION_ID_NOT_FOUND));
        assert_eq!((sessions.count(), sessions.partitions.get()), (0, 0));
    });
}

#[test]
fn a_partition_is_in_a_list_once() {
    on_core(|| {
        let sessions = Sessions::new(10);
        let now = corelog_io::now();
        let plan = sessions.begin(&request(0, 0, &[("a", 0, 5), ("a", 0, 7)]), false, now).unwrap();
        assert_eq!(offsets(&plan), [("a".into(), 0, 7)]);
        let id = finished(plan);
        // Its place is taken by another.
        let mut change = request(id, 1, &[("b", 1, 1)]);
        change.forgotten_topics_data =
            vec![ForgottenTopic { topic: "a".into(), partitions: vec![0, 3], ..Default::default() }];
        let plan = sessions.begin(&change, false, now).unwrap();
        assert_eq!(offsets(&plan), [("b".into(), 1, 1)]);
    });
}
