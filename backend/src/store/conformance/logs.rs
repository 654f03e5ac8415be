//! Logs: order, pages, heads, trimming.

use super::*;

pub(crate) async fn what_was_appended_is_read_in_order(place: &Place) {
    let store = place.open().await;
    let log = new_log(&*store, Class::Signal).await;
    // Counters and epochs whose decimal order is not their order, and a hole.
    let places = [(1, 1), (1, 2), (1, 9), (1, 10), (1, 11), (2, 1), (10, 1), (10, 256)];
    let appends = places.map(|(epoch, counter)| message(log, Seq::new(epoch, counter))).to_vec();
    store.append(appends[..3].to_vec()).await.unwrap();
    store.append(appends[3..].to_vec()).await.unwrap();
    for from in 0..appends.len() {
        let after = appends[from].record.seq;
        let expected = LogPage {
            records: records(&appends[from + 1..]),
            upto: Seq::new(10, 256),
            more: false,
            truncated: false,
        };
        assert_eq!(read_all(&*store, log, after).await, expected);
    }
    let between = read_all(&*store, log, Seq::new(1, 5)).await;
    assert_eq!(between.records, records(&appends[2..]));
    let beyond = read_all(&*store, log, Seq::new(11, 3)).await;
    assert_eq!(beyond, LogPage { upto: Seq::new(11, 3), ..LogPage::default() });
}

pub(crate) async fn a_time_is_found_among_epochs_seals_and_holes(place: &Place) {
    let store = place.open().await;
    let log = new_log(&*store, Class::Signal).await;
    assert_eq!(place_before(&*store, log, 5).await.unwrap(), Seq::ZERO);
    let places = [(2, 1), (2, 2), (2, 3), (5, 1), (5, 40), (9, 1), (9, 2)];
    let mut appends = Vec::new();
    for (n, (epoch, counter)) in (1..).zip(places) {
        if counter == 1 {
            appends.push(seal(log, epoch));
        }
        let mut append = message(log, Seq::new(epoch, counter));
        // Two of each time; void ones count.
        append.record.time_ms = 10 * (n / 2);
        appends.push(if n == 4 { expiring(append, 1) } else { append });
    }
    appends.push(seal(log, 10));
    store.append(appends.clone()).await.unwrap();
    for since in 0..50 {
        let messages = appends.iter().filter(|append| append.record.seq.counter > 0);
        let expected = messages.map(|a| &a.record).find(|record| record.time_ms >= since);
        let before = place_before(&*store, log, since).await.unwrap();
        let page = store.read(log, before, 1, 1, 0).await.unwrap();
        assert_eq!(page.records.first(), expected, "{since}, behind {before}");
    }
    // Of what is trimmed away nothing is found.
    store.trim(log, Seq::new(5, 1)).await.unwrap();
    for (since, first) in [(0, (5, 1)), (15, (5, 1)), (25, (9, 1))] {
        let before = place_before(&*store, log, since).await.unwrap();
        let page = store.read(log, before, 1, 1, 0).await.unwrap();
        assert_eq!(page.records[0].seq, Seq::new(first.0, first.1), "{since}");
    }
}

pub(crate) async fn every_log_is_found_by_its_group_and_has_a_length(place: &Place) {
    let store = place.open().await;
    let mut logs = Vec::new();
    for n in 1..=5 {
        let log = new_log(&*store, Class::Chat).await;
        store.append((1..=n).map(|n| message(log, Seq::new(1, n))).collect()).await.unwrap();
        logs.push(log);
    }
    // Others use the store too; there may be groups without logs.
    let (mut after, mut found) = (logs[0].group - 1, Vec::new());
    while let Some(last) = {
        let page = store.groups_after(after, 2).await.unwrap();
        assert!(page.len() <= 2 && page.is_sorted() && page.iter().all(|group| *group > after));
        found.extend(&page);
        page.last().copied()
    } {
        after = last;
    }
    assert!(logs.iter().all(|log| found.contains(&log.group)), "{logs:?} {found:?}");
    for (log, n) in logs.iter().zip(1..) {
        assert_eq!(store.len(*log).await.unwrap(), n);
        assert_eq!(store.len(LogId { class: Class::Signal, ..*log }).await.unwrap(), 0);
    }
    store.trim(logs[4], Seq::new(1, 4)).await.unwrap();
    assert_eq!(store.len(logs[4]).await.unwrap(), 2);
}

