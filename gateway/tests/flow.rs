//! Credit, rates, and readers that do not keep up.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::time::{Duration, Instant};

use bytes::Bytes;
use common::{Backend, Client, Edge, Via, client::ALL, within};
use edgeway_proto::{
    Class, CloseCode, Frame, Lane, Seq,
    frame::{CaughtUp, Ping, Send},
};
use edgeway_transport::End;

const GROUP: u64 = 5;

fn send(class: Class, id: u64, size: usize) -> Bytes {
    let payload = Bytes::from(vec![b's'; size]).into();
    Send { group: GROUP, class, id, payload, ..Send::default() }.to_bytes()
}

/// A member of the group, in all classes from the beginning.
async fn member(
    edge: &Edge,
    backend: &mut Backend,
    via: Via,
    user: &str,
    credit: [u64; 3],
) -> Client {
    let mut client = Client::login_granting(edge, via, user, credit).await;
    client.open(1, "chat").await;
    let open = backend.opened().await;
    for class in Class::ALL {
        backend.subscribe(open.session, GROUP, class, Seq::new(1, 0), None);
    }
    // Echoed behind the subscriptions of each stream: they stand.
    for class in [Class::Signal, Class::Binary] {
        let lane = Lane::new(1, class);
        client.send(lane, send(class, 1, 1)).await;
        while client.raw().await.0 != lane {}
    }
    client
}

/// What a client counts of chat.
#[derive(Debug, Default)]
struct Tally {
    have: u64,
    got: u64,
    lost: u64,
    signals: u64,
}

impl Tally {
    fn take(&mut self, frame: Frame) {
        match frame {
            Frame::Deliver(d) if d.class == Class::Chat => {
                assert!(d.seq.counter > self.have);
                self.lost += d.seq.counter - self.have - 1;
                self.got += 1;
                self.have = d.seq.counter;
            }
            Frame::Deliver(d) if d.class == Class::Signal => self.signals = d.seq.counter,
            Frame::Gap(g) => {
                assert_eq!((g.group, g.class), (GROUP, Class::Chat));
                self.lost += g.upto.counter.saturating_sub(self.have);
                self.have = self.have.max(g.upto.counter);
            }
            _ => {}
        }
    }
}

async fn falls_behind_and_catches_up(via: Via, class: Class) {
    let mut backend = Backend::start().await;
    let edge = Edge::start(&backend, |raw| raw.limits.outbox_bytes = 128 * 1024).await;
    let grant = [64 * 1024, 16 * 1024, 16 * 1024];
    let mut slow = member(&edge, &mut backend, via, "slow", grant).await;
    let mut healthy = member(&edge, &mut backend, via, "healthy", [ALL; 3]).await;
    let delivered = |n| move |f: &Frame| matches!(f, Frame::Deliver(d) if d.class == class && d.seq.counter == n);
    // The healthy one has had each before the next comes: it must not fall behind itself.
    for n in 0..100 {
        backend.publish(GROUP, class, n * 10 + 1, 10, 1000);
        healthy.until(delivered(n * 10 + 10)).await;
    }
    let lane = Lane::new(1, class);
    slow.grant(lane, ALL).await;
    let mut have = 0;
    let head = loop {
        match slow.next().await {
            (at, Frame::Deliver(d)) if at == lane => {
                assert_eq!(d.seq.counter, have + 1, "no hole before Behind");
                have += 1;
            }
            (at, Frame::Behind(b)) if at == lane => {
                assert_eq!((b.group, b.class), (GROUP, class));
                break b.head;
            }
            _ => {}
        }
    };
    assert!(head.counter > have);
    // No more than the bound and the credit was kept for it, and no less than the credit.
    let bytes = have * 1000;
    assert!(bytes <= 128 * 1024 + grant[class.index()], "{class}: {have} were kept");
    assert!(bytes >= grant[class.index()] / 2, "{class}: only {have} were kept");
    // It has been where it was told, which is not the head any more.
    let caught_up =
        |counter| CaughtUp { group: GROUP, class, last: Seq::new(1, counter) }.to_bytes();
    let signal = Lane::new(1, Class::Signal);
    slow.send(signal, caught_up(head.counter)).await;
    let (_, Frame::Behind(again)) = slow.until(|f| matches!(f, Frame::Behind(_))).await else {
        unreachable!()
    };
    assert_eq!(again.head, Seq::new(1, 1000));
    slow.send(signal, caught_up(1000)).await;
    // Echoed behind it on the same lane: it has been dealt with.
    slow.echoes(1).await;
    backend.publish(GROUP, class, 1001, 1, 10);
    slow.until(delivered(1001)).await;
}

