//! Classes that are subscribed by one backend and published by another: the owner of a room lets
//! Sessions in, the owner of its strokes publishes those and says from where on it does.
//!
//! A member is live only while the publications are known to come here, and from a head that the member
//! has. Whatever may have been missed shows as a head that is not the one known here; then all who were live
//! are behind, and fetch it from history.

use edgeway_proto::{Class, Seq};

use super::{Group, Hub, Standing};

impl Group {
    /// Whether a class is published elsewhere, and nobody has said that it comes here.
    pub(super) fn is_silent(&self, class: Class) -> bool {
        self.links[class.index()] == 0 && self.sources[class.index()] == 0
    }
}

impl Hub {
    /// Subscribes a Session to a class of a group that another backend publishes. `has` is what its
    /// client has, or was told to begin with.
    pub fn subscribe_elsewhere(&self, id: u64, group: u64, class: Class, has: Seq) {
        let Some(session) = self.session(id) else { return };
        self.with_group(group, |g| {
            let at = class.index();
            g.links[at] = 0;
            let (head, silent) = (g.heads[at], g.is_silent(class));
            let member = g.member(group, &session);
            if silent {
                member.standing[at] = Standing::Waiting;
            } else if has >= head {
                // What it has, and this has not yet, still comes: its client drops it.
                member.standing[at] = Standing::Live;
            } else {
                self.fall_behind(member, group, class, head);
            }
        });
        // It may have gone while it was being subscribed; then nobody else removes it.
        if session.is_closed() {
            self.remove(group, id);
        }
    }

    /// From here on a link carries what is published to a class of a group; `head` is the last position
    /// before.
    pub fn announce(&self, link: u64, group: u64, class: Class, head: Seq) {
        self.with_group(group, |g| {
            let at = class.index();
            let known = g.heads[at];
            if head < known {
                // An owner of an older epoch.
                return;
            }
            g.sources[at] = link;
            g.heads[at] = head;
            for member in g.members.values_mut() {
                let missed = match member.standing[at] {
                    Standing::Live => head != known,
                    Standing::Waiting => true,
                    Standing::Behind | Standing::Out => false,
                };
                if missed {
                    self.fall_behind(member, group, class, head);
                }
            }
        });
    }

    /// A link does not carry a class of a group any more.
    pub fn retract(&self, link: u64, group: u64, class: Class) {
        let Some(entry) = self.group(group) else { return };
        let mut g = entry.lock();
        if g.sources[class.index()] == link {
            g.sources[class.index()] = 0;
            self.leave(group, &entry, g);
        }
    }

