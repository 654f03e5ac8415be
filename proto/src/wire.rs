//! The fields that frames are made of. One trait, so that a frame is a list of its fields and
//! its documentation, encoder and decoder cannot drift apart.

use std::{fmt, ops::Deref};

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::{limits, varint};

/// Why bytes are not the frame that they claim to be. The peer is at fault; the connection is
/// closed with the code that [`crate::CloseCode`] gives for it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The body ends inside a field.
    #[error("frame {frame} ends inside its field `{field}`")]
    Truncated {
        /// The frame's name.
        frame: &'static str,
        /// The field's name.
        field: &'static str,
    },
    /// A field holds what it must not.
    #[error("frame {frame}, field `{field}`: {problem}")]
    Invalid {
        /// The frame's name.
        frame: &'static str,
        /// The field's name.
        field: &'static str,
        /// What is wrong, and what would be right.
        problem: &'static str,
    },
    /// The kind is not one of this version, nor in the range that may be skipped.
    #[error("unknown frame kind 0x{0:02x}; kinds 0xc0 to 0xff are skipped, others must be known")]
    UnknownKind(u8),
    /// The body or record is announced larger than allowed.
    #[error("{what} of {len} bytes; at most {max} are allowed")]
    TooLarge {
        /// "frame" or "record".
        what: &'static str,
        /// The announced size.
        len: u64,
        /// The limit.
        max: usize,
    },
}

/// What is wrong inside one field, before it is known which field of which frame it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldError {
    /// The body ends here.
    Truncated,
    /// The value is not allowed.
    Invalid(&'static str),
}

/// UTF-8 text that shares the bytes it was read from.
#[derive(Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Text(Bytes);

