//! Message ids: who sent what last, so that a message counts once however often it arrives.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use edgeway_proto::{Class, Seq};
use slab::Slab;

use super::SessionId;
use crate::store::LogHead;

/// The devices that a room knows, bounded.
#[derive(Debug)]
pub(crate) struct Senders {
    slab: Slab<Sender>,
    by_key: HashMap<Arc<str>, usize>,
    max: usize,
    recent_max: usize,
    /// Grows with each use: the smaller a sender's `used`, the longer it is idle.
    clock: u64,
}

#[derive(Debug)]
pub(crate) struct Sender {
    key: Arc<str>,
    /// Sessions attached and messages under way: with any of them it is not forgotten.
    holds: u32,
    /// Messages that are not stored yet.
    pending: u32,
    used: u64,
    /// The last id that was accepted, by class.
    last: [u64; 3],
    /// The last id that needs not be sent again: stored, or chat.
    stored: [u64; 3],
    /// Places of the latest, by class: many of one class do not push those of another out.
    recent: [VecDeque<(u64, Seq)>; 3],
    /// Whose strokes are taken; only where strokes have an owner of their own.
    draws: Option<Box<Draws>>,
}

/// The Sessions of a device, as the owner of strokes knows them.
#[derive(Debug, Default)]
struct Draws {
    /// The one whose strokes are taken.
    now: Option<SessionId>,
    /// Takes its place with its first stroke.
    next: Option<SessionId>,
}

/// What is known of a message id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// To be accepted.
    New,
    /// Accepted before; where, if that is still known.
    Repeat(Option<Seq>),
    /// Only this id would be accepted.
    OutOfOrder(u64),
}

/// Names a device in history. A slash in the user's name is escaped, so that no two are the same.
pub(crate) fn device_key(user: &str, device: &str) -> String {
    if user.contains(['/', '%']) {
        format!("{}/{device}", user.replace('%', "%25").replace('/', "%2F"))
    } else {
        format!("{user}/{device}")
    }
}

impl Senders {
    pub(crate) fn new(max: usize, recent_max: usize) -> Self {
        let (slab, by_key) = (Slab::new(), HashMap::new());
        Self { slab, by_key, max: max.max(1), recent_max, clock: 0 }
    }

    /// What the logs remember, read when the room is loaded.
    pub(crate) fn restore(&mut self, class: Class, head: &LogHead) {
        for origin in &head.last_ids {
            if !origin.device.is_empty() {
                let sender = self.find_or_insert(&origin.device);
                let sender = &mut self.slab[sender];
                sender.last[class.index()] = origin.id.max(sender.last[class.index()]);
                sender.stored[class.index()] = sender.last[class.index()];
            }
        }
        for (origin, seq) in &head.recent {
            if let Some(sender) = self.by_key.get(origin.device.as_str()) {
                let sender = &mut self.slab[*sender];
                sender.remember(class, origin.id, *seq, self.recent_max);
            }
        }
    }

    /// The sender of a device, held until it is released.
    pub(crate) fn attach(&mut self, user: &str, device: &str) -> usize {
        let sender = self.find_or_insert(&device_key(user, device));
        self.hold(sender);
        sender
    }

    /// The sender of a device, not held: it may be forgotten at the next one.
    pub(crate) fn of(&mut self, user: &str, device: &str) -> usize {
        let sender = self.find_or_insert(&device_key(user, device));
        self.clock += 1;
        self.slab[sender].used = self.clock;
        sender
    }

    /// Takes strokes of a device from this Session only.
    pub(crate) fn take_from(&mut self, sender: usize, session: SessionId) {
        let draws = self.slab[sender].draws.get_or_insert_default();
        **draws = Draws { now: Some(session), next: None };
    }

    /// The same, once its first one comes.
    pub(crate) fn expect_from(&mut self, sender: usize, session: SessionId) {
        self.slab[sender].draws.get_or_insert_default().next = Some(session);
    }

