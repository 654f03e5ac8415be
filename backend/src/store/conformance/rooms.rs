//! Handles and room state.

use std::collections::HashSet;

use super::*;

pub(crate) async fn a_room_keeps_its_handle_and_no_other_has_it(place: &Place) {
    let mut store = place.open().await;
    let mut handles = HashSet::new();
    for round in 0..3 {
        for _ in 0..20 {
            let room = new_room();
            let handle = store.group(&room, true).await.unwrap().unwrap();
            assert_ne!(handle, 0);
            assert!(handles.insert(handle), "handle {handle} twice, round {round}");
            assert_eq!(store.group(&room, true).await.unwrap(), Some(handle));
            assert_eq!(store.group(&room, false).await.unwrap(), Some(handle));
            if round == 0 {
                store = place.reopen(store).await;
                assert_eq!(store.group(&room, true).await.unwrap(), Some(handle));
                break;
            }
        }
        store = place.reopen(store).await;
    }
}

pub(crate) async fn a_room_that_was_not_created_has_no_handle(place: &Place) {
    let store = place.open().await;
    let room = new_room();
    assert_eq!(store.group(&room, false).await.unwrap(), None);
    assert_eq!(store.group(&room, false).await.unwrap(), None);
    assert!(store.group(&room, true).await.unwrap().is_some());
}

pub(crate) async fn rooms_created_at_the_same_time_get_one_handle_each(place: &Place) {
    let store = place.open().await;
    let names = (0..40).map(|_| new_room()).collect::<Vec<_>>();
    let mut tasks = tokio::task::JoinSet::new();
    for name in names.iter().cycle().take(200) {
        let (store, name) = (Arc::clone(&store), name.clone());
        tasks.spawn(async move { (store.group(&name, true).await.unwrap().unwrap(), name) });
    }
    let pairs = tasks.join_all().await.into_iter().collect::<HashSet<_>>();
    let handles = pairs.iter().map(|(handle, _)| *handle).collect::<HashSet<_>>();
    assert_eq!((pairs.len(), handles.len()), (40, 40));
}

pub(crate) async fn names_asked_for_together_get_what_each_would_alone(place: &Place) {
    let store = place.open().await;
    assert_eq!(store.groups(Vec::new(), true).await.unwrap(), []);
    let names: Vec<String> = (0..300).map(|_| new_room()).collect();
    let one = store.group(&names[7], true).await.unwrap();
    let asked = store.groups(names.clone(), false).await.unwrap();
    assert!(asked.iter().enumerate().all(|(at, found)| *found == one.filter(|_| at == 7)));
    // Some twice, and of those that are not there yet.
    let twice: Vec<String> = names.iter().chain(&names[..20]).cloned().collect();
    let made = store.groups(twice, true).await.unwrap();
    assert_eq!((made[7], &made[300..]), (one, &made[..20]));
    let handles: HashSet<u64> = made.iter().map(|handle| handle.unwrap()).collect();
    assert!(handles.len() == 300 && !handles.contains(&0));
    let store = place.reopen(store).await;
    assert_eq!(store.groups(names.clone(), true).await.unwrap(), &made[..300]);
    for at in [0, 7, 299] {
        assert_eq!(store.group(&names[at], false).await.unwrap(), made[at]);
    }
}

pub(crate) async fn names_made_in_many_calls_at_the_same_time_get_one_handle_each(place: &Place) {
    let store = place.open().await;
    let names: Vec<String> = (0..60).map(|_| new_room()).collect();
    let mut tasks = tokio::task::JoinSet::new();
    for start in 0..20 {
        let (store, mut names) = (Arc::clone(&store), names.clone());
        names.rotate_left(3 * start);
        names.truncate(40);
        tasks.spawn(async move {
            let handles = store.groups(names.clone(), true).await.unwrap();
            names.into_iter().zip(handles.into_iter().flatten()).collect::<Vec<_>>()
        });
    }
    let pairs: HashSet<(String, u64)> = tasks.join_all().await.into_iter().flatten().collect();
    let handles: HashSet<u64> = pairs.iter().map(|(_, handle)| *handle).collect();
    assert_eq!((pairs.len(), handles.len()), (60, 60));
}

pub(crate) async fn state_is_the_latest_signal_of_each_key(place: &Place) {
    let store = place.open().await;
    let log = new_log(&*store, Class::Signal).await;
    let other = new_log(&*store, Class::Signal).await;
    let first = vec![
        with_key(message(log, Seq::new(1, 1)), "quiz", "a"),
        with_key(message(log, Seq::new(1, 2)), "page", "1"),
        with_key(message(log, Seq::new(1, 3)), "page", "2"),
        message(log, Seq::new(1, 4)),
        with_key(message(other, Seq::new(1, 1)), "page", "other"),
    ];
    store.append(first.clone()).await.unwrap();
    let expected = records(&[first[2].clone(), first[0].clone()]);
    assert_eq!(store.state(log.group, NOW_MS).await.unwrap(), expected);
    assert_eq!(store.state(other.group, NOW_MS).await.unwrap(), records(&first[4..]));

    let second = with_key(message(log, Seq::new(2, 1)), "page", "3");
    store.append(vec![second.clone()]).await.unwrap();
    let store = place.reopen(store).await;
    let expected = records(&[second, first[0].clone()]);
    assert_eq!(store.state(log.group, NOW_MS).await.unwrap(), expected);
}

pub(crate) async fn an_empty_payload_removes_a_key(place: &Place) {
    let store = place.open().await;
    let log = new_log(&*store, Class::Signal).await;
    let page = with_key(message(log, Seq::new(1, 2)), "page", "1");
    let appends = vec![with_key(message(log, Seq::new(1, 1)), "quiz", "a"), page.clone()];
    store.append(appends).await.unwrap();
    store.append(vec![with_key(message(log, Seq::new(1, 3)), "quiz", "")]).await.unwrap();
    assert_eq!(store.state(log.group, NOW_MS).await.unwrap(), records(&[page]));
    // Set and removed in one batch, as the order in the batch says.
    let set = with_key(message(log, Seq::new(1, 6)), "quiz", "b");
    store
        .append(vec![
            with_key(message(log, Seq::new(1, 4)), "page", "2"),
            with_key(message(log, Seq::new(1, 5)), "page", ""),
            set.clone(),
        ])
        .await
        .unwrap();
    let store = place.reopen(store).await;
    assert_eq!(store.state(log.group, NOW_MS).await.unwrap(), records(&[set]));
}

pub(crate) async fn a_void_record_is_not_in_the_state(place: &Place) {
    let store = place.open().await;
    let log = new_log(&*store, Class::Signal).await;
    let old = with_key(message(log, Seq::new(1, 1)), "mute", "all");
    let new = with_key(expiring(message(log, Seq::new(1, 2)), NOW_MS), "mute", "some");
    store.append(vec![old, new.clone()]).await.unwrap();
    assert_eq!(store.state(log.group, NOW_MS - 1).await.unwrap(), records(&[new]));
    // The older one does not come back.
    assert_eq!(store.state(log.group, NOW_MS).await.unwrap(), []);
}

pub(crate) async fn only_signals_set_state(place: &Place) {
    let store = place.open().await;
    let group = new_log(&*store, Class::Signal).await.group;
    for class in [Class::Binary, Class::Chat] {
        let append = with_key(message(LogId { group, class }, Seq::new(1, 1)), "page", "1");
        store.append(vec![append]).await.unwrap();
    }
    assert_eq!(store.state(group, NOW_MS).await.unwrap(), []);
}
