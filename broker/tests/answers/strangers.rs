//! What clients may ask before it is known who they are, and how those are answered who ask to be known.

use corelog_broker::api::APIS;
use corelog_io::planted::{Fault, Planting};
use corelog_wire::messages::{
    ApiVersionsRequest, MetadataRequest, SaslAuthenticateRequest, SaslHandshakeRequest,
};
use corelog_wire::{ApiKey, ErrorCode};

use crate::world::World;

fn handshake() -> SaslHandshakeRequest {
    SaslHandshakeRequest { mechanism: "PLAIN".into() }
}

/// As on a PLAINTEXT listener of Kafka: SASL clients give up at it.
#[test]
fn sasl_is_refused_where_nobody_authenticates() {
    let world = World::start(&[]);
    world.run(|client| async move {
        let mut connection = client.connect().await;
        for version in [0, 1] {
            let answer = connection.call(&handshake(), version).await.unwrap();
            assert_eq!(ErrorCode(answer.error_code), ErrorCode::ILLEGAL_SASL_STATE);
            assert!(answer.mechanisms.is_empty());
        }
        let answer = connection.call(&SaslAuthenticateRequest::default(), 2).await.unwrap();
        assert_eq!(ErrorCode(answer.error_code), ErrorCode::ILLEGAL_SASL_STATE);
        assert!(answer.error_message.unwrap().contains("security.protocol=PLAINTEXT"));
        connection.call(&MetadataRequest::default(), 9).await.expect("the connection goes on");
    });
}

#[test]
fn strangers_are_answered_who_they_may_be_and_no_more() {
    let strangers = [ApiKey::SaslHandshake, ApiKey::ApiVersions, ApiKey::SaslAuthenticate];
    let found: Vec<ApiKey> = APIS.iter().filter(|api| api.is_for_strangers()).map(|api| api.key).collect();
    assert_eq!(found, strangers, "what an API is allowed on is missing");

    let _planting = Planting::of(Fault::EveryoneIsAStranger);
    let world = World::start(&[]);
    world.run(|client| async move {
        let mut connection = client.connect().await;
        // Sent at once, answered one after the other, in order.
        let versions = ApiVersionsRequest::default();
        let first = connection.send(&versions, 0).await.unwrap();
        let second = connection.send(&handshake(), 1).await.unwrap();
        let third = connection.send(&MetadataRequest::default(), 9).await.unwrap();
        connection.receive::<corelog_wire::messages::ApiVersionsResponse>(0, first).await.unwrap();
        connection.receive::<corelog_wire::messages::SaslHandshakeResponse>(1, second).await.unwrap();
        let refused = connection.receive::<corelog_wire::messages::MetadataResponse>(9, third).await;
        assert!(refused.is_err(), "a stranger was told of topics");
        // Others are not concerned.
        client.connect().await.call(&versions, 0).await.unwrap();
    });
}

/// Whoever is not known gets no memory beyond what saying so takes.
#[test]
fn strangers_are_given_room_for_small_requests_alone() {
    const MOST: usize = 512 << 10;
    let of_size = |bytes: usize| SaslAuthenticateRequest { auth_bytes: vec![7; bytes].into() };
    let sent = |world: &World, bytes: usize| {
        let request = of_size(bytes);
        world.run(|client| async move { client.connect().await.call(&request, 2).await.is_ok() })
    };
    // Beside the bytes there is a header of some dozens.
    assert!(sent(&World::start(&[]), MOST), "of those who are known more is taken");
    let _planting = Planting::of(Fault::EveryoneIsAStranger);
    let world = World::start(&[]);
    assert!(sent(&world, MOST - 100));
    assert!(!sent(&world, MOST), "a stranger's large request was taken");
}
