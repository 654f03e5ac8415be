//! Classes, lanes and positions: the small types that every layer speaks in.

use std::{fmt, str::FromStr};

use bytes::{BufMut, Bytes, BytesMut};

use crate::wire::{Field, FieldError};

/// How a message is treated. The numbers are those of the wire and of the lanes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
#[repr(u8)]
pub enum Class {
    /// High priority: reliable, in order, appended to history before it is delivered.
    #[default]
    Signal = 0,
    /// Whiteboard strokes: reliable, in order, on a lane of their own.
    Binary = 1,
    /// Low priority: the oldest is shed where there is no room.
    Chat = 2,
}

impl Class {
    /// All of them, highest priority first.
    pub const ALL: [Self; 3] = [Self::Signal, Self::Binary, Self::Chat];

    /// Whether a message of this class must reach every member.
    #[must_use]
    pub const fn reliable(self) -> bool {
        matches!(self, Self::Signal | Self::Binary)
    }

    /// The place in an array of one item a class.
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The class of a number of the wire.
    #[must_use]
    pub const fn from_wire(n: u8) -> Option<Self> {
        match n {
            0 => Some(Self::Signal),
            1 => Some(Self::Binary),
            2 => Some(Self::Chat),
            _ => None,
        }
    }

    /// The name used in metrics, logs and reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Signal => "signal",
            Self::Binary => "binary",
            Self::Chat => "chat",
        }
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Field for Class {
    fn put(&self, out: &mut BytesMut) {
        out.put_u8(*self as u8);
    }
    fn get(body: &mut Bytes) -> Result<Self, FieldError> {
        Self::from_wire(u8::get(body)?)
            .ok_or(FieldError::Invalid("class must be 0 (signal), 1 (binary) or 2 (chat)"))
    }
}

/// One ordered stream of frames within a connection: a Session's number and a class. Session 0,
/// class signal, is the control lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Lane {
    /// 0 is the connection itself, 1 to 63 are Sessions.
    pub session: u8,
    /// The class of what travels on it.
    pub class: Class,
}

impl Lane {
    /// The lane of the connection itself.
    pub const CONTROL: Self = Self { session: 0, class: Class::Signal };

    /// A Session's lane of a class.
    #[must_use]
    pub const fn new(session: u8, class: Class) -> Self {
        Self { session, class }
    }

    /// Whether this is the connection's own lane.
    #[must_use]
    pub const fn is_control(self) -> bool {
        self.session == 0
    }

    /// The byte that stands for the lane on TCP: session x 4 + class.
    #[must_use]
    pub const fn to_byte(self) -> u8 {
        (self.session << 2) | self.class as u8
    }

    /// The lane of a byte, or `None` where it names none: class 3, or session 0 with a class
    /// other than 0.
    #[must_use]
    pub const fn from_byte(b: u8) -> Option<Self> {
        let session = b >> 2;
        match Class::from_wire(b & 3) {
            Some(class) if session != 0 || matches!(class, Class::Signal) => {
                Some(Self { session, class })
            }
            _ => None,
        }
    }
}

/// A place in the order of one group and class: first by epoch, then by counter. Counters of an
/// epoch are contiguous from 1; counter 0 is the epoch's seal, which is no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Seq {
    /// Grows by one or more each time the class gets a new owner.
    pub epoch: u64,
    /// Grows by one with each message.
    pub counter: u64,
}

impl Seq {
    /// Before everything.
    pub const ZERO: Self = Self { epoch: 0, counter: 0 };

    /// The place `counter` of `epoch`.
    #[must_use]
    pub const fn new(epoch: u64, counter: u64) -> Self {
        Self { epoch, counter }
    }

    /// The next place in the same epoch.
    #[must_use]
    pub const fn next(self) -> Self {
        Self { epoch: self.epoch, counter: self.counter + 1 }
    }
}

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.epoch, self.counter)
    }
}

/// A text that is no position.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is no place; write epoch-counter, such as 1-17")]
pub struct NoSeq;

/// As [`Display`](fmt::Display) writes it: digits, at most 18 each, which are numbers of the wire.
impl FromStr for Seq {
    type Err = NoSeq;

    fn from_str(text: &str) -> Result<Self, NoSeq> {
        let number = |digits: &str| {
            let plain = digits.len() <= 18 && digits.bytes().all(|b| b.is_ascii_digit());
            if plain { digits.parse().map_err(|_| NoSeq) } else { Err(NoSeq) }
        };
        let (epoch, counter) = text.split_once('-').ok_or(NoSeq)?;
        Ok(Self { epoch: number(epoch)?, counter: number(counter)? })
    }
}

impl Field for Seq {
    fn put(&self, out: &mut BytesMut) {
        self.epoch.put(out);
        self.counter.put(out);
    }
    fn get(body: &mut Bytes) -> Result<Self, FieldError> {
        Ok(Self { epoch: u64::get(body)?, counter: u64::get(body)? })
    }
}

/// What became of a message, told to its sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[repr(u8)]
pub enum AckStatus {
    /// Accepted: for signals and strokes, appended to history; for chat, forwarded.
    #[default]
    Accepted = 0,
    /// A repeat of a message that was accepted before; `seq` is the original's where the owner
    /// still knows it, else 0-0.
    Duplicate = 1,
    /// Thinned out by the room's policy for low priority. Not an error.
    Shed = 2,
    /// The id is not the next one; `expected` says which is.
    OutOfOrder = 3,
    /// The sender may not send this here; an error frame with request 0 says why.
    Refused = 4,
}

impl Field for AckStatus {
    fn put(&self, out: &mut BytesMut) {
        out.put_u8(*self as u8);
    }
    fn get(body: &mut Bytes) -> Result<Self, FieldError> {
        Ok(match u8::get(body)? {
            0 => Self::Accepted,
            1 => Self::Duplicate,
            2 => Self::Shed,
            3 => Self::OutOfOrder,
            4 => Self::Refused,
            _ => return Err(FieldError::Invalid("ack status must be 0 to 4")),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_read_as_it_is_written_and_nothing_else_is() {
        for seq in [Seq::ZERO, Seq::new(1, 17), Seq::new(999_999_999_999_999_999, 3)] {
            assert_eq!(seq.to_string().parse(), Ok(seq));
        }
        for text in
            ["", "-", "1", "1-", "-1", "1-2-3", "+1-2", "1- 2", "a-1", "1234567890123456789-1"]
        {
            assert_eq!(text.parse::<Seq>(), Err(NoSeq), "{text}");
        }
    }
}
