//! The Sessions of one connection, on their way up: opening them at their backends, passing their
//! frames on, and holding clients to their credit.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use bytes::{Bytes, BytesMut};
use edgeway_proto::{
    Class, CloseCode, Lane,
    frame::{CaughtUp, CloseSession, Open},
    link::{self, up_item::Item},
};
use edgeway_transport::Stop;

use crate::{
    conn::Conn,
    context::Context,
    hub::Registration,
    limits::Bucket,
    registry::Device,
    routing::Keys,
    uplink::{Link, NoPlace, Place, Return},
};

/// What a client may send before its login is answered. The first flight fits many times.
const BEFORE_LOGIN_BYTES: usize = 64 * 1024;

/// What a client should wait before it opens a Session again whose backend is away.
pub const RETRY_MS: u64 = 1000;

/// Who is logged in.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The user and the device; one text for all who hold it.
    pub device: Arc<Device>,
    /// Grows with each login of the device.
    pub generation: u64,
    /// What the login may do, for backends; everything where absent.
    pub rights: Option<Arc<link::Rights>>,
}

/// Frames of one lane that arrived together.
#[derive(Debug)]
struct Batch {
    class: Class,
    frames: Vec<Bytes>,
    bytes: usize,
}

/// One Session.
#[derive(Debug)]
struct Slot {
    number: u8,
    open: Open,
    /// Bytes received and granted, by class.
    received: [u64; 3],
    granted: [u64; 3],
    batches: Vec<Batch>,
    /// Once its backend knows of it.
    upstream: Option<Upstream>,
    /// It is over; frames that still come for it are dropped. Its number is not used again.
    over: bool,
}

#[derive(Debug)]
struct Upstream {
    link: Arc<Link>,
    registration: Registration,
    /// The client has ended it. Otherwise it is lost with its connection.
    left: bool,
}

impl Drop for Upstream {
    fn drop(&mut self) {
        let (session, lost) = (self.registration.id, !self.left);
        let close = link::Close { session, lost, ..link::Close::default() };
        self.link.send(link::Stream::Control, Item::Close(close), 0, None);
    }
}

/// See the module.
#[derive(Debug)]
pub struct Sessions {
    ctx: Arc<Context>,
    conn: Arc<Conn>,
    identity: Option<(Identity, Arc<Bucket>)>,
    slots: Vec<Slot>,
    before_login_bytes: usize,
    /// All that was heard so far may be a replay: see [`confirm`](Self::confirm).
    early: bool,
}

impl Sessions {
    /// None yet.
    pub fn new(ctx: Arc<Context>, conn: Arc<Conn>) -> Self {
        let early = conn.early.is_some();
        Self { ctx, conn, identity: None, slots: Vec::new(), before_login_bytes: 0, early }
    }

    /// The handshake of a connection that began with early data is complete.
    pub fn confirm(&mut self) {
        self.early = false;
        self.hold_device();
        for upstream in self.slots.iter().filter_map(|slot| slot.upstream.as_ref()) {
            let confirm = link::Confirm { session: upstream.registration.id };
            upstream.link.send(link::Stream::Control, Item::Confirm(confirm), 0, None);
        }
    }

    /// The connection is its device's from now on; an older one ends.
    fn hold_device(&self) {
        let Some((Identity { device, generation, .. }, _)) = &self.identity else { return };
        if let Some(older) = self.ctx.registry.hold(&self.conn, Arc::clone(device), *generation) {
            let reason = "a newer connection of the same user and device took over";
            older.close(&self.ctx, CloseCode::Replaced, reason, 0);
        }
    }

    /// The client is done with all of them.
    pub fn leave(&mut self) {
        for upstream in self.slots.iter_mut().filter_map(|slot| slot.upstream.as_mut()) {
            upstream.left = true;
        }
    }

