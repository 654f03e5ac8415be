//! The conformance suite, and what only this store promises.
#![allow(clippy::unwrap_used, clippy::panic)]

mod journaling;

use std::{fs, sync::atomic::Ordering};

use bytes::Bytes;
use edgeway_proto::Class;
use tempfile::TempDir;

use super::*;
use crate::store::{
    Origin,
    conformance::{self, Place},
};

fn place() -> Place {
    let dir = TempDir::new().unwrap();
    Place::new(move || {
        let store: Arc<dyn Store> = Arc::new(open(dir.path(), small()).unwrap());
        async move { store }
    })
}

fn small() -> EmbeddedOptions {
    EmbeddedOptions { cache_bytes: 1024 * 1024, ..EmbeddedOptions::default() }
}

fn open(dir: &Path, options: EmbeddedOptions) -> Result<Embedded, StoreError> {
    Embedded::open(dir, options)
}

fn error(result: Result<Embedded, StoreError>) -> StoreError {
    match result {
        Ok(_) => panic!("it was opened"),
        Err(e) => e,
    }
}

mod promises {
    use super::*;
    conformance::promises!(place());
}

const LOG: LogId = LogId { group: 64, class: Class::Binary };

fn append(counter: u64, bytes: usize) -> Vec<Append> {
    let record = Record {
        seq: Seq::new(1, counter),
        origin: Origin { device: "ann/phone".to_owned(), id: counter },
        time_ms: 1,
        expires_ms: 0,
        key: String::new(),
        frame: Bytes::from(vec![7; bytes]),
    };
    vec![Append { log: LOG, record }]
}

#[tokio::test]
async fn handles_count_from_one_and_carry_the_slot_also_a_new_one() {
    let dir = TempDir::new().unwrap();
    for (round, slot) in [(1, 0), (2, 5), (3, 63)] {
        let store = open(dir.path(), EmbeddedOptions { slot, ..small() }).unwrap();
        let room = format!("room {round}");
        let expected = round << 6 | u64::from(slot);
        assert_eq!(store.group(&room, true).await.unwrap(), Some(expected));
        assert_eq!(store.group("room 1", true).await.unwrap(), Some(1 << 6));
    }
    let refused = error(open(dir.path(), EmbeddedOptions { slot: 64, ..small() }));
    assert!(refused.to_string().contains("0 to 63"), "{refused}");
}

#[tokio::test]
async fn a_directory_in_use_is_refused_with_its_holder() {
    let dir = TempDir::new().unwrap();
    let first = open(dir.path(), small()).unwrap();
    let told = error(open(dir.path(), small())).to_string();
    let pid = format!("in use by process {};", std::process::id());
    assert!(told.contains(&pid) && told.contains("directory of its own"), "{told}");
    // It did no harm to the holder.
    first.append(append(1, 10)).await.unwrap();
    drop(first);
    assert_eq!(open(dir.path(), small()).unwrap().head(LOG).await.unwrap().last, Seq::new(1, 1));
}

#[test]
fn a_store_of_another_schema_is_refused_with_what_to_do() {
    let dir = TempDir::new().unwrap();
    drop(open(dir.path(), small()).unwrap());
    let tables = Tables::open(dir.path(), 1024 * 1024).unwrap();
    tables.names.insert(keys::SCHEMA_KEY, 9u32.to_be_bytes()).unwrap();
    tables.db.persist(fjall::PersistMode::SyncAll).unwrap();
    drop(tables);
    let refused = error(open(dir.path(), small()));
    assert!(matches!(refused, StoreError::Corrupt { .. }));
    let told = refused.to_string();
    assert!(told.contains("the 9. schema") && told.contains("move the directory"), "{told}");
}

#[tokio::test]
async fn a_store_of_the_schema_without_a_journal_is_upgraded_with_all_it_has() {
    let dir = TempDir::new().unwrap();
    let store = open(dir.path(), small()).unwrap();
    store.append(append(1, 10)).await.unwrap();
    drop(store);
    // As such a store was left.
    fs::remove_dir_all(dir.path().join("journal")).unwrap();
    let tables = Tables::open(dir.path(), 1024 * 1024).unwrap();
    tables.names.insert(keys::SCHEMA_KEY, 1u32.to_be_bytes()).unwrap();
    tables.names.remove(keys::APPLIED_KEY).unwrap();
    tables.db.persist(PersistMode::SyncAll).unwrap();
    drop(tables);
    let store = open(dir.path(), small()).unwrap();
    store.append(append(2, 10)).await.unwrap();
    assert_eq!(store.head(LOG).await.unwrap().recent.len(), 2);
    drop(store);
    let tables = Tables::open(dir.path(), 1024 * 1024).unwrap();
    let schema = tables.names.get(keys::SCHEMA_KEY).unwrap().unwrap();
    assert_eq!(schema[..], keys::SCHEMA.to_be_bytes());
}

