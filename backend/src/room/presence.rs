//! Who came and who went, told as one difference at a time.

use std::{collections::BTreeMap, time::Duration};

use edgeway_proto::{Text, frame, frame::presence_flag::COUNT_ONLY, limits};
use xxhash_rust::xxh3::xxh3_64;

/// Changes since the last difference was told.
#[derive(Debug)]
pub(crate) struct Presence {
    version: u64,
    /// Users at the last version.
    told: usize,
    /// Users whose presence changed, and whether they were present at the last version.
    touched: BTreeMap<Text, bool>,
    /// Too many changes to keep their names: only the count is told.
    nameless: bool,
    /// A list was given out between two versions: it may hold users who have gone again since.
    listed: bool,
    due: Option<Duration>,
    names_max: usize,
    beat: Beat,
}

/// The moments at which a room may tell: at most one in an interval. Each room has its own, or who
/// comes into hundreds of rooms at once would have all of them tell at once.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Beat {
    interval: u64,
    /// Of each interval, where in it.
    phase: u64,
}

impl Beat {
    pub(crate) fn of(group: u64, interval: Duration) -> Self {
        let interval = u64::try_from(interval.as_nanos()).unwrap_or(u64::MAX).max(1);
        Self { interval, phase: xxh3_64(&group.to_le_bytes()) % interval }
    }

    /// The next moment after `now`.
    fn after(self, now: Duration) -> Duration {
        let now_ns = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        let since = now_ns.wrapping_add(self.interval - self.phase) % self.interval;
        now + Duration::from_nanos(self.interval - since)
    }
}

/// Names of one frame take at most this, so that it stays below the frame's limit.
const NAMES_BYTES: usize = limits::PAGE_BYTES;

impl Presence {
    pub(crate) fn new(version: u64, names_max: usize, beat: Beat) -> Self {
        let touched = BTreeMap::new();
        let (told, nameless, listed, due) = (0, false, false, None);
        Self { version, told, touched, nameless, listed, due, names_max, beat }
    }

    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    /// When the next difference is to be told.
    pub(crate) fn due(&self) -> Option<Duration> {
        self.due
    }

    /// The user comes (`was` false) or goes (`was` true), in a room of so many.
    pub(crate) fn touch(&mut self, user: &Text, was: bool, users: usize, now: Duration) {
        self.due.get_or_insert_with(|| self.beat.after(now));
        // A room so large hardly shrinks to where names are told before the next beat.
        let large = users > self.names_max.saturating_mul(4);
        if self.nameless || large || self.touched.len() >= self.names_max.saturating_mul(4) {
            self.nameless = true;
            self.touched.clear();
        } else if !self.touched.contains_key(user) {
            self.touched.insert(user.clone(), was);
        }
    }

    /// The list was given out as of the present version, changes since then included.
    pub(crate) fn listed(&mut self) {
        self.listed |= self.due.is_some();
    }

    /// The frames that tell what changed; none where nothing did.
    pub(crate) fn take(&mut self, group: u64, users: &BTreeMap<Text, u32>) -> Vec<frame::Presence> {
        self.due = None;
        let touched = std::mem::take(&mut self.touched);
        let nameless = std::mem::take(&mut self.nameless) || users.len() > self.names_max;
        let listed = std::mem::take(&mut self.listed);
        if nameless {
            if self.told == users.len() && !listed {
                return Vec::new();
            }
            self.told = users.len();
            return vec![self.next_frame(group, COUNT_ONLY)];
        }
        let mut frames: Vec<frame::Presence> = Vec::new();
        let mut bytes = 0;
        for (user, was) in touched {
            let is = users.contains_key(&user);
            if is == was && !listed {
                continue;
            }
            bytes += user.len() + 2;
            let full = |f: &frame::Presence| f.joined.len() + f.left.len() >= limits::NAMES;
            if bytes > NAMES_BYTES || frames.last().is_none_or(full) {
                bytes = user.len() + 2;
                frames.push(self.next_frame(group, 0));
            }
            self.told = self.told + usize::from(is) - usize::from(was);
            if let Some(frame) = frames.last_mut() {
                frame.members = self.told as u64;
                if is { &mut frame.joined } else { &mut frame.left }.push(user);
            }
        }
        frames
    }

    fn next_frame(&mut self, group: u64, flags: u64) -> frame::Presence {
        self.version += 1;
        let (joined, left) = (Vec::new(), Vec::new());
        let members = self.told as u64;
        frame::Presence { group, version: self.version, flags, members, joined, left }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_room_tells_at_most_once_in_an_interval_and_after_one_at_the_latest() {
        let beat = Beat::of(7, SECOND);
        let mut last = beat.after(Duration::ZERO);
        for ms in 0..5000 {
            let now = Duration::from_micros(ms * 1003);
            let due = beat.after(now);
            assert!(now < due && due <= now + SECOND);
            assert!(due == last || due == last + SECOND, "{due:?} after {last:?}");
            last = due;
        }
    }

    #[test]
    fn rooms_that_somebody_joins_at_once_do_not_tell_at_once() {
        let now = Duration::from_millis(12_345);
        let mut tenths = [0; 10];
        for group in 1..=1000 {
            let due = Beat::of(group, SECOND).after(now) - now;
            tenths[(due.as_millis().saturating_sub(1) / 100) as usize] += 1;
        }
        assert!(tenths.iter().all(|rooms| (60..140).contains(rooms)), "{tenths:?}");
    }
}
