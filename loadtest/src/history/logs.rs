//! The logs that are appended to and read, and the records that go there.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use anyhow::{Context, Result};
use bytes::{Bytes, BytesMut};
use edgeway_backend::store::{Append, LogId, Origin, Record, Store};
use edgeway_proto::{Class, Seq, Text, frame};

use crate::{fleet::room_name, stamp};

/// The epoch of every log: nobody had one before.
pub const EPOCH: u64 = 1;

/// Noise that payloads are cut from, each elsewhere: nothing can be compressed by what stands near it.
const NOISE_BYTES: usize = 1 << 20;
/// From one payload to the next; a prime, so that they come to lie everywhere.
const NOISE_STEP: u64 = 104_729;

/// Devices that speak in each room: a class.
const SPEAKERS: u64 = 25;

/// A room's log of signals.
pub struct Log {
    pub id: LogId,
    /// Entries that are stored.
    stored: AtomicU64,
}

impl Log {
    pub fn stored(&self) -> u64 {
        self.stored.load(Relaxed)
    }

    pub fn set_stored(&self, counter: u64) {
        self.stored.store(counter, Relaxed);
    }
}

/// Makes the logs, each sealed as its owner does it.
pub async fn make(store: &dyn Store, count: u32) -> Result<Vec<Arc<Log>>> {
    let mut logs = Vec::new();
    for n in 0..count {
        let group = store.group(&room_name(n), true).await?.context("a room was not made")?;
        store.open(group, &Class::ALL, wall_ms()).await?;
        let id = LogId { group, class: Class::Signal };
        logs.push(Arc::new(Log { id, stored: AtomicU64::new(0) }));
    }
    Ok(logs)
}

fn wall_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// Makes records as a room does: the frame that all members are given, and who sent it.
pub struct Scribe {
    noise: Bytes,
    size: usize,
    devices: Vec<(Text, String)>,
}

impl Scribe {
    pub fn new(size: usize, seed: u64) -> Self {
        let noise = stamp::filler(NOISE_BYTES + stamp::STAMP_BYTES, seed).into();
        let user = |n| format!("member-{n:05}");
        let devices = (0..SPEAKERS).map(|n| (user(n).into(), format!("{}/phone", user(n))));
        Self { noise, size, devices: devices.collect() }
    }

    /// The entries after `last` of a log, their frames in one piece of memory.
    pub fn write(&self, log: LogId, last: u64, count: u64, out: &mut Vec<Append>) {
        let time_ms = wall_ms();
        let mut frames = BytesMut::new();
        let mut ends = Vec::with_capacity(usize::try_from(count).unwrap_or_default());
        for counter in last + 1..=last + count {
            let deliver = frame::Deliver {
                group: log.group,
                class: log.class,
                seq: Seq::new(EPOCH, counter),
                time_ms,
                sender: self.device(counter).0.clone(),
                payload: self.payload(counter).into(),
                ..frame::Deliver::default()
            };
            deliver.encode(&mut frames);
            ends.push(frames.len());
        }
        let (frames, mut start) = (frames.freeze(), 0);
        for (counter, end) in (last + 1..).zip(ends) {
            let origin = Origin { device: self.device(counter).1.clone(), id: counter };
            let (seq, frame) = (Seq::new(EPOCH, counter), frames.slice(start..end));
            let record = Record { seq, origin, time_ms, expires_ms: 0, key: String::new(), frame };
            out.push(Append { log, record });
            start = end;
        }
    }

    fn payload(&self, counter: u64) -> Bytes {
        let places = (self.noise.len() - self.size) as u64;
        let at = usize::try_from(counter.wrapping_mul(NOISE_STEP) % places).unwrap_or_default();
        self.noise.slice(at..at + self.size)
    }

    /// They take turns.
    fn device(&self, counter: u64) -> &(Text, String) {
        let turn = usize::try_from(counter % SPEAKERS).unwrap_or_default();
        &self.devices[turn]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_follow_the_last_one_and_hold_whole_frames() {
        let log = LogId { group: 7, class: Class::Signal };
        let mut out = Vec::new();
        Scribe::new(100, 1).write(log, 40, 30, &mut out);
        let places: Vec<_> = out.iter().map(|append| append.record.seq.counter).collect();
        assert_eq!(places, (41..=70).collect::<Vec<_>>());
        for Append { record, .. } in out {
            let mut bytes = record.frame;
            let whole = frame::split(&mut bytes).unwrap().unwrap();
            let deliver = frame::Deliver::parse(whole.body).unwrap();
            assert_eq!((deliver.seq, deliver.payload.0.len()), (record.seq, 100));
            assert_eq!(record.origin.device, format!("{}/phone", &*deliver.sender));
            assert!(bytes.is_empty());
        }
    }
}
