//! How connections are let in, watched and sent away.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use common::{Backend, Client, Edge, Via, until, within};
use edgeway_proto::{CloseCode, Frame, frame::Ping};
use edgeway_transport::End;

over! {
    [quic, tcp, plain, legacy]
    async fn an_address_has_so_many_connections_and_a_place_is_free_when_one_leaves(via: Via) {
        let backend = Backend::start().await;
        let edge = Edge::start(&backend, |raw| raw.limits.connections_per_ip = 2).await;
        let mut first = Client::login(&edge, via, "ada").await;
        let second = Client::login(&edge, via, "bob").await;
        // It is told why, and when to come back.
        let mut refused = Client::connect(&edge, via).await;
        refused.control(common::client::hello([1 << 20; 3])).await;
        let End::Peer { code, retry_after_ms, .. } = refused.end().await else {
            panic!("not told")
        };
        assert_eq!(code, CloseCode::TooManyConnections);
        assert!(retry_after_ms > 0);
        first.is_well().await;
        second.sender.close(CloseCode::Normal, "bye", 0).await;
        let third = async {
            loop {
                if let Ok(connection) = Client::dial(&edge, via).await
                    && let Some(client) = Client::try_login(connection, "cleo").await
                {
                    return client;
                }
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        };
        within(third).await.is_well().await;
        first.is_well().await;
    }

    [quic, tcp]
    async fn the_gateway_has_so_many_connections_in_all(via: Via) {
        let backend = Backend::start().await;
        let edge = Edge::start(&backend, |raw| raw.limits.connections = 1).await;
        let mut first = Client::login(&edge, via, "ada").await;
        let mut refused = Client::connect(&edge, via).await;
        refused.control(common::client::hello([1 << 20; 3])).await;
        assert_eq!(refused.code().await, CloseCode::TooManyConnections);
        first.is_well().await;
    }

    [quic, tcp]
    async fn who_knocks_too_often_is_not_even_told(via: Via) {
        let backend = Backend::start().await;
        let edge = Edge::start(&backend, |raw| raw.limits.connections = 1).await;
        let mut first = Client::login(&edge, via, "ada").await;
        let mut knocking: Vec<_> = (0..60).map(|_| Box::pin(Client::dial(&edge, via))).collect();
        let mut untold = 0;
        for dial in knocking.drain(..) {
            // Those that are told hold their places while they say nothing.
            match within(dial).await {
                Ok(connection) => std::mem::forget(connection),
                Err(_) => untold += 1,
            }
        }
        assert!(untold >= 60 - 32 - 32, "{untold}");
        first.is_well().await;
    }

    [quic, tcp, plain, legacy]
    async fn at_a_shutdown_clients_are_told_to_go_and_then_closed(via: Via) {
        let backend = Backend::start().await;
        let edge = Edge::start(&backend, |raw| raw.limits.drain_ms = 300).await;
        let mut client = Client::login(&edge, via, "ada").await;
        client.open(1, "chat").await;
        let mut newcomer = Client::connect(&edge, via).await;
        newcomer.control(common::client::hello([1 << 20; 3])).await;
        newcomer.until(|f| matches!(f, Frame::Welcome(_))).await;
        edge.shutdown.cancel();
        let (_, Frame::GoAway(go)) = client.until(|f| matches!(f, Frame::GoAway(_))).await else {
            unreachable!()
        };
        assert_eq!(go.code, CloseCode::GoingAway.code());
        // Nothing has ended yet.
        client.echoes(1).await;
        let end = client.end().await;
        let End::Peer { code, .. } = end else { panic!("no close: {end:?}") };
        assert_eq!(code, CloseCode::GoingAway);
        // Those that had not logged in are told, too.
        assert_eq!(newcomer.code().await, CloseCode::GoingAway);
        within(edge.task).await.unwrap();
    }

    [quic, tcp]
    async fn a_shutdown_does_not_wait_for_who_has_gone_already(via: Via) {
        let backend = Backend::start().await;
        let edge = Edge::start(&backend, |raw| raw.limits.drain_ms = 3_600_000).await;
        let mut client = Client::login(&edge, via, "ada").await;
        edge.shutdown.cancel();
        client.until(|f| matches!(f, Frame::GoAway(_))).await;
        client.sender.close(CloseCode::Normal, "as you say", 0).await;
        within(edge.task).await.unwrap();
    }

    [tcp, plain, legacy]
    async fn a_tcp_client_that_falls_silent_is_closed_and_one_that_pings_is_not(via: Via) {
        let backend = Backend::start().await;
        let edge = Edge::start(&backend, |raw| raw.limits.idle_timeout_ms = 3_000).await;
        let silent = Client::login(&edge, via, "silent").await;
        let mut pinging = Client::login(&edge, via, "pinging").await;
        let silent = tokio::spawn(silent.code());
        while !silent.is_finished() {
            pinging.control(Ping { token: 1 }.to_bytes()).await;
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        assert_eq!(silent.await.unwrap(), CloseCode::IdleTimeout);
        pinging.is_well().await;
    }

    [quic, tcp, plain, legacy]
    async fn a_ping_is_answered_with_its_token_also_before_the_login(via: Via) {
        let backend = Backend::start().await;
        let edge = Edge::start(&backend, |_| {}).await;
        let mut client = Client::connect(&edge, via).await;
        client.control(common::client::hello([1 << 20; 3])).await;
        client.is_well().await;
        let token = (1 << 62) - 1;
        client.control(Ping { token }.to_bytes()).await;
        let (lane, _) = client.until(|f| matches!(f, Frame::Pong(p) if p.token == token)).await;
        assert!(lane.is_control());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readiness_names_the_backend_that_cannot_be_reached() {
    let backend = Backend::start().await;
    let edge = Edge::start(&backend, |_| {}).await;
    assert!(edge.readiness.check().is_ok());
    let addr = backend.stop().await;
    until("the link is lost", || edge.readiness.check().is_err()).await;
    assert!(edge.readiness.check().unwrap_err().contains(&addr.to_string()));
    let _backend = Backend::at(addr).await;
    until("the link stands again", || edge.readiness.check().is_ok()).await;
}
