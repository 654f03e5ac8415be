//! What every directory promises. A directory runs the suite with `conformance::promises!(open)`, where
//! `open` gives one that other tests may use too.
#![allow(clippy::unwrap_used, clippy::panic)]

mod who;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;

use super::{Action, Directory, Found, Name, Outcome, Term, Write};
pub(crate) use who::*;

/// Makes a test of each promise.
macro_rules! promises {
    ($open:expr) => {
        $crate::directory::conformance::promises! { $open;
            a_listing_is_read_as_it_was_written
            what_was_never_written_is_not_there
            pages_lead_through_all_lines_in_the_order_of_their_bytes
            names_and_lines_may_be_anything
            an_earlier_term_is_refused_and_a_later_one_begins_empty
            what_follows_another_version_is_refused
            a_write_that_is_given_again_is_there_once
            a_late_copy_of_a_write_harms_nothing
            lines_that_are_not_as_many_as_thought_are_told
            a_listing_vanishes_when_it_is_not_renewed
            a_renewed_listing_stays
            a_closed_listing_is_gone_and_its_term_is_remembered
            the_sessions_of_a_user_are_known
            a_batch_is_answered_in_its_order;
            the_members_of_a_room_are_known_as_they_come_and_go
            the_route_of_a_room_is_known
            of_two_owners_of_a_room_the_later_one_is_believed
            where_a_user_is_is_known_of_each_device
            what_a_session_has_outlives_its_access_until_another_one_has_it
        }
    };
    ($open:expr; $($promise:ident)*; $($of_processes:ident)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $promise() {
                $crate::directory::conformance::$promise(&*$open.await).await;
            }
        )*
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $of_processes() {
                $crate::directory::conformance::$of_processes(&$open.await).await;
            }
        )*
    };
}
pub(crate) use promises;

/// Far longer than any test takes.
const LONG: Duration = Duration::from_secs(3600);

fn unique() -> String {
    static NAMES: AtomicU64 = AtomicU64::new(0);
    format!("{}-{}", std::process::id(), NAMES.fetch_add(1, Ordering::Relaxed))
}

fn new_room() -> Name {
    Name::room(&format!("chat:{}", unique()))
}

fn bytes(texts: &[&str]) -> Vec<Bytes> {
    texts.iter().map(|text| Bytes::copy_from_slice(text.as_bytes())).collect()
}

/// A write of the first version, without lines; its parts are changed by the test where they matter.
fn anew(name: &Name) -> Write {
    Write {
        name: name.clone(),
        term: Term(1, 0),
        action: Action::Anew,
        before: 0,
        after: 1,
        head: Some(Bytes::from_static(b"head")),
        added: Vec::new(),
        removed: Vec::new(),
        total: 0,
        lives: LONG,
    }
}

fn with(write: Write, added: &[&str], total: u64) -> Write {
    Write { added: bytes(added), total, ..write }
}

/// Follows the version `before`.
fn change(name: &Name, before: u64, added: &[&str], removed: &[&str], total: u64) -> Write {
    let write = Write { action: Action::Change, before, after: before + 1, ..anew(name) };
    Write { head: None, added: bytes(added), removed: bytes(removed), total, ..write }
}

fn renewal(write: &Write) -> Write {
    let (before, added, removed) = (write.after, Vec::new(), Vec::new());
    let action = Action::Change;
    Write { action, before, head: None, added, removed, ..write.clone() }
}

fn close(write: &Write) -> Write {
    let after = write.after + 1;
    Write { action: Action::Close, after, total: 0, ..renewal(write) }
}

async fn write(directory: &dyn Directory, write: &Write) -> Outcome {
    let mut outcomes = directory.write(vec![Arc::new(write.clone())]).await;
    assert_eq!(outcomes.len(), 1);
    outcomes.remove(0).unwrap()
}

async fn done(directory: &dyn Directory, wanted: &Write) {
    assert_eq!(write(directory, wanted).await, Outcome::Done, "{wanted:?}");
}

async fn read(directory: &dyn Directory, name: &Name) -> Option<Found> {
    directory.read(name.clone(), Bytes::new(), 10_000).await.unwrap()
}