#[test]
fn a_store_whose_making_was_broken_off_is_made_anew() {
    let dir = TempDir::new().unwrap();
    fs::create_dir_all(dir.path().join("data.new")).unwrap();
    fs::write(dir.path().join("data.new").join("0.jnl"), b"half").unwrap();
    open(dir.path(), small()).unwrap();
}

#[test]
fn a_directory_that_cannot_be_read_is_refused_with_what_to_do() {
    let dir = TempDir::new().unwrap();
    drop(open(dir.path(), small()).unwrap());
    fs::write(dir.path().join("data").join("version"), b"something else").unwrap();
    let refused = error(open(dir.path(), small()));
    assert!(matches!(refused, StoreError::Corrupt { .. }), "{refused}");
    assert!(refused.to_string().contains("move the directory away"), "{refused}");
    drop(dir);
    let dir = TempDir::new().unwrap();
    drop(open(dir.path(), small()).unwrap());
    fs::remove_file(dir.path().join("data/keyspaces/1/v0")).unwrap();
    let refused = error(open(dir.path(), small()));
    assert!(matches!(refused, StoreError::Corrupt { .. }), "{refused}");
    let file = dir.path().join("file");
    fs::write(&file, b"").unwrap();
    let refused = error(open(&file, small()));
    assert!(matches!(refused, StoreError::Unavailable(_)), "{refused}");
}

#[tokio::test]
async fn after_a_failed_write_all_is_read_and_later_appends_succeed() {
    let dir = TempDir::new().unwrap();
    let store = open(dir.path(), small()).unwrap();
    store.append(append(1, 10)).await.unwrap();
    store.shared.fail_commits.store(1, Ordering::SeqCst);
    let failed = store.append(append(2, 10)).await;
    assert!(matches!(failed, Err(StoreError::Unavailable(_))), "{failed:?}");
    assert_eq!(store.head(LOG).await.unwrap().last, Seq::new(1, 1));
    // Nothing of it is there, so it may be sent again.
    store.append(append(2, 10)).await.unwrap();
    assert_eq!(store.head(LOG).await.unwrap().last, Seq::new(1, 2));
}