    /// Whether a stroke is taken from it: from anybody, until a Session is named.
    pub(crate) fn takes_from(&mut self, sender: usize, session: SessionId) -> bool {
        if self.slab[sender].draws.as_ref().is_some_and(|draws| draws.next == Some(session)) {
            self.take_from(sender, session);
        }
        let draws = self.slab[sender].draws.get_or_insert_default();
        *draws.now.get_or_insert(session) == session
    }

    pub(crate) fn is_pending(&self, sender: usize) -> bool {
        self.slab[sender].pending > 0
    }

    pub(crate) fn hold(&mut self, sender: usize) {
        self.clock += 1;
        self.slab[sender].holds += 1;
        self.slab[sender].used = self.clock;
    }

    pub(crate) fn release(&mut self, sender: usize) {
        self.slab[sender].holds -= 1;
    }

    pub(crate) fn key(&self, sender: usize) -> &str {
        &self.slab[sender].key
    }

    /// The device of a sender, without its user.
    pub(crate) fn device(&self, sender: usize) -> &str {
        self.key(sender).split_once('/').map_or("", |(_, device)| device)
    }

    /// The last id of each class that a client need not send again.
    pub(crate) fn stored(&self, sender: usize) -> [u64; 3] {
        self.slab[sender].stored
    }

    /// Whether messages of the device are not stored yet.
    pub(crate) fn has_pending(&self, user: &str, device: &str) -> bool {
        let sender = self.by_key.get(device_key(user, device).as_str());
        sender.is_some_and(|sender| self.slab[*sender].pending > 0)
    }

    /// Where the last message of a class is, if that is still known.
    pub(crate) fn last_place(&self, sender: usize, class: Class) -> Option<Seq> {
        self.slab[sender].recent[class.index()].back().map(|(_, seq)| *seq)
    }

    /// Judges an id. `contiguous`: only the next one is new; else any later one is.
    pub(crate) fn judge(&self, sender: usize, class: Class, id: u64, contiguous: bool) -> Verdict {
        let sender = &self.slab[sender];
        let last = sender.last[class.index()];
        if id <= last {
            let mut found = sender.recent[class.index()].iter().rev().filter(|(i, _)| *i == id);
            Verdict::Repeat(found.next().map(|(_, seq)| *seq))
        } else if contiguous && id != last + 1 {
            Verdict::OutOfOrder(last + 1)
        } else {
            Verdict::New
        }
    }

    /// A chat message's id counts as used, whatever becomes of the message.
    pub(crate) fn accept_chat(&mut self, sender: usize, id: u64) {
        self.slab[sender].last[Class::Chat.index()] = id;
        self.slab[sender].stored[Class::Chat.index()] = id;
    }

    /// A message that is to be stored got a place.
    pub(crate) fn accept(&mut self, sender: usize, class: Class, id: u64, seq: Seq) {
        self.hold(sender);
        self.slab[sender].pending += 1;
        self.slab[sender].last[class.index()] = id;
        self.remember(sender, class, id, seq);
    }

    /// It is stored.
    pub(crate) fn set_stored(&mut self, sender: usize, class: Class, id: u64) {
        self.slab[sender].pending -= 1;
        self.slab[sender].stored[class.index()] = id;
        self.release(sender);
    }

    /// A message got a place.
    pub(crate) fn remember(&mut self, sender: usize, class: Class, id: u64, seq: Seq) {
        self.slab[sender].remember(class, id, seq, self.recent_max);
    }

    fn find_or_insert(&mut self, key: &str) -> usize {
        if let Some(sender) = self.by_key.get(key) {
            return *sender;
        }
        if self.slab.len() >= self.max {
            self.forget_idle();
        }
        self.clock += 1;
        let key: Arc<str> = key.into();
        let sender = Sender {
            key: key.clone(),
            holds: 0,
            pending: 0,
            used: self.clock,
            last: [0; 3],
            stored: [0; 3],
            recent: Default::default(),
            draws: None,
        };
        let index = self.slab.insert(sender);
        self.by_key.insert(key, index);
        index
    }

