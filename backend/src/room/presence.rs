//! Who came and who went, told as one difference at a time.

use std::{collections::BTreeMap, time::Duration};

use edgeway_proto::{Text, frame, frame::presence_flag::COUNT_ONLY, limits};

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
    interval: Duration,
}

/// Names of one frame take at most this, so that it stays below the frame's limit.
const NAMES_BYTES: usize = limits::PAGE_BYTES;

impl Presence {
    pub(crate) fn new(version: u64, names_max: usize, interval: Duration) -> Self {
        let touched = BTreeMap::new();
        let (told, nameless, listed, due) = (0, false, false, None);
        Self { version, told, touched, nameless, listed, due, names_max, interval }
    }

    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    /// When the next difference is to be told.
    pub(crate) fn due(&self) -> Option<Duration> {
        self.due
    }

    /// The user comes (`was` false) or goes (`was` true).
    pub(crate) fn touch(&mut self, user: &Text, was: bool, now: Duration) {
        self.due.get_or_insert(now + self.interval);
        if self.nameless || self.touched.len() >= self.names_max.saturating_mul(4) {
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
