//! Who is where, as others come to know it: written by those who hold the truth, read by a process of its own.
//! Members, routes of rooms, routes of users, and what Sessions have.

use parking_lot::Mutex;

use super::*;
use crate::{
    directory::{
        Cursor, DirectoryConfig, Head, Listing, Lookup, Member, MemberPage, Place, Recorder,
        Source, Stamps, Standing, State, Writing, gateways,
    },
    room::SessionId,
};

/// A process that writes, and another one that reads and has no cache.
struct Two {
    recorder: Recorder,
    writing: Writing,
    reader: Lookup,
}

impl Two {
    fn new(directory: &Arc<dyn Directory>) -> Self {
        let config = DirectoryConfig {
            gather: Duration::from_millis(1),
            fresh: Duration::ZERO,
            failed: Duration::ZERO,
            ..DirectoryConfig::default()
        };
        let stamps = || Arc::new(Stamps::new());
        let reader = Lookup::new(Arc::clone(directory), &config, stamps());
        let (recorder, writing) = Recorder::start(Arc::clone(directory), config, stamps());
        Self { recorder, writing, reader }
    }

    async fn members(&self, room: &str) -> MemberPage {
        self.reader.members(room, &Cursor::default(), 1_000).await.unwrap()
    }

    async fn until_members(&self, room: &str, expected: &[Member]) {
        until(async || self.members(room).await.members == expected).await;
        assert_eq!(self.members(room).await.total, expected.len() as u64);
    }

    async fn state(&self, user: &str, device: &str) -> Option<State> {
        self.reader.session(user, device, "chat").await.unwrap()
    }
}

