//! A room whose strokes have an owner of their own, from both sides.
//!
//! The room's owner ([`Kind::Apart`]) has the members. It tells the owner of the strokes which gateways
//! have some, when that changes, and asks it for each Session that joins what `joined` must say.
//!
//! The owner of the strokes ([`Kind::Strokes`]) knows no members: gateways, and who has sent what. What may
//! have been lost on the way it does not follow up: it has the Session join again, which says all anew.

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

use std::{collections::BTreeSet, mem};

use edgeway_proto::{
    Class, CloseCode, Text, frame,
    rooms::{self, from_owner_item::Item},
};

use super::{Ask, Asker, Effect, Effects, Kind, Now, Room, SessionId, send::Speaker};

/// Questions of one room that wait for the store. More come only while it is away.
const ASKS_WAITING: usize = 1024;

/// What a room knows of its strokes' whereabouts.
#[derive(Debug)]
pub(super) enum Strokes {
    /// They are here.
    Here,
    /// They are elsewhere: the gateways that were told there last.
    Elsewhere(Vec<u64>),
    /// Nothing else is here.
    Only(Box<Only>),
}

#[derive(Debug, Default)]
pub(super) struct Only {
    /// Of the room's owner that said the route, and its link.
    epoch: u64,
    access: u64,
    route: BTreeSet<u64>,
    /// Questions about devices whose strokes are not stored yet.
    asks: Vec<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    ask: Ask,
    /// Strokes came meanwhile and were not taken: its Session did not wait for the answer.
    dropped: bool,
}

impl Strokes {
    pub(super) fn new(kind: Kind) -> Self {
        match kind {
            Kind::Room | Kind::Inbox => Self::Here,
            Kind::Apart => Self::Elsewhere(Vec::new()),
            Kind::Strokes => Self::Only(Box::default()),
        }
    }

    /// The gateways that strokes are published to, where only those are here.
    pub(super) fn route(&self) -> impl Iterator<Item = u64> + '_ {
        let only = if let Self::Only(only) = self { Some(only) } else { None };
        only.into_iter().flat_map(|only| only.route.iter().copied())
    }

    /// Whether somebody is there for whom they are kept in memory.
    pub(super) fn is_wanted(&self) -> bool {
        matches!(self, Self::Only(only) if !only.route.is_empty() || !only.asks.is_empty())
    }
}

impl Room {
    /// Tells the owner of the strokes the route, where it is another one than it was told last.
    pub(super) fn tell_route(&mut self, fx: &mut Effects) {
        let Strokes::Elsewhere(told) = &mut self.strokes else { return };
        if !self.members.take_route_changed() || self.members.route().eq(told.iter().copied()) {
            return;
        }
        *told = self.members.route().collect();
        let (epoch, gateways) = (self.logs[Class::Signal.index()].head().epoch, told.clone());
        fx.list.push(Effect::Route { epoch, gateways });
    }

    /// The owner of the strokes is another one, or has lost its link.
    pub(super) fn forget_told_route(&mut self) {
        if let Strokes::Elsewhere(told) = &mut self.strokes {
            told.clear();
            self.members.set_route_changed();
        }
    }

    /// A route counts unless a later owner of the room has said another one.
    pub(super) fn set_route(
        &mut self,
        access: u64,
        epoch: u64,
        gateways: Vec<u64>,
        fx: &mut Effects,
    ) {
        let head = self.head(Class::Binary);
        let Strokes::Only(only) = &mut self.strokes else { return };
        if epoch < only.epoch {
            return;
        }
        (only.epoch, only.access) = (epoch, access);
        let before = mem::replace(&mut only.route, gateways.into_iter().collect());
        for gateway in before.difference(&only.route).copied() {
            fx.list.push(Effect::Retract { gateway });
        }
        for gateway in only.route.difference(&before).copied() {
            fx.list.push(Effect::Announce { gateway, head });
        }
    }

    /// A link is gone: with it the route that came by it, until it is said again, and the questions.
    pub(super) fn unroute(&mut self, access: u64, fx: &mut Effects) {
        let Strokes::Only(only) = &mut self.strokes else { return };
        only.asks.retain(|waiting| waiting.ask.access != access);
        if only.access == access {
            let gone = mem::take(&mut only.route);
            fx.list.extend(gone.into_iter().map(|gateway| Effect::Retract { gateway }));
        }
    }