    /// A link is gone: what it carried comes again when somebody says so. Members stay.
    pub fn retract_all(&self, link: u64) {
        let groups: Vec<u64> = self.groups.read().keys().copied().collect();
        for group in groups {
            for class in Class::ALL {
                self.retract(link, group, class);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use edgeway_proto::Frame;

    use super::{
        super::{
            Session,
            tests::{GROUP, hub, publish, publish_at, read, seq, session},
        },
        *,
    };

    const OWNER: u64 = 9;

    /// The counter of what a client was sent.
    #[derive(Debug, PartialEq)]
    enum Seen {
        Deliver(u64),
        Behind(u64),
    }

    fn seen(session: &Session) -> Vec<Seen> {
        let seen = |frame| match frame {
            Frame::Deliver(deliver) => Some(Seen::Deliver(deliver.seq.counter)),
            Frame::Behind(behind) => Some(Seen::Behind(behind.head.counter)),
            _ => None,
        };
        read(session).into_iter().filter_map(seen).collect()
    }

    fn strokes(hub: &Hub, first: u64) {
        publish(hub, Class::Binary, first, 1);
    }

    #[test]
    fn who_is_subscribed_before_the_publisher_has_spoken_is_behind_when_it_does() {
        let hub = hub();
        let one = session(&hub, 1);
        hub.subscribe_elsewhere(one.id, GROUP, Class::Binary, seq(3));
        strokes(&hub, 4);
        assert_eq!(seen(&one), []);
        hub.announce(OWNER, GROUP, Class::Binary, seq(4));
        assert_eq!(seen(&one), [Seen::Behind(4)]);
        strokes(&hub, 5);
        assert_eq!(seen(&one), []);
        hub.caught_up(one.id, GROUP, Class::Binary, seq(5));
        strokes(&hub, 6);
        assert_eq!(seen(&one), [Seen::Deliver(6)]);
    }

    #[test]
    fn who_comes_later_is_live_where_it_has_the_head_and_behind_where_not() {
        let hub = hub();
        // Before anybody is here: the streams of two backends have no order.
        hub.announce(OWNER, GROUP, Class::Binary, seq(4));
        let [older, even, ahead] = [3, 4, 5].map(|has| {
            let session = session(&hub, 1);
            hub.subscribe_elsewhere(session.id, GROUP, Class::Binary, seq(has));
            session
        });
        strokes(&hub, 5);
        assert_eq!(seen(&older), [Seen::Behind(4)]);
        assert_eq!(seen(&even), [Seen::Deliver(5)]);
        assert_eq!(seen(&ahead), [Seen::Deliver(5)], "which its client drops");
    }

    #[test]
    fn a_publisher_that_is_lost_ends_no_session_and_what_was_missed_shows_when_it_is_back() {
        let hub = hub();
        let (one, two) = (session(&hub, 1), session(&hub, 1));
        hub.announce(OWNER, GROUP, Class::Binary, seq(4));
        hub.subscribe_elsewhere(one.id, GROUP, Class::Binary, seq(4));
        hub.retract_all(OWNER);
        assert!(hub.link_lost(OWNER).is_empty());
        hub.announce(OWNER + 1, GROUP, Class::Binary, seq(4));
        strokes(&hub, 5);
        assert_eq!(seen(&one), [Seen::Deliver(5)], "nothing was missed");
        hub.retract_all(OWNER + 1);
        hub.subscribe_elsewhere(two.id, GROUP, Class::Binary, seq(5));
        hub.announce(OWNER + 2, GROUP, Class::Binary, Seq::new(2, 0));
        assert_eq!(seen(&one), [Seen::Behind(0)]);
        assert_eq!(seen(&two), [Seen::Behind(0)]);
        hub.announce(OWNER, GROUP, Class::Binary, seq(9));
        hub.caught_up(one.id, GROUP, Class::Binary, Seq::new(2, 0));
        publish_at(&hub, Class::Binary, seq(10), 1, 1);
        assert_eq!(seen(&one), [], "an older owner is not heard");
        publish_at(&hub, Class::Binary, Seq::new(2, 1), 1, 1);
        assert_eq!(seen(&one), [Seen::Deliver(1)]);
    }

    #[test]
    fn who_has_caught_up_while_nobody_publishes_waits() {
        let hub = hub();
        let one = session(&hub, 1);
        hub.announce(OWNER, GROUP, Class::Binary, seq(4));
        hub.subscribe_elsewhere(one.id, GROUP, Class::Binary, seq(3));
        hub.retract(OWNER, GROUP, Class::Binary);
        hub.caught_up(one.id, GROUP, Class::Binary, seq(6));
        assert_eq!(seen(&one), [Seen::Behind(4)]);
        strokes(&hub, 7);
        assert_eq!(seen(&one), []);
        hub.announce(OWNER, GROUP, Class::Binary, seq(7));
        assert_eq!(seen(&one), [Seen::Behind(7)]);
    }

    #[test]
    fn a_group_is_forgotten_when_it_has_neither_members_nor_a_publisher() {
        let hub = hub();
        hub.announce(OWNER, GROUP, Class::Binary, seq(4));
        let one = session(&hub, 1);
        hub.subscribe_elsewhere(one.id, GROUP, Class::Binary, seq(4));
        drop(one);
        assert_eq!(hub.groups(), 1);
        hub.retract(OWNER + 1, GROUP, Class::Binary);
        assert_eq!(hub.groups(), 1, "by another link");
        hub.retract(OWNER, GROUP, Class::Binary);
        assert_eq!(hub.groups(), 0);
    }
}