pub(crate) async fn a_log_that_never_was_is_empty(place: &Place) {
    let store = place.open().await;
    let log = new_log(&*store, Class::Binary).await;
    assert_eq!(read_all(&*store, log, Seq::ZERO).await, LogPage::default());
    assert_eq!(store.head(log).await.unwrap(), LogHead::default());
    assert_eq!(store.state(log.group, NOW_MS).await.unwrap(), []);
    store.append(Vec::new()).await.unwrap();
    store.trim(log, Seq::new(5, 5)).await.unwrap();
    assert_eq!(read_all(&*store, log, Seq::ZERO).await, LogPage::default());
    // Nothing was trimmed in advance.
    store.append(vec![message(log, Seq::new(1, 1))]).await.unwrap();
    assert_eq!(read_all(&*store, log, Seq::ZERO).await.records.len(), 1);
}

pub(crate) async fn everything_is_found_again_after_a_restart(place: &Place) {
    let store = place.open().await;
    let room = new_room();
    let group = store.group(&room, true).await.unwrap().unwrap();
    let log = LogId { group, class: Class::Signal };
    let mut appends = vec![seal(log, 1)];
    for counter in 1..=50 {
        appends.push(with_key(message(log, Seq::new(1, counter)), "page", "payload"));
    }
    for append in &appends {
        store.append(vec![append.clone()]).await.unwrap();
    }
    store.trim(log, Seq::new(1, 10)).await.unwrap();
    let page = read_all(&*store, log, Seq::ZERO).await;
    assert_eq!(page.records, records(&appends[10..]));
    let head = store.head(log).await.unwrap();
    let state = store.state(group, NOW_MS).await.unwrap();
    let store = place.reopen(store).await;
    assert_eq!(store.group(&room, false).await.unwrap(), Some(group));
    assert_eq!(read_all(&*store, log, Seq::ZERO).await, page);
    assert_eq!(store.head(log).await.unwrap(), head);
    assert_eq!(store.state(group, NOW_MS).await.unwrap(), state);
}

pub(crate) async fn a_page_holds_at_most_the_records_and_bytes_asked_for(place: &Place) {
    let store = place.open().await;
    let log = new_log(&*store, Class::Chat).await;
    let payload = "x".repeat(1000);
    let appends = (1..=10).map(|n| with_payload(message(log, Seq::new(1, n)), &payload));
    let appends = appends.collect::<Vec<_>>();
    store.append(appends.clone()).await.unwrap();
    let frame_bytes = appends[0].record.frame.len();
    for (limit, limit_bytes, expected) in [
        (3, usize::MAX, 3),
        (usize::MAX, 4 * frame_bytes, 4),
        (usize::MAX, 5 * frame_bytes - 1, 4),
        (2, 4 * frame_bytes, 2),
        (usize::MAX, 1, 1),
        (10, usize::MAX, 10),
    ] {
        let (mut after, mut found) = (Seq::ZERO, Vec::new());
        loop {
            let page = store.read(log, after, limit, limit_bytes, NOW_MS).await.unwrap();
            assert!(page.records.len() == expected || !page.more);
            assert_eq!(page.upto, page.records.last().unwrap().seq);
            found.extend(page.records);
            after = page.upto;
            if !page.more {
                break;
            }
        }
        assert_eq!(found, records(&appends), "limit {limit}, {limit_bytes} bytes");
    }
}

