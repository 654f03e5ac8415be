//! How far a device is in its user's inbox and in topics.

use super::*;

/// A keyed signal of the inbox's state.
fn set(counter: u64, key: &str, payload: &str) -> frame::Deliver {
    let payload = Rest(Bytes::copy_from_slice(payload.as_bytes()));
    frame::Deliver { key: key.into(), payload, ..deliver(7, Class::Signal, counter) }
}

/// An inbox with this state, joined from the cursor of the device `phone`.
fn inbox(bench: &mut Bench, head: u64, state: &[frame::Deliver]) -> RoomId {
    let (answer, mut waiting) = oneshot::channel();
    let positions = vec![(Class::Signal, Seq::ZERO)];
    let options = JoinOptions { positions, send_only: false };
    bench.core.join(SessionId::CHAT, "@me", &options, answer);
    bench.core.keep_cursor(SessionId::CHAT, "@me", "phone", true);
    let Some(Frame::Join(join)) = bench.written().pop() else { panic!() };
    let mut frames = bytes::BytesMut::new();
    state.iter().for_each(|deliver| deliver.encode(&mut frames));
    let state = Rest(frames.freeze());
    let heads = [Seq::new(1, head), Seq::ZERO, Seq::ZERO];
    bench.give(SIGNAL, frame::Joined { state, ..joined(&join, 7, heads) });
    waiting.try_recv().unwrap().unwrap()
}

/// What is asked of history once the gateway has said that there is more, up to `head`.
fn asked(bench: &mut Bench, head: u64) -> Seq {
    let head = Seq::new(1, head);
    bench.give(SIGNAL, frame::Behind { group: 7, class: Class::Signal, head });
    match bench.written().pop() {
        Some(Frame::History(history)) => history.after,
        other => panic!("{other:?}"),
    }
}

fn keys_sent(bench: &mut Bench) -> Vec<(String, String)> {
    let sent = bench.written().into_iter().filter_map(|frame| match frame {
        Frame::Send(send) => {
            let payload = String::from_utf8(send.payload.0.to_vec()).unwrap();
            Some((send.key.to_string(), payload))
        }
        _ => None,
    });
    sent.collect()
}

fn acknowledge(bench: &mut Bench, inbox: RoomId, room: &str, place: Seq) {
    for message in bench.core.move_cursor(inbox, room, place) {
        bench.core.send(inbox, Draft::new(message).unwrap(), None, None).unwrap();
    }
}

#[test]
fn an_inbox_begins_where_this_device_has_got_to_and_not_where_another_has() {
    let mut bench = Bench::new();
    let state = [
        set(8, "cursor/tablet", r#"{"@me":"1-7"}"#),
        set(9, "cursor/phone", r#"{"@me":"1-5","topic/news":"3-4","x":"?"}"#),
    ];
    let id = inbox(&mut bench, 9, &state);
    assert_eq!(asked(&mut bench, 9), Seq::new(1, 5));
    assert_eq!(bench.core.cursor(id, "topic/news"), Some(Seq::new(3, 4)));
    assert_eq!(bench.core.cursor(id, "x"), None);
}

#[test]
fn without_a_cursor_or_with_one_that_cannot_be_read_all_that_is_kept_comes() {
    for state in [&[][..], &[set(3, "cursor/phone", "17")]] {
        let mut bench = Bench::new();
        inbox(&mut bench, 3, state);
        assert_eq!(asked(&mut bench, 3), Seq::ZERO);
    }
}

#[test]
fn a_cursor_beyond_what_there_is_hides_nothing_that_comes() {
    let mut bench = Bench::new();
    inbox(&mut bench, 3, &[set(3, "cursor/phone", r#"{"@me":"9-9"}"#)]);
    bench.give(SIGNAL, deliver(7, Class::Signal, 4));
    assert_eq!(messages(&bench.events()).len(), 1);
}

#[test]
fn joined_again_it_goes_on_with_what_the_app_has_not_got() {
    let mut bench = Bench::new();
    inbox(&mut bench, 3, &[set(3, "cursor/phone", r#"{"@me":"1-3"}"#)]);
    bench.give(SIGNAL, deliver(7, Class::Signal, 4));
    bench.core.disconnected();
    let joins = bench.core.first_frames();
    assert_eq!(rooms_of(&joins)[0].1[0], (Class::Signal, Seq::new(1, 4)));
}

#[test]
fn cursors_never_go_back_say_all_rooms_and_are_not_shown_to_the_app() {
    let mut bench = Bench::new();
    let id = inbox(&mut bench, 3, &[set(3, "cursor/phone", r#"{"@me":"1-3"}"#)]);
    acknowledge(&mut bench, id, "topic/news", Seq::new(2, 1));
    acknowledge(&mut bench, id, "@me", Seq::new(1, 2));
    let payload = [r#"{"@me":"1-3","topic/news":"2-1"}"#; 2];
    assert_eq!(keys_sent(&mut bench), payload.map(|p| ("cursor/phone".into(), p.into())));
    bench.give(SIGNAL, set(4, "cursor/phone", payload[0]));
    bench.give(SIGNAL, set(5, "cursor/tablet", payload[0]));
    assert!(bench.events().is_empty());
    assert_eq!(bench.core.position(id, Class::Signal), Seq::new(1, 5));
}

#[test]
fn of_many_devices_that_was_set_longest_ago_makes_room() {
    let mut bench = Bench::new();
    let others: Vec<_> =
        (1..=33).map(|n| set(n, &format!("cursor/{}", 90 - n), r#"{"@me":"1-1"}"#)).collect();
    let id = inbox(&mut bench, 33, &others);
    acknowledge(&mut bench, id, "@me", Seq::new(1, 33));
    let sent = keys_sent(&mut bench);
    let keys: Vec<_> = sent.iter().map(|(key, payload)| (&**key, payload.is_empty())).collect();
    assert_eq!(keys, [("cursor/89", true), ("cursor/88", true), ("cursor/phone", false)]);
}

#[test]
fn a_cursor_of_many_rooms_forgets_those_that_are_not_joined() {
    let mut bench = Bench::new();
    let id = inbox(&mut bench, 0, &[]);
    for n in 1..=16 {
        acknowledge(&mut bench, id, &format!("topic/{n}"), Seq::new(1, n));
    }
    acknowledge(&mut bench, id, "@me", Seq::new(1, 1));
    assert_eq!(bench.core.cursor(id, "topic/16"), None);
    assert_eq!(bench.core.cursor(id, "@me"), Some(Seq::new(1, 1)));
}