impl Text {
    /// Takes static text without copying it.
    #[must_use]
    pub const fn from_static(s: &'static str) -> Self {
        Self(Bytes::from_static(s.as_bytes()))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        // Checked when it was made; the fallback is never seen.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    /// Its length in bytes of UTF-8.
    pub(crate) const fn byte_len(&self) -> usize {
        self.0.len()
    }

    /// The text in memory of its own, no longer keeping the frame alive that it came from. For
    /// what is stored longer than the frame is worked on.
    #[must_use]
    pub fn detached(&self) -> Self {
        Self(Bytes::copy_from_slice(&self.0))
    }
}

impl Deref for Text {
    type Target = str;
    fn deref(&self) -> &str {
        self.as_str()
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl From<&str> for Text {
    fn from(s: &str) -> Self {
        Self(Bytes::copy_from_slice(s.as_bytes()))
    }
}

impl From<String> for Text {
    fn from(s: String) -> Self {
        Self(Bytes::from(s))
    }
}

impl PartialEq<str> for Text {
    fn eq(&self, other: &str) -> bool {
        self.as_str() == other
    }
}

/// All that is left of the body: always the last field.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Rest(pub Bytes);

impl From<Bytes> for Rest {
    fn from(bytes: Bytes) -> Self {
        Self(bytes)
    }
}

/// A field of a frame.
pub trait Field: Sized {
    /// How many of them a list may hold.
    const LIST_MAX: usize = limits::LIST_ITEMS;

    /// Appends the field.
    fn put(&self, out: &mut BytesMut);
    /// Reads the field from the front of `body`.
    ///
    /// # Errors
    /// Where the body ends inside the field, or holds what the field must not.
    fn get(body: &mut Bytes) -> Result<Self, FieldError>;
}

impl Field for u64 {
    fn put(&self, out: &mut BytesMut) {
        varint::put(out, *self);
    }
    fn get(body: &mut Bytes) -> Result<Self, FieldError> {
        let (value, len) = varint::get(body).ok_or(FieldError::Truncated)?;
        body.advance(len);
        Ok(value)
    }
}

impl Field for u8 {
    fn put(&self, out: &mut BytesMut) {
        out.put_u8(*self);
    }
    fn get(body: &mut Bytes) -> Result<Self, FieldError> {
        body.try_get_u8().map_err(|_| FieldError::Truncated)
    }
}

impl Field for Bytes {
    fn put(&self, out: &mut BytesMut) {
        varint::put(out, self.len() as u64);
        out.put_slice(self);
    }
    fn get(body: &mut Bytes) -> Result<Self, FieldError> {
        take(body, limits::SECRET_BYTES, "more than 8192 bytes")
    }
}

/// Takes a length and that many bytes off the front of `body`.
fn take(body: &mut Bytes, max: usize, too_long: &'static str) -> Result<Bytes, FieldError> {
    let len = u64::get(body)?;
    match usize::try_from(len) {
        Ok(len) if len > max => Err(FieldError::Invalid(too_long)),
        Ok(len) if len <= body.len() => Ok(body.split_to(len)),
        _ => Err(FieldError::Truncated),
    }
}

impl Field for Text {
    const LIST_MAX: usize = limits::NAMES;

    fn put(&self, out: &mut BytesMut) {
        self.0.put(out);
    }
    fn get(body: &mut Bytes) -> Result<Self, FieldError> {
        let bytes = take(body, limits::REASON_BYTES, "text longer than 256 bytes")?;
        match std::str::from_utf8(&bytes) {
            Ok(_) => Ok(Self(bytes)),
            Err(_) => Err(FieldError::Invalid("not UTF-8")),
        }
    }
}

impl Field for Rest {
    fn put(&self, out: &mut BytesMut) {
        out.put_slice(&self.0);
    }
    fn get(body: &mut Bytes) -> Result<Self, FieldError> {
        Ok(Self(body.split_off(0)))
    }
}

impl<T: Field> Field for Vec<T> {
    fn put(&self, out: &mut BytesMut) {
        varint::put(out, self.len() as u64);
        for item in self {
            item.put(out);
        }
    }
    fn get(body: &mut Bytes) -> Result<Self, FieldError> {
        let count = match usize::try_from(u64::get(body)?) {
            Ok(count) if count <= T::LIST_MAX => count,
            _ => {
                return Err(FieldError::Invalid(
                    "list of too many items: 1024 names, or 64 others",
                ));
            }
        };
        // Each item takes a byte at least: a count that the body cannot hold allocates nothing.
        if count > body.len() {
            return Err(FieldError::Truncated);
        }
        let mut items = Self::with_capacity(count);
        for _ in 0..count {
            items.push(T::get(body)?);
        }
        Ok(items)
    }
}

impl<A: Field, B: Field> Field for (A, B) {
    fn put(&self, out: &mut BytesMut) {
        self.0.put(out);
        self.1.put(out);
    }
    fn get(body: &mut Bytes) -> Result<Self, FieldError> {
        Ok((A::get(body)?, B::get(body)?))
    }
}

/// What a field must keep to beyond its type: `field: Type as check` in the list of frames.
pub(crate) mod check {
    use super::{FieldError, Text};
    use crate::{Class, Seq, limits};

    fn ensure<T>(value: T, holds: bool, problem: &'static str) -> Result<T, FieldError> {
        if holds { Ok(value) } else { Err(FieldError::Invalid(problem)) }
    }

    pub(crate) fn name(text: Text) -> Result<Text, FieldError> {
        let fits = text.byte_len() <= limits::NAME_BYTES;
        ensure(text, fits, "name longer than 128 bytes")
    }

    pub(crate) fn names(list: Vec<Text>) -> Result<Vec<Text>, FieldError> {
        let fit = list.iter().all(|text| text.byte_len() <= limits::NAME_BYTES);
        ensure(list, fit, "name longer than 128 bytes")
    }

    pub(crate) fn session(number: u64) -> Result<u64, FieldError> {
        ensure(number, (1..=limits::SESSION_MAX).contains(&number), "session must be 1 to 63")
    }

    pub(crate) fn low(class: Class) -> Result<Class, FieldError> {
        ensure(class, class != Class::Signal, "class must be 1 (binary) or 2 (chat)")
    }

    pub(crate) fn positions(list: Vec<(Class, Seq)>) -> Result<Vec<(Class, Seq)>, FieldError> {
        let fit = list.len() <= Class::ALL.len();
        ensure(list, fit, "more positions than there are classes")
    }
}

/// Defines the frames: for each a struct, its kind, encoder and decoder; and the [`Frame`] enum.
macro_rules! frames {
    ($(
        $(#[$doc:meta])*
        $name:ident = $kind:literal {
            $( $(#[$fdoc:meta])* $field:ident : $ty:ty $(as $check:ident)? ),* $(,)?
        }
    )*) => {
        $(
            $(#[$doc])*
            #[derive(Debug, Clone, PartialEq, Eq, Default)]
            pub struct $name {
                $( $(#[$fdoc])* pub $field: $ty, )*
            }

            impl $name {
                /// The byte that stands for this kind of frame on the wire.
                pub const KIND: u8 = $kind;

                /// Appends the whole frame: kind, length, body.
                pub fn encode(&self, out: &mut ::bytes::BytesMut) {
                    $crate::frame::envelope($kind, out, |_out| {
                        $( $crate::wire::Field::put(&self.$field, _out); )*
                    });
                }

                /// The frame as bytes of its own.
                #[must_use]
                pub fn to_bytes(&self) -> ::bytes::Bytes {
                    let mut out = ::bytes::BytesMut::new();
                    self.encode(&mut out);
                    out.freeze()
                }

                /// Reads the fields from a body. Bytes after the last known field are ignored:
                /// a later minor version may append fields.
                ///
                /// # Errors
                /// Names the field that is truncated or invalid.
                pub fn parse(mut _body: ::bytes::Bytes) -> Result<Self, $crate::DecodeError> {
                    Ok(Self {
                        $( $field: $crate::wire::Field::get(&mut _body)
                            $(.and_then($crate::wire::check::$check))?
                            .map_err(|e| $crate::frame::at(e, stringify!($name), stringify!($field)))?, )*
                    })
                }
            }

            impl From<$name> for Frame {
                fn from(frame: $name) -> Self {
                    Self::$name(frame)
                }
            }
        )*

        /// Any frame of the client protocol.
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub enum Frame {
            $( $(#[$doc])* $name($name), )*
        }

        impl Frame {
            /// Every kind of this version, with its name.
            pub const KINDS: &[(u8, &str)] = &[$( ($kind, stringify!($name)), )*];

            /// Kind, name and fields of every frame, each field with its type, and after `as` what
            /// else it must keep to. For tools, and for the test that compares `WIRE.md` with this.
            pub const LAYOUT: &[(u8, &str, &[(&str, &str)])] = &[$(
                ($kind, stringify!($name), &[$(
                    (stringify!($field), concat!(stringify!($ty) $(, " as ", stringify!($check))?)),
                )*]),
            )*];

            /// The frame of a kind, read from its body.
            ///
            /// # Errors
            /// An unknown kind (also of those that the caller may skip, see
            /// [`FIRST_SKIPPED_KIND`]), or a body that does not fit its kind.
            pub fn parse(kind: u8, body: ::bytes::Bytes) -> Result<Self, $crate::DecodeError> {
                match kind {
                    $( $kind => $name::parse(body).map(Self::$name), )*
                    other => Err($crate::DecodeError::UnknownKind(other)),
                }
            }

            /// Appends the whole frame.
            pub fn encode(&self, out: &mut ::bytes::BytesMut) {
                match self { $( Self::$name(frame) => frame.encode(out), )* }
            }
        }
    };
}
pub(crate) use frames;
