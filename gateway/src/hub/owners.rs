//! Owners of groups that are lost, and those that others have followed.

use std::sync::Arc;

use edgeway_proto::{Class, CloseCode, frame::Left};

use super::{Group, Hub, Session, Standing};

impl Group {
    /// Whether an owner of this epoch has been followed by another one. 0: it says nothing of epochs.
    pub(super) fn is_stale(&self, class: Class, epoch: u64) -> bool {
        epoch != 0 && epoch < self.heads[class.index()].epoch
    }

    /// The classes that are subscribed by a link: those that are published elsewhere go with the others.
    pub(super) fn owned_by(&self, link: u64) -> [bool; 3] {
        let any = self.links.contains(&link);
        self.links.map(|of| of == link || (any && of == 0))
    }
}

impl Session {
    /// Tells the client that it is out of a group and may join it again.
    fn tell_left(&self, group: u64) {
        let reason = "the link to the owner was lost".into();
        let left = Left { request: 0, group, code: CloseCode::BackendLost.code(), reason };
        self.outbox.push_reply(self.number, Class::Signal, left.to_bytes());
    }
}

impl Hub {
    /// Whether an owner of a group that says so has been followed by another one.
    #[must_use]
    pub fn is_stale(&self, group: u64, class: Class, epoch: u64) -> bool {
        let stale = self.group(group).is_some_and(|entry| entry.lock().is_stale(class, epoch));
        if stale {
            self.metrics.stale(class);
        }
        stale
    }

    /// A link is lost. Gives the Sessions that it served, which cannot go on. Others that are in groups
    /// whose owner it led to are out of those, and their clients are told, to join them again.
    pub fn link_lost(&self, link: u64) -> Vec<Arc<Session>> {
        let groups: Vec<_> =
            self.groups.read().iter().map(|(id, g)| (*id, Arc::clone(g))).collect();
        for (group, entry) in groups {
            let mut g = entry.lock();
            if !g.links.contains(&link) {
                continue;
            }
            let lost = g.owned_by(link);
            let mut out = Vec::new();
            for (id, member) in &mut g.members {
                let mut told = false;
                for (standing, _) in member.standing.iter_mut().zip(lost).filter(|(_, lost)| *lost)
                {
                    told |= std::mem::replace(standing, Standing::Out) != Standing::Out;
                }
                if told && member.session.link != link {
                    member.session.tell_left(group);
                }
                if member.standing.iter().all(|s| *s == Standing::Out) {
                    member.session.groups.lock().retain(|g| *g != group);
                    out.push(*id);
                }
            }
            for id in out {
                g.members.remove(&id);
            }
            self.leave(group, &entry, g);
        }
        self.sessions.read().values().filter(|s| s.link == link).cloned().collect()
    }
}