    /// Forgets a sixteenth of the senders, those idle the longest: in passing over all of them each
    /// time there is room for many. Those that are held stay; members are bounded elsewhere.
    fn forget_idle(&mut self) {
        let idle = self.slab.iter().filter(|(_, s)| s.holds == 0);
        let mut idle: Vec<(u64, usize)> = idle.map(|(i, s)| (s.used, i)).collect();
        let count = (self.max / 16).max(1).min(idle.len());
        if count == 0 {
            return;
        }
        idle.select_nth_unstable(count - 1);
        for (_, index) in &idle[..count] {
            let sender = self.slab.remove(*index);
            self.by_key.remove(&sender.key);
        }
    }
}

impl Sender {
    fn remember(&mut self, class: Class, id: u64, seq: Seq, max: usize) {
        let recent = &mut self.recent[class.index()];
        while recent.len() >= max {
            recent.pop_front();
        }
        recent.push_back((id, seq));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Origin;

    #[test]
    fn the_longest_idle_sender_is_forgotten_first_and_a_held_one_never() {
        let mut senders = Senders::new(16, 64);
        let held = senders.attach("u", "held");
        senders.accept_chat(held, 9);
        for i in 0..100 {
            let sender = senders.attach("u", &format!("d{i}"));
            senders.accept_chat(sender, 1);
            senders.release(sender);
            assert!(senders.slab.len() <= 16);
        }
        let again = senders.attach("u", "d99");
        assert_eq!(senders.stored(again)[2], 1, "the latest is remembered");
        let again = senders.attach("u", "d0");
        assert_eq!(senders.stored(again)[2], 0, "the oldest is forgotten");
        assert_eq!(senders.stored(held)[2], 9);
    }

    #[test]
    fn places_of_the_last_64_messages_are_remembered() {
        let mut senders = Senders::new(16, 64);
        let s = senders.attach("u", "d");
        for id in 1..=100 {
            assert_eq!(senders.judge(s, Class::Binary, id, true), Verdict::New);
            senders.accept(s, Class::Binary, id, Seq::new(1, id));
        }
        let seq = |id| senders.judge(s, Class::Binary, id, true);
        assert_eq!(seq(100), Verdict::Repeat(Some(Seq::new(1, 100))));
        assert_eq!(seq(37), Verdict::Repeat(Some(Seq::new(1, 37))));
        assert_eq!(seq(36), Verdict::Repeat(None));
        assert_eq!(seq(102), Verdict::OutOfOrder(101));
        assert_eq!(senders.judge(s, Class::Binary, 102, false), Verdict::New);
    }

    #[test]
    fn what_the_log_remembers_is_known_again() {
        let mut senders = Senders::new(16, 64);
        let origin = Origin { device: "u/d".into(), id: 7 };
        let recent = vec![(origin.clone(), Seq::new(1, 3))];
        let head = LogHead { last_ids: vec![origin], recent, ..LogHead::default() };
        senders.restore(Class::Signal, &head);
        let s = senders.attach("u", "d");
        let place = Verdict::Repeat(Some(Seq::new(1, 3)));
        assert_eq!(senders.judge(s, Class::Signal, 7, true), place);
        assert_eq!(senders.judge(s, Class::Signal, 8, true), Verdict::New);
    }

    #[test]
    fn places_of_one_class_do_not_push_out_those_of_another() {
        let mut senders = Senders::new(16, 64);
        let origin = |id| Origin { device: "u/d".into(), id };
        let head = |first, last| LogHead {
            last_ids: vec![origin(last)],
            recent: (first..=last).map(|id| (origin(id), Seq::new(1, id))).collect(),
            ..LogHead::default()
        };
        senders.restore(Class::Signal, &head(1, 1));
        senders.restore(Class::Binary, &head(1, 200));
        senders.restore(Class::Chat, &head(1, 200));
        let s = senders.attach("u", "d");
        let place = Verdict::Repeat(Some(Seq::new(1, 1)));
        assert_eq!(senders.judge(s, Class::Signal, 1, true), place);
    }

    #[test]
    fn no_two_devices_have_the_same_key() {
        assert_ne!(device_key("a/b", "c"), device_key("a", "b/c"));
        assert_ne!(device_key("a%2Fb", "c"), device_key("a/b", "c"));
        assert_eq!(device_key("ann", "phone"), "ann/phone");
    }
}
