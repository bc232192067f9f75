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
    plan.asked.iter().map(|asked| (asked.topic.to_string(), asked.partition, asked.fetch_offset)).collect()
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
        let plan = sessions.begin(request(0, 0, &[("a", 0, 5), ("b", 1, 7)]), false, now).unwrap();
        assert!(!plan.incremental && plan.session_id != 0);
        let id = plan.session_id;
        drop(plan);
        let plan = sessions.begin(request(id, 1, &[("a", 0, 6), ("c", 2, 0)]), false, now).unwrap();
        assert!(plan.incremental);
        let all = [("a".into(), 0, 6), ("b".into(), 1, 7), ("c".into(), 2, 0)];
        assert_eq!(offsets(&plan), all);
        drop(plan);
        let mut forgetting = request(id, 2, &[]);
        forgetting.forgotten_topics_data =
            vec![ForgottenTopic { topic: "a".into(), partitions: vec![0], ..Default::default() }];
        let plan = sessions.begin(forgetting, false, now).unwrap();
        assert_eq!(offsets(&plan), all[1..]);
    });
}

#[test]
fn wrong_ids_epochs_and_ways_of_naming_are_refused() {
    on_core(|| {
        let sessions = Sessions::new(10);
        let now = corelog_io::now();
        let id = sessions.begin(request(0, 0, &[("a", 0, 0)]), false, now).unwrap().session_id;
        let refusal = |id, epoch, by_id| sessions.begin(request(id, epoch, &[]), by_id, now).err();
        assert_eq!(refusal(id ^ 1, 1, false), Some(ErrorCode::FETCH_SESSION_ID_NOT_FOUND));
        assert_eq!(refusal(id, 2, false), Some(ErrorCode::INVALID_FETCH_SESSION_EPOCH));
        assert_eq!(refusal(id, 1, true), Some(ErrorCode::FETCH_SESSION_TOPIC_ID_ERROR));
        // One answer of a session is made at a time.
        let busy = sessions.begin(request(id, 1, &[]), false, now).unwrap();
        assert_eq!(refusal(id, 2, false), Some(ErrorCode::INVALID_FETCH_SESSION_EPOCH));
        drop(busy);
        // The final epoch ends it.
        assert_eq!(sessions.begin(request(id, -1, &[("a", 0, 0)]), false, now).unwrap().session_id, 0);
        assert_eq!(refusal(id, 2, false), Some(ErrorCode::FETCH_SESSION_ID_NOT_FOUND));
        assert_eq!(sessions.len(), 0);
    });
}

#[test]
fn a_full_cache_gives_up_only_what_is_long_unused() {
    on_core(|| {
        let sessions = Sessions::new(2);
        let now = corelog_io::now();
        let begin = |at| sessions.begin(request(0, 0, &[("a", 0, 0)]), false, at).unwrap().session_id;
        let first = begin(now);
        begin(now + Duration::from_secs(1));
        assert_eq!(begin(now + Duration::from_secs(60)), 0, "nothing is old enough");
        assert_ne!(begin(now + EVICTION_AGE), 0);
        let refusal = sessions.begin(request(first, 1, &[]), false, now).err();
        assert_eq!(refusal, Some(ErrorCode::FETCH_SESSION_ID_NOT_FOUND), "the oldest went");
    });
}

#[test]
fn served_partitions_go_to_the_end() {
    on_core(|| {
        let sessions = Sessions::new(2);
        let asked = [("a", 0, 0), ("b", 0, 0), ("c", 0, 0)];
        let mut plan = sessions.begin(request(0, 0, &asked), false, corelog_io::now()).unwrap();
        plan.rotate(&[true, false, true]);
        let names: Vec<_> = plan.asked.iter().map(|asked| asked.topic.as_str()).collect();
        assert_eq!(names, ["b", "a", "c"]);
    });
}