over! {
    [quic, tcp, plain, legacy]
    async fn who_sends_more_than_its_credit_is_closed(via: Via) {
        let backend = Backend::start().await;
        // At this rate no credit comes back.
        let edge = Edge::start(&backend, |raw| raw.limits.user_bytes_per_second = 1).await;
        for class in Class::ALL {
            let limit = if class == Class::Signal { 64 * 1024 } else { 16 * 1024 };
            let mut client = Client::login(&edge, via, class.name()).await;
            client.open(1, "chat").await;
            let lane = Lane::new(1, class);
            while client.sent.get(&lane).copied().unwrap_or(0) < limit {
                client.send(lane, send(class, 1, 1000)).await;
            }
            // It went beyond with its last frame, as it may.
            client.is_well().await;
            client.try_send(lane, send(class, 2, 1)).await;
            let end = client.end().await;
            let End::Peer { code, reason, .. } = end else { panic!("no close: {end:?}") };
            assert_eq!(code, CloseCode::CreditExceeded, "{class}");
            assert!(reason.contains(class.name()), "{reason}");
        }
    }

    [quic, tcp, plain, legacy]
    async fn who_keeps_to_its_credit_gets_all_through_in_order(via: Via) {
        let backend = Backend::start().await;
        let edge = Edge::start(&backend, |raw| {
            raw.limits.user_bytes_per_second = 1 << 40;
            raw.limits.user_frames_per_second = 1 << 40;
        })
        .await;
        let mut client = Client::login(&edge, via, "ada").await;
        client.open(1, "chat").await;
        for class in Class::ALL {
            let lane = Lane::new(1, class);
            let initial = if class == Class::Signal { 64 * 1024 } else { 16 * 1024 };
            let mut back = 0;
            for id in 1..=200 {
                // Waiting for credit drops what is read meanwhile, so echoes are read first.
                client.send_within_credit(lane, send(class, id, 1500), initial).await;
                loop {
                    let (got, frame) = client.next().await;
                    if let Frame::Send(s) = frame {
                        back += 1;
                        assert_eq!((got, s.id), (lane, back));
                        break;
                    }
                }
            }
        }
    }

    [quic, tcp]
    async fn a_user_above_its_rate_is_slowed_and_loses_nothing(via: Via) {
        let backend = Backend::start().await;
        let edge = Edge::start(&backend, |raw| raw.limits.user_bytes_per_second = 32 * 1024).await;
        let mut client = Client::login(&edge, via, "ada").await;
        client.open(1, "chat").await;
        let mut other = Client::login(&edge, via, "bob").await;
        other.open(1, "chat").await;
        let lane = Lane::new(1, Class::Signal);
        let begun = Instant::now();
        // 64 KiB of credit, 64 KiB at once by the bucket, and the rest takes its time.
        let (mut next, mut back) = (1, 0);
        while back < 250 {
            while next <= 250
                && client.sent[&lane] < client.allowed.get(&lane).copied().unwrap_or(64 * 1024)
            {
                client.send(lane, send(Class::Signal, next, 1000)).await;
                next += 1;
            }
            if let (_, Frame::Send(s)) = client.next().await {
                back += 1;
                assert_eq!(s.id, back);
            }
            if back == 100 {
                other.echoes(1).await;
            }
        }
        assert!(begun.elapsed() > Duration::from_secs(1), "250 KB at 32 KB a second: {:?}", begun.elapsed());
        client.is_well().await;
    }

    [quic, tcp, plain, legacy]
    async fn the_gateway_begins_no_frame_beyond_the_client_s_credit(via: Via) {
        let mut backend = Backend::start().await;
        let edge = Edge::start(&backend, |_| {}).await;
        let grant = [3000, 2000, 2000];
        let mut client = member(&edge, &mut backend, via, "ada", grant).await;
        let mut healthy = member(&edge, &mut backend, via, "bob", [ALL; 3]).await;
        for class in Class::ALL {
            backend.publish(GROUP, class, 1, 300, 150);
        }
        let mut complete = 0;
        while complete < 3 {
            healthy.until(|f| matches!(f, Frame::Deliver(d) if d.seq.counter == 300)).await;
            complete += 1;
        }
        // What came while it joined counts, too.
        let echo = send(Class::Signal, 1, 1).len() as u64;
        let opened = edgeway_proto::frame::Opened { session: 1 }.to_bytes().len() as u64;
        let mut seen = [opened + echo, echo, 0];
        let mut total = grant;
        let mut got = [0u64; 3];
        while got != [300; 3] {
            let (lane, raw) = client.raw().await;
            let at = lane.class.index();
            assert!(seen[at] < total[at], "{lane:?}: a frame begins at {} of {}", seen[at], total[at]);
            seen[at] += raw.whole.len() as u64;
            if raw.kind == edgeway_proto::frame::Deliver::KIND {
                got[at] += 1;
            }
            if seen[at] >= total[at] {
                total[at] = seen[at] + grant[at];
                client.grant(lane, total[at]).await;
            }
        }
    }

    [quic, tcp, plain, legacy]
    async fn a_slow_reader_s_signals_stop_with_behind_and_go_on_when_it_has_caught_up(via: Via) {
        for class in [Class::Signal, Class::Binary] {
            falls_behind_and_catches_up(via, class).await;
        }
    }

    [quic, tcp, plain, legacy]
    async fn a_slow_reader_s_chat_is_shed_and_gaps_and_deliveries_add_up(via: Via) {
        let mut backend = Backend::start().await;
        let edge = Edge::start(&backend, |raw| raw.limits.outbox_bytes = 128 * 1024).await;
        let mut slow = member(&edge, &mut backend, via, "slow", [64 * 1024, 16 * 1024, 16 * 1024]).await;
        let mut healthy = member(&edge, &mut backend, via, "healthy", [ALL; 3]).await;
        let lane = Lane::new(1, Class::Chat);
        let mut tally = Tally::default();
        let mut last = 0;
        for round in 1..=3u64 {
            for _ in 0..100 {
                backend.publish(GROUP, Class::Chat, last + 1, 10, 1000);
                last += 10;
            }
            // A signal among it arrives whatever the chat does.
            backend.publish(GROUP, Class::Signal, round, 1, 10);
            while tally.signals < round {
                tally.take(slow.next().await.1);
            }
            let done = |f: &Frame| match f {
                Frame::Deliver(d) => d.class == Class::Chat && d.seq.counter == last,
                Frame::Gap(g) => g.upto.counter == last,
                _ => false,
            };
            healthy.until(done).await;
            slow.grant(lane, ALL - 3 + round).await;
            while tally.have < last {
                tally.take(slow.next().await.1);
            }
            assert_eq!((tally.have, tally.got + tally.lost), (last, last));
        }
        assert!(tally.lost > 500 && tally.got > 100, "{tally:?}");
    }

    [quic, tcp, plain]
    async fn a_reader_that_reads_nothing_and_pings_is_closed_and_others_do_not_notice(via: Via) {
        let mut backend = Backend::start().await;
        let edge = Edge::start(&backend, |_| {}).await;
        let mut healthy = member(&edge, &mut backend, via, "healthy", [ALL; 3]).await;
        let mut deaf = Client::connect_deaf(&edge, via).await;
        deaf.control(common::client::hello([ALL; 3])).await;
        deaf.control(common::client::login("deaf", "secret")).await;
        deaf.ask(1, "chat").await;
        let open = backend.opened().await;
        backend.subscribe(open.session, GROUP, Class::Signal, Seq::new(1, 0), None);
        backend.subscribe(open.session, GROUP, Class::Chat, Seq::new(1, 0), None);
        for n in 0..300 {
            backend.publish(GROUP, Class::Chat, n * 10 + 1, 10, 1000);
        }
        // Pongs pile up until the control lane's bound is reached; then it is closed, although
        // what was written last is stuck.
        let pings: Vec<u8> =
            (0..3000).flat_map(|n| Ping { token: (1 << 40) + n }.to_bytes().to_vec()).collect();
        let flood = async {
            while deaf.try_send(Lane::CONTROL, pings.clone().into()).await {}
        };
        within(flood).await;
        assert_eq!(backend.closed().await, open.session);
        match (via, deaf.end().await) {
            (Via::Quic, End::Peer { code, .. }) => assert_eq!(code, CloseCode::SlowReader),
            // On TCP the close stands behind what it did not read.
            (Via::Tcp | Via::Plain, End::Peer { .. } | End::Lost(_)) => {}
            other => panic!("{other:?}"),
        }
        healthy.is_well().await;
        backend.publish(GROUP, Class::Signal, 1, 1, 10);
        healthy.until(|f| matches!(f, Frame::Deliver(d) if d.class == Class::Signal)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_on_every_carriage_get_the_same_bytes_in_the_same_order() {
    let mut backend = Backend::start().await;
    let edge = Edge::start(&backend, |_| {}).await;
    let mut members = Vec::new();
    for via in [Via::Quic, Via::Tcp, Via::Plain, Via::Legacy] {
        members.push(member(&edge, &mut backend, via, &format!("{via:?}"), [ALL; 3]).await);
    }
    let mut next = 1;
    for round in 0..50u32 {
        for class in Class::ALL {
            backend.publish(GROUP, class, next, round % 7 + 1, 100 * (round as usize % 5));
        }
        next += u64::from(round % 7) + 1;
    }
    let mut streams: Vec<[Vec<u8>; 3]> = Vec::new();
    for member in &mut members {
        let mut of = [Vec::new(), Vec::new(), Vec::new()];
        let mut left = 3 * (next - 1);
        while left > 0 {
            let (lane, raw) = member.raw().await;
            if raw.kind == edgeway_proto::frame::Deliver::KIND {
                of[lane.class.index()].extend_from_slice(&raw.whole);
                left -= 1;
            }
        }
        streams.push(of);
    }
    assert!(streams.iter().all(|s| *s == streams[0]));
}
