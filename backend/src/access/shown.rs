//! What the directory is told of the Sessions: where each is, and what it has places in.

use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use edgeway_proto::rooms::SessionRef;

use super::{
    Access, Inner,
    table::{Entry, Standing},
};
use crate::directory::{self, Head, Listing, Name, Recorder, Source, Term};

/// How Sessions get into the directory.
pub(super) struct Showing {
    recorder: Recorder,
    source: Arc<dyn Source>,
    /// Names this run of access.
    access: u64,
}

/// A Session in the directory.
pub(super) struct Shown {
    listing: Listing,
    standing: Standing,
    since_ms: u64,
}

impl Source for std::sync::Weak<Inner> {
    fn ask(&self, (gateway, session): (u64, u64)) {
        if let Some(access) = Access::upgrade(self) {
            access.0.table.show_anew(SessionRef { gateway, session });
        }
    }
}

impl Showing {
    pub(super) fn new(recorder: Recorder, inner: &std::sync::Weak<Inner>, access: u64) -> Self {
        Self { recorder, source: Arc::new(inner.clone()), access }
    }

    fn head(&self, entry: &Entry, standing: Standing, since_ms: u64) -> Bytes {
        let session = entry.session.identity.session.into();
        let standing = match standing {
            Standing::Lost => directory::Standing::Lost,
            Standing::Live | Standing::Early => directory::Standing::Live,
        };
        Head::new(self.access, session, &entry.link.name, since_ms, standing).to_bytes()
    }

    /// Tells what has changed of a Session. Those that do not count yet are not told of.
    pub(super) fn show(&self, entry: &mut Entry) {
        if entry.standing == Standing::Early {
            return;
        }
        let moves = entry.session.take_moves();
        match entry.shown.take() {
            None => entry.shown = Some(self.open(entry)),
            Some(mut shown) => {
                for (line, comes) in moves {
                    if comes { shown.listing.add(line) } else { shown.listing.remove(line) }
                }
                if shown.standing != entry.standing {
                    shown.standing = entry.standing;
                    shown.listing.head(self.head(entry, entry.standing, shown.since_ms));
                }
                entry.shown = Some(shown);
            }
        }
    }

    fn open(&self, entry: &Entry) -> Shown {
        let identity = &entry.session.identity;
        let name = Name::session(&identity.user, &identity.device, identity.kind.name());
        let SessionRef { gateway, session } = identity.session;
        let term = Term(identity.generation, session);
        let (standing, since_ms) = (entry.standing, wall_ms());
        let head = self.head(entry, standing, since_ms);
        let source = Arc::clone(&self.source);
        let listing = self.recorder.open(name, term, head, source, (gateway, session));
        entry.session.lines().for_each(|line| listing.add(line));
        Shown { listing, standing, since_ms }
    }

    /// Tells all of a Session.
    pub(super) fn show_anew(&self, entry: &Entry) {
        if let Some(Shown { listing, standing, since_ms }) = &entry.shown {
            listing.anew(self.head(entry, *standing, *since_ms), entry.session.lines());
        }
    }
}

fn wall_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
