//! Moving Sessions to where the routes lead now.
//!
//! A Session that moves is closed with `backend_lost`: its client opens it anew on the same connection,
//! and says again what was not acknowledged. So nothing is lost, and ids tell what was said twice.

use std::{collections::HashMap, sync::Arc, time::Duration};

use edgeway_proto::{
    CloseCode,
    link::{self, up_item::Item},
};
use tracing::info;

use super::{Instance, Link, Links, Running, Table};
use crate::hub::Session;

/// Changes that come together are one; and an instance that is restarted is not met half way.
const TOGETHER: Duration = Duration::from_millis(200);

/// Sessions that move at a time: each is opened anew at once, by a client that then asks for what it
/// missed.
const AT_A_TIME: usize = 256;
const PAUSE: Duration = Duration::from_millis(10);

/// For what an instance that is given up still has to be sent.
const FAREWELL: Duration = Duration::from_secs(2);
/// It looks at every Session.
const LOOK: Duration = Duration::from_millis(100);

/// Where a Session stands in a table.
enum Standing {
    Stays,
    Moves,
    NoRoute,
}

impl Table {
    fn standing(&self, session: &Session) -> Standing {
        let Some(route) = self.routes.get(&session.route.kind) else { return Standing::NoRoute };
        let Some(instances) = self.backends.get(&route.backend) else { return Standing::NoRoute };
        let is_its = |link: &Arc<Link>| link.id == session.link;
        let stays = if route.policy.is_keyed() {
            let key = session.keys.of(&route.key);
            // Without the header that it is routed by now, it is told so when it is opened anew. With nowhere to go,
            // its own link is lost too, which closes it, or on its way out.
            let place = key.ok().and_then(|key| instances.pick(route.policy, key));
            place.is_some_and(|(_, link)| is_its(&link))
        } else {
            instances.nodes.iter().filter_map(|node| node.link()).any(|link| is_its(&link))
        };
        if stays { Standing::Stays } else { Standing::Moves }
    }
}

impl Links {
    /// Settles after each change, until the end.
    pub(super) async fn settle_always(&self, running: &Running) {
        loop {
            tokio::select! {
                () = self.changed.notified() => {}
                () = running.shutdown.cancelled() => return,
            }
            tokio::time::sleep(TOGETHER).await;
            self.settle(running).await;
        }
    }

    async fn settle(&self, running: &Running) {
        let table = Arc::clone(&self.table.read());
        let links = self.by_id();
        let (mut moved, mut ended) = (0_usize, 0_usize);
        for session in running.hub.all_sessions() {
            if session.is_closed() {
                continue;
            }
            match table.standing(&session) {
                Standing::Stays => continue,
                Standing::Moves => {
                    session.close(CloseCode::BackendLost, "its backend is another one now", 0);
                    moved += 1;
                }
                Standing::NoRoute => {
                    let reason = format!("Session type `{}` is routed no more", session.route.kind);
                    session.close(CloseCode::NoRoute, &reason, 0);
                    ended += 1;
                }
            }
            if let Some(link) = links.get(&session.link) {
                tell_closed(link, &session);
            }
            if (moved + ended).is_multiple_of(AT_A_TIME) {
                tokio::time::sleep(PAUSE).await;
            }
        }
        if moved + ended > 0 {
            info!(moved, ended, "Sessions follow the routes");
        }
    }

    /// Ends Sessions whose backends do not answer their openings: both sides are told.
    pub fn give_up(&self, sessions: &[Arc<Session>], reason: &str, retry_after_ms: u64) {
        let links = self.by_id();
        for session in sessions {
            session.close(CloseCode::BackendUnavailable, reason, retry_after_ms);
            if let Some(link) = links.get(&session.link) {
                tell_closed(link, session);
            }
        }
    }

    /// Gives an instance up once nothing is to be sent to it any more.
    pub(super) async fn retire(&self, (node, stop): &Instance, running: &Running) {
        let left = |link: &Link| running.hub.is_served_by(link.id) || !link.is_idle();
        let mut rest = FAREWELL;
        while !rest.is_zero() && node.link().is_some_and(|link| left(&link)) {
            rest = rest.saturating_sub(LOOK);
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {}
                () = running.shutdown.cancelled() => return,
            }
        }
        stop.cancel();
        self.kept.lock().retiring.retain(|(one, _)| !Arc::ptr_eq(one, node));
        info!(backend = node.addr, "given up: no backend names it any more");
    }

    /// All links that stand, those on their way out too.
    fn by_id(&self) -> HashMap<u64, Arc<Link>> {
        let kept = self.kept.lock();
        let nodes = kept.nodes.values().chain(&kept.retiring).map(|(node, _)| node);
        nodes.filter_map(|node| node.link()).map(|link| (link.id, link)).collect()
    }
}

/// Tells a backend that a Session is over for it. The client has not left: its place is kept for when it comes
/// by another way.
fn tell_closed(link: &Link, session: &Session) {
    let close = link::Close { session: session.id, lost: true, ..link::Close::default() };
    link.send(link::Stream::Control, Item::Close(close), 0, None);
}
