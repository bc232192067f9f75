//! What brokers say while they form a cluster comes back as it was, and bytes that lie are refused.

use bytes::Bytes;
use corelog_io::Dice;
use corelog_wire::Uuid;

use super::join::{JoinAnswer, JoinRequest};
use super::status::{Standing, Status, answer};
use crate::config::Endpoint;
use crate::identity::{Belongs, Founder, Identity};
use crate::ids::ReplicaId;

fn endpoint(number: u8) -> Endpoint {
    Endpoint { host: format!("b{number}"), port: 9093 }
}

fn founder(number: u8) -> Founder {
    Founder {
        node_id: i32::from(number),
        directory: Uuid([number; 16]),
        replica: ReplicaId(u64::MAX - u64::from(number)),
        peer: endpoint(number),
    }
}

fn statuses() -> Vec<Status> {
    let founders = (1..4).map(founder).collect();
    let member = Standing::Member { cluster_id: "c".into(), founders };
    [Standing::Empty, Standing::Wary, member]
        .into_iter()
        .zip([None, Some(0), Some(7)])
        .map(|(standing, node_id)| Status {
            directory: Uuid([1; 16]),
            node_id,
            seeds: (1..4).map(endpoint).collect(),
            standing,
        })
        .collect()
}

fn requests() -> Vec<JoinRequest> {
    let request = JoinRequest {
        directory: Uuid([1; 16]),
        node_id: None,
        peer: endpoint(1),
        shards: 65_535,
        rack: Some("r".into()),
    };
    vec![request.clone(), JoinRequest { node_id: Some(3), shards: 1, rack: None, ..request }]
}

fn answers() -> Vec<JoinAnswer> {
    vec![
        JoinAnswer::Joined {
            cluster_id: "c".into(),
            node_id: 0,
            replica: ReplicaId(i64::MAX as u64),
            founders: 3,
        },
        JoinAnswer::Ask(endpoint(2)),
        JoinAnswer::NotNow("nobody leads".into()),
        JoinAnswer::Refused("node.id 3 is taken".into()),
    ]
}

#[test]
fn what_is_said_is_heard() {
    for status in statuses() {
        assert_eq!(Status::decode(status.encode()), Ok(status));
    }
    for request in requests() {
        assert_eq!(JoinRequest::decode(request.encode()), Ok(request));
    }
    for answer in answers() {
        assert_eq!(JoinAnswer::decode(answer.encode()), Ok(answer));
    }
}

#[test]
fn members_say_what_they_know() {
    let founders: Vec<Founder> = (1..4).map(founder).collect();
    let identity = |belongs| Identity { belongs, ..Identity::alone("c".into(), 2, Uuid([2; 16])) };
    let told = |identity| Status::decode(answer(&identity, &[])).expect("it is whole").standing;
    let member = |founders| Standing::Member { cluster_id: "c".into(), founders };
    assert_eq!(told(identity(Belongs::Founder(founders.clone()))), member(founders));
    assert_eq!(told(identity(Belongs::Joined { replica: ReplicaId(9), founders: 3 })), member(vec![]));
}

#[test]
fn senseless_words_are_refused() {
    let [empty, _, member] = statuses().try_into().expect("there are three");
    let with = |status: &Status, change: fn(&mut Status)| {
        let mut status = status.clone();
        change(&mut status);
        Status::decode(status.encode()).expect_err("it makes no sense")
    };
    with(&empty, |status| status.directory = Uuid::ZERO);
    with(&empty, |status| status.seeds = (0..10).map(endpoint).collect());
    with(&empty, |status| status.seeds[0].host = "no host".into());
    with(&member, |status| status.standing = Standing::Member { cluster_id: "\"".into(), founders: vec![] });
    with(&member, |status| {
        status.standing = Standing::Member { cluster_id: "c".into(), founders: vec![founder(1), founder(1)] }
    });
    let request = JoinRequest { shards: 0, ..requests()[0].clone() };
    assert!(JoinRequest::decode(request.encode()).is_err());
    for (replica, founders) in [(0, 3), (3, 3), (7, 0), (77, 10)] {
        let replica = ReplicaId(replica);
        let answer = JoinAnswer::Joined { cluster_id: "c".into(), node_id: 1, replica, founders };
        assert!(JoinAnswer::decode(answer.encode()).is_err());
    }
    let JoinAnswer::Refused(text) =
        JoinAnswer::decode(JoinAnswer::Refused("\n".repeat(5000)).encode()).expect("it is cut")
    else {
        panic!("another answer")
    };
    assert!(text.len() <= 2000 && !text.contains('\n'), "it goes to the log");
}

/// Every bit turned, every piece of it, and noise: an error or a value that is written as it was read, no panic.
#[test]
fn hostile_bytes() {
    fn look(bytes: Vec<u8>) {
        let bytes = Bytes::from(bytes);
        if let Ok(status) = Status::decode(bytes.clone()) {
            assert_eq!(Status::decode(status.encode()), Ok(status));
        }
        if let Ok(request) = JoinRequest::decode(bytes.clone()) {
            assert_eq!(JoinRequest::decode(request.encode()), Ok(request));
        }
        if let Ok(answer) = JoinAnswer::decode(bytes) {
            let _ = answer.encode();
        }
    }
    let mut whole: Vec<Bytes> = statuses().iter().map(Status::encode).collect();
    whole.extend(requests().iter().map(JoinRequest::encode));
    whole.extend(answers().iter().map(JoinAnswer::encode));
    let mut dice = Dice(1);
    for bytes in whole {
        for bit in 0..bytes.len() * 8 {
            let mut bent = bytes.to_vec();
            bent[bit / 8] ^= 1 << (bit % 8);
            look(bent);
        }
        for end in 0..bytes.len() {
            let cut = bytes[..end].to_vec();
            assert!(Status::decode(cut.clone().into()).is_err());
            look(cut);
        }
        for _ in 0..200 {
            let mut noise = bytes.to_vec();
            (0..4).for_each(|_| {
                let at = dice.index(noise.len());
                noise[at] = dice.next() as u8;
            });
            look(noise);
        }
    }
}