async fn lines(directory: &dyn Directory, name: &Name) -> Vec<Bytes> {
    read(directory, name).await.unwrap().lines
}

pub(crate) async fn a_listing_is_read_as_it_was_written(directory: &dyn Directory) {
    let name = new_room();
    done(directory, &with(anew(&name), &["b", "a", "c"], 3)).await;
    let expected = Found {
        term: Term(1, 0),
        head: Bytes::from_static(b"head"),
        total: 3,
        lines: bytes(&["a", "b", "c"]),
        more: false,
    };
    assert_eq!(read(directory, &name).await, Some(expected.clone()));
    done(directory, &change(&name, 1, &["d"], &["a", "c"], 2)).await;
    let expected = Found { total: 2, lines: bytes(&["b", "d"]), ..expected };
    assert_eq!(read(directory, &name).await, Some(expected.clone()));
    // An empty head is one.
    let write = Write { head: Some(Bytes::new()), ..change(&name, 2, &[], &["b", "d"], 0) };
    done(directory, &write).await;
    let expected = Found { head: Bytes::new(), total: 0, lines: Vec::new(), ..expected };
    assert_eq!(read(directory, &name).await, Some(expected));
}

pub(crate) async fn what_was_never_written_is_not_there(directory: &dyn Directory) {
    let name = new_room();
    assert_eq!(read(directory, &name).await, None);
    assert_eq!(write(directory, &change(&name, 1, &["a"], &[], 1)).await, Outcome::Behind);
    assert_eq!(read(directory, &name).await, None);
    assert_eq!(directory.sessions(&unique(), 10).await.unwrap(), [] as [String; 0]);
}

pub(crate) async fn pages_lead_through_all_lines_in_the_order_of_their_bytes(
    directory: &dyn Directory,
) {
    let name = new_room();
    let all: Vec<_> = (0..2_500).map(|n| format!("line {n:05}")).collect();
    let texts: Vec<_> = all.iter().map(String::as_str).collect();
    done(directory, &with(anew(&name), &texts[..1_000], 1_000)).await;
    done(directory, &change(&name, 1, &texts[1_000..], &[], 2_500)).await;
    let (mut after, mut found) = (Bytes::new(), Vec::new());
    loop {
        let page = directory.read(name.clone(), after, 500).await.unwrap().unwrap();
        assert_eq!((page.lines.len(), page.total), (500, 2_500));
        found.extend(page.lines);
        assert_eq!(page.more, found.len() < 2_500);
        if !page.more {
            break;
        }
        after = found.last().unwrap().clone();
    }
    assert_eq!(found, bytes(&texts));
    // After what is not there (any more), and behind the end.
    let page = directory.read(name.clone(), Bytes::from("line 00010x"), 1).await.unwrap().unwrap();
    assert_eq!(page.lines, bytes(&["line 00011"]));
    let page = directory.read(name.clone(), Bytes::from("z"), 1).await.unwrap().unwrap();
    assert_eq!((page.lines.len(), page.more, page.total), (0, false, 2_500));
    // The head alone.
    let page = directory.read(name, Bytes::new(), 0).await.unwrap().unwrap();
    assert_eq!((page.lines.len(), page.more, page.total), (0, false, 2_500));
}

pub(crate) async fn names_and_lines_may_be_anything(directory: &dyn Directory) {
    let unique = unique();
    let rooms = ["{", "}", "a}:members", "{u:x}", "ä ö", "*"];
    let line = Bytes::from_static(b"\x00\xff(+-\r\n");
    for room in rooms {
        let name = Name::room(&format!("chat:{room}{unique}"));
        let head = Some(Bytes::from_static(b"\x00="));
        let write = Write { added: vec![line.clone()], total: 1, head, ..anew(&name) };
        done(directory, &write).await;
    }
    for room in rooms {
        let name = Name::room(&format!("chat:{room}{unique}"));
        let found = read(directory, &name).await.unwrap();
        assert_eq!((found.head, found.lines), (Bytes::from_static(b"\x00="), vec![line.clone()]));
    }
}