    /// What was published while the gateway had no link has not reached it.
    pub(super) fn announce_again(&self, gateway: u64, fx: &mut Effects) {
        if self.strokes.route().any(|on_route| on_route == gateway) {
            fx.list.push(Effect::Announce { gateway, head: self.head(Class::Binary) });
        }
    }

    /// A Session joins: its client will take the ids that it is told as acked. So while strokes of its
    /// device are not stored it waits for their fate; and nothing more is taken from an older Session of
    /// the device, unless this one may be a replay.
    pub(super) fn ask(&mut self, ask: Ask, fx: &mut Effects) {
        let sender = self.senders.of(&ask.user, &ask.device);
        if ask.early {
            self.senders.expect_from(sender, ask.session);
        } else {
            self.senders.take_from(sender, ask.session);
        }
        let pending = self.senders.is_pending(sender);
        match &mut self.strokes {
            Strokes::Only(only) if pending && only.asks.len() < ASKS_WAITING => {
                only.asks.push(Waiting { ask, dropped: false });
            }
            Strokes::Only(_) if !pending => self.answer_ask(&ask, sender, fx),
            _ => self.refuse_ask(&ask, fx),
        }
    }

    fn answer_ask(&self, ask: &Ask, sender: usize, fx: &mut Effects) {
        let head = Some(self.head(Class::Binary).into());
        let last_id = self.senders.stored(sender)[Class::Binary.index()];
        let answer = rooms::Answer { ask: ask.ask, group: self.group, head, last_id };
        fx.tell_access(ask.access, Item::Answer(answer));
    }

    fn refuse_ask(&self, ask: &Ask, fx: &mut Effects) {
        let answer = rooms::Answer { ask: ask.ask, group: self.group, head: None, last_id: 0 };
        fx.tell_access(ask.access, Item::Answer(answer));
    }

    /// After strokes were stored.
    pub(super) fn answer_waiting(&mut self, fx: &mut Effects) {
        let Strokes::Only(only) = &mut self.strokes else { return };
        for waiting in mem::take(&mut only.asks) {
            let sender = self.senders.of(&waiting.ask.user, &waiting.ask.device);
            if self.senders.is_pending(sender) {
                if let Strokes::Only(only) = &mut self.strokes {
                    only.asks.push(waiting);
                }
                continue;
            }
            self.answer_ask(&waiting.ask, sender, fx);
            if waiting.dropped {
                self.join_again(waiting.ask.session, fx);
            }
        }
    }

    /// A member draws.
    #[expect(clippy::too_many_arguments, reason = "the parts of one event")]
    pub(super) fn stroke(
        &mut self,
        session: SessionId,
        user: Text,
        device: &str,
        send: frame::Send,
        store_full: bool,
        now: Now,
        fx: &mut Effects,
    ) {
        let sender = self.senders.of(&user, device);
        let Strokes::Only(only) = &mut self.strokes else { return };
        let asking = only.asks.iter_mut().find(|waiting| waiting.ask.session == session);
        if let Some(waiting) = asking {
            // The room's owner has not waited, and may have told it an id that is too low.
            waiting.dropped = true;
            return;
        }
        if !self.senders.takes_from(sender, session) {
            return self.join_again(session, fx);
        }
        self.send_from(Speaker { from: session.into(), sender, user }, send, store_full, now, fx);
    }

    /// Has a client join again, and send what was not acked: to where that leads now.
    fn join_again(&self, session: SessionId, fx: &mut Effects) {
        let left = self.left(0, CloseCode::BackendLost, "the owner of the strokes is another one");
        fx.tell(session, |out| left.encode(out));
    }

    /// Another owner has the strokes: nothing can be stored here any more. What waits gets no ack, and is
    /// sent again by those who are told to join again.
    pub(super) fn strokes_fenced(&mut self, fx: &mut Effects) {
        let Strokes::Only(only) = &mut self.strokes else { return };
        let Only { route, asks, .. } = mem::take(&mut **only);
        fx.list.extend(route.into_iter().map(|gateway| Effect::Retract { gateway }));
        for waiting in &asks {
            self.refuse_ask(&waiting.ask, fx);
        }
        let unstored: BTreeSet<_> = self.logs[Class::Binary.index()].waiting().collect();
        for from in unstored {
            if let Asker::Session(session) = from {
                self.join_again(session, fx);
            }
        }
    }
}
