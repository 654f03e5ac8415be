//! What the system reads of a room: from the store, beside the shards.

use std::sync::{Arc, atomic::Ordering};

use bytes::BytesMut;
use edgeway_proto::{
    Class, ErrorCode, Seq, limits,
    rooms::{self, from_owner_item::Item, pushed::Answer},
};

use super::{
    Reply,
    owner::{Access, Shared},
    task::wall_ms,
};
use crate::{
    room::refused_push,
    store::{LogId, LogPage, Store, StoreError, place_before},
};

/// What is read.
pub(super) enum Read {
    /// The state of a group.
    State(u64),
    /// Of a log, behind a place, not before a time (0 for any), so many records.
    Log { log: LogId, after: Seq, since_ms: u64, limit: usize },
}

impl Read {
    pub(super) fn log(group: u64, history: &rooms::PushHistory) -> Self {
        let class = Class::from(history.class());
        let after = history.after.map(Seq::from).unwrap_or_default();
        let most = u32::try_from(limits::PAGE_MESSAGES).unwrap_or(u32::MAX);
        let limit = usize::try_from(history.limit.clamp(1, most)).unwrap_or(1);
        Self::Log { log: LogId { group, class }, after, since_ms: history.since_ms, limit }
    }

    async fn answer(self, store: &dyn Store) -> Result<LogPage, StoreError> {
        match self {
            Self::State(group) => {
                let mut records = store.state(group, wall_ms()).await?;
                records.sort_by_key(|record| record.seq);
                Ok(LogPage { records, ..LogPage::default() })
            }
            Self::Log { log, mut after, since_ms, limit } => {
                if since_ms > 0 {
                    after = after.max(place_before(store, log, since_ms).await?);
                }
                store.read(log, after, limit, limits::PAGE_BYTES, wall_ms()).await
            }
        }
    }
}

/// Answers as soon as it is its turn.
pub(super) fn read(shared: Arc<Shared>, access: Arc<Access>, push: u64, what: Read) {
    let waiting = shared.history_waiting.fetch_add(1, Ordering::Relaxed);
    if waiting >= shared.config.history_waiting {
        shared.history_waiting.fetch_sub(1, Ordering::Relaxed);
        let refused = refused_push(push, ErrorCode::Unavailable, "too many ask for history");
        return access.reply(Reply::Item(Item::Pushed(refused)));
    }
    let tasks = shared.tasks.clone();
    tasks.spawn(async move {
        let turn = shared.history_reads.acquire().await;
        let page = what.answer(&*shared.store).await;
        drop(turn);
        shared.history_waiting.fetch_sub(1, Ordering::Relaxed);
        let pushed = match page {
            Ok(page) => {
                let mut frames = BytesMut::new();
                page.records.iter().for_each(|record| frames.extend_from_slice(&record.frame));
                let (upto, more, truncated) = (Some(page.upto.into()), page.more, page.truncated);
                let frames = frames.freeze();
                let records = rooms::PushRecords { frames, upto, more, truncated };
                let answer = Some(Answer::Records(records));
                rooms::Pushed { push, code: 0, detail: String::new(), answer }
            }
            Err(error) => {
                tracing::warn!(%error, "a room could not be read");
                refused_push(push, ErrorCode::Unavailable, "the store cannot be read now")
            }
        };
        access.reply(Reply::Item(Item::Pushed(pushed)));
    });
}
