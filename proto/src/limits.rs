//! Every limit of the client protocol, in one place, each with its reason.

/// The body of a frame. A whiteboard image or a quiz fits; a reader never has to hold more than
/// this for one peer.
pub const FRAME_BODY_BYTES: usize = 64 * 1024;

/// What a payload may take of a frame, so that a delivery (with its header) and a history page
/// of one delivery still fit into a frame.
pub const PAYLOAD_BYTES: usize = 60 * 1024;

/// A record on TCP: one frame of the largest size with its header, so that no frame is ever split.
pub const RECORD_BYTES: usize = FRAME_BODY_BYTES + 16;

/// Names of users, rooms, devices, keys, session types: UTF-8.
pub const NAME_BYTES: usize = 128;

/// Sessions of one connection are numbered 1 to 63: the number shares a byte with the lane on TCP.
pub const SESSION_MAX: u64 = 63;

/// Headers of a Session's opening, and parameters of hello and welcome.
pub const LIST_ITEMS: usize = 64;

/// Items in any list of names (members, presence).
pub const NAMES: usize = 1024;

/// Messages of one history page, and the bytes they may take together.
pub const PAGE_MESSAGES: u64 = 200;
/// See [`PAGE_MESSAGES`]. Leaves room in a frame for the page's own fields.
pub const PAGE_BYTES: usize = 62 * 1024;

/// Keys of a room's state, and what all of them may take, so that the whole state fits into the
/// answer to a join.
pub const STATE_KEYS: usize = 256;
/// See [`STATE_KEYS`].
pub const STATE_BYTES: usize = 48 * 1024;

/// Bytes of text for a person, in errors and close frames.
pub const REASON_BYTES: usize = 256;

/// Bytes of a login's secret: a token of the usual size.
pub const SECRET_BYTES: usize = 8 * 1024;