#[tokio::test]
async fn while_the_directory_cannot_be_written_reads_go_on_and_appends_say_why() {
    let dir = TempDir::new().unwrap();
    let store = open(dir.path(), small()).unwrap();
    store.append(append(1, 10)).await.unwrap();
    // A directory in the way of the probe stands for a full disk.
    let probe = dir.path().join("probe");
    fs::create_dir(&probe).unwrap();
    store.shared.fail_commits.store(1, Ordering::SeqCst);
    store.append(append(2, 10)).await.unwrap_err();
    let told = store.append(append(2, 10)).await.unwrap_err().to_string();
    assert!(told.contains("cannot write") && told.contains("probe"), "{told}");
    assert_eq!(store.head(LOG).await.unwrap().last, Seq::new(1, 1));
    fs::remove_dir(&probe).unwrap();
    // Once a second it is tried anew.
    while let Err(e) = store.append(append(2, 10)).await {
        assert!(matches!(e, StoreError::Unavailable(_)), "{e}");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert_eq!(store.head(LOG).await.unwrap().last, Seq::new(1, 2));
}

#[tokio::test]
async fn at_the_bound_of_the_queue_appends_wait_and_none_is_lost() {
    let dir = TempDir::new().unwrap();
    let options = EmbeddedOptions { queue_bytes: 2_000, durability: Durability::Disk, ..small() };
    let store = Arc::new(open(dir.path(), options).unwrap());
    let mut tasks = tokio::task::JoinSet::new();
    for group in 0..50 {
        let store = Arc::clone(&store);
        tasks.spawn(async move {
            // The largest is larger than the queue.
            let mut batch = append(1, 100 * group);
            batch[0].log.group = group as u64;
            store.append(batch).await.unwrap();
        });
    }
    tasks.join_all().await;
    for group in 0..50 {
        let head = store.head(LogId { group, ..LOG }).await.unwrap();
        assert_eq!(head.last, Seq::new(1, 1));
    }
}

#[tokio::test]
async fn an_append_whose_future_was_dropped_is_there_or_not_and_harms_nothing() {
    let dir = TempDir::new().unwrap();
    let store = open(dir.path(), small()).unwrap();
    for counter in 1..=50 {
        tokio::select! {
            biased;
            () = async { tokio::task::yield_now().await } => {}
            result = store.append(append(counter, 10)) => result.unwrap(),
        }
    }
    store.append(append(51, 10)).await.unwrap();
    drop(store);
    let store = open(dir.path(), small()).unwrap();
    assert_eq!(store.head(LOG).await.unwrap().last, Seq::new(1, 51));
}

#[tokio::test]
async fn what_is_trimmed_is_gone_from_the_disk_also_after_a_trim_that_was_broken_off() {
    let dir = TempDir::new().unwrap();
    let store = open(dir.path(), small()).unwrap();
    let batch = (1..=2_500).flat_map(|counter| append(counter, 10)).collect();
    store.append(batch).await.unwrap();
    let kept = || store.shared.with(|tables| Ok(tables.entries.len().unwrap())).unwrap();
    // The first part of a trim, as if nobody asked for the rest.
    store.ask(Work::Trim { log: LOG, before: Seq::new(1, 2_001) }).await.unwrap();
    store.head(LOG).await.unwrap();
    assert_eq!(kept(), 1_500);
    store.trim(LOG, Seq::new(1, 11)).await.unwrap();
    store.head(LOG).await.unwrap();
    assert_eq!(kept(), 500);
}

#[tokio::test]
async fn a_signal_whose_state_cannot_be_told_is_refused() {
    let dir = TempDir::new().unwrap();
    let store = open(dir.path(), small()).unwrap();
    let mut batch = append(1, 10);
    batch[0].log.class = Class::Signal;
    batch[0].record.key = "page".to_owned();
    let refused = store.append(batch).await.unwrap_err();
    assert!(refused.to_string().contains("no Deliver"), "{refused}");
}

/// Tells the child process of the next test where its store is; its name for the test runner.
const CHILD_DIR: &str = "EDGEWAY_TEST_STORE_DIR";

#[tokio::test]
async fn what_was_answered_survives_the_kill_of_the_process() {
    survives_the_kill("child_that_appends").await;
}

/// All of it comes out of the journal then.
#[tokio::test]
async fn what_was_answered_survives_the_kill_also_where_nothing_was_in_the_tables() {
    survives_the_kill("child_that_appends_and_applies_nothing").await;
}

async fn survives_the_kill(child: &str) {
    use std::io::{BufRead, BufReader};
    let dir = TempDir::new().unwrap();
    let name = format!("{}::{child}", module_path!().split_once("::").unwrap().1);
    let mut child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &name, "--ignored", "--nocapture"])
        .env(CHILD_DIR, dir.path())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut answered = 0;
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        if let Some(counter) = line.unwrap().strip_prefix("answered ") {
            answered = counter.parse::<u64>().unwrap();
        }
        if answered == 200 {
            child.kill().unwrap();
        }
    }
    child.wait().unwrap();
    assert!(answered >= 200);
    let store = open(dir.path(), small()).unwrap();
    let page = store.read(LOG, Seq::ZERO, usize::MAX, usize::MAX, 0).await.unwrap();
    assert!(page.upto.counter >= answered);
    assert_eq!(page.records.len() as u64, page.upto.counter);
    let group = store.group("a room", false).await.unwrap();
    assert_eq!(group, Some(64));
    // What was given again after that counts as stored, and the log goes on.
    store.append(append(page.upto.counter, 300)).await.unwrap();
    store.append(append(page.upto.counter + 1, 300)).await.unwrap();
}

#[tokio::test]
#[ignore = "run by what_was_answered_survives_the_kill_of_the_process"]
async fn child_that_appends() {
    let Some(dir) = std::env::var_os(CHILD_DIR) else { return };
    append_for_ever(&open(Path::new(&dir), small()).unwrap()).await;
}

#[tokio::test]
#[ignore = "run by what_was_answered_survives_the_kill_also_where_nothing_was_in_the_tables"]
async fn child_that_appends_and_applies_nothing() {
    let Some(dir) = std::env::var_os(CHILD_DIR) else { return };
    let store = open(Path::new(&dir), small()).unwrap();
    store.shared.backlog.hold(true);
    append_for_ever(&store).await;
}

#[allow(clippy::print_stdout)] // how it talks to its parent
async fn append_for_ever(store: &Embedded) {
    store.ask(Work::Room("a room".to_owned())).await.unwrap();
    for counter in 1.. {
        store.append(append(counter, 300)).await.unwrap();
        println!("answered {counter}");
    }
}
