//! The store as simple as it can be told.

use std::collections::BTreeMap;

use super::*;

#[derive(Default)]
pub(super) struct Model {
    logs: BTreeMap<LogId, ModelLog>,
    state: BTreeMap<(u64, String), Record>,
}

#[derive(Default)]
struct ModelLog {
    /// All that ever was.
    entries: Vec<Record>,
    /// How many of them are trimmed.
    trimmed: usize,
}

impl Model {
    /// Whether the batch is later than what is there.
    pub(super) fn fits(&self, batch: &[Append]) -> bool {
        let mut lasts = BTreeMap::new();
        batch.iter().all(|Append { log, record }| {
            let last = lasts.entry(*log).or_insert_with(|| self.head(*log).last);
            record.seq > std::mem::replace(last, record.seq)
        })
    }

    /// Whether the batch fits, and if so its effect.
    pub(super) fn append(&mut self, batch: &[Append]) -> bool {
        if !self.fits(batch) {
            return false;
        }
        for Append { log, record } in batch {
            self.logs.entry(*log).or_default().entries.push(record.clone());
            if log.class == Class::Signal && !record.key.is_empty() {
                let key = (log.group, record.key.clone());
                // The generator writes the payload at the end of the frame.
                if record.frame.ends_with(EMPTY_ENDS_WITH) {
                    self.state.remove(&key);
                } else {
                    self.state.insert(key, record.clone());
                }
            }
        }
        true
    }

    pub(super) fn read(
        &self,
        log: LogId,
        after: Seq,
        (limit, limit_bytes): (usize, usize),
        now_ms: u64,
    ) -> LogPage {
        let mut page = LogPage { upto: after, ..LogPage::default() };
        let Some(log) = self.logs.get(&log) else { return page };
        let mut bytes = 0;
        for (index, record) in log.entries.iter().enumerate() {
            if record.seq <= after {
                continue;
            }
            let message = record.seq.counter != 0;
            if index < log.trimmed {
                page.truncated |= message;
            } else if message && !void(record, now_ms) {
                bytes += record.frame.len();
                let over = bytes > limit_bytes && !page.records.is_empty();
                if over || page.records.len() == limit {
                    page.more = true;
                    return page;
                }
                page.records.push(record.clone());
            }
            page.upto = record.seq;
        }
        page
    }

    pub(super) fn head(&self, log: LogId) -> LogHead {
        let Some(log) = self.logs.get(&log) else { return LogHead::default() };
        let messages = log.entries.iter().filter(|record| record.seq.counter != 0);
        let of_devices = messages.clone().filter(|record| !record.origin.device.is_empty());
        let ids = of_devices.clone().map(|record| (&record.origin.device, record.origin.id));
        let ids = ids.collect::<BTreeMap<_, _>>();
        let kept = |record: &&Record| {
            log.entries[log.trimmed..].iter().any(|entry| entry.seq == record.seq)
        };
        LogHead {
            last: log.entries.last().map_or(Seq::ZERO, |record| record.seq),
            last_message: messages.clone().last().map_or(Seq::ZERO, |record| record.seq),
            last_ids: ids
                .into_iter()
                .map(|(device, id)| Origin { device: device.clone(), id })
                .collect(),
            recent: of_devices
                .filter(kept)
                .map(|record| (record.origin.clone(), record.seq))
                .collect(),
        }
    }

    pub(super) fn state(&self, group: u64, now_ms: u64) -> Vec<Record> {
        let of_group = self.state.iter().filter(|((of, _), _)| *of == group);
        let records = of_group.map(|(_, record)| record.clone());
        records.filter(|record| !void(record, now_ms)).collect()
    }

    pub(super) fn trim(&mut self, log: LogId, before: Seq) {
        let log = self.logs.entry(log).or_default();
        let trimmed = log.entries.iter().filter(|record| record.seq < before).count();
        log.trimmed = log.trimmed.max(trimmed);
    }
}

/// How a frame with an empty payload ends: with its key, which the generator ends so.
pub(super) const EMPTY_ENDS_WITH: &[u8] = b"-key";

fn void(record: &Record, now_ms: u64) -> bool {
    record.expires_ms != 0 && record.expires_ms <= now_ms
}
