//! What moderators set, and what follows from it.

use edgeway_filter::Filter;
use edgeway_proto::{CloseCode, rooms::pushed::Answer};

use super::*;
use crate::store::{LogHead, Record};

fn bench() -> Bench {
    Bench::with_two(|config| {
        let (filter, classes) = (Arc::new(Filter::default()), [false, false, true]);
        config.filter = Some(Filtering { filter, classes });
        config.state_keys = 0;
    })
}

fn rule(number: u64, change: Change) -> Event {
    let from = Asker::System { link: 5, push: number };
    Event::Rule { from, change, bytes_max: RULES_BYTES, store_full: false }
}

/// Numbers of those that were done, with whether something had to change; refusals as codes.
fn answers(effects: &[Effect]) -> Vec<(u64, Result<bool, ErrorCode>)> {
    let answer = |e: &Effect| match e {
        Effect::ToAccess { access: 5, item: Item::Pushed(pushed) } => Some(match &pushed.answer {
            Some(Answer::Sent(sent)) => (pushed.push, Ok(!sent.repeat)),
            _ => (pushed.push, Err(ErrorCode::from_code(pushed.code.into()))),
        }),
        _ => None,
    };
    effects.iter().filter_map(answer).collect()
}

fn set(bench: &mut Bench, change: Change) -> Vec<Effect> {
    let mut effects = bench.apply(rule(1, change));
    effects.extend(bench.store().1);
    assert_eq!(answers(&effects), [(1, Ok(true))]);
    effects
}

/// What a user is told of chat.
fn speaks(bench: &mut Bench, session: SessionId, id: u64) -> Result<(), ErrorCode> {
    let effects = bench.send(session, message(Class::Chat, id, b"hello"));
    errors(&effects, session).first().map_or(Ok(()), |code| Err(*code))
}

/// The room as its next owner loads it.
fn next_owner(bench: &mut Bench, batch: &[Append]) {
    let state: Vec<Record> = batch.iter().rev().map(|append| append.record.clone()).collect();
    let last = state[0].seq;
    let mut loaded = Loaded { state: state[..1].to_vec(), ..Loaded::default() };
    loaded.heads[0] = LogHead { last, last_message: last, ..LogHead::default() };
    let config = Arc::clone(&bench.room.config);
    bench.room = Room::new(7, Kind::Room, config, loaded, bench.now);
    bench.join(A, "ann");
    bench.join(B, "bob");
}

#[test]
fn a_user_is_muted_until_a_time_or_until_it_is_taken_back_and_members_can_see_it() {
    let mut bench = bench();
    let until = bench.now.wall_ms + 5_000;
    let effects = set(&mut bench, Change::Mute("ann".into(), Some(until)));
    let told = delivered(&effects);
    assert_eq!((&*told[0].key, &*told[0].sender), ("@rules", ""));
    let json = String::from_utf8(told[0].payload.0.to_vec()).unwrap();
    assert_eq!(json, format!("{{\"muted\":{{\"ann\":{until}}}}}"));
    assert_eq!(speaks(&mut bench, A, 1), Err(ErrorCode::Forbidden));
    assert_eq!(speaks(&mut bench, B, 1), Ok(()));
    assert!(errors(&bench.send(A, signal(1)), A).is_empty(), "mutes are of chat here");
    bench.store();
    bench.pass(Duration::from_secs(5));
    assert_eq!(speaks(&mut bench, A, 1), Ok(()));
    set(&mut bench, Change::Mute("ann".into(), Some(0)));
    assert_eq!(speaks(&mut bench, A, 2), Err(ErrorCode::Forbidden));
    let effects = set(&mut bench, Change::Mute("ann".into(), None));
    assert!(delivered(&effects)[0].payload.0.is_empty(), "no rules are left");
    assert_eq!(speaks(&mut bench, A, 2), Ok(()));
}

#[test]
fn what_is_set_again_changes_nothing_and_is_answered_once_the_first_is_stored() {
    let mut bench = bench();
    let mute = || Change::Mute("ann".into(), Some(0));
    assert!(answers(&bench.apply(rule(1, mute()))).is_empty());
    assert!(answers(&bench.apply(rule(2, mute()))).is_empty());
    let (stored, effects) = bench.store();
    assert_eq!((stored, answers(&effects)), (1, vec![(1, Ok(true)), (2, Ok(false))]));
    assert_eq!(answers(&bench.apply(rule(3, mute()))), [(3, Ok(false))]);
    assert_eq!(answers(&bench.apply(rule(4, Change::Close(false)))), [(4, Ok(false))]);
}

