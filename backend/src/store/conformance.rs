//! What every store promises. A store runs the suite with `conformance::promises!(place)`, where
//! `place` makes a [`Place`] for one test.
#![allow(clippy::unwrap_used, clippy::panic)]

mod concurrent;
mod logs;
mod model;
mod opening;
mod random;
mod rooms;

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use edgeway_proto::{Class, Rest, Seq, frame::Deliver};

pub(crate) use self::{concurrent::*, logs::*, opening::*, random::*, rooms::*};
use super::{
    Append, LogHead, LogId, LogPage, Opened, Origin, Record, Store, StoreError, place_before,
};

/// Where a store is: it can be left and found again.
pub(crate) struct Place {
    #[allow(clippy::type_complexity)] // said once
    open: Box<dyn Fn() -> Pin<Box<dyn Future<Output = Arc<dyn Store>> + Send>> + Send + Sync>,
}

impl Place {
    /// `open` opens the store, empty at first; again, after the earlier one was dropped, with all
    /// that was stored before.
    pub(crate) fn new<F>(open: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Arc<dyn Store>> + Send + 'static,
    {
        Self { open: Box::new(move || Box::pin(open())) }
    }

    pub(crate) async fn open(&self) -> Arc<dyn Store> {
        (self.open)().await
    }

    /// Drops the store and opens it again.
    pub(crate) async fn reopen(&self, store: Arc<dyn Store>) -> Arc<dyn Store> {
        assert_eq!(Arc::strong_count(&store), 1, "the test still uses the store elsewhere");
        drop(store);
        self.open().await
    }
}

/// Makes a test of each promise.
macro_rules! promises {
    ($place:expr) => {
        $crate::store::conformance::promises! { $place;
            a_room_keeps_its_handle_and_no_other_has_it
            a_room_that_was_not_created_has_no_handle
            rooms_created_at_the_same_time_get_one_handle_each
            names_asked_for_together_get_what_each_would_alone
            names_made_in_many_calls_at_the_same_time_get_one_handle_each
            state_is_the_latest_signal_of_each_key
            an_empty_payload_removes_a_key
            a_void_record_is_not_in_the_state
            only_signals_set_state
            what_was_appended_is_read_in_order
            a_time_is_found_among_epochs_seals_and_holes
            a_log_that_never_was_is_empty
            everything_is_found_again_after_a_restart
            a_page_holds_at_most_the_records_and_bytes_asked_for
            void_records_and_seals_are_stepped_over
            the_last_entry_is_a_message_or_a_seal_and_outlives_a_trim
            trimmed_records_are_told_as_truncated
            every_log_is_found_by_its_group_and_has_a_length
            a_trimmed_log_keeps_its_head_state_and_ids
            a_trim_of_thousands_removes_them_all
            an_older_entry_is_stale_also_after_a_restart
            a_batch_is_stored_whole_or_not_at_all
            of_a_batch_over_rooms_each_is_stored_whole_or_not_at_all
            what_is_stored_may_be_appended_again
            a_seal_is_never_taken_for_a_repeat
            logs_do_not_mix
            the_head_knows_the_last_id_of_each_of_many_devices
            the_head_knows_the_places_of_the_last_thousand_messages
            who_opens_a_room_finds_all_of_it_and_ends_the_epochs_before
            owners_that_open_a_room_at_the_same_time_have_epochs_of_their_own
            appends_of_many_tasks_are_all_there
            of_two_owners_one_is_stale
            a_reader_sees_whole_batches_only
            random_sequences_behave_like_the_model
        }
    };
    ($place:expr; $($promise:ident)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $promise() {
                $crate::store::conformance::$promise(&$place).await;
            }
        )*
    };
}
pub(crate) use promises;

const NOW_MS: u64 = 1_000_000;

/// A log of a new room. Rooms are new for each test, so that tests may share a server.
async fn new_log(store: &dyn Store, class: Class) -> LogId {
    let group = store.group(&new_room(), true).await.unwrap().unwrap();
    LogId { group, class }
}

fn new_room() -> String {
    static ROOMS: AtomicU64 = AtomicU64::new(0);
    format!("room-{}-{}", std::process::id(), ROOMS.fetch_add(1, Ordering::Relaxed))
}

/// A message to be appended; its parts are changed by the test where they matter.
fn message(log: LogId, seq: Seq) -> Append {
    let origin = Origin { device: "ann/phone".to_owned(), id: seq.counter };
    let record = Record {
        seq,
        origin,
        time_ms: NOW_MS - 1,
        expires_ms: 0,
        key: String::new(),
        frame: Bytes::new(),
    };
    with_payload(Append { log, record }, &format!("{log:?} {seq}"))
}

fn seal(log: LogId, epoch: u64) -> Append {
    let seq = Seq::new(epoch, 0);
    let mut append = message(log, seq);
    append.record = Record { origin: Origin::default(), frame: Bytes::new(), ..append.record };
    append
}

fn with_payload(mut append: Append, payload: &str) -> Append {
    let Append { log, record } = &mut append;
    record.frame = Deliver {
        group: log.group,
        class: log.class,
        seq: record.seq,
        time_ms: record.time_ms,
        expires_ms: record.expires_ms,
        shed: 0,
        sender: "ann".into(),
        key: record.key.as_str().into(),
        payload: Rest(Bytes::copy_from_slice(payload.as_bytes())),
    }
    .to_bytes();
    append
}

fn with_key(mut append: Append, key: &str, payload: &str) -> Append {
    key.clone_into(&mut append.record.key);
    with_payload(append, payload)
}

fn expiring(mut append: Append, expires_ms: u64) -> Append {
    append.record.expires_ms = expires_ms;
    append
}

fn from_device(mut append: Append, device: &str, id: u64) -> Append {
    append.record.origin = Origin { device: device.to_owned(), id };
    append
}

fn records(appends: &[Append]) -> Vec<Record> {
    appends.iter().map(|append| append.record.clone()).collect()
}

/// Everything after a place, in one page.
async fn read_all(store: &dyn Store, log: LogId, after: Seq) -> LogPage {
    let page = store.read(log, after, usize::MAX, usize::MAX, NOW_MS).await.unwrap();
    assert!(!page.more);
    page
}