pub(crate) async fn an_earlier_term_is_refused_and_a_later_one_begins_empty(
    directory: &dyn Directory,
) {
    let name = new_room();
    let old = with(anew(&name), &["old"], 1);
    done(directory, &old).await;
    // By numbers, not by digits; the second part counts where the first is the same.
    for (later, earlier) in [
        (Term(9, 0), Term(1, 7)),
        (Term(10, 0), Term(9, u64::MAX)),
        (Term(10, 10), Term(10, 9)),
        (Term(u64::MAX, u64::MAX), Term(u64::MAX, u64::MAX - 1)),
    ] {
        let new = Write { term: later, ..with(anew(&name), &["new"], 1) };
        done(directory, &new).await;
        for write_of in [
            Write { term: earlier, ..old.clone() },
            Write { term: earlier, ..change(&name, 1, &["late"], &[], 2) },
            Write { term: earlier, ..renewal(&old) },
            Write { term: earlier, ..close(&old) },
        ] {
            assert_eq!(write(directory, &write_of).await, Outcome::Stale, "{write_of:?}");
        }
        let found = read(directory, &name).await.unwrap();
        assert_eq!((found.term, found.lines), (later, bytes(&["new"])));
    }
}

pub(crate) async fn what_follows_another_version_is_refused(directory: &dyn Directory) {
    let name = new_room();
    done(directory, &with(anew(&name), &["a"], 1)).await;
    for before in [0, 2, 3, 11] {
        let wanted = Write { after: 20, ..change(&name, before, &["b"], &["a"], 1) };
        assert_eq!(write(directory, &wanted).await, Outcome::Behind);
        assert_eq!(lines(directory, &name).await, bytes(&["a"]));
    }
    // A later term has to begin anew.
    let wanted = Write { term: Term(2, 0), ..change(&name, 1, &["b"], &[], 2) };
    assert_eq!(write(directory, &wanted).await, Outcome::Behind);
    done(directory, &Write { after: 20, ..with(anew(&name), &["c"], 1) }).await;
    assert_eq!(lines(directory, &name).await, bytes(&["c"]));
}

pub(crate) async fn a_write_that_is_given_again_is_there_once(directory: &dyn Directory) {
    let name = new_room();
    let first = with(anew(&name), &["a"], 1);
    let second = change(&name, 1, &["b", "c"], &["a"], 2);
    for write in [&first, &first, &second, &second, &second] {
        done(directory, write).await;
    }
    assert_eq!(lines(directory, &name).await, bytes(&["b", "c"]));
    for write in [&close(&second), &close(&second)] {
        done(directory, write).await;
    }
    assert_eq!(read(directory, &name).await, None);
}

pub(crate) async fn a_late_copy_of_a_write_harms_nothing(directory: &dyn Directory) {
    let name = new_room();
    let first = with(anew(&name), &["a"], 1);
    let second = change(&name, 1, &["b"], &[], 2);
    let third = change(&name, 2, &["c"], &[], 3);
    for write in [&first, &second, &third] {
        done(directory, write).await;
    }
    for late in [&first, &second] {
        assert_eq!(write(directory, late).await, Outcome::Behind);
    }
    assert_eq!(lines(directory, &name).await, bytes(&["a", "b", "c"]));
}

pub(crate) async fn lines_that_are_not_as_many_as_thought_are_told(directory: &dyn Directory) {
    let name = new_room();
    assert_eq!(write(directory, &with(anew(&name), &["a"], 2)).await, Outcome::Behind);
    let good = Write { after: 2, ..with(anew(&name), &["a", "b"], 2) };
    done(directory, &good).await;
    assert_eq!(write(directory, &Write { total: 3, ..renewal(&good) }).await, Outcome::Behind);
    done(directory, &renewal(&good)).await;
}