/// Waits until it is so.
async fn until(holds: impl AsyncFn() -> bool) {
    while !holds().await {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Whoever is asked for all of a listing says what it was opened with and what came since.
#[derive(Default)]
struct Truth(Mutex<Option<(Listing, Bytes, Vec<Bytes>)>>);

impl Source for Truth {
    fn ask(&self, _: (u64, u64)) {
        if let Some((listing, head, lines)) = &*self.0.lock() {
            listing.anew(head.clone(), lines.iter().cloned());
        }
    }
}

impl Truth {
    fn open(recorder: &Recorder, name: Name, term: Term, head: Bytes) -> Arc<Self> {
        let truth = Arc::<Self>::default();
        let listing = recorder.open(name, term, head.clone(), truth.clone(), (0, 0));
        *truth.0.lock() = Some((listing, head, Vec::new()));
        truth
    }

    fn add(&self, line: Bytes) {
        let mut truth = self.0.lock();
        let (listing, _, lines) = truth.as_mut().unwrap();
        lines.push(line.clone());
        listing.add(line);
    }

    fn remove(&self, line: &Bytes) {
        let mut truth = self.0.lock();
        let (listing, _, lines) = truth.as_mut().unwrap();
        lines.retain(|there| there != line);
        listing.remove(line.clone());
    }

    fn head(&self, new: Bytes) {
        let mut truth = self.0.lock();
        let (listing, head, _) = truth.as_mut().unwrap();
        head.clone_from(&new);
        listing.head(new);
    }

    /// It has ended.
    fn close(&self) {
        let ended = self.0.lock().take();
        drop(ended);
    }
}

fn id(gateway: u64, session: u64) -> SessionId {
    SessionId { gateway, session }
}

/// An owner's room of this epoch.
fn room(recorder: &Recorder, room: &str, epoch: u64, on: &[u64]) -> Arc<Truth> {
    let head = gateways(on.iter().copied());
    Truth::open(recorder, Name::room(&format!("chat:{room}")), Term(epoch, 0), head)
}

pub(crate) async fn the_members_of_a_room_are_known_as_they_come_and_go(
    directory: &Arc<dyn Directory>,
) {
    let (two, name) = (Two::new(directory), unique());
    assert_eq!(two.members(&name).await, MemberPage::default());
    let lesson = room(&two.recorder, &name, 3, &[1, 2]);
    let all = [("ada", "phone", 1, 9), ("ada", "tablet", 2, 4), ("bob", "phone", 2, 5)];
    for (user, device, gateway, session) in all {
        lesson.add(Member::line(user, device, id(gateway, session)));
    }
    let member = |(user, device, gateway, session)| Member::new(user, device, id(gateway, session));
    two.until_members(&name, &all.map(member)).await;
    // Page by page.
    let first = two.reader.members(&name, &Cursor::default(), 2).await.unwrap();
    assert_eq!((first.total, &first.members[..]), (3, &all.map(member)[..2]));
    let after = Cursor::parse(&first.next.unwrap()).unwrap();
    let second = two.reader.members(&name, &after, 2).await.unwrap();
    assert_eq!((&second.members[..], second.next), (&all.map(member)[2..], None));
    // Not in another room.
    assert_eq!(two.members(&format!("{name}x")).await.total, 0);

    lesson.remove(&Member::line("ada", "phone", id(1, 9)));
    two.until_members(&name, &all.map(member)[1..]).await;
    lesson.close();
    two.until_members(&name, &[]).await;
}

pub(crate) async fn the_route_of_a_room_is_known(directory: &Arc<dyn Directory>) {
    let (two, name) = (Two::new(directory), unique());
    let route = async || {
        let route = two.reader.route(&name).await.unwrap();
        (route.epoch, route.members, route.gateways.join(" "))
    };
    assert_eq!(route().await, (0, 0, String::new()));
    let lesson = room(&two.recorder, &name, 7, &[0xa1]);
    lesson.add(Member::line("ada", "phone", id(0xa1, 1)));
    until(async || route().await == (7, 1, "00000000000000a1".to_owned())).await;
    lesson.add(Member::line("bob", "phone", id(u64::MAX, 1)));
    lesson.head(gateways([0xa1, u64::MAX].into_iter()));
    let both = (7, 2, "00000000000000a1 ffffffffffffffff".to_owned());
    until(async || route().await == both).await;
    lesson.close();
    until(async || route().await == (0, 0, String::new())).await;
}

pub(crate) async fn of_two_owners_of_a_room_the_later_one_is_believed(
    directory: &Arc<dyn Directory>,
) {
    let (name, old, new) = (unique(), Two::new(directory), Two::new(directory));
    let first = room(&old.recorder, &name, 1, &[1]);
    first.add(Member::line("ada", "phone", id(1, 1)));
    first.add(Member::line("bob", "phone", id(1, 2)));
    until(async || old.members(&name).await.total == 2).await;
    // It halts; those who have come back to the next one are in the room, and nobody else.
    let second = room(&new.recorder, &name, 2, &[2]);
    second.add(Member::line("bob", "phone", id(2, 1)));
    let bob = [Member::new("bob", "phone", id(2, 1))];
    new.until_members(&name, &bob).await;
    // Nothing that it does late is seen, its end neither.
    first.add(Member::line("cid", "phone", id(1, 3)));
    first.close();
    old.writing.finish(LONG).await;
    assert_eq!(new.members(&name).await.members, bob);
    assert_eq!(new.reader.route(&name).await.unwrap().epoch, 2);
    second.close();
    new.until_members(&name, &[]).await;
}

fn head_of(session: SessionId, standing: Standing) -> Head {
    Head::new(0xacce55, session, "gw-1", 1_700_000_000_000, standing)
}

/// A Session of the type chat, connected.
fn session(
    recorder: &Recorder,
    user: &str,
    device: &str,
    generation: u64,
    at: SessionId,
) -> Arc<Truth> {
    let (name, term) = (Name::session(user, device, "chat"), Term(generation, at.session));
    Truth::open(recorder, name, term, head_of(at, Standing::Live).to_bytes())
}

pub(crate) async fn where_a_user_is_is_known_of_each_device(directory: &Arc<dyn Directory>) {
    let (two, user) = (Two::new(directory), unique());
    let route = async || {
        let sessions = two.reader.user(&user).await.unwrap();
        let line = |s: &crate::directory::UserSession| {
            let (at, standing) = (s.head.session, s.head.standing);
            (s.device.clone(), s.generation, at, standing, s.rooms)
        };
        sessions.iter().map(line).collect::<Vec<_>>()
    };
    assert_eq!(route().await, []);
    let phone = session(&two.recorder, &user, "phone", 5, id(1, 10));
    let tablet = session(&two.recorder, &user, "tab/let", 6, id(2, 20));
    tablet.add(Place::line(7, id(2, 20), false, "chat:maths"));
    let on = |device: &str, generation, at, standing, rooms| {
        (device.to_owned(), generation, at, standing, rooms)
    };
    let (live, lost) = (Standing::Live, Standing::Lost);
    let both = vec![on("phone", 5, 10, live, 0), on("tab/let", 6, 20, live, 1)];
    until(async || route().await == both).await;
    // One loses its connection, and is taken over on another gateway.
    phone.head(head_of(id(1, 10), lost).to_bytes());
    until(async || route().await[0] == on("phone", 5, 10, lost, 0)).await;
    let again = session(&two.recorder, &user, "phone", 8, id(2, 21));
    until(async || route().await[0] == on("phone", 8, 21, live, 0)).await;
    phone.close();
    tablet.close();
    until(async || route().await == [on("phone", 8, 21, live, 0)]).await;
    again.close();
    until(async || route().await.is_empty()).await;
}

pub(crate) async fn what_a_session_has_outlives_its_access_until_another_one_has_it(
    directory: &Arc<dyn Directory>,
) {
    // More than a page of them.
    const PLACES: u64 = 1_500;
    let (user, dies, next) = (unique(), Two::new(directory), Two::new(directory));
    let at = id(1, 10);
    let held = session(&dies.recorder, &user, "phone", 5, at);
    let place = |group| Place {
        group,
        gateway: "0000000000000001".to_owned(),
        session: 10,
        foreign: group == 3,
        name: format!("chat:room {group}"),
    };
    for group in 1..=PLACES {
        held.add(Place::line(group, at, group == 3, &format!("chat:room {group}")));
    }
    let is_whole = |state: State| state.places.len() as u64 == PLACES;
    until(async || next.state(&user, "phone").await.is_some_and(is_whole)).await;
    // Nothing is told any more, as when a process is killed.
    dies.writing.abort();
    held.remove(&Place::line(1, at, false, "chat:room 1"));
    held.close();
    let state = next.state(&user, "phone").await.unwrap();
    assert_eq!((state.generation, state.head), (5, head_of(at, Standing::Live)));
    assert_eq!(state.places, (1..=PLACES).map(place).collect::<Vec<_>>());
    assert_eq!(next.state(&user, "tablet").await, None);

    let taken = session(&next.recorder, &user, "phone", 6, id(2, 1));
    taken.add(Place::line(1, id(2, 1), false, "chat:room 1"));
    let is_taken = |state: State| state.generation == 6 && state.places.len() == 1;
    until(async || next.state(&user, "phone").await.is_some_and(is_taken)).await;
    taken.close();
    until(async || next.state(&user, "phone").await.is_none()).await;
}