pub(crate) async fn void_records_and_seals_are_stepped_over(place: &Place) {
    let store = place.open().await;
    let log = new_log(&*store, Class::Signal).await;
    let appends = vec![
        seal(log, 1),
        message(log, Seq::new(1, 1)),
        expiring(message(log, Seq::new(1, 2)), NOW_MS),
        expiring(message(log, Seq::new(1, 3)), NOW_MS + 1),
        seal(log, 2),
        expiring(message(log, Seq::new(2, 1)), 1),
        seal(log, 3),
    ];
    store.append(appends.clone()).await.unwrap();
    let expected = LogPage {
        records: records(&[appends[1].clone(), appends[3].clone()]),
        upto: Seq::new(3, 0),
        more: false,
        truncated: false,
    };
    assert_eq!(read_all(&*store, log, Seq::ZERO).await, expected);
    // Before it was void, it was there.
    let earlier = store.read(log, Seq::ZERO, 10, usize::MAX, NOW_MS - 1).await.unwrap();
    assert_eq!(earlier.records.len(), 3);
    // A full page does not say that there is more, where only such records follow.
    let full = store.read(log, Seq::ZERO, 2, usize::MAX, NOW_MS).await.unwrap();
    assert_eq!(full, expected);
    let head = store.head(log).await.unwrap();
    assert_eq!((head.last, head.last_message), (Seq::new(3, 0), Seq::new(2, 1)));
}

pub(crate) async fn trimmed_records_are_told_as_truncated(place: &Place) {
    let mut store = place.open().await;
    let log = new_log(&*store, Class::Signal).await;
    let appends = (1..=10).map(|n| message(log, Seq::new(1, n))).collect::<Vec<_>>();
    store.append(appends.clone()).await.unwrap();
    store.trim(log, Seq::new(1, 5)).await.unwrap();
    for _ in 0..2 {
        for after in 0..=9 {
            let page = read_all(&*store, log, Seq::new(1, after)).await;
            let first = usize::try_from(after.max(4)).unwrap();
            assert_eq!(page.records, records(&appends[first..]));
            assert_eq!(page.truncated, after < 4, "after {after}");
        }
        store = place.reopen(store).await;
        // An earlier position takes nothing back.
        store.trim(log, Seq::new(1, 2)).await.unwrap();
    }
    store.trim(log, Seq::new(9, 0)).await.unwrap();
    let page = read_all(&*store, log, Seq::new(1, 2)).await;
    assert_eq!(page, LogPage { upto: Seq::new(1, 10), truncated: true, ..LogPage::default() });
    assert!(!read_all(&*store, log, Seq::new(1, 10)).await.truncated);
    // What comes after is there.
    let next = message(log, Seq::new(1, 11));
    store.append(vec![next.clone()]).await.unwrap();
    assert_eq!(read_all(&*store, log, Seq::new(1, 10)).await.records, records(&[next]));
}

pub(crate) async fn the_last_entry_is_a_message_or_a_seal_and_outlives_a_trim(place: &Place) {
    let store = place.open().await;
    let log = new_log(&*store, Class::Signal).await;
    assert_eq!(store.last(log).await.unwrap(), Seq::ZERO);
    for append in [seal(log, 1), message(log, Seq::new(1, 1)), seal(log, 2)] {
        let seq = append.record.seq;
        store.append(vec![append]).await.unwrap();
        assert_eq!(store.last(log).await.unwrap(), seq);
    }
    store.trim(log, Seq::new(3, 0)).await.unwrap();
    let store = place.reopen(store).await;
    assert_eq!(store.last(log).await.unwrap(), Seq::new(2, 0));
}