/// Waits until a listing is gone.
async fn until_gone(directory: &dyn Directory, name: &Name) {
    while read(directory, name).await.is_some() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub(crate) async fn a_listing_vanishes_when_it_is_not_renewed(directory: &dyn Directory) {
    let lives = Duration::from_millis(30);
    let (name, session) = (new_room(), Name::session(&unique(), "phone", "chat"));
    for name in [&name, &session] {
        let short = Write { lives, ..with(anew(name), &["a"], 1) };
        write(directory, &short).await;
        until_gone(directory, name).await;
        // And with it all that it knew.
        assert_eq!(write(directory, &renewal(&short)).await, Outcome::Behind);
        done(directory, &Write { term: Term(0, 1), ..anew(name) }).await;
        // A renewal counts from when it is.
        let renewed = Write { term: Term(0, 1), lives, ..renewal(&anew(name)) };
        done(directory, &renewed).await;
        until_gone(directory, name).await;
    }
}

pub(crate) async fn a_renewed_listing_stays(directory: &dyn Directory) {
    let name = Name::session(&unique(), "phone", "chat");
    let (mut after, mut lives) = (1, Duration::from_millis(200));
    // Where the machine is so slow that it vanishes before it is renewed, it is tried with more time.
    loop {
        let short = Write { after, lives, ..with(anew(&name), &["a"], 1) };
        done(directory, &short).await;
        if write(directory, &Write { lives: LONG, ..renewal(&short) }).await == Outcome::Done {
            break;
        }
        (after, lives) = (after + 1, lives * 2);
    }
    tokio::time::sleep(lives + Duration::from_millis(50)).await;
    assert_eq!(lines(directory, &name).await, bytes(&["a"]));
    let (user, _) = name.of_user().unwrap();
    assert_eq!(directory.sessions(user, 10).await.unwrap(), ["phone/chat"]);
}

pub(crate) async fn a_closed_listing_is_gone_and_its_term_is_remembered(directory: &dyn Directory) {
    let name = new_room();
    let old = with(anew(&name), &["old"], 1);
    let new = Write { term: Term(2, 0), ..with(anew(&name), &["new"], 1) };
    done(directory, &old).await;
    done(directory, &new).await;
    done(directory, &close(&new)).await;
    assert_eq!(read(directory, &name).await, None);
    assert_eq!(write(directory, &old).await, Outcome::Stale);
    assert_eq!(write(directory, &renewal(&new)).await, Outcome::Behind);
    assert_eq!(read(directory, &name).await, None);
    done(directory, &Write { term: Term(3, 0), ..old.clone() }).await;
    // Where it is to be remembered for no time, it is not.
    done(directory, &Write { term: Term(3, 0), lives: Duration::ZERO, ..close(&old) }).await;
    done(directory, &old).await;
}

pub(crate) async fn the_sessions_of_a_user_are_known(directory: &dyn Directory) {
    let user = unique();
    let sessions = async || {
        let mut names = directory.sessions(&user, 10).await.unwrap();
        names.sort();
        names
    };
    let name = |name| Name::Session(format!("{user}/{name}").into());
    for name in [name("my/phone/chat"), name("tablet/chat"), name("tablet/im")] {
        done(directory, &anew(&name)).await;
    }
    done(directory, &anew(&Name::Session(format!("{user}x/other/chat").into()))).await;
    assert_eq!(sessions().await, ["my/phone/chat", "tablet/chat", "tablet/im"]);
    done(directory, &Write { lives: Duration::ZERO, ..close(&anew(&name("tablet/chat"))) }).await;
    assert_eq!(sessions().await, ["my/phone/chat", "tablet/im"]);
    assert_eq!(directory.sessions(&user, 1).await.unwrap().len(), 1);
    assert!(read(directory, &name("my/phone/chat")).await.is_some());
    for name in [name("my/phone/chat"), name("tablet/im")] {
        done(directory, &Write { lives: Duration::ZERO, ..close(&anew(&name)) }).await;
    }
    assert_eq!(sessions().await, [] as [String; 0]);
}

pub(crate) async fn a_batch_is_answered_in_its_order(directory: &dyn Directory) {
    let names: Vec<_> = (0..300).map(|_| new_room()).collect();
    done(directory, &Write { term: Term(9, 0), ..anew(&names[7]) }).await;
    let mut batch: Vec<_> = names.iter().map(|name| Arc::new(anew(name))).collect();
    batch[9] = Arc::new(change(&names[9], 1, &[], &[], 0));
    let outcomes = directory.write(batch).await;
    let expected = |at| match at {
        7 => Outcome::Stale,
        9 => Outcome::Behind,
        _ => Outcome::Done,
    };
    assert_eq!(outcomes.len(), names.len());
    for (at, outcome) in outcomes.into_iter().enumerate() {
        assert_eq!(outcome.unwrap(), expected(at), "{at}");
    }
}
