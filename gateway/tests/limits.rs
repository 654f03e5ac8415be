//! Bounds and times that change while clients are connected, and backends that do not answer.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::time::Duration;

use common::{Backend, Client, Edge, Via, until, within};
use edgeway_gateway::config::Limits;
use edgeway_proto::{
    Class, CloseCode, Frame,
    frame::{Welcome, param},
};

trait Changing {
    fn change(&self, change: impl FnOnce(&mut Limits));
}

impl Changing for Edge {
    fn change(&self, change: impl FnOnce(&mut Limits)) {
        let mut limits = self.control.limits();
        change(&mut limits);
        self.control.limit(limits);
    }
}

async fn welcome(edge: &Edge, via: Via) -> (Client, Welcome) {
    let mut client = Client::connect(edge, via).await;
    client.control(common::client::hello([1 << 20; 3])).await;
    let (_, frame) = client.until(|f| matches!(f, Frame::Welcome(_))).await;
    let Frame::Welcome(welcome) = frame else { unreachable!() };
    (client, welcome)
}

fn said(welcome: &Welcome, wanted: u64) -> u64 {
    welcome.params.iter().find(|(id, _)| *id == wanted).unwrap().1
}

over! {
    [quic, tcp, plain]
    async fn fewer_connections_refuse_new_ones_and_close_none(via: Via) {
        let access = Backend::start().await;
        let edge = Edge::start(&access, |_| {}).await;
        let mut first = Client::login(&edge, via, "ada").await;
        first.open(1, "chat").await;
        edge.change(|limits| limits.connections_per_ip = 1);
        let refused = Client::dial(&edge, via).await;
        if let Ok(connection) = refused {
            assert!(Client::try_login(connection, "bob").await.is_none());
        }
        first.echoes(1).await;
        edge.change(|limits| limits.connections_per_ip = 2);
        let mut second = Client::login(&edge, via, "bob").await;
        second.open(1, "chat").await;
        second.echoes(1).await;
    }

    [quic, tcp]
    async fn what_welcome_has_said_holds_for_its_connection_and_new_ones_are_told_anew(via: Via) {
        let mut access = Backend::start().await;
        let edge = Edge::start(&access, |raw| raw.limits.sessions_per_connection = 2).await;
        let mut old = Client::login(&edge, via, "ada").await;
        edge.change(|limits| {
            limits.sessions = 4;
            limits.grace = Duration::from_millis(1234);
            limits.idle_timeout = Duration::from_secs(20);
            limits.uplink_credit = [2048, 3000, 4000];
        });
        for (number, kind) in [(1, "chat"), (2, "im")] {
            old.open(number, kind).await;
            assert_eq!(access.opened().await.grace_ms, 30_000);
        }
        // QUIC has no stream for a third one.
        if via == Via::Tcp {
            old.ask(3, "push").await;
            assert_eq!(old.session_code(3).await, CloseCode::TooManySessions);
        }

        let (mut new, told) = welcome(&edge, via).await;
        assert_eq!(said(&told, param::SESSIONS), 4);
        assert_eq!(said(&told, param::GRACE_MS), 1234);
        assert_eq!(said(&told, param::IDLE_MS), 20_000);
        assert_eq!(said(&told, param::CREDIT_SIGNAL), 2048);
        assert_eq!(said(&told, param::CREDIT_BINARY), 3000);
        assert_eq!(said(&told, param::CREDIT_CHAT), 4000);
        new.control(common::client::login("bob", "secret")).await;
        // Also as many streams of QUIC.
        for (number, kind) in [(1, "chat"), (2, "im"), (3, "push"), (4, "research_push")] {
            new.open(number, kind).await;
            new.echoes(number).await;
            assert_eq!(access.opened().await.grace_ms, 1234);
        }
    }

    [quic, tcp]
    async fn fewer_sessions_are_fewer_and_break_nothing(via: Via) {
        let access = Backend::start().await;
        let edge = Edge::start(&access, |_| {}).await;
        edge.change(|limits| limits.sessions = 1);
        let mut client = Client::login(&edge, via, "ada").await;
        client.open(1, "chat").await;
        client.ask(2, "im").await;
        assert_eq!(client.session_code(2).await, CloseCode::TooManySessions);
        client.echoes(1).await;
    }

    [tcp, plain]
    async fn who_has_not_logged_in_yet_has_as_long_as_is_allowed_now(via: Via) {
        let access = Backend::start().await;
        let edge = Edge::start(&access, |raw| raw.limits.login_timeout_ms = 3_600_000).await;
        let client = Client::connect(&edge, via).await;
        edge.change(|limits| limits.login_timeout = Duration::from_millis(100));
        assert_eq!(client.code().await, CloseCode::LoginTimeout);
    }

    [quic, tcp]
    async fn a_smaller_outbox_is_smaller_for_connections_that_stand(via: Via) {
        let mut access = Backend::start().await;
        let edge = Edge::start(&access, |raw| raw.limits.outbox_bytes = 64 << 20).await;
        // It grants nothing: all that it is sent waits.
        let mut client = Client::login_granting(&edge, via, "ada", [0; 3]).await;
        client.ask(1, "chat").await;
        let open = access.opened().await;
        edge.change(|limits| limits.outbox_bytes = 128 * 1024);
        let frame = common::backend::deliver(1, Class::Signal, 1, 60_000).to_bytes();
        let sending = async {
            // Half of what would have been too much before.
            for _ in 0..1000 {
                access.data(open.session, Class::Signal, frame.clone());
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            panic!("it was not closed");
        };
        tokio::select! {
            code = client.code() => assert_eq!(code, CloseCode::SlowReader),
            () = sending => {}
        }
    }

    [quic, tcp, legacy]
    async fn a_session_whose_backend_does_not_answer_is_ended_and_the_next_one_works(via: Via) {
        let mut access = Backend::start().await;
        let edge = Edge::start(&access, |raw| raw.limits.open_timeout_ms = 3_600_000).await;
        access.mute(true);
        let mut client = Client::login(&edge, via, "ada").await;
        client.ask(1, "chat").await;
        let open = access.opened().await;
        edge.change(|limits| limits.open_timeout = Duration::from_millis(100));
        let close = client.session_end(1).await;
        assert_eq!(close.code, CloseCode::BackendUnavailable.code());
        assert!(close.reason.contains("not answered"), "{}", close.reason);
        assert!(close.retry_after_ms > 0);
        assert_eq!(access.closed().await, open.session, "its backend hears of it");
        access.mute(false);
        edge.change(|limits| limits.open_timeout = Duration::from_secs(10));
        if via == Via::Legacy {
            client = Client::login(&edge, via, "ada").await;
            client.open(1, "chat").await;
            client.echoes(1).await;
        } else {
            client.open(2, "chat").await;
            client.echoes(2).await;
        }
    }
}

#[tokio::test]
async fn a_gateway_is_ready_with_one_instance_of_each_backend_that_is_needed() {
    let [access, away, spare] =
        [Backend::start().await, Backend::start().await, Backend::start().await];
    let edge = Edge::with(&[("access", &access), ("spare", &spare)], |_| {}).await;
    let gone = away.stop().await;
    let mut routing = edge.routing.clone();
    routing.backends.get_mut("access").unwrap().push(gone.to_string());
    edge.control.route(routing.clone()).unwrap();
    assert_eq!(edge.readiness.check(), Ok(()));
    assert_eq!(edge.readiness.missing(), [format!("access at {gone}")]);

    // Nobody needs it.
    let spare_was = spare.stop().await;
    let missing = [format!("access at {gone}"), format!("spare at {spare_was}")];
    until("the link is lost", || edge.readiness.missing() == missing).await;
    assert_eq!(edge.readiness.check(), Ok(()));

    for (_, route) in routing.routes.iter_mut().take(1) {
        route.backend = "spare".into();
    }
    edge.control.route(routing).unwrap();
    let told = edge.readiness.check().unwrap_err();
    assert!(told.contains("spare") && !told.contains("access"), "{told}");
    let _spare = Backend::at(spare_was).await;
    until("it is back", || edge.readiness.check().is_ok()).await;
    within(edge.stop()).await;
}
