//! The members of a run: connected, joined and reading.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering::Relaxed},
};

use anyhow::{Context, Result};
use bytes::{Bytes, BytesMut};
use edgeway_client::{Class, Client, Outgoing, Room, Stats};
use tokio::task::JoinHandle;

use super::{Args, receive::Ears, shared::Shared};
use crate::{
    drive,
    fleet::{Fleet, room_name},
    stamp::{self, Stamp},
    target::Target,
};

/// One member of a room.
pub struct Member {
    /// Number within its room.
    pub index: u32,
    /// Whether it stops reading in between. It sends nothing then either.
    pub stalls: bool,
    client: Client,
    room: Room,
    reading: JoinHandle<()>,
    /// Messages sent so far, by class. Each class of a member has one task that sends.
    sent: [AtomicU32; Class::ALL.len()],
    filler: Vec<u8>,
}

impl Member {
    /// Sends a message that is audited.
    pub fn say(&self, class: Class, shared: &Shared) {
        let sent = &self.sent[class.index()];
        let stamp = Stamp {
            sender: self.index,
            n: sent.load(Relaxed),
            sent_ns: shared.audit.clock.now_ns(),
        };
        match self.room.send_nowait(outgoing(class, self.payload(stamp))) {
            Ok(_) => {
                sent.fetch_add(1, Relaxed);
                shared.audit.sent(class);
            }
            Err(error) => shared.problems.add(|| {
                format!(
                    "{} could not send a message of class {}: {error}",
                    self.name(),
                    class.name()
                )
            }),
        }
    }

    /// Sends chat that is not audited. What becomes of it does not matter.
    pub fn mumble(&self) {
        let payload = self.payload(Stamp { sender: Stamp::NOBODY, n: 0, sent_ns: 0 });
        let _ = self.room.send_nowait(Outgoing::chat(payload));
    }

    fn payload(&self, stamp: Stamp) -> Bytes {
        let mut payload = BytesMut::with_capacity(stamp::STAMP_BYTES + self.filler.len());
        stamp.write(&mut payload, &self.filler);
        payload.freeze()
    }

    pub fn stats(&self) -> Stats {
        self.client.stats()
    }

    pub fn name(&self) -> String {
        self.client.user()
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.reading.abort();
    }
}

fn outgoing(class: Class, payload: Bytes) -> Outgoing {
    match class {
        Class::Signal => Outgoing::signal(payload),
        Class::Binary => Outgoing::stroke(payload),
        Class::Chat => Outgoing::chat(payload),
    }
}

/// Connects everyone, and has them join and read. Also how often connecting had to be tried again.
pub async fn gather(
    args: &Args,
    target: &Target,
    shared: &Arc<Shared>,
) -> Result<(Vec<Arc<Member>>, u32)> {
    let fleet = Fleet::new(target, args.transport, args.sockets)?;
    let rooms: Vec<Arc<str>> = (0..args.rooms).map(|n| room_name(n).into()).collect();
    let members = args.load.members;
    let members = drive::connect_all(members * args.rooms, |n| {
        let (room, index) = (n / members, n % members);
        let name = Arc::clone(&rooms[room as usize]);
        let connecting = fleet.connect(n);
        let filler = stamp::filler(args.load.size, args.load.seed ^ u64::from(n));
        let stalls = index >= members - args.stall;
        let shared = Arc::clone(shared);
        async move {
            let (client, events) = connecting.await?;
            // Reads from the start: who joins hears at once who else does.
            let ears = Ears::new(events, client.user(), (room, members), stalls, shared);
            let reading = tokio::spawn(ears.listen());
            let room = client.join(&name).await.context("cannot join")?;
            let sent = Default::default();
            Ok(Arc::new(Member { index, stalls, client, room, reading, sent, filler }))
        }
    })
    .await?;
    Ok((members, fleet.tried_again()))
}