pub(crate) async fn a_trimmed_log_keeps_its_head_state_and_ids(place: &Place) {
    let store = place.open().await;
    let log = new_log(&*store, Class::Signal).await;
    let set = with_key(message(log, Seq::new(1, 1)), "page", "1");
    store.append(vec![seal(log, 1), set.clone(), seal(log, 2)]).await.unwrap();
    store.trim(log, Seq::new(7, 0)).await.unwrap();
    let store = place.reopen(store).await;
    let expected = LogHead {
        last: Seq::new(2, 0),
        last_message: Seq::new(1, 1),
        last_ids: vec![set.record.origin.clone()],
        recent: vec![],
    };
    assert_eq!(store.head(log).await.unwrap(), expected);
    assert_eq!(store.state(log.group, NOW_MS).await.unwrap(), records(&[set]));
    let stale = store.append(vec![seal(log, 2)]).await;
    assert!(matches!(stale, Err(StoreError::Stale { .. })));
}

pub(crate) async fn a_trim_of_thousands_removes_them_all(place: &Place) {
    let store = place.open().await;
    let log = new_log(&*store, Class::Chat).await;
    let appends = (1..=3500).map(|n| message(log, Seq::new(1, n))).collect::<Vec<_>>();
    store.append(appends.clone()).await.unwrap();
    store.trim(log, Seq::new(1, 3001)).await.unwrap();
    let page = read_all(&*store, log, Seq::ZERO).await;
    assert!(page.truncated);
    assert_eq!(page.records, records(&appends[3000..]));
}

pub(crate) async fn an_older_entry_is_stale_also_after_a_restart(place: &Place) {
    let store = place.open().await;
    let log = new_log(&*store, Class::Signal).await;
    store.append(vec![message(log, Seq::new(1, 5)), seal(log, 2)]).await.unwrap();
    let store = place.reopen(store).await;
    for got in [Seq::new(1, 5), Seq::new(1, 6), Seq::new(2, 0), Seq::ZERO] {
        let refused = store.append(vec![message(log, got)]).await.unwrap_err();
        let StoreError::Stale { group, class, last, got: told } = refused else {
            panic!("{refused}")
        };
        assert_eq!((group, class, last, told), (log.group, log.class, Seq::new(2, 0), got));
    }
    store.append(vec![message(log, Seq::new(2, 1))]).await.unwrap();
}

pub(crate) async fn a_batch_is_stored_whole_or_not_at_all(place: &Place) {
    let store = place.open().await;
    let log = new_log(&*store, Class::Signal).await;
    let other = LogId { class: Class::Binary, ..log };
    store.append(vec![message(log, Seq::new(3, 3))]).await.unwrap();
    let head = store.head(log).await.unwrap();
    let batches = [
        // One that is too old, behind ones that are not.
        vec![
            from_device(message(other, Seq::new(1, 1)), "bob/pc", 1),
            with_key(message(log, Seq::new(3, 4)), "page", "1"),
            message(log, Seq::new(3, 3)),
        ],
        // In the wrong order, twice the same, in itself.
        vec![message(other, Seq::new(1, 2)), message(other, Seq::new(1, 1))],
        vec![message(other, Seq::new(1, 1)), message(other, Seq::new(1, 1))],
    ];
    for batch in batches {
        let refused = store.append(batch).await;
        assert!(matches!(refused, Err(StoreError::Stale { .. })), "{refused:?}");
        assert_eq!(store.head(log).await.unwrap(), head);
        assert_eq!(store.head(other).await.unwrap(), LogHead::default());
        assert_eq!(store.state(log.group, NOW_MS).await.unwrap(), []);
    }
    store.append(vec![message(other, Seq::new(1, 1))]).await.unwrap();
}

