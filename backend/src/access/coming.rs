//! How Sessions come and go: opened, confirmed, taken over by newer ones of their device, lost, kept
//! for a while, ended.

use std::{sync::Arc, time::Duration};

use edgeway_proto::{
    CloseCode,
    link::{Close, Open, Opened, Stream, down_item},
    rooms::SessionRef,
};
use tokio_util::sync::CancellationToken;

use super::{
    Access,
    devices::Claim,
    out::Fatal,
    rights::Rights,
    session::{Identity, Place, Session},
    space::SessionType,
    table::{Entry, Standing},
    wake, warn,
};
use crate::{
    auth::{check_name, check_user},
    links::Link,
};

/// Places are kept no longer than this, whatever a gateway asks for.
const GRACE_MAX: Duration = Duration::from_secs(3600);

/// How often it is looked for those whose time is over.
const SWEEP: Duration = Duration::from_millis(100);

/// So many are let go at a time, so that others get a turn.
const EXPIRE_AT_A_TIME: usize = 256;

impl Access {
    /// A gateway opens a Session.
    pub(crate) async fn open(&self, link: &Arc<Link>, open: Open) {
        let number = open.session;
        let (early, grace) = (open.early, Duration::from_millis(open.grace_ms).min(GRACE_MAX));
        let opened = match identify(link, open) {
            Ok(identity) if early => self.open_early(link, identity, grace),
            Ok(identity) => self.open_claimed(link, identity, grace).await,
            Err(fatal) => Err(fatal),
        };
        match opened {
            Ok(()) => {
                metrics::counter!("edgeway_access_sessions_opened_total").increment(1);
                link.push(Stream::Control, down_item::Item::Opened(Opened { session: number }));
            }
            Err(Fatal { code, reason }) => link.close(number, code, reason),
        }
    }

    async fn open_claimed(
        &self,
        link: &Arc<Link>,
        identity: Identity,
        grace: Duration,
    ) -> Result<(), Fatal> {
        let session = identity.session;
        let older = self.claim(&identity)?.filter(|older| *older != session);
        let mut opened = Session::new(identity.clone(), Arc::clone(&self.0.rooms_max));
        if let Some(older) = older {
            let places = self.take_over(older, grace).await;
            opened.adopt(older, places);
        }
        let keeps = opened.keeps();
        let link = Arc::clone(link);
        if !self.0.table.insert(Entry {
            link,
            session: Box::new(opened),
            standing: Standing::Live,
            grace,
            shown: None,
        }) {
            let reason = "the gateway opened the Session twice".to_owned();
            self.end(session, None).await;
            return Err(Fatal { code: CloseCode::Protocol, reason });
        }
        if self.0.table.current(&identity).is_none_or(|(current, _)| current != session) {
            // One on another link took over between the claim and the insertion.
            self.end(session, None).await;
            return Err(Fatal::replaced());
        }
        if keeps {
            self.keep(session, grace);
        }
        Ok(())
    }

    /// Opens a Session whose first flight may be a replay: the device's present one, if any, stays.
    fn open_early(
        &self,
        link: &Arc<Link>,
        identity: Identity,
        grace: Duration,
    ) -> Result<(), Fatal> {
        if self.0.table.is_full() {
            return Err(full());
        }
        let mut names = Vec::new();
        if let Some((current, generation)) = self.0.table.current(&identity) {
            if generation > identity.generation {
                return Err(Fatal::replaced());
            }
            names = self.0.table.with(current, |e| e.session.names()).unwrap_or_default();
        }
        let mut session = Session::new(identity, Arc::clone(&self.0.rooms_max));
        session.begin_early(names);
        let link = Arc::clone(link);
        if !self.0.table.insert(Entry {
            link,
            session: Box::new(session),
            standing: Standing::Early,
            grace,
            shown: None,
        }) {
            let reason = "the gateway opened the Session twice".to_owned();
            return Err(Fatal { code: CloseCode::Protocol, reason });
        }
        Ok(())
    }

    /// The handshake of a Session that was opened early is complete: from now on it counts.
    pub(crate) async fn confirm(&self, link: &Link, number: u64) {
        let session = SessionRef { gateway: link.gateway, session: number };
        let early = self.0.table.with(session, |entry| {
            let early = entry.standing == Standing::Early;
            early.then(|| (entry.session.identity.clone(), entry.grace))
        });
        let Some((identity, grace)) = early.flatten() else { return };
        let older = match self.claim(&identity) {
            Ok(older) => older.filter(|older| *older != session),
            Err(fatal) => return self.end(session, Some(fatal)).await,
        };
        let places = match older {
            Some(older) => self.take_over(older, grace).await,
            None => Vec::new(),
        };
        let (mut keeps, mut given_up) = (false, places.clone());
        self.0.table.with(session, |entry| {
            entry.standing = Standing::Live;
            entry.session.confirmed();
            given_up = match older {
                Some(older) => entry.session.adopt(older, places),
                None => Vec::new(),
            };
            keeps = entry.session.keeps();
            wake(entry);
        });
        self.give_up(given_up).await;
        if keeps {
            self.keep(session, grace);
        }
    }

