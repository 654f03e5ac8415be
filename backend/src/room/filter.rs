//! What the filter makes of a message, before it gets a place in the order.

use std::sync::Arc;

use edgeway_filter::{Filter, Message, Verdict, Why};
use edgeway_proto::{Class, ErrorCode, Rest, Text, frame};

use super::{Kind, Now, Room, log::Refusal};

/// Expired since 1970: what members get in the place of a signal that nobody is to see is a void (WIRE.md, rooms).
const VOID_MS: u64 = 1;

/// The filter of a process, and what it looks at.
#[derive(Debug, Clone)]
pub struct Filtering {
    /// Words and rules.
    pub filter: Arc<Filter>,
    /// Messages of these classes, by their number.
    pub classes: [bool; 3],
}

/// What goes on.
pub(super) enum Filtered {
    /// This.
    Send(frame::Send),
    /// Nothing, and the sender is told that it was sent.
    Silent,
    /// Nothing, and the sender is told why.
    Refused(frame::Send, Refusal),
}

impl Room {
    /// What goes on of a message.
    pub(super) fn filtered(&mut self, user: &Text, mut send: frame::Send, now: Now) -> Filtered {
        // Inboxes are their users' own; and what the system says has no user.
        let Some(filtering) = &self.config.filter else { return Filtered::Send(send) };
        if self.kind == Kind::Inbox || user.is_empty() {
            return Filtered::Send(send);
        }
        let is_looked_at = filtering.classes[send.class.index()];
        if let Some(why) = self.rules.refuse(user, is_looked_at, now.wall_ms) {
            metrics::counter!("edgeway_filter_messages_total", "action" => why.name()).increment(1);
            return Filtered::Refused(send, (ErrorCode::Forbidden, why.text()));
        }
        let message = Message {
            room: self.name.strip_prefix("chat:").unwrap_or(&self.name),
            user,
            payload: &send.payload.0,
            is_looked_at,
            now_ms: now.wall_ms,
        };
        match filtering.filter.judge(&message, &mut self.slow) {
            Verdict::Pass => Filtered::Send(send),
            Verdict::Masked(payload) => {
                send.payload = Rest(payload.into());
                Filtered::Send(send)
            }
            Verdict::Silent if send.class == Class::Chat => Filtered::Silent,
            // Its place is kept, so that its ack is true and the order has no hole.
            Verdict::Silent => {
                (send.key, send.payload) = (Text::default(), Rest::default());
                send.expires_ms = VOID_MS;
                Filtered::Send(send)
            }
            Verdict::Rejected(Why::SlowMode) => {
                Filtered::Refused(send, (ErrorCode::RateLimited, Why::SlowMode.text()))
            }
            Verdict::Rejected(why) => Filtered::Refused(send, (ErrorCode::Forbidden, why.text())),
        }
    }
}
