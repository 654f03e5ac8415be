//! What the two halves of a room promise, one promise at a time.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use edgeway_proto::{AckStatus, ErrorCode, Frame, Rest, Seq};

use super::{super::simulation::decode, *};
use crate::{
    room::{Event, Join, Loaded, RoomConfig, SessionId},
    store::{LogHead, Origin},
};

const A: SessionId = SessionId { gateway: 1, session: 1 };
const B: SessionId = SessionId { gateway: 2, session: 2 };
const C: SessionId = SessionId { gateway: 1, session: 3 };

/// The link of the room's owner.
const LINK: u64 = 5;

struct Bench {
    room: Room,
    now: Now,
}

impl Bench {
    fn new(kind: Kind) -> Self {
        Self::loaded(kind, Loaded::default())
    }

    fn loaded(kind: Kind, loaded: Loaded) -> Self {
        let now = Now { since_start: Duration::from_secs(100), wall_ms: 1_000_000 };
        let room = Room::new(7, kind, Arc::new(RoomConfig::default()), loaded, now);
        Self { room, now }
    }

    fn apply(&mut self, event: Event) -> Vec<Effect> {
        let mut fx = Effects::default();
        self.room.apply(event, self.now, &mut fx);
        fx.list.retain(|effect| !matches!(effect, Effect::WakeAt(_)));
        fx.list
    }

    fn join(&mut self, session: SessionId, strokes: (Seq, u64)) -> Vec<Effect> {
        let (user, device) = (Text::from("ann"), Text::from("phone"));
        self.apply(Event::Join(Join {
            session,
            access: 1,
            request: 9,
            name: Text::from("chat:r"),
            asked: Text::from("r"),
            user,
            device,
            send_only: false,
            have: [None; 3],
            replaces: None,
            early: false,
            strokes,
        }))
    }

    fn leave(&mut self, session: SessionId) -> Vec<Effect> {
        self.apply(Event::Leave { session, access: 1, request: 0 })
    }

    fn route(&mut self, epoch: u64, gateways: &[u64]) -> Vec<Effect> {
        let gateways = gateways.to_vec();
        self.apply(Event::Route { access: LINK, epoch, gateways })
    }

    fn draw(&mut self, session: SessionId, id: u64) -> Vec<Effect> {
        let payload = Rest(Bytes::from_static(b"line"));
        let send =
            frame::Send { group: 7, class: Class::Binary, id, payload, ..Default::default() };
        let (user, device) = (Text::from("ann"), Text::from("phone"));
        self.apply(Event::Stroke { session, user, device, send, store_full: false })
    }

    fn ask(&mut self, ask: u64, session: SessionId, early: bool) -> Vec<Effect> {
        let (user, device) = ("ann".to_owned(), "phone".to_owned());
        self.apply(Event::Ask(Ask { access: LINK, ask, session, user, device, early }))
    }

    fn store(&mut self) -> Vec<Effect> {
        self.room.collect(&mut Vec::new());
        self.apply(Event::Appended(Class::Binary))
    }
}

fn routes(effects: &[Effect]) -> Vec<Vec<u64>> {
    let route = |e: &Effect| match e {
        Effect::Route { gateways, epoch: 1 } => Some(gateways.clone()),
        _ => None,
    };
    effects.iter().filter_map(route).collect()
}

fn answer(ask: u64, head: Option<Seq>, last_id: u64) -> Effect {
    let answer = rooms::Answer { ask, group: 7, head: head.map(Into::into), last_id };
    Effect::ToAccess { access: LINK, item: Item::Answer(answer) }
}

/// Frames for one client, in short.
fn told(effects: &[Effect], to: SessionId) -> Vec<String> {
    let frames = effects.iter().filter_map(|e| match e {
        Effect::ToSession { session, frames, .. } if *session == to => Some(frames.clone()),
        _ => None,
    });
    let told = |frame| match frame {
        Frame::Ack(ack) if ack.status == AckStatus::Accepted => format!("ack {}", ack.id),
        Frame::Ack(ack) => format!("{:?} {}", ack.status, ack.id),
        Frame::Left(left) if left.request == 0 => "join again".to_owned(),
        Frame::Error(error) => ErrorCode::from_code(error.code).name().to_owned(),
        other => panic!("{other:?}"),
    };
    frames.flat_map(decode).map(told).collect()
}