    /// The login was accepted: what waited for it goes on.
    pub fn identify(&mut self, identity: Identity) {
        let bucket = self.ctx.buckets.of(&identity.device.user);
        self.identity = Some((identity, bucket));
        if !self.early {
            self.hold_device();
        }
        for at in 0..self.slots.len() {
            self.connect(at);
        }
        self.flush();
    }

    /// Who is logged in, once somebody is.
    pub fn identity(&self) -> Option<Identity> {
        self.identity.as_ref().map(|(identity, _)| identity.clone())
    }

    /// The login goes on and may do this: backends are told, and those of Sessions to come will be.
    pub fn renewed(&mut self, rights: Option<link::Rights>) {
        let Some((identity, _)) = &mut self.identity else { return };
        identity.rights = rights.clone().map(Arc::new);
        for upstream in self.slots.iter().filter_map(|slot| slot.upstream.as_ref()) {
            let (session, rights) = (upstream.registration.id, rights.clone());
            let renewed = link::Renewed { session, rights };
            upstream.link.send(link::Stream::Control, Item::Renewed(renewed), 256, None);
        }
    }

    /// Few: an idle connection holds no room for more.
    fn add(&mut self, slot: Slot) {
        self.slots.reserve_exact(1);
        self.slots.push(slot);
    }

    /// The client opens a Session.
    ///
    /// # Errors
    /// The client sent more than it may.
    pub fn open(&mut self, number: u8, open: Open, bytes: usize) -> Result<(), Stop> {
        if self.slots.iter().any(|s| s.number == number) {
            return self.reopen(number, bytes);
        }
        self.count_before_login(bytes)?;
        let in_use =
            |s: &Slot| !s.over && !s.upstream.as_ref().is_some_and(|u| u.registration.is_closed());
        let same_kind = self.slots.iter().any(|s| s.open.kind == open.kind && in_use(s));
        let open_now = self.slots.iter().filter(|s| in_use(s)).count();
        self.conn.outbox.with(|p| p.open(number));
        // Those that were ended from the other side: their backends hear of it at the latest now.
        let ended = |s: &&mut Slot| s.upstream.as_ref().is_some_and(|u| u.registration.is_closed());
        for slot in self.slots.iter_mut().filter(ended) {
            *slot = Slot::over(slot.number);
        }
        if same_kind {
            let reason = format!("a Session of type `{}` is open already", open.kind);
            self.add(Slot::over(number));
            self.refuse(number, CloseCode::SessionInUse, &reason, 0);
            return Ok(());
        }
        if open_now >= usize::from(self.conn.limits.sessions) {
            let reason =
                format!("a connection may have {} Sessions open", self.conn.limits.sessions);
            self.add(Slot::over(number));
            self.refuse(number, CloseCode::TooManySessions, &reason, 0);
            return Ok(());
        }
        self.add(Slot {
            number,
            open,
            received: [bytes as u64, 0, 0],
            granted: self.conn.limits.uplink_credit,
            batches: Vec::new(),
            upstream: None,
            over: false,
        });
        self.conn.outbox.consumed(Lane::new(number, Class::Signal), bytes as u64, None);
        self.connect(self.slots.len() - 1);
        Ok(())
    }

    /// A number that was used before: late frames of the two could not be told apart. The Session
    /// that has it, if it is open, goes on.
    fn reopen(&mut self, number: u8, bytes: usize) -> Result<(), Stop> {
        let lane = Lane::new(number, Class::Signal);
        self.received(lane, bytes)?;
        self.conn.outbox.consumed(lane, bytes as u64, None);
        let frame = CloseSession {
            session: u64::from(number),
            code: CloseCode::SessionInUse.code(),
            retry_after_ms: 0,
            reason: "the number was used before on this connection".into(),
        };
        let frame = frame.to_bytes();
        self.conn.outbox.with(|p| p.refuse_reuse(number, frame));
        Ok(())
    }

