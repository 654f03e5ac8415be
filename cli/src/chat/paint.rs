//! How things look. Bytes from others are shown as text and nothing else: what would command the
//! terminal is taken out.

use edgeway_client::{Class, Message};
use jiff::{Timestamp, tz::TimeZone};

/// Readable on dark and on light ground.
const COLORS: [u8; 6] = [31, 32, 33, 34, 35, 36];
const DIM: u8 = 2;
const BOLD: u8 = 1;

/// Turns messages and notes into lines.
pub struct Painter {
    color: bool,
    zone: TimeZone,
}

impl Painter {
    /// With ANSI colours or without; times are those of `zone`.
    pub fn new(color: bool, zone: TimeZone) -> Self {
        Self { color, zone }
    }

    /// A message of a room or, where `to_me`, of one's inbox.
    pub fn message(&self, m: &Message, to_me: bool) -> String {
        let text = clean(&String::from_utf8_lossy(&m.payload));
        let sender = if m.sender.is_empty() { "(system)".to_owned() } else { clean(&m.sender) };
        let kind = match m.class {
            _ if to_me => " (to you)".to_owned(),
            _ if !m.key.is_empty() => format!(" ({})", clean(&m.key)),
            Class::Signal => " (signal)".to_owned(),
            Class::Binary => " (stroke)".to_owned(),
            Class::Chat => String::new(),
        };
        let text = match m.class {
            Class::Binary => format!("{} bytes", m.payload.len()),
            Class::Signal if !to_me => self.paint(BOLD, &text),
            _ => text,
        };
        let time = self.paint(DIM, &self.time(m.time_ms));
        let sender = self.paint(color_of(&sender), &format!("{sender}{kind}"));
        format!("{time} {sender}: {text}")
    }

    /// Something that nobody said.
    pub fn note(&self, text: &str) -> String {
        self.paint(DIM, &format!("* {text}"))
    }

    /// The time of day; with its date, where that is not today.
    fn time(&self, ms: u64) -> String {
        let at = i64::try_from(ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
        let Some(at) = at else { return "--:--:--".to_owned() };
        let at = at.to_zoned(self.zone.clone());
        let today = Timestamp::now().to_zoned(self.zone.clone()).date();
        let format = if at.date() == today { "%H:%M:%S" } else { "%Y-%m-%d %H:%M:%S" };
        at.strftime(format).to_string()
    }

    fn paint(&self, code: u8, text: &str) -> String {
        if self.color { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// The same user has the same colour in every terminal.
fn color_of(user: &str) -> u8 {
    let sum =
        user.bytes().fold(0_usize, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
    COLORS[sum % COLORS.len()]
}

/// Text without anything that moves the cursor, changes colours, or turns the direction of writing.
pub fn clean(text: &str) -> String {
    let harmless = |c: char| match c {
        '\n' | '\t' => ' ',
        c if c.is_control() || is_direction(c) => char::REPLACEMENT_CHARACTER,
        c => c,
    };
    text.chars().map(harmless).collect()
}

/// The embeddings, overrides and isolates of the bidirectional algorithm.
fn is_direction(c: char) -> bool {
    matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use edgeway_client::{Seq, SessionId, Text};

    use super::*;

    fn message(class: Class, key: &str, payload: &'static [u8]) -> Message {
        Message {
            session: SessionId::CHAT,
            room: "lesson".into(),
            class,
            seq: Seq { epoch: 1, counter: 1 },
            sender: Text::from("ada"),
            time_ms: 1_000,
            expires_ms: 0,
            key: Text::from(key),
            shed: 0,
            payload: Bytes::from_static(payload),
        }
    }

    fn plain(m: &Message, to_me: bool) -> String {
        Painter::new(false, TimeZone::UTC).message(m, to_me)
    }

    #[test]
    fn a_line_tells_time_sender_and_kind() {
        let chat = plain(&message(Class::Chat, "", b"hi"), false);
        assert_eq!(chat, "1970-01-01 00:00:01 ada: hi");
        let tail = |m: &Message, to_me| plain(m, to_me).split_off("1970-01-01 00:00:01 ".len());
        assert_eq!(tail(&message(Class::Signal, "", b"go"), false), "ada (signal): go");
        assert_eq!(tail(&message(Class::Signal, "page", b"7"), false), "ada (page): 7");
        assert_eq!(tail(&message(Class::Signal, "", b"psst"), true), "ada (to you): psst");
        assert_eq!(tail(&message(Class::Binary, "", &[0; 40]), false), "ada (stroke): 40 bytes");
    }

    #[test]
    fn colors_are_there_only_where_wanted_and_the_same_for_the_same_user() {
        let m = message(Class::Chat, "", b"hi");
        assert!(!plain(&m, false).contains('\x1b'));
        let colored = Painter::new(true, TimeZone::UTC);
        assert!(colored.message(&m, false).contains('\x1b'));
        assert_eq!(colored.message(&m, false), colored.message(&m, false));
    }

    #[test]
    fn nothing_that_others_send_commands_the_terminal() {
        for evil in ["\x1b[2J", "\x07", "\u{9b}2J", "\u{202e}dlrow", "a\rb", "a\nb"] {
            let shown = clean(evil);
            assert!(!shown.chars().any(|c| c.is_control() || is_direction(c)), "{evil:?}");
        }
        let m =
            Message { sender: Text::from("\x1b]0;x"), ..message(Class::Chat, "\x1b", b"\x1b[2J") };
        assert!(!plain(&m, false).contains('\x1b'));
    }
}
