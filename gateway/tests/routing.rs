//! Routes that change while clients are connected.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::{collections::HashSet, sync::Arc};

use common::{Backend, Client, Edge, Via, until};
use edgeway_gateway::{Key, Policy, Route, Routing};
use edgeway_proto::{Class, CloseCode, Lane, frame::Open};

/// Routes by Session type, to backends by name. The first is asked about logins.
fn routing(routes: &[(&str, &str, Policy)], backends: &[(&str, &[&Backend])]) -> Routing {
    let route = |(kind, backend, policy): &(&str, &str, Policy)| {
        let kind: Arc<str> = (*kind).into();
        let route = Route {
            kind: Arc::clone(&kind),
            backend: (*backend).into(),
            policy: *policy,
            key: Key::User,
        };
        (kind, route)
    };
    let addrs = |all: &[&Backend]| all.iter().map(|one| one.addr.to_string()).collect();
    Routing {
        routes: routes.iter().map(route).collect(),
        login: backends[0].0.into(),
        backends: backends.iter().map(|(name, all)| ((*name).into(), addrs(all))).collect(),
    }
}

async fn settled(edge: &Edge) {
    until("the links stand", || edge.readiness.missing().is_empty()).await;
}

over! {
    [quic, tcp]
    async fn a_type_is_added_and_removed_while_clients_are_connected(via: Via) {
        let (access, mut quiz) = (Backend::start().await, Backend::start().await);
        let edge = Edge::with(&[("access", &access)], |_| {}).await;
        let mut client = Client::login(&edge, via, "ada").await;
        client.open(1, "chat").await;
        client.ask(2, "quiz").await;
        assert_eq!(client.session_code(2).await, CloseCode::NoRoute);

        let chat = ("chat", "access", Policy::ConsistentHash);
        let more = [chat, ("quiz", "quiz", Policy::RoundRobin)];
        edge.control.route(routing(&more, &[("access", &[&access]), ("quiz", &[&quiz])])).unwrap();
        settled(&edge).await;
        client.open(3, "quiz").await;
        client.echoes(3).await;
        let open = quiz.opened().await;

        edge.control.route(routing(&[chat], &[("access", &[&access])])).unwrap();
        let close = client.session_end(3).await;
        assert_eq!(close.code, CloseCode::NoRoute.code());
        assert!(close.reason.contains("`quiz`"), "{}", close.reason);
        assert_eq!(quiz.closed().await, open.session, "its backend hears of it");
        client.echoes(1).await;
    }

    [quic, tcp]
    async fn without_an_instance_its_sessions_move_and_no_others(via: Via) {
        let (mut first, mut second) = (Backend::start().await, Backend::start().await);
        let edge = Edge::with(&[("access", &first)], |_| {}).await;
        let chat = [("chat", "access", Policy::ConsistentHash)];
        edge.control.route(routing(&chat, &[("access", &[&first, &second])])).unwrap();
        settled(&edge).await;
        let (mut of_first, mut of_second) = (Vec::new(), Vec::new());
        // With 12 users one of the two has nobody in one of 2,048 cases, and the addresses are random.
        for n in 0..12 {
            let mut client = Client::login(&edge, via, &format!("user-{n}")).await;
            client.open(1, "chat").await;
            client.echoes(1).await;
            tokio::select! {
                _ = first.opened() => of_first.push(client),
                _ = second.opened() => of_second.push(client),
            }
        }
        edge.control.route(routing(&chat, &[("access", &[&first])])).unwrap();
        let moved = of_second.len();
        for client in &mut of_second {
            assert_eq!(client.session_code(1).await, CloseCode::BackendLost);
            client.open(2, "chat").await;
            client.echoes(2).await;
        }
        for _ in 0..moved {
            first.opened().await;
        }
        for client in &mut of_first {
            client.echoes(1).await;
        }
        until("the link to the instance is given up", || second.streams() == 0).await;
    }

    [quic]
    async fn a_change_that_moves_nobody_closes_nothing(via: Via) {
        let access = Backend::start().await;
        let edge = Edge::with(&[("access", &access)], |_| {}).await;
        let mut client = Client::login(&edge, via, "ada").await;
        client.open(1, "chat").await;
        for policy in [Policy::RoundRobin, Policy::Hash, Policy::ConsistentHash] {
            let routes = [("chat", "access", policy), ("more", "access", policy)];
            edge.control.route(routing(&routes, &[("access", &[&access])])).unwrap();
            client.echoes(1).await;
        }
    }

    [quic]
    async fn round_robin_gives_each_instance_its_turn(via: Via) {
        let mut all = [Backend::start().await, Backend::start().await, Backend::start().await];
        let edge = Edge::with(&[("access", &all[0])], |_| {}).await;
        let routes = [("quiz", "quiz", Policy::RoundRobin)];
        let quiz: Vec<_> = all.iter().collect();
        edge.control.route(routing(&routes, &[("access", &quiz[..1]), ("quiz", &quiz)])).unwrap();
        settled(&edge).await;
        let mut clients = Vec::new();
        for _ in 0..2 {
            let mut turn = HashSet::new();
            for _ in 0..3 {
                let mut client = Client::login(&edge, via, "ada").await;
                client.open(1, "quiz").await;
                clients.push(client);
                let [a, b, c] = &mut all;
                turn.insert(tokio::select! {
                    _ = a.opened() => 0,
                    _ = b.opened() => 1,
                    _ = c.opened() => 2,
                });
            }
            assert_eq!(turn.len(), 3);
        }
    }

    [quic, legacy]
    async fn an_opening_without_the_header_that_routes_it_is_told_so(via: Via) {
        let mut access = Backend::start().await;
        let edge = Edge::with(&[("access", &access)], |_| {}).await;
        let mut by_board = routing(&[("board", "access", Policy::Hash)], &[("access", &[&access])]);
        for route in by_board.routes.values_mut() {
            route.key = Key::Header("board".into());
        }
        edge.control.route(by_board).unwrap();
        let mut client = Client::login(&edge, via, "ada").await;
        client.ask(1, "board").await;
        let close = client.session_end(1).await;
        assert_eq!(close.code, CloseCode::NoRoute.code());
        assert!(close.reason.contains("header `board`"), "{}", close.reason);
        if via != Via::Legacy {
            let headers = vec![("board".into(), "7".into())];
            let open = Open { session: 2, kind: "board".into(), headers };
            client.send(Lane::new(2, Class::Signal), open.to_bytes()).await;
            client.echoes(2).await;
            assert_eq!(access.opened().await.headers["board"], "7");
        }
    }

    [quic, tcp]
    async fn a_change_of_key_moves_only_sessions_that_belong_elsewhere_by_it(via: Via) {
        let all = [Backend::start().await, Backend::start().await];
        let edge = Edge::with(&[("access", &all[0])], |_| {}).await;
        let nodes: Vec<_> = all.iter().collect();
        let by_user = routing(&[("board", "access", Policy::ConsistentHash)], &[("access", &nodes)]);
        let mut by_board = by_user.clone();
        by_board.routes.values_mut().for_each(|route| route.key = Key::Header("board".into()));
        edge.control.route(by_user).unwrap();
        settled(&edge).await;
        // Where each belongs by either key, by the gateway's own function.
        let hashes = all.each_ref().map(|one| edgeway_gateway::hash(&one.addr.to_string()));
        let place = |key: &str| Policy::ConsistentHash.first(&hashes, edgeway_gateway::hash(key), 0);
        let (mut staying, mut moving) = (Vec::new(), Vec::new());
        for n in 0.. {
            if staying.len() >= 3 && moving.len() >= 3 {
                break;
            }
            let (user, board) = (format!("user-{n}"), format!("board-{n}"));
            let mut client = Client::login(&edge, via, &user).await;
            let headers = vec![("board".into(), board.as_str().into())];
            let open = Open { session: 1, kind: "board".into(), headers };
            client.send(Lane::new(1, Class::Signal), open.to_bytes()).await;
            client.echoes(1).await;
            let stays = place(&user) == place(&board);
            if stays { &mut staying } else { &mut moving }.push(client);
        }
        edge.control.route(by_board).unwrap();
        for client in &mut moving {
            assert_eq!(client.session_code(1).await, CloseCode::BackendLost);
        }
        for client in &mut staying {
            client.echoes(1).await;
        }
    }
}