#[test]
fn who_is_blocked_sends_nothing_and_a_muted_room_hears_nobody() {
    let mut bench = bench();
    set(&mut bench, Change::Block("ann".into(), Some(0)));
    assert_eq!(errors(&bench.send(A, signal(1)), A), [ErrorCode::Forbidden]);
    assert_eq!(speaks(&mut bench, B, 1), Ok(()));
    set(&mut bench, Change::MuteRoom(Some(0)));
    assert_eq!(speaks(&mut bench, B, 2), Err(ErrorCode::Forbidden));
    let push = Push {
        from: Asker::System { link: 5, push: 9 },
        digest: 0,
        send: message(Class::Chat, 1, b"x"),
    };
    bench.apply(Event::Push { push, store_full: false });
    bench.pass(Duration::from_secs(1));
    assert_eq!(bench.room.head(Class::Chat).counter, 2, "bob's first, and the system's");
}

#[test]
fn the_next_owner_has_the_rules() {
    let mut bench = bench();
    set(&mut bench, Change::Block("ann".into(), Some(0)));
    bench.apply(rule(2, Change::Mute("bob".into(), Some(0))));
    let mut batch = Vec::new();
    bench.room.collect(&mut batch);
    next_owner(&mut bench, &batch);
    assert_eq!(errors(&bench.send(A, signal(1)), A), [ErrorCode::Forbidden]);
    assert_eq!(speaks(&mut bench, B, 1), Err(ErrorCode::Forbidden));
    assert!(errors(&bench.send(B, signal(1)), B).is_empty());
}

#[test]
fn a_room_is_closed_with_everybody_out_and_opened_again() {
    let mut bench = bench();
    let before = bench.apply(rule(1, Change::Close(true)));
    assert!(frames_to(&before, A).is_empty(), "not before it is stored");
    let (_, effects) = bench.store();
    assert_eq!(answers(&effects), [(1, Ok(true))]);
    for session in [A, B] {
        let left = frames_to(&effects, session).into_iter().find_map(|f| match f {
            Frame::Left(left) => Some(CloseCode::from_code(left.code)),
            _ => None,
        });
        assert_eq!(left, Some(CloseCode::Kicked));
    }
    assert_eq!(errors(&bench.join(C, "cleo"), C), [ErrorCode::RoomClosed]);
    let from = Asker::System { link: 5, push: 2 };
    let refused = bench
        .apply(Event::Push { push: Push { from, digest: 0, send: signal(1) }, store_full: false });
    assert_eq!(answers(&refused), [(2, Err(ErrorCode::RoomClosed))]);
    set(&mut bench, Change::Close(false));
    assert!(joined(&bench.join(C, "cleo"), C).is_some());
}

#[test]
fn all_sessions_of_a_user_are_put_out_and_may_come_back() {
    let mut bench = bench();
    bench.join(C, "ann");
    let effects = bench.apply(Event::Kick { link: 5, push: 1, user: Text::from("ann") });
    for session in [A, C] {
        assert!(frames_to(&effects, session).iter().any(|f| matches!(f, Frame::Left(_))));
    }
    assert!(frames_to(&effects, B).is_empty());
    let kicked = effects.iter().find_map(|e| match e {
        Effect::ToAccess { item: Item::Pushed(pushed), .. } => pushed.answer.clone(),
        _ => None,
    });
    assert!(matches!(kicked, Some(Answer::Kicked(kicked)) if kicked.sessions == 2));
    assert!(joined(&bench.join(A, "ann"), A).is_some());
}

#[test]
fn members_cannot_set_what_is_the_system_s_and_there_is_a_bound_that_leaves_room_for_state() {
    let mut bench = bench();
    let refused = bench.send(A, keyed(1, "@rules", b"{}"));
    assert_eq!(errors(&refused, A), [ErrorCode::Forbidden]);
    let mut last = Ok(true);
    for n in 0..1_000 {
        let user = format!("a user with a long name {n:04}");
        let mut effects = bench.apply(rule(n, Change::Mute(user, Some(0))));
        effects.extend(bench.store().1);
        last = answers(&effects)[0].1;
        if last.is_err() {
            assert!(n > 250, "{n}");
            break;
        }
    }
    assert_eq!(last, Err(ErrorCode::TooLarge));
    // To take one back is always possible.
    set(&mut bench, Change::Mute("a user with a long name 0000".into(), None));
}