#[test]
fn the_route_is_told_when_a_gateway_comes_or_goes_and_never_for_a_member_more_or_less() {
    let mut bench = Bench::new(Kind::Apart);
    let mut join = |session| routes(&bench.join(session, (Seq::ZERO, 0)));
    assert_eq!(join(A), [[1]]);
    assert_eq!(join(C), Vec::<Vec<u64>>::new(), "on a gateway that is on it");
    assert_eq!(join(A), Vec::<Vec<u64>>::new(), "once more");
    assert_eq!(join(B), [[1, 2]]);
    assert_eq!(join(B), Vec::<Vec<u64>>::new(), "the only one of a gateway, once more");
    assert!(routes(&bench.leave(A)).is_empty());
    assert_eq!(routes(&bench.leave(C)), [[2]]);
    assert_eq!(routes(&bench.apply(Event::TellRoute)), [[2]], "to an owner that has forgotten it");
    assert_eq!(routes(&bench.apply(Event::GatewayGone(2))), [Vec::<u64>::new()]);
    assert!(routes(&bench.apply(Event::TellRoute)).is_empty(), "nobody is there");
}

#[test]
fn who_joins_is_told_of_the_strokes_what_their_owner_says() {
    let mut bench = Bench::new(Kind::Apart);
    let strokes = (Seq::new(4, 17), 9);
    let effects = bench.join(A, strokes);
    let Effect::ToSession { frames, .. } = &effects[0] else { panic!("{effects:?}") };
    let frames = decode(frames.clone());
    let [Frame::Joined(joined)] = &frames[..] else { panic!("{frames:?}") };
    assert_eq!(joined.classes, [(Seq::new(1, 0), 0), strokes, (Seq::new(1, 0), 0)]);
    let elsewhere = |class| {
        effects.iter().any(
            |e| matches!(e, Effect::Subscribe { class: c, elsewhere: true, .. } if *c == class),
        )
    };
    assert_eq!(Class::ALL.map(elsewhere), [false, true, false]);
    let send = frame::Send { group: 7, class: Class::Binary, id: 1, ..Default::default() };
    let effects = bench.apply(Event::Send { session: A, send, store_full: false });
    assert_eq!(told(&effects, A), ["bad_request", "Refused 1"], "they are not taken here");
}

#[test]
fn a_gateway_hears_where_strokes_begin_when_it_comes_on_the_route_and_when_they_end() {
    let mut bench = Bench::new(Kind::Strokes);
    let head = |counter| Seq::new(1, counter);
    let announce = |gateway, counter| Effect::Announce { gateway, head: head(counter) };
    assert_eq!(bench.route(3, &[1]), [announce(1, 0)]);
    bench.draw(A, 1);
    let published = bench.store();
    assert!(matches!(published[0], Effect::Publish { count: 1, .. }));
    assert_eq!(told(&published, A), ["ack 1"]);
    assert_eq!(bench.room.route().collect::<Vec<_>>(), [1]);
    assert_eq!(bench.route(3, &[1, 2]), [announce(2, 1)]);
    assert_eq!(bench.route(2, &[9]), [], "an older owner of the room");
    assert_eq!(bench.apply(Event::GatewayCame(2)), [announce(2, 1)], "it may have missed some");
    assert_eq!(bench.apply(Event::GatewayCame(9)), []);
    assert_eq!(bench.route(4, &[2]), [Effect::Retract { gateway: 1 }]);
    assert_eq!(bench.apply(Event::AccessGone(LINK + 1)), []);
    assert_eq!(bench.apply(Event::AccessGone(LINK)), [Effect::Retract { gateway: 2 }]);
    assert_eq!(bench.route(4, &[2]), [announce(2, 1)], "the owner is back");
}

#[test]
fn only_strokes_are_taken_each_once_and_in_order() {
    let mut bench = Bench::new(Kind::Strokes);
    let signal = frame::Send { group: 7, id: 1, ..Default::default() };
    let (user, device) = (Text::from("ann"), Text::from("phone"));
    let effects =
        bench.apply(Event::Stroke { session: A, user, device, send: signal, store_full: false });
    assert_eq!(told(&effects, A), ["bad_request", "Refused 1"]);
    assert_eq!(told(&bench.draw(A, 2), A), ["OutOfOrder 2"]);
    bench.draw(A, 1);
    bench.draw(A, 1);
    assert_eq!(told(&bench.store(), A), ["ack 1", "Duplicate 1"]);
}

