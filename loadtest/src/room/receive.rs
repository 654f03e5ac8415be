//! The receiving side of a member.

use std::sync::{Arc, atomic::Ordering::Relaxed};

use edgeway_client::{Event, Events, Message};
use edgeway_proto::Class;
use tokio::sync::watch;

use super::shared::Shared;
use crate::{audit::Receiver, stamp::Stamp};

/// Events taken at a time: what a connection's credit lets through of small messages.
const BATCH: usize = 256;

/// A member who reads.
pub struct Ears {
    events: Events,
    user: String,
    receiver: Receiver,
    /// For who stops in between.
    stop: Option<watch::Receiver<bool>>,
    shared: Arc<Shared>,
}

impl Ears {
    /// For `user` in room number `room`, which has so many members.
    pub fn new(
        events: Events,
        user: String,
        (room, members): (u32, u32),
        stalls: bool,
        shared: Arc<Shared>,
    ) -> Self {
        let audit = if stalls { &shared.stalled } else { &shared.audit };
        let receiver = audit.receiver(room, members as usize);
        let stop = stalls.then(|| shared.stop.subscribe());
        Self { events, user, receiver, stop, shared }
    }

    /// Checks what comes, until the client is closed.
    pub async fn listen(mut self) {
        loop {
            if let Some(stop) = &mut self.stop {
                // An error says that the run is over: then it reads to the end.
                let _ = stop.wait_for(|stopped| !*stopped).await;
            }
            let events = self.events.next_batch(BATCH).await;
            if events.is_empty() {
                return;
            }
            let now_ns = self.shared.audit.clock.now_ns();
            for event in events {
                self.take(event, now_ns);
            }
            self.receiver.flush();
        }
    }

    fn take(&mut self, event: Event, now_ns: u64) {
        match event {
            Event::Message(message) => self.message(&message, now_ns),
            Event::Gap { class, missed, .. } => {
                if self.shared.recording.load(Relaxed) {
                    self.receiver.missed(class, missed);
                }
            }
            Event::Presence(_) => {}
            other => self.shared.problems.add(|| format!("{} got {other:?}", self.user)),
        }
    }

    fn message(&mut self, message: &Message, now_ns: u64) {
        let stamp = Stamp::read(&message.payload);
        if stamp.is_some_and(|stamp| stamp.sender == Stamp::NOBODY) {
            return;
        }
        let known = stamp.filter(|stamp| {
            self.receiver.delivered(message.class, Some(message.seq), *stamp, now_ns)
        });
        match known {
            Some(stamp) if message.class == Class::Signal && self.stop.is_none() => {
                let clock = self.shared.audit.clock;
                let up_ms = clock.until_unix_ms(stamp.sent_ns, message.time_ms);
                self.shared.phases.record(stamp.sent_ns, now_ns, up_ms.saturating_mul(1000));
            }
            Some(_) => {}
            None => self
                .shared
                .problems
                .add(|| format!("{} got a message that nobody sent: {:?}", self.user, message.seq)),
        }
    }
}