pub(crate) async fn of_a_batch_over_rooms_each_is_stored_whole_or_not_at_all(place: &Place) {
    let store = place.open().await;
    let one = new_log(&*store, Class::Signal).await;
    let two = new_log(&*store, Class::Signal).await;
    let strokes = |log: LogId| LogId { class: Class::Binary, ..log };
    store.append(vec![seal(two, 2)]).await.unwrap();
    let batch = vec![
        message(strokes(two), Seq::new(1, 1)),
        with_key(message(one, Seq::new(1, 1)), "page", "1"),
        message(two, Seq::new(1, 9)),
        message(strokes(one), Seq::new(1, 1)),
    ];
    let refused = store.append(batch.clone()).await.unwrap_err();
    let last = Seq::new(2, 0);
    assert!(
        matches!(refused, StoreError::Stale { group, last: told, .. } if (group, told) == (two.group, last)),
        "{refused:?}"
    );
    assert_eq!(store.head(strokes(two)).await.unwrap(), LogHead::default());
    let signals = read_all(&*store, one, Seq::ZERO).await.records.len();
    assert_eq!(read_all(&*store, strokes(one), Seq::ZERO).await.records.len(), signals);
    // What a caller does then: it gives the rest again.
    store.append(vec![batch[1].clone(), batch[3].clone()]).await.unwrap();
    assert_eq!(read_all(&*store, one, Seq::ZERO).await.records, records(&batch[1..2]));
    assert_eq!(read_all(&*store, strokes(one), Seq::ZERO).await.records, records(&batch[3..]));
    assert_eq!(store.state(one.group, NOW_MS).await.unwrap(), records(&batch[1..2]));
}

/// The answer can be lost on its way.
pub(crate) async fn what_is_stored_may_be_appended_again(place: &Place) {
    let mut store = place.open().await;
    let log = new_log(&*store, Class::Signal).await;
    let strokes = LogId { class: Class::Binary, ..log };
    let mut batch = vec![
        seal(log, 1),
        message(log, Seq::new(1, 1)),
        with_key(message(log, Seq::new(1, 2)), "page", "1"),
    ];
    store.append(batch.clone()).await.unwrap();
    let head = store.head(log).await.unwrap();
    for _ in 0..2 {
        store.append(batch.clone()).await.unwrap();
        store.append(batch[2..].to_vec()).await.unwrap();
        assert_eq!(store.head(log).await.unwrap(), head);
        store = place.reopen(store).await;
    }
    // With more behind it, and with what is new elsewhere in the room.
    batch.push(message(log, Seq::new(1, 3)));
    batch.push(message(strokes, Seq::new(1, 1)));
    store.append(batch.clone()).await.unwrap();
    assert_eq!(read_all(&*store, log, Seq::ZERO).await.records, records(&batch[1..4]));
    assert_eq!(read_all(&*store, strokes, Seq::ZERO).await.records, records(&batch[4..]));
    assert_eq!(store.state(log.group, NOW_MS).await.unwrap(), records(&batch[2..3]));
    // What is not the same is another owner's, and what is not the log's end is of the past.
    let last = Seq::new(1, 3);
    for other in [
        with_payload(message(log, last), "something else"),
        from_device(message(log, last), "bob/pc", 3),
        batch[2].clone(),
    ] {
        let refused = store.append(vec![other]).await;
        assert!(matches!(refused, Err(StoreError::Stale { last: told, .. }) if told == last));
    }
    store.append(vec![seal(log, 2)]).await.unwrap();
    let refused = store.append(batch[..4].to_vec()).await;
    assert!(matches!(refused, Err(StoreError::Stale { .. })), "{refused:?}");
}

/// Two owners may write the same seal, to the byte; the epoch is for one of them.
pub(crate) async fn a_seal_is_never_taken_for_a_repeat(place: &Place) {
    let store = place.open().await;
    let log = new_log(&*store, Class::Signal).await;
    for epoch in 1..=20 {
        let mut owners = tokio::task::JoinSet::new();
        for _ in 0..2 {
            let store = Arc::clone(&store);
            owners.spawn(async move { store.append(vec![seal(log, epoch)]).await });
        }
        let outcomes = owners.join_all().await;
        assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1, "{outcomes:?}");
        let refused = outcomes.into_iter().find_map(Result::err).unwrap();
        let expected = Seq::new(epoch, 0);
        assert!(
            matches!(refused, StoreError::Stale { last, .. } if last == expected),
            "{refused:?}"
        );
    }
}