#[test]
fn a_new_owner_goes_on_with_the_ids_that_the_log_knows() {
    let last = Origin { device: "ann/phone".to_owned(), id: 57 };
    let head = LogHead { last: Seq::new(3, 80), last_ids: vec![last], ..LogHead::default() };
    let mut loaded = Loaded::default();
    loaded.heads[Class::Binary.index()] = head;
    let mut bench = Bench::loaded(Kind::Strokes, loaded);
    assert_eq!(bench.ask(1, A, false), [answer(1, Some(Seq::new(4, 0)), 57)]);
    assert_eq!(told(&bench.draw(A, 57), A), ["Duplicate 57"]);
    bench.draw(A, 58);
    assert_eq!(told(&bench.store(), A), ["ack 58"]);
}

#[test]
fn who_joins_waits_for_the_fate_of_what_its_device_has_drawn() {
    let mut bench = Bench::new(Kind::Strokes);
    bench.draw(A, 1);
    assert_eq!(bench.ask(1, B, false), []);
    // Its room's owner has not waited, and has told it what was stored then.
    assert_eq!(bench.draw(B, 1), []);
    let effects = bench.store();
    assert_eq!(told(&effects, A), ["ack 1"]);
    assert!(effects.contains(&answer(1, Some(Seq::new(1, 1)), 1)));
    assert_eq!(told(&effects, B), ["join again"], "what it drew meanwhile was not taken");
    assert_eq!(bench.ask(2, B, false), [answer(2, Some(Seq::new(1, 1)), 1)]);
    bench.draw(B, 2);
    assert_eq!(told(&bench.store(), B), ["ack 2"]);
}

#[test]
fn once_a_device_has_joined_anew_nothing_more_is_taken_from_its_older_session() {
    let mut bench = Bench::new(Kind::Strokes);
    bench.draw(A, 1);
    bench.store();
    assert_eq!(bench.ask(1, B, false), [answer(1, Some(Seq::new(1, 1)), 1)]);
    // It was on its way, and would take the id that the new one was told to go on with.
    assert_eq!(told(&bench.draw(A, 2), A), ["join again"]);
    bench.draw(B, 2);
    assert_eq!(told(&bench.store(), B), ["ack 2"]);
}

#[test]
fn what_may_be_a_replay_takes_no_pen_away_until_it_draws() {
    let mut bench = Bench::new(Kind::Strokes);
    bench.draw(A, 1);
    bench.store();
    bench.ask(1, B, true);
    bench.draw(A, 2);
    assert_eq!(told(&bench.store(), A), ["ack 2"]);
    bench.draw(B, 3);
    assert_eq!(told(&bench.store(), B), ["ack 3"]);
    assert_eq!(told(&bench.draw(A, 4), A), ["join again"]);
}

#[test]
fn when_another_owner_has_sealed_the_log_nothing_is_acked_and_who_waits_is_sent_there() {
    let mut bench = Bench::new(Kind::Strokes);
    bench.route(1, &[1]);
    bench.draw(A, 1);
    bench.room.collect(&mut Vec::new());
    bench.draw(A, 2);
    bench.ask(1, B, false);
    let effects = bench.apply(Event::Fenced);
    assert_eq!(told(&effects, A), ["join again"], "once");
    assert!(effects.contains(&answer(1, None, 0)));
    assert!(effects.contains(&Effect::Retract { gateway: 1 }));
}

#[test]
fn they_are_kept_while_somebody_is_there_and_unloaded_after() {
    let mut bench = Bench::new(Kind::Strokes);
    bench.route(1, &[1]);
    bench.now.since_start += Duration::from_secs(1000);
    bench.apply(Event::Tick);
    assert!(!bench.room.is_idle(bench.now));
    bench.route(1, &[]);
    bench.now.since_start += Duration::from_secs(1000);
    assert!(bench.room.is_idle(bench.now));
}
