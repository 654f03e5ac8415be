//! Taking rooms over.

use tokio::task::JoinSet;

use super::*;

pub(crate) async fn who_opens_a_room_finds_all_of_it_and_ends_the_epochs_before(place: &Place) {
    let store = place.open().await;
    let signals = new_log(&*store, Class::Signal).await;
    let group = signals.group;
    let [strokes, chat] = [Class::Binary, Class::Chat].map(|class| LogId { group, class });
    // Of signals few, of strokes as many as are looked at, of chat none: a log that never was.
    let mut batch = vec![seal(signals, 99)];
    batch.extend((1..=5).map(|n| message(signals, Seq::new(99, n))));
    batch.push(with_key(message(signals, Seq::new(99, 6)), "page", "12"));
    batch.push(from_device(message(signals, Seq::new(99, 7)), "", 0));
    for n in 1..=1_200 {
        batch.push(from_device(message(strokes, Seq::new(1, n)), &format!("user{}/d", n % 50), n));
    }
    store.append(batch).await.unwrap();
    store.trim(signals, Seq::new(99, 3)).await.unwrap();
    let logs = [signals, strokes, chat];
    let before = [store.head(logs[0]).await, store.head(logs[1]).await, store.head(logs[2]).await];
    let before = before.map(|head| sorted(head.unwrap()));
    let state = store.state(group, NOW_MS).await.unwrap();
    assert_eq!((before[1].recent.len(), state.len()), (1_000, 1));

    let mut opened = store.open(group, &Class::ALL, NOW_MS).await.unwrap();
    opened.heads = opened.heads.into_iter().map(sorted).collect();
    assert_eq!(opened, Opened { heads: before.to_vec(), state });
    for (log, last) in logs.iter().zip([Seq::new(99, 7), Seq::new(1, 1_200), Seq::ZERO]) {
        let late = message(*log, Seq::new(last.epoch.max(1), last.counter + 1));
        let epoch = last.epoch + 1;
        if last != Seq::ZERO {
            let stale = store.append(vec![late]).await.unwrap_err();
            let sealed = Seq::new(epoch, 0);
            assert!(matches!(stale, StoreError::Stale { last, .. } if last == sealed), "{stale}");
        }
        assert_eq!(store.head(*log).await.unwrap().last, Seq::new(epoch, 0));
        store.append(vec![message(*log, Seq::new(epoch, 1))]).await.unwrap();
    }
    // Of some classes only: the others go on, and there is no state without signals.
    let store = place.reopen(store).await;
    let opened = store.open(group, &[Class::Binary], NOW_MS).await.unwrap();
    assert_eq!((opened.heads.len(), opened.state.len()), (1, 0));
    assert_eq!(opened.heads[0].last, Seq::new(2, 1));
    store.append(vec![message(signals, Seq::new(100, 2))]).await.unwrap();
    // What is void is not in the state.
    let void = with_key(expiring(message(signals, Seq::new(100, 3)), NOW_MS), "page", "13");
    store.append(vec![void]).await.unwrap();
    let opened = store.open(group, &Class::ALL, NOW_MS).await.unwrap();
    assert_eq!(opened.state, []);
    assert_eq!(
        opened.heads.iter().map(|head| head.last).collect::<Vec<_>>(),
        [Seq::new(100, 3), Seq::new(3, 0), Seq::new(1, 1),]
    );
}

/// The ids of devices come in any order.
fn sorted(mut head: LogHead) -> LogHead {
    head.last_ids.sort_by(|a, b| a.device.cmp(&b.device));
    head
}

/// An epoch is one owner's. Who comes last has the latest; who was not quick enough may be told so.
pub(crate) async fn owners_that_open_a_room_at_the_same_time_have_epochs_of_their_own(
    place: &Place,
) {
    let store = place.open().await;
    let group = new_log(&*store, Class::Signal).await.group;
    let mut tasks = JoinSet::new();
    for _ in 0..20 {
        let store = Arc::clone(&store);
        tasks.spawn(async move {
            match store.open(group, &Class::ALL, NOW_MS).await {
                Ok(opened) => Some(opened.heads[0].last.epoch + 1),
                Err(StoreError::Stale { .. }) => None,
                Err(e) => panic!("{e}"),
            }
        });
    }
    let mut epochs: Vec<u64> = tasks.join_all().await.into_iter().flatten().collect();
    epochs.sort_unstable();
    assert!(epochs.windows(2).all(|pair| pair[0] < pair[1]), "{epochs:?}");
    let last = *epochs.last().unwrap();
    assert_eq!(store.head(LogId { group, class: Class::Signal }).await.unwrap().last.epoch, last);
    let opened = store.open(group, &Class::ALL, NOW_MS).await.unwrap();
    let lasts: Vec<Seq> = opened.heads.iter().map(|head| head.last).collect();
    assert_eq!(lasts[0], Seq::new(last, 0));
}
