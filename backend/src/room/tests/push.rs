//! What becomes of what the system says.

use edgeway_filter::{Filter, WordOptions, Words};
use edgeway_proto::rooms::{self, pushed::Answer};

use super::*;
use crate::store::{LogHead, Record};

fn push(number: u64, digest: u64, send: frame::Send) -> Event {
    let from = Asker::System { link: 5, push: number };
    Event::Push { push: Push { from, digest, send }, store_full: false }
}

type Told = (u64, Result<Option<Seq>, ErrorCode>, &'static str);

/// The answers: number, and place, or the code; with whether it is a repeat, or another message.
fn answers(effects: &[Effect]) -> Vec<Told> {
    let answer = |e: &Effect| match e {
        Effect::ToAccess { access: 5, item: Item::Pushed(pushed) } => Some(pushed.clone()),
        _ => None,
    };
    let told = |pushed: rooms::Pushed| match pushed.answer {
        Some(Answer::Kicked(_) | Answer::Records(_)) => panic!("not an answer to a message"),
        None => (pushed.push, Err(ErrorCode::from_code(pushed.code.into())), ""),
        Some(Answer::Sent(sent)) => {
            let how = match (sent.repeat, sent.differs) {
                (_, true) => "differs",
                (true, false) => "repeat",
                (false, false) => "",
            };
            (pushed.push, Ok(sent.place.map(Seq::from)), how)
        }
    };
    effects.iter().filter_map(answer).map(told).collect()
}

#[test]
fn a_signal_of_the_system_takes_its_place_among_those_of_members_and_has_no_sender() {
    let mut bench = Bench::with_two(|_| {});
    bench.send(A, signal(1));
    assert!(answers(&bench.apply(push(1, 0, keyed(77, "page", b"7")))).is_empty());
    bench.send(B, signal(1));
    let (stored, effects) = bench.store();
    assert_eq!(stored, 3);
    let senders: Vec<_> = delivered(&effects).into_iter().map(|d| d.sender.to_string()).collect();
    assert_eq!(senders, ["ann", "", "bob"]);
    assert_eq!(answers(&effects), [(1, Ok(Some(Seq::new(1, 2))), "")]);
    let joined = joined(&bench.join(C, "cleo"), C).unwrap();
    assert_eq!(decode(joined.state.0).len(), 1, "and it is the room's state");
}

#[test]
fn a_room_without_members_takes_them_and_is_unloaded_afterwards() {
    let mut bench = Bench::new(Kind::Room, |_| {});
    bench.apply(push(1, 0, signal(5)));
    assert_eq!(answers(&bench.store().1), [(1, Ok(Some(Seq::new(1, 1))), "")]);
    assert!(!bench.room.is_idle(bench.now));
    bench.pass(Duration::from_secs(61));
    assert!(bench.room.is_idle(bench.now));
}

#[test]
fn an_id_has_one_effect_and_its_repeats_the_answer_of_the_first() {
    let mut bench = Bench::with_two(|_| {});
    let place = Ok(Some(Seq::new(1, 1)));
    bench.apply(push(1, 9, signal(5)));
    assert!(answers(&bench.apply(push(2, 9, signal(5)))).is_empty(), "not before it is stored");
    assert_eq!(answers(&bench.store().1), [(1, place, ""), (2, place, "repeat")]);
    assert_eq!(answers(&bench.apply(push(3, 9, signal(5)))), [(3, place, "repeat")]);
    assert_eq!(answers(&bench.apply(push(4, 8, signal(5)))), [(4, Ok(None), "differs")]);
    let other = message(Class::Chat, 5, b"hello");
    assert_eq!(answers(&bench.apply(push(5, 9, other))), [(5, Ok(None), "differs")]);
    assert_eq!(bench.store().0, 0, "nothing more");
    // A smaller one is not an older one.
    bench.apply(push(6, 9, signal(4)));
    assert_eq!(answers(&bench.store().1), [(6, Ok(Some(Seq::new(1, 2))), "")]);
}

#[test]
fn chat_of_the_system_goes_by_the_room_s_policy_and_its_repeats_too() {
    let mut bench = Bench::with_two(|config| config.chat_waiting = 1);
    let chat = |id| message(Class::Chat, id, b"hello");
    bench.apply(push(1, 9, chat(5)));
    let again = bench.apply(push(2, 9, chat(5)));
    assert_eq!(answers(&again), [(2, Err(ErrorCode::Unavailable), "")], "to be asked again");
    assert_eq!(answers(&bench.apply(push(3, 9, chat(6)))), [(3, Ok(None), "")], "shed");
    let place = Ok(Some(Seq::new(1, 1)));
    assert_eq!(answers(&bench.pass(Duration::from_secs(1))), [(1, place, "")]);
    assert_eq!(answers(&bench.apply(push(4, 9, chat(5)))), [(4, place, "repeat")]);
    assert_eq!(answers(&bench.apply(push(5, 9, chat(6)))), [(5, Ok(None), "")]);
}

#[test]
fn what_may_not_be_sent_is_refused_with_its_code() {
    let mut bench = Bench::with_two(|config| {
        config.payload_bytes = 100;
        config.state_keys = 0;
    });
    static LONG: [u8; 101] = [b'x'; 101];
    let refused = |bench: &mut Bench, send| answers(&bench.apply(push(1, 9, send)))[0].1;
    assert_eq!(refused(&mut bench, message(Class::Binary, 1, b"x")), Err(ErrorCode::BadRequest));
    assert_eq!(refused(&mut bench, signal(0)), Err(ErrorCode::BadRequest));
    assert_eq!(refused(&mut bench, message(Class::Signal, 1, &LONG)), Err(ErrorCode::TooLarge));
    assert_eq!(refused(&mut bench, keyed(1, "k", b"x")), Err(ErrorCode::TooLarge));
    // What was refused is not used up.
    bench.apply(push(2, 9, signal(1)));
    assert_eq!(answers(&bench.store().1).len(), 1);
    let mut inbox = Bench::new(Kind::Inbox, |_| {});
    assert_eq!(refused(&mut inbox, message(Class::Chat, 1, b"x")), Err(ErrorCode::BadRequest));
    inbox.apply(push(2, 9, signal(1)));
    assert_eq!(inbox.store().0, 1);
}

#[test]
fn the_filter_does_not_look_at_what_the_system_says() {
    let filter = Arc::new(Filter::default());
    filter.set_words(Arc::new(Words::parse("reject:worst", WordOptions::default()).unwrap()));
    let mut bench = Bench::with_two(|config| {
        config.filter = Some(Filtering { filter, classes: [true; 3] });
    });
    bench.apply(push(1, 0, message(Class::Signal, 1, b"worst")));
    bench.apply(push(2, 0, message(Class::Chat, 2, b"worst")));
    assert_eq!(delivered(&bench.store().1).len(), 1);
    assert_eq!(delivered(&bench.pass(Duration::from_secs(1))).len(), 1);
}

#[test]
fn who_waits_for_an_answer_of_an_owner_that_is_followed_is_sent_to_the_next() {
    let mut bench = Bench::with_two(|_| {});
    bench.apply(push(1, 9, signal(5)));
    bench.apply(push(2, 9, signal(5)));
    bench.apply(push(3, 9, message(Class::Chat, 6, b"x")));
    let told = answers(&bench.apply(Event::Fenced));
    let all: Vec<_> = told.iter().map(|(number, answer, _)| (*number, *answer)).collect();
    let moved = Err(ErrorCode::Unavailable);
    assert_eq!(all, [(1, moved), (2, moved), (3, moved)]);
}

#[test]
fn a_later_owner_knows_the_ids_of_what_is_in_the_log() {
    let mut bench = Bench::with_two(|_| {});
    bench.apply(push(1, 9, signal(5)));
    let mut batch = Vec::new();
    bench.room.collect(&mut batch);
    let Record { origin, seq, .. } = batch.remove(0).record;
    let mut loaded = Loaded::default();
    let last_ids = vec![origin.clone()];
    let recent = vec![(origin, seq)];
    loaded.heads[0] = LogHead { last: seq, last_message: seq, last_ids, recent };
    let mut next = Bench::new(Kind::Room, |_| {});
    next.room = Room::new(7, Kind::Room, Arc::new(RoomConfig::default()), loaded, next.now);
    let again = next.apply(push(1, 9, signal(5)));
    assert_eq!(answers(&again), [(1, Ok(Some(seq)), "repeat")]);
    next.apply(push(2, 9, signal(6)));
    assert_eq!(answers(&next.store().1), [(2, Ok(Some(Seq::new(2, 1))), "")]);
}

#[test]
fn ids_are_remembered_for_a_time_and_up_to_a_number() {
    let mut bench = Bench::new(Kind::Room, |_| {});
    let repeats = |bench: &mut Bench, digest, id| {
        let effects = bench.apply(push(1, digest, signal(id)));
        let repeat = answers(&effects).iter().any(|(_, _, how)| *how == "repeat");
        bench.store();
        repeat
    };
    assert!(!repeats(&mut bench, 9, 1) && !repeats(&mut bench, 0, 2));
    bench.pass(Duration::from_secs(20));
    assert!(repeats(&mut bench, 9, 1) && repeats(&mut bench, 0, 2));
    bench.pass(Duration::from_secs(11));
    assert!(!repeats(&mut bench, 0, 3) && !repeats(&mut bench, 0, 2), "30 s");
    assert!(repeats(&mut bench, 9, 1));
    for id in 10..1034 {
        assert!(!repeats(&mut bench, 9, id));
    }
    assert!(!repeats(&mut bench, 9, 1), "1,024 are remembered");
    assert!(repeats(&mut bench, 9, 1033));
    bench.pass(Duration::from_secs(601));
    assert!(!repeats(&mut bench, 9, 2000) && !repeats(&mut bench, 9, 1033), "ten minutes");
}