    /// Accounts for a frame that arrived on a Session's lane.
    ///
    /// # Errors
    /// The client sent more than it may.
    pub fn received(&mut self, lane: Lane, bytes: usize) -> Result<(), Stop> {
        self.count_before_login(bytes)?;
        let Some(slot) = self.slots.iter_mut().find(|s| s.number == lane.session) else {
            let reason = format!("Session {} is not open", lane.session);
            self.conn.outbox.with(|p| p.open(lane.session));
            self.refuse(lane.session, CloseCode::NotOpen, &reason, 0);
            // From here on it is known as closed, and told so only once.
            self.add(Slot::over(lane.session));
            return Ok(());
        };
        // The client may not know yet that it is over; its lanes are gone, and so is their credit.
        if slot.over || slot.upstream.as_ref().is_some_and(|u| u.registration.is_closed()) {
            return Ok(());
        }
        let at = lane.class.index();
        // A frame that begins within the credit may go beyond it.
        if slot.received[at] >= slot.granted[at] {
            slot.granted[at] = self.conn.outbox.with(|p| p.granted(lane));
            if slot.received[at] >= slot.granted[at] {
                let reason = format!(
                    "{} bytes on the {} lane of Session {}; the credit is {}",
                    slot.received[at], lane.class, lane.session, slot.granted[at]
                );
                return Err(Stop::new(CloseCode::CreditExceeded, reason));
            }
        }
        slot.received[at] += bytes as u64;
        Ok(())
    }

    /// Takes a frame for the Session's backend.
    pub fn pass_on(&mut self, lane: Lane, frame: Bytes) {
        let Some(slot) = self.slots.iter_mut().find(|s| s.number == lane.session && !s.over) else {
            return;
        };
        let bytes = frame.len();
        match slot.batches.iter_mut().find(|b| b.class == lane.class) {
            Some(batch) => {
                batch.frames.push(frame);
                batch.bytes += bytes;
            }
            None => slot.batches.push(Batch { class: lane.class, frames: vec![frame], bytes }),
        }
    }

    /// The client has caught up in a class of a group.
    pub fn caught_up(&mut self, lane: Lane, c: &CaughtUp, bytes: usize) {
        self.conn.outbox.consumed(lane, bytes as u64, None);
        let slot = self.slots.iter().find(|s| s.number == lane.session);
        if let Some(upstream) = slot.and_then(|s| s.upstream.as_ref()) {
            self.ctx.hub.caught_up(upstream.registration.id, c.group, c.class, c.last);
        }
    }

    /// The client ended a Session.
    pub fn closed_by_client(&mut self, number: u8) {
        self.flush();
        if let Some(slot) = self.slots.iter_mut().find(|s| s.number == number && !s.over) {
            if let Some(upstream) = &mut slot.upstream {
                upstream.left = true;
            }
            *slot = Slot::over(number);
            self.conn.outbox.with(|p| p.drop_session(number));
        }
    }

    /// Hands what arrived together to the links.
    pub fn flush(&mut self) {
        let Some((_, bucket)) = &self.identity else { return };
        for slot in &mut self.slots {
            let Some(upstream) = &slot.upstream else { continue };
            for batch in std::mem::take(&mut slot.batches) {
                let lane = Lane::new(slot.number, batch.class);
                if upstream.registration.is_closed() {
                    continue;
                }
                let frames = u32::try_from(batch.frames.len()).unwrap_or(u32::MAX);
                let credit = Return {
                    outbox: Arc::clone(&self.conn.outbox),
                    lane,
                    bucket: Arc::clone(bucket),
                    frames,
                };
                let item = Item::Data(link::Data {
                    session: upstream.registration.id,
                    class: link::Class::from(batch.class).into(),
                    frames: join(batch.frames),
                    ..link::Data::default()
                });
                let stream = match batch.class {
                    Class::Signal => link::Stream::Control,
                    Class::Binary | Class::Chat => link::Stream::Bulk,
                };
                if upstream.link.send(stream, item, batch.bytes, Some(credit)) {
                    self.ctx.metrics.uplink(batch.class, u64::from(frames));
                } else if batch.class == Class::Chat {
                    self.ctx.metrics.uplink_shed();
                    self.conn.outbox.consumed(lane, batch.bytes as u64, None);
                } else if upstream.link.is_lost() {
                    let reason = "the link to the backend was lost";
                    upstream.registration.close(CloseCode::BackendLost, reason, 0);
                } else {
                    let reason = "the link to the backend is full";
                    upstream.registration.close(CloseCode::BackendUnavailable, reason, RETRY_MS);
                }
            }
        }
    }

