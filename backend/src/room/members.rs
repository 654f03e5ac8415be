//! Who is in the room: Sessions, the users they are, and the gateways that have them.

use std::{
    collections::{BTreeMap, HashMap, btree_map::Entry},
    ops::Bound,
    time::Duration,
};

use edgeway_proto::{Text, frame, limits};

use super::{SessionId, presence::Presence};

/// A Session in the room.
#[derive(Debug, Clone)]
pub(crate) struct Member {
    pub(crate) user: Text,
    /// Index into the room's senders, held while the member is here.
    pub(crate) sender: usize,
    pub(crate) access: u64,
    pub(crate) send_only: bool,
}

/// All members, by everything they are looked for by.
#[derive(Debug)]
pub(crate) struct Members {
    sessions: HashMap<SessionId, Member>,
    /// Subscribed Sessions of each user, in byte order of names.
    users: BTreeMap<Text, u32>,
    /// Subscribed Sessions of each gateway: where deliveries go.
    route: BTreeMap<u64, u32>,
    /// A gateway has come or gone.
    route_changed: bool,
    /// Users who have come (`true`) or gone by the present event.
    moves: Vec<(Text, bool)>,
    pub(crate) presence: Presence,
}

impl Members {
    pub(crate) fn new(presence: Presence) -> Self {
        let (sessions, users, route) = (HashMap::new(), BTreeMap::new(), BTreeMap::new());
        let (route_changed, moves) = (false, Vec::new());
        Self { sessions, users, route, route_changed, moves, presence }
    }

    pub(crate) fn get(&self, session: SessionId) -> Option<&Member> {
        self.sessions.get(&session)
    }

    pub(crate) fn sessions(&self) -> usize {
        self.sessions.len()
    }

    pub(crate) fn users(&self) -> &BTreeMap<Text, u32> {
        &self.users
    }

    pub(crate) fn route(&self) -> impl Iterator<Item = u64> + '_ {
        self.route.keys().copied()
    }

    /// Whether the route may be another one than when this was asked last.
    pub(crate) fn take_route_changed(&mut self) -> bool {
        std::mem::take(&mut self.route_changed)
    }

    /// Who came and went since this was emptied.
    pub(crate) fn moves(&mut self) -> &mut Vec<(Text, bool)> {
        &mut self.moves
    }

    pub(crate) fn set_route_changed(&mut self) {
        self.route_changed = true;
    }

    /// How many gateways have members.
    pub(crate) fn gateways(&self) -> usize {
        self.route.len()
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = (SessionId, &Member)> + '_ {
        self.sessions.iter().map(|(session, member)| (*session, member))
    }

    /// The Sessions that `which` says yes to. Looks at all of them.
    pub(crate) fn find(&self, which: impl Fn(SessionId, &Member) -> bool) -> Vec<SessionId> {
        let found = self.sessions.iter().filter(|(id, member)| which(**id, member));
        let mut found: Vec<SessionId> = found.map(|(id, _)| *id).collect();
        found.sort_unstable();
        found
    }

    /// Adds a Session that is not there yet.
    pub(crate) fn insert(&mut self, session: SessionId, member: Member, now: Duration) {
        if !member.send_only {
            let here = self.route.entry(session.gateway).or_default();
            *here += 1;
            self.route_changed |= *here == 1;
            let users = self.users.len();
            match self.users.entry(member.user.clone()) {
                Entry::Occupied(mut devices) => *devices.get_mut() += 1,
                Entry::Vacant(none) => {
                    none.insert(1);
                    self.presence.touch(&member.user, false, users, now);
                    self.moves.push((member.user.clone(), true));
                }
            }
        }
        self.sessions.insert(session, member);
    }

    pub(crate) fn remove(&mut self, session: SessionId, now: Duration) -> Option<Member> {
        let member = self.sessions.remove(&session)?;
        if !member.send_only {
            if count_down(&mut self.users, &member.user) {
                self.presence.touch(&member.user, true, self.users.len(), now);
                self.moves.push((member.user.clone(), false));
            }
            self.route_changed |= count_down(&mut self.route, &session.gateway);
        }
        Some(member)
    }

    /// The frames that tell who came and went since the last ones.
    pub(crate) fn take_presence(&mut self, group: u64) -> Vec<frame::Presence> {
        self.presence.take(group, &self.users)
    }

    /// A page of the member list.
    pub(crate) fn page(&mut self, request: &frame::Members) -> frame::MemberPage {
        let limit = match usize::try_from(request.limit) {
            Ok(0) | Err(_) => limits::NAMES,
            Ok(limit) => limit.min(limits::NAMES),
        };
        let after = (Bound::Excluded(&request.after), Bound::Unbounded);
        let mut rest = self.users.range::<Text, _>(after).map(|(user, _)| user).peekable();
        let (mut users, mut bytes) = (Vec::new(), 0);
        while let Some(user) = rest.peek() {
            bytes += user.len() + 2;
            if users.len() == limit || bytes > limits::PAGE_BYTES {
                break;
            }
            users.extend(rest.next().cloned());
        }
        let more = u64::from(rest.peek().is_some());
        self.presence.listed();
        frame::MemberPage {
            request: request.request,
            group: request.group,
            total: self.users.len() as u64,
            presence_version: self.presence.version(),
            more,
            users,
        }
    }
}

/// Counts one down, and removes the key at none: whether it was the last.
fn count_down<K: Ord + Clone>(counts: &mut BTreeMap<K, u32>, key: &K) -> bool {
    // One way down the tree: in a room of 50,000 each is some cache misses.
    let Entry::Occupied(mut count) = counts.entry(key.clone()) else { return false };
    *count.get_mut() -= 1;
    let last = *count.get() == 0;
    if last {
        count.remove();
    }
    last
}
