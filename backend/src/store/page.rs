//! How a page of a log is put together, whatever the log is stored in.

use edgeway_proto::Seq;

use super::{LogId, LogPage, codec};

/// Entries that one read looks at beyond those it returns: a log full of void records must not
/// hold a reader for long. The page then says that there is more.
const SKIPPED_ENTRIES: usize = 10_000;

/// What a page is to hold: the arguments of [`Store::read`](super::Store::read).
#[derive(Clone, Copy)]
pub(super) struct Wanted {
    pub log: LogId,
    pub after: Seq,
    pub limit: usize,
    pub limit_bytes: usize,
    pub now_ms: u64,
}

/// A page in the making. It is told of trims and offered the entries, oldest first.
pub(super) struct PageMaker {
    page: LogPage,
    limit: usize,
    limit_bytes: usize,
    now_ms: u64,
    bytes: usize,
    skipped: usize,
}

impl PageMaker {
    /// A page of what follows `after`.
    pub(super) fn new(after: Seq, limit: usize, limit_bytes: usize, now_ms: u64) -> Self {
        let page = LogPage { upto: after, ..LogPage::default() };
        Self { page, limit, limit_bytes, now_ms, bytes: 0, skipped: 0 }
    }

    /// What was trimmed when the entries that come next were read: the last entry and the last
    /// message of it.
    pub(super) fn trimmed(&mut self, last: Seq, last_message: Seq) {
        self.page.truncated |= self.page.upto < last_message;
        self.page.upto = self.page.upto.max(last);
    }

    /// Up to where it has looked.
    pub(super) fn upto(&self) -> Seq {
        self.page.upto
    }

    /// How many records may still come, and how many bytes of frames.
    pub(super) fn room(&self) -> (usize, usize) {
        (
            self.limit.saturating_sub(self.page.records.len()),
            self.limit_bytes.saturating_sub(self.bytes),
        )
    }

    /// Takes an entry, or steps over it; whether it goes on. `None` where it cannot be read.
    pub(super) fn offer(&mut self, seq: Seq, value: &[u8]) -> Option<bool> {
        let expires_ms = codec::read_expires_ms(value)?;
        if seq.counter == 0 || codec::void(expires_ms, self.now_ms) {
            self.skipped += 1;
            if self.skipped > SKIPPED_ENTRIES {
                self.page.more = true;
                return Some(false);
            }
            self.page.upto = seq;
            return Some(true);
        }
        let record = codec::read_record(seq, value)?;
        self.bytes += record.frame.len();
        let over = !self.page.records.is_empty() && self.bytes > self.limit_bytes;
        if over || self.page.records.len() >= self.limit {
            self.page.more = true;
            return Some(false);
        }
        self.page.upto = seq;
        self.page.records.push(record);
        Some(true)
    }

    pub(super) fn finish(self) -> LogPage {
        self.page
    }
}
