//! What becomes of messages that are filtered.

use edgeway_filter::{Filter, WordOptions, Words};

use super::*;

const LIST: &str = "badword\nreject:worst\nsilent:spam";

fn bench(classes: [bool; 3]) -> (Bench, Arc<Filter>) {
    let filter = Arc::new(Filter::default());
    filter.set_words(Arc::new(Words::parse(LIST, WordOptions::default()).unwrap()));
    let given = Arc::clone(&filter);
    let bench = Bench::with_two(|config| {
        config.filter = Some(Filtering { filter: given, classes });
        config.chat_per_second = 0;
    });
    (bench, filter)
}

const CHAT: [bool; 3] = [false, false, true];
const ALL: [bool; 3] = [true, false, true];

fn chat(id: u64, text: &'static [u8]) -> frame::Send {
    message(Class::Chat, id, text)
}

fn texts(effects: &[Effect]) -> Vec<Bytes> {
    delivered(effects).into_iter().map(|deliver| deliver.payload.0).collect()
}

#[test]
fn chat_is_masked_refused_or_silently_dropped_before_it_gets_a_place() {
    let (mut bench, _) = bench(CHAT);
    assert!(acks(&bench.send(A, chat(1, b"a badword")), A).is_empty(), "the next batch acks it");
    let silent = bench.send(A, chat(2, b"buy SPAM"));
    assert_eq!(acks(&silent, A), [(2, AckStatus::Accepted, Seq::new(1, 0))]);
    let refused = bench.send(A, chat(3, b"w.o.r.s.t"));
    assert_eq!(errors(&refused, A), [ErrorCode::Forbidden]);
    assert_eq!(acks(&refused, A), [(3, AckStatus::Refused, Seq::ZERO)]);
    bench.send(A, chat(3, b"fine"));
    let sent = bench.pass(Duration::from_secs(1));
    assert_eq!(texts(&sent), [&b"a *******"[..], b"fine"]);
    let seqs: Vec<_> = delivered(&sent).into_iter().map(|deliver| deliver.seq.counter).collect();
    assert_eq!(seqs, [1, 2], "no hole, and nothing shed");
    assert!(delivered(&sent).iter().all(|deliver| deliver.shed == 0));
    // Sent again because the ack was lost: still nothing for anybody.
    let again = bench.send(A, chat(2, b"buy SPAM"));
    assert_eq!(acks(&again, A)[0].1, AckStatus::Duplicate);
}

#[test]
fn signals_are_looked_at_only_where_the_config_says_so_and_keep_their_order() {
    let (mut plain, _) = bench(CHAT);
    plain.send(A, message(Class::Signal, 1, b"worst spam badword"));
    assert_eq!(texts(&plain.store().1), [&b"worst spam badword"[..]]);

    let (mut bench, _) = bench(ALL);
    bench.send(A, message(Class::Signal, 1, b"a badword"));
    bench.send(A, frame::Send { key: Text::from("k"), ..message(Class::Signal, 2, b"spam") });
    let refused = bench.send(A, message(Class::Signal, 3, b"worst"));
    assert!(acks(&refused, A).is_empty(), "after the acks of what was sent before");
    let (stored, effects) = bench.store();
    assert_eq!(stored, 2);
    let all = delivered(&effects);
    assert_eq!(all[0].payload.0, &b"a *******"[..]);
    // A void: its place is kept, and nobody learns of whom it was.
    let void = &all[1];
    assert!(void.payload.0.is_empty() && void.sender.is_empty() && void.key.is_empty());
    assert_eq!(void.expires_ms, 1);
    let acked: Vec<_> = acks(&effects, A).into_iter().map(|(id, status, _)| (id, status)).collect();
    let (yes, no) = (AckStatus::Accepted, AckStatus::Refused);
    assert_eq!(acked, [(1, yes), (2, yes), (3, no)]);
    bench.send(A, message(Class::Signal, 3, b"fine"));
    assert_eq!(texts(&bench.store().1), [&b"fine"[..]]);
}

#[test]
fn who_is_muted_or_blocked_or_too_fast_is_told_and_nothing_of_it_is_sent() {
    let (mut bench, filter) = bench(CHAT);
    let wall_ms = bench.now.wall_ms;
    filter.rules(|rules| {
        rules.mute("ann", Some("r"), Some(wall_ms + 5_000), wall_ms).unwrap();
        rules.block("bob", None, wall_ms).unwrap();
    });
    assert_eq!(errors(&bench.send(A, chat(1, b"hi")), A), [ErrorCode::Forbidden]);
    assert_eq!(errors(&bench.send(B, chat(1, b"hi")), B), [ErrorCode::Forbidden]);
    assert_eq!(errors(&bench.send(B, message(Class::Signal, 1, b"hi")), B), [ErrorCode::Forbidden]);
    assert_eq!(errors(&bench.send(B, message(Class::Binary, 1, b"hi")), B), [ErrorCode::Forbidden]);
    // A signal is of another class than what is muted.
    assert!(errors(&bench.send(A, message(Class::Signal, 1, b"hi")), A).is_empty());
    bench.pass(Duration::from_secs(5));
    filter.rules(|rules| rules.slow("r", Some(Duration::from_secs(10))).unwrap());
    assert!(errors(&bench.send(A, chat(1, b"now")), A).is_empty());
    assert_eq!(errors(&bench.send(A, chat(2, b"again")), A), [ErrorCode::RateLimited]);
    let sent = bench.pass(Duration::from_secs(10));
    assert_eq!(texts(&sent), [&b"now"[..]]);
    assert!(errors(&bench.send(A, chat(2, b"again")), A).is_empty());
}
