//! What the journal is for, and what becomes of it.

use std::{path::PathBuf, time::Duration};

use super::*;

/// Leaves the store as the death of its process would, with nothing of `appends` in the tables: the
/// journal's only segment.
async fn crashed(dir: &Path, options: EmbeddedOptions, appends: u64) -> PathBuf {
    let copy = TempDir::new().unwrap();
    let store = open(dir, options).unwrap();
    store.shared.backlog.hold(true);
    for counter in 1..=appends {
        store.append(append(counter, 100)).await.unwrap();
    }
    // A copy of what is there now, put back after it was closed.
    copy_dir(dir, copy.path());
    store.shared.backlog.hold(false);
    drop(store);
    fs::remove_dir_all(dir).unwrap();
    copy_dir(copy.path(), dir);
    let mut segments: Vec<_> = segments(dir);
    segments.retain(|path| fs::metadata(path).unwrap().len() > 1000);
    assert_eq!(segments.len(), 1);
    segments.remove(0)
}

fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_dir(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn segments(dir: &Path) -> Vec<PathBuf> {
    let all = fs::read_dir(dir.join("journal")).unwrap();
    all.map(|entry| entry.unwrap().path()).collect()
}

fn disk() -> EmbeddedOptions {
    EmbeddedOptions { durability: Durability::Disk, ..small() }
}

/// Changes one byte in the middle of a file.
fn damage(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(path, bytes).unwrap();
}

#[tokio::test]
async fn what_is_in_the_journal_alone_is_found_again_and_is_given_again() {
    for options in [small(), disk()] {
        let dir = TempDir::new().unwrap();
        crashed(dir.path(), options.clone(), 20).await;
        let store = open(dir.path(), options.clone()).unwrap();
        assert_eq!(store.head(LOG).await.unwrap().recent.len(), 20);
        // What is stored counts as stored, and what is older than the log does not.
        store.append(append(20, 100)).await.unwrap();
        let stale = store.append(append(19, 100)).await;
        assert!(matches!(stale, Err(StoreError::Stale { .. })), "{stale:?}");
        store.append(append(21, 100)).await.unwrap();
        drop(store);
        let store = open(dir.path(), options).unwrap();
        assert_eq!(store.head(LOG).await.unwrap().recent.len(), 21);
    }
}

#[tokio::test]
async fn a_torn_end_is_left_out_and_the_log_goes_on_there() {
    let dir = TempDir::new().unwrap();
    let segment = crashed(dir.path(), disk(), 20).await;
    let whole = fs::read(&segment).unwrap();
    fs::write(&segment, &whole[..whole.len() - 50]).unwrap();
    let store = open(dir.path(), disk()).unwrap();
    assert_eq!(store.head(LOG).await.unwrap().last, Seq::new(1, 19));
    store.append(append(20, 100)).await.unwrap();
    drop(store);
    let store = open(dir.path(), disk()).unwrap();
    assert_eq!(store.head(LOG).await.unwrap().recent.len(), 20);
}

#[tokio::test]
async fn a_damaged_record_that_had_been_synced_is_told_with_what_to_do() {
    let dir = TempDir::new().unwrap();
    let segment = crashed(dir.path(), disk(), 20).await;
    damage(&segment);
    for _ in 0..2 {
        let refused = error(open(dir.path(), disk()));
        assert!(matches!(refused, StoreError::Corrupt { .. }), "{refused}");
        let told = refused.to_string();
        assert!(told.contains(&segment.display().to_string()), "{told}");
        assert!(told.contains("had been synced") && told.contains("put a copy"), "{told}");
    }
    // What it says to do helps.
    fs::rename(dir.path().join("journal"), dir.path().join("away")).unwrap();
    open(dir.path(), disk()).unwrap();
}

#[tokio::test]
async fn a_segment_that_has_lost_its_header_is_told() {
    let dir = TempDir::new().unwrap();
    let segment = crashed(dir.path(), small(), 20).await;
    let mut bytes = fs::read(&segment).unwrap();
    bytes[3] ^= 1;
    fs::write(&segment, bytes).unwrap();
    let refused = error(open(dir.path(), small()));
    assert!(matches!(refused, StoreError::Corrupt { .. }), "{refused}");
    assert!(refused.to_string().contains("without its header"), "{refused}");
}

#[test]
fn what_was_lost_with_the_power_before_it_was_synced_ends_the_journal_there() {
    let dir = TempDir::new().unwrap();
    let tables = Tables::open(dir.path(), 1024 * 1024).unwrap();
    let begin = || begin_journal(&tables, dir.path(), Durability::Process).unwrap();
    let mut journal = begin();
    // A record in each segment, and none of them synced but the first.
    journal.segment_bytes = 1;
    let mut paths = Vec::new();
    for number in 1..=4u64 {
        let mut ops = journal::record::Ops::new();
        ops.put(journal::record::Table::State, &number.to_be_bytes(), b"value");
        journal.append(ops, false).unwrap();
        paths.extend(journal.take_closed().into_iter().map(|closed| closed.path));
        if number == 1 {
            journal.files().sync().unwrap();
        }
    }
    drop(journal);
    // The first is in the empty segment that was closed first or in the one after it.
    let second = paths.iter().rfind(|path| fs::metadata(path).unwrap().len() > 24).unwrap().clone();
    fs::File::options().write(true).open(&second).unwrap().set_len(30).unwrap();
    assert_eq!(begin().last(), 2, "record 3 was cut off");
    assert!(tables.state.contains_key(2u64.to_be_bytes()).unwrap());
    assert!(!tables.state.contains_key(4u64.to_be_bytes()).unwrap());
}

#[tokio::test]
async fn segments_are_removed_once_they_are_in_the_tables() {
    let dir = TempDir::new().unwrap();
    let store = open(dir.path(), small()).unwrap();
    for counter in 1..=100 {
        store.append(append(counter, 1024 * 1024)).await.unwrap();
        store.head(LOG).await.unwrap();
    }
    // 100 MiB were written, in segments of 16 to 64.
    let bytes = |path: &PathBuf| fs::metadata(path).map_or(0, |data| data.len());
    let kept: u64 = segments(dir.path()).iter().map(bytes).sum();
    assert!(kept < 70 * 1024 * 1024, "{kept}");
    drop(store);
    let store = open(dir.path(), small()).unwrap();
    assert_eq!(store.head(LOG).await.unwrap().last, Seq::new(1, 100));
}

#[tokio::test]
async fn a_read_waits_for_what_was_answered_before_it() {
    let dir = TempDir::new().unwrap();
    let store = Arc::new(open(dir.path(), small()).unwrap());
    store.shared.backlog.hold(true);
    // Appends do not wait for the tables.
    store.append(append(1, 10)).await.unwrap();
    store.append(append(2, 10)).await.unwrap();
    let reader = Arc::clone(&store);
    let read = tokio::spawn(async move { reader.head(LOG).await.unwrap().last });
    while store.shared.backlog.waiting() == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert!(!read.is_finished());
    store.shared.backlog.hold(false);
    assert_eq!(read.await.unwrap(), Seq::new(1, 2));
}

#[tokio::test]
async fn a_log_that_is_given_again_while_it_is_in_the_journal_alone_counts_as_stored() {
    let dir = TempDir::new().unwrap();
    let store = Arc::new(open(dir.path(), small()).unwrap());
    store.shared.backlog.hold(true);
    store.append(append(1, 10)).await.unwrap();
    let again = Arc::clone(&store);
    let again = tokio::spawn(async move { again.append(append(1, 10)).await });
    while store.shared.backlog.waiting() == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    store.shared.backlog.hold(false);
    again.await.unwrap().unwrap();
    assert_eq!(store.head(LOG).await.unwrap().recent.len(), 1);
}

#[tokio::test]
async fn a_commit_to_the_tables_that_fails_loses_nothing() {
    let dir = TempDir::new().unwrap();
    let store = open(dir.path(), small()).unwrap();
    store.append(append(1, 10)).await.unwrap();
    assert_eq!(store.head(LOG).await.unwrap().last, Seq::new(1, 1));
    store.shared.fail_applies.store(1, Ordering::SeqCst);
    store.append(append(2, 10)).await.unwrap();
    assert_eq!(store.head(LOG).await.unwrap().recent.len(), 2);
    // Where it goes on, reads are told, and appends are taken.
    store.shared.fail_applies.store(usize::MAX, Ordering::SeqCst);
    store.append(append(3, 10)).await.unwrap();
    let told = store.head(LOG).await;
    assert!(matches!(told, Err(StoreError::Unavailable(_))), "{told:?}");
    store.append(append(4, 10)).await.unwrap();
    store.shared.fail_applies.store(0, Ordering::SeqCst);
    while let Err(e) = store.head(LOG).await {
        assert!(matches!(e, StoreError::Unavailable(_)), "{e}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(store.head(LOG).await.unwrap().recent.len(), 4);
}

#[tokio::test]
async fn a_store_that_is_closed_while_its_tables_fail_has_all_when_it_is_opened() {
    let dir = TempDir::new().unwrap();
    let store = open(dir.path(), small()).unwrap();
    store.shared.fail_applies.store(usize::MAX, Ordering::SeqCst);
    for counter in 1..=5 {
        store.append(append(counter, 10)).await.unwrap();
    }
    drop(store);
    let store = open(dir.path(), small()).unwrap();
    assert_eq!(store.head(LOG).await.unwrap().recent.len(), 5);
}

#[tokio::test]
async fn what_a_failed_write_left_is_cut_off_and_nothing_before_it() {
    for options in [small(), disk()] {
        let dir = TempDir::new().unwrap();
        let store = open(dir.path(), options.clone()).unwrap();
        store.shared.backlog.hold(true);
        for counter in 1..=20 {
            if counter % 7 == 0 {
                store.shared.fail_commits.store(1, Ordering::SeqCst);
                store.append(append(counter, 500)).await.unwrap_err();
                store.shared.backlog.hold(false);
            }
            store.append(append(counter, 500)).await.unwrap();
        }
        assert_eq!(store.head(LOG).await.unwrap().recent.len(), 20);
        store.shared.backlog.hold(true);
        let copy = TempDir::new().unwrap();
        copy_dir(dir.path(), copy.path());
        store.shared.backlog.hold(false);
        drop(store);
        // Also for who finds it as it was before it was closed.
        for dir in [dir.path(), copy.path()] {
            let store = open(dir, options.clone()).unwrap();
            assert_eq!(store.head(LOG).await.unwrap().recent.len(), 20);
        }
    }
}