    /// Opens a Session at its backend, once it is known who is logged in.
    fn connect(&mut self, at: usize) {
        let Some((identity, _)) = &self.identity else { return };
        let slot = &mut self.slots[at];
        if slot.over || slot.upstream.is_some() {
            return;
        }
        let headers = slot.open.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let keys = Keys::new(&identity.device.user, headers);
        let Place { link, route } = match self.ctx.links.place(&slot.open.kind, &keys) {
            Ok(place) => place,
            Err(NoPlace { code, reason }) => {
                let number = slot.number;
                *slot = Slot::over(number);
                let retry_ms = if code == CloseCode::NoRoute { 0 } else { RETRY_MS };
                return self.refuse(number, code, &reason, retry_ms);
            }
        };
        let outbox = Arc::clone(&self.conn.outbox);
        let backend = Arc::clone(&route);
        let now = Instant::now();
        let registration = self.ctx.hub.register(outbox, slot.number, link.id, route, keys, now);
        let headers = std::mem::take(&mut slot.open.headers);
        let open = link::Open {
            session: registration.id,
            kind: slot.open.kind.to_string(),
            user: identity.device.user.clone(),
            device: identity.device.device.clone(),
            generation: identity.generation,
            headers: headers.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect(),
            remote: self.conn.remote.to_string(),
            grace_ms: crate::clock::ms(self.conn.limits.grace),
            early: self.early,
            rights: identity.rights.as_deref().cloned(),
        };
        if !link.send(link::Stream::Control, Item::Open(open), 256, None) {
            let reason = format!("backend `{}` cannot take more", backend.backend);
            registration.close(CloseCode::BackendUnavailable, &reason, RETRY_MS);
        }
        slot.upstream = Some(Upstream { link, registration, left: false });
    }

    /// Tells the client that a Session is over.
    fn refuse(&self, number: u8, code: CloseCode, reason: &str, retry_after_ms: u64) {
        let session = u64::from(number);
        let frame =
            CloseSession { session, code: code.code(), retry_after_ms, reason: reason.into() };
        let frame = frame.to_bytes();
        self.conn.outbox.with(|p| p.close_session(number, frame));
    }

    fn count_before_login(&mut self, bytes: usize) -> Result<(), Stop> {
        if self.identity.is_some() || self.conn.logged_in.load(Ordering::Acquire) {
            return Ok(());
        }
        self.before_login_bytes += bytes;
        if self.before_login_bytes > BEFORE_LOGIN_BYTES {
            let reason =
                format!("more than {BEFORE_LOGIN_BYTES} bytes before the login was answered");
            return Err(Stop::new(CloseCode::CreditExceeded, reason));
        }
        Ok(())
    }
}

impl Slot {
    /// A Session that has ended.
    fn over(number: u8) -> Self {
        Self {
            number,
            open: Open::default(),
            received: [0; 3],
            granted: [0; 3],
            batches: Vec::new(),
            upstream: None,
            over: true,
        }
    }
}

fn join(mut frames: Vec<Bytes>) -> Bytes {
    if frames.len() == 1 {
        return frames.pop().unwrap_or_default();
    }
    let mut all = BytesMut::with_capacity(frames.iter().map(Bytes::len).sum());
    frames.iter().for_each(|f| all.extend_from_slice(f));
    all.freeze()
}
