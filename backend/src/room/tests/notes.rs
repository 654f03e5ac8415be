//! What is noted for the events.

use edgeway_events::Cause;

use super::*;

impl Bench {
    fn noting(kind: Kind, messages: [bool; 3]) -> Self {
        let wanted = Wanted { presence: kind != Kind::Inbox, messages };
        let fx = Effects::noting(Notes::new(wanted));
        Self { fx, ..Self::new(kind, |_| {}) }
    }

    fn noted(&mut self, event: Event) -> Vec<Note> {
        self.apply(event);
        self.take_notes()
    }

    fn take_notes(&mut self) -> Vec<Note> {
        std::mem::take(&mut self.fx.notes.list)
    }
}

fn joins(session: SessionId, user: &str) -> Event {
    Bench::join_event(session, user, false)
}

fn leaves(session: SessionId) -> Event {
    Event::Leave { session, access: 5, request: 0 }
}

fn came(user: &'static str) -> Note {
    Note::Came(Text::from_static(user))
}

fn went(user: &'static str, cause: Cause) -> Note {
    Note::Went(Text::from_static(user), cause)
}

#[test]
fn a_user_comes_with_the_first_session_and_goes_with_the_last() {
    let mut bench = Bench::noting(Kind::Room, [false; 3]);
    assert_eq!(bench.noted(joins(A, "ann")), [came("ann")]);
    assert_eq!(bench.noted(joins(B, "ann")), []);
    assert_eq!(bench.noted(joins(B, "ann")), [], "it joins again");
    assert_eq!(bench.noted(leaves(A)), []);
    assert_eq!(bench.noted(leaves(B)), [went("ann", Cause::Left)]);
    assert_eq!(bench.noted(leaves(B)), [], "it is gone already");
    assert_eq!(bench.noted(Bench::join_event(C, "cid", true)), [], "who only sends is not there");
}

#[test]
fn a_newer_connection_that_takes_a_place_over_neither_comes_nor_goes() {
    let mut bench = Bench::noting(Kind::Room, [false; 3]);
    bench.noted(joins(A, "ann"));
    let Event::Join(join) = joins(B, "ann") else { unreachable!() };
    assert_eq!(bench.noted(Event::Join(Join { replaces: Some(A), ..join })), []);
    assert_eq!(bench.noted(joins(B, "ann")), []);
    assert_eq!(bench.noted(leaves(B)), [went("ann", Cause::Left)]);
}

#[test]
fn who_goes_by_a_lost_link_or_with_the_room_goes_for_that_reason() {
    let mut bench = Bench::noting(Kind::Room, [false; 3]);
    for (session, user) in [(A, "ann"), (B, "bob"), (C, "cid")] {
        bench.noted(joins(session, user));
    }
    let lost = [went("ann", Cause::Lost), went("cid", Cause::Lost)];
    assert_eq!(bench.noted(Event::GatewayGone(1)), lost);
    assert_eq!(bench.noted(Event::Fenced), [went("bob", Cause::Moved)]);
}

#[test]
fn messages_of_the_wanted_classes_are_noted_once_they_are_accepted_and_once() {
    let mut bench = Bench::noting(Kind::Room, [true, false, true]);
    bench.noted(joins(A, "ann"));
    bench.send(A, signal(1));
    bench.send(A, message(Class::Binary, 1, b"not asked for"));
    assert_eq!(bench.take_notes(), [], "not before it is stored");
    bench.store();
    bench.send(A, signal(1));
    bench.store();
    bench.send(A, message(Class::Chat, 1, b"chat"));
    bench.pass(Duration::from_secs(1));
    bench.send(A, message(Class::Chat, 1, b"chat"));
    bench.pass(Duration::from_secs(1));
    let notes = bench.take_notes();
    let about = |note: &Note| match note {
        Note::Message { class, seq, device, id, frame } => {
            let Some(Frame::Deliver(deliver)) = decode(frame.clone()).pop() else { unreachable!() };
            assert_eq!((deliver.seq, &*deliver.sender), (*seq, "ann"));
            (*class, device.to_string(), *id, deliver.payload.0)
        }
        note => panic!("{note:?}"),
    };
    let of = |class, payload| (class, "ann/ann's phone".to_owned(), 1, Bytes::from_static(payload));
    let noted: Vec<_> = notes.iter().map(about).collect();
    assert_eq!(noted, [of(Class::Signal, b"hello"), of(Class::Chat, b"chat")]);
}

#[test]
fn who_writes_into_an_inbox_is_noted_and_who_reads_it_is_not() {
    let mut bench = Bench::noting(Kind::Inbox, [true, false, false]);
    assert_eq!(bench.noted(joins(A, "ann")), []);
    bench.apply(Bench::join_event(B, "bob", true));
    bench.send(B, signal(1));
    bench.store();
    assert_eq!(bench.take_notes().len(), 1);
    assert_eq!(bench.noted(leaves(A)), []);
}

#[test]
fn nothing_is_noted_where_nothing_is_wanted() {
    let mut bench = Bench::new(Kind::Room, |_| {});
    bench.noted(joins(A, "ann"));
    bench.send(A, signal(1));
    bench.store();
    assert_eq!(bench.noted(leaves(A)), []);
    assert!(bench.room.members.moves().is_empty());
}