    fn claim(&self, identity: &Identity) -> Result<Option<SessionRef>, Fatal> {
        match self.0.table.claim(identity) {
            Claim::Granted(older) => Ok(older),
            Claim::Older => Err(Fatal {
                code: CloseCode::Replaced,
                reason: "the device has a newer connection".to_owned(),
            }),
            Claim::Full => Err(full()),
        }
    }

    /// Ends a Session in favour of a newer one of its device, which gets its places.
    async fn take_over(&self, older: SessionRef, grace: Duration) -> Vec<Place> {
        if grace.is_zero() {
            self.end(older, Some(Fatal::replaced())).await;
            return Vec::new();
        }
        let Some(entry) = self.0.table.remove(older) else { return Vec::new() };
        let was = if entry.standing == Standing::Lost { "lost" } else { "live" };
        metrics::counter!("edgeway_access_takeovers_total", "older" => was).increment(1);
        if entry.standing != Standing::Lost {
            let Fatal { code, reason } = Fatal::replaced();
            entry.link.close(older.session, code, reason);
        }
        entry.session.places()
    }

    /// A gateway says that a Session is over.
    pub(crate) async fn close(&self, link: &Link, close: Close) {
        let session = SessionRef { gateway: link.gateway, session: close.session };
        let grace = self.0.table.with(session, |entry| {
            let keep = close.lost && entry.standing == Standing::Live && !entry.grace.is_zero();
            keep.then(|| {
                entry.standing = Standing::Lost;
                entry.grace
            })
        });
        match grace.flatten() {
            Some(grace) => {
                metrics::counter!("edgeway_access_lost_total").increment(1);
                self.keep(session, grace);
            }
            None => self.end(session, None).await,
        }
    }

    /// Keeps the places of a Session that was lost, or those that it has taken over.
    fn keep(&self, session: SessionRef, grace: Duration) {
        if let Some(early) = self.0.table.keep(session, grace) {
            metrics::counter!("edgeway_access_kept_too_many_total").increment(1);
            let access = self.clone();
            self.0.tasks.spawn(async move { access.expire(early).await });
        }
    }

    /// The time of a Session's kept places is over.
    async fn expire(&self, session: SessionRef) {
        metrics::counter!("edgeway_access_expired_total").increment(1);
        let lost = self.0.table.with(session, |entry| match entry.standing {
            Standing::Lost => Err(()),
            Standing::Live | Standing::Early => Ok(entry.session.take_kept()),
        });
        match lost {
            Some(Ok(places)) => self.give_up(places).await,
            Some(Err(())) => self.end(session, None).await,
            None => {}
        }
    }

    /// Lets those go whose time is over, until `stop`.
    pub(crate) async fn keep_time(self, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(SWEEP) => {}
            }
            loop {
                let due = self.0.table.due(EXPIRE_AT_A_TIME);
                let last = due.len() < EXPIRE_AT_A_TIME;
                for session in due {
                    self.expire(session).await;
                }
                if last {
                    break;
                }
                tokio::task::yield_now().await;
            }
        }
    }
}

fn full() -> Fatal {
    let reason = "this backend has as many Sessions as it may".to_owned();
    Fatal { code: CloseCode::BackendUnavailable, reason }
}

fn identify(link: &Link, open: Open) -> Result<Identity, Fatal> {
    let Some(kind) = SessionType::parse(&open.kind) else {
        let kind: String = open.kind.chars().take(64).collect();
        let reason = format!("`{kind}` is no Session type here; there are {}", SessionType::NAMES);
        return Err(Fatal { code: CloseCode::NoRoute, reason });
    };
    if check_user(&open.user).is_err() || check_name(&open.device).is_err() {
        warn(link, "a Session was opened for a name that is none");
        let reason = "the user's or the device's name is none".to_owned();
        return Err(Fatal { code: CloseCode::Protocol, reason });
    }
    Ok(Identity {
        session: SessionRef { gateway: link.gateway, session: open.session },
        kind,
        user: open.user,
        device: open.device,
        generation: open.generation,
        rights: Rights::new(open.rights),
    })
}