pub(crate) async fn logs_do_not_mix(place: &Place) {
    let store = place.open().await;
    let mut logs = Vec::new();
    for _ in 0..4 {
        let group = new_log(&*store, Class::Signal).await.group;
        logs.extend(Class::ALL.map(|class| LogId { group, class }));
    }
    for counter in 1..=5 {
        let batch = logs.iter().map(|log| message(*log, Seq::new(1, counter))).collect();
        store.append(batch).await.unwrap();
    }
    store.trim(logs[4], Seq::new(2, 0)).await.unwrap();
    for (index, log) in logs.iter().enumerate() {
        let page = read_all(&*store, *log, Seq::ZERO).await;
        let expected = (1..=5).map(|counter| message(*log, Seq::new(1, counter)).record);
        let expected = if index == 4 { vec![] } else { expected.collect::<Vec<_>>() };
        assert_eq!(page.records, expected);
        assert_eq!(store.head(*log).await.unwrap().last, Seq::new(1, 5));
    }
}

pub(crate) async fn the_head_knows_the_last_id_of_each_of_many_devices(place: &Place) {
    const DEVICES: u64 = 2_500;
    let store = place.open().await;
    let log = new_log(&*store, Class::Signal).await;
    let mut batch = Vec::new();
    for n in 1..=2 * DEVICES {
        let device = format!("user{}/d", n % DEVICES);
        batch.push(from_device(message(log, Seq::new(1, n)), &device, n));
    }
    // Of no device: in no list.
    batch.push(from_device(message(log, Seq::new(1, 2 * DEVICES + 1)), "", 0));
    // The same device elsewhere.
    let elsewhere = LogId { class: Class::Chat, ..log };
    batch.push(from_device(message(elsewhere, Seq::new(1, 1)), "user1/d", 77));
    store.append(batch).await.unwrap();
    let store = place.reopen(store).await;
    let mut found = store.head(log).await.unwrap().last_ids;
    found.sort_by_key(|origin| origin.id);
    let expected = (DEVICES + 1..=2 * DEVICES)
        .map(|id| Origin { device: format!("user{}/d", id % DEVICES), id })
        .collect::<Vec<_>>();
    assert_eq!(found, expected);
    let found = store.head(elsewhere).await.unwrap().last_ids;
    assert_eq!(found, [Origin { device: "user1/d".to_owned(), id: 77 }]);
    let end = Seq::new(1, 2 * DEVICES + 1);
    assert_eq!(store.last_of(log, "user1/d").await.unwrap(), (end, DEVICES + 1));
    assert_eq!(store.last_of(log, "user1").await.unwrap(), (end, 0));
    store.append(vec![seal(elsewhere, 2)]).await.unwrap();
    assert_eq!(store.last_of(elsewhere, "user1/d").await.unwrap(), (Seq::new(2, 0), 77));
    let never = LogId { class: Class::Binary, ..log };
    assert_eq!(store.last_of(never, "user1/d").await.unwrap(), (Seq::ZERO, 0));
}

pub(crate) async fn the_head_knows_the_places_of_the_last_thousand_messages(place: &Place) {
    let store = place.open().await;
    let log = new_log(&*store, Class::Signal).await;
    let mut batch = (1..=1_200).map(|n| message(log, Seq::new(1, n))).collect::<Vec<_>>();
    batch.push(seal(log, 2));
    store.append(batch).await.unwrap();
    let head = store.head(log).await.unwrap();
    let expected = (201..=1_200).map(|n| {
        let seq = Seq::new(1, n);
        (message(log, seq).record.origin, seq)
    });
    assert_eq!(head.recent, expected.collect::<Vec<_>>());
    assert_eq!((head.last, head.last_message), (Seq::new(2, 0), Seq::new(1, 1_200)));
}
