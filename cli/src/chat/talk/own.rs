//! One's own messages come back from the room like everyone's. At a terminal they stand on the
//! screen already, where they were typed.

use std::collections::VecDeque;

use bytes::Bytes;
use edgeway_client::{Class, Seq};

/// Answered, and not yet come back; what is older was shed on the way or will not come.
const AWAITED: usize = 64;

/// Knows which messages were typed here.
pub struct Own {
    /// Off where what is typed does not stay on the screen.
    on: bool,
    /// Not answered yet: it may come back before its answer.
    sending: Option<(Class, Bytes)>,
    /// Answered.
    awaited: VecDeque<(Class, Seq)>,
}

impl Own {
    pub fn new(on: bool) -> Self {
        Self { on, sending: None, awaited: VecDeque::new() }
    }

    /// A message is on its way.
    pub fn sending(&mut self, class: Class, payload: Bytes) {
        self.sending = Some((class, payload));
    }

    /// It was answered, with its position where it has one.
    pub fn sent(&mut self, class: Class, seq: Option<Seq>) {
        let came_back = self.sending.take().is_none();
        if let Some(seq) = seq.filter(|seq| !came_back && *seq != Seq::ZERO) {
            self.awaited.push_back((class, seq));
            if self.awaited.len() > AWAITED {
                self.awaited.pop_front();
            }
        }
    }

    /// Whether a message of this user was typed here; told once for each.
    pub fn is_on_screen(&mut self, class: Class, seq: Seq, payload: &Bytes) -> bool {
        if !self.on {
            return false;
        }
        if let Some(at) = self.awaited.iter().position(|own| *own == (class, seq)) {
            self.awaited.remove(at);
            return true;
        }
        let is_on_its_way = self.sending.as_ref().is_some_and(|(c, p)| *c == class && p == payload);
        if is_on_its_way {
            self.sending = None;
        }
        is_on_its_way
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEQ: Seq = Seq { epoch: 1, counter: 7 };

    fn hi() -> Bytes {
        Bytes::from_static(b"hi")
    }

    #[test]
    fn what_was_typed_here_is_known_whichever_comes_first_and_only_once() {
        let mut own = Own::new(true);
        own.sending(Class::Chat, hi());
        own.sent(Class::Chat, Some(SEQ));
        assert!(own.is_on_screen(Class::Chat, SEQ, &hi()));
        assert!(!own.is_on_screen(Class::Chat, SEQ, &hi()));

        own.sending(Class::Chat, hi());
        assert!(own.is_on_screen(Class::Chat, SEQ, &hi()));
        own.sent(Class::Chat, Some(SEQ));
        assert!(!own.is_on_screen(Class::Chat, SEQ, &hi()));
    }

    #[test]
    fn what_was_typed_on_another_device_is_shown() {
        let mut own = Own::new(true);
        own.sending(Class::Chat, hi());
        assert!(!own.is_on_screen(Class::Chat, SEQ, &Bytes::from_static(b"from the tablet")));
        assert!(!own.is_on_screen(Class::Signal, SEQ, &hi()));
    }

    #[test]
    fn a_script_is_shown_everything() {
        let mut own = Own::new(false);
        own.sending(Class::Chat, hi());
        assert!(!own.is_on_screen(Class::Chat, SEQ, &hi()));
    }
}
