//! Edgeway itself: the real gateway, and rooms of two for each link. One member is behind the link,
//! its peer sits beside the server, so each direction is measured by itself, on one clock. There is a
//! room for each direction, to which the one only sends and in which the other listens; or one room
//! for both, where they are to see each other come and go.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use anyhow::{Context, Result};
use bytes::Bytes;
use edgeway_client::{
    Class, Client, ClientConfig, Event, Events, JoinOptions, Outgoing, Room, TransportChoice, Trust,
};
use tokio::{runtime::Handle, task::JoinSet};

use super::{
    Mode,
    offer::Mouth,
    record::Record,
    run::Ends,
    sides::{Sides, login},
};
use crate::{
    server::{Server, ServerArgs},
    tls::SERVER_NAME,
    weaknet::draw::Direction,
};

/// Events taken at a time.
const BATCH: usize = 256;

/// Attempts to connect, before a run is given up.
const CONNECTS: u32 = 5;

/// Members that are connecting at a time: the links are slow, and not what is measured yet.
const CONNECTING: usize = 32;

/// A member of a room, as one who speaks.
struct Member {
    client: Client,
    says: Room,
    /// Chat that it has said.
    chat: Arc<AtomicU64>,
    /// Kept: what is said there is heard.
    _hears: Option<Room>,
}

impl Mouth for Member {
    fn say(&self, class: Class, payload: Bytes) -> Result<(), String> {
        let message = match class {
            Class::Signal => Outgoing::signal(payload),
            Class::Binary => Outgoing::stroke(payload),
            Class::Chat => Outgoing::chat(payload),
        };
        self.says.send_nowait(message).map_err(|error| error.to_string())?;
        self.chat.fetch_add(u64::from(class == Class::Chat), Relaxed);
        Ok(())
    }
}

/// What the members of a run saw besides messages.
#[derive(Debug, Default)]
pub struct Seen {
    /// Times that a peer saw the member behind the link leave.
    pub leaves: AtomicU64,
    /// Times that it saw it come.
    pub joins: AtomicU64,
    /// Chat that members were told they missed.
    pub missed: AtomicU64,
}

/// The chat of one member of a room, from its first message on, the warm-up's included.
#[derive(Debug)]
struct Chat {
    client: Client,
    link: usize,
    said: Arc<AtomicU64>,
    /// That it got, its own included, and that it was told it missed.
    had: Arc<AtomicU64>,
}

impl Seen {
    /// Forgets what was seen: everyone came once.
    pub fn reset(&self) {
        for count in [&self.leaves, &self.joins, &self.missed] {
            count.store(0, Relaxed);
        }
    }
}

/// Chat without an ack counts as shed after 5 s.
const SETTLES: Duration = Duration::from_secs(7);

/// Everything of Edgeway that runs.
pub struct Edgeway {
    pub server: Server,
    pub members: Vec<Client>,
    pub seen: Arc<Seen>,
    chats: Vec<Chat>,
    tasks: JoinSet<()>,
}

impl Edgeway {
    /// Messages that had to be written again, chat shed on the way, and reconnects.
    pub fn stats(&self) -> (u64, u64) {
        let stats = self.members.iter().map(Client::stats);
        stats.fold((0, 0), |(resent, reconnects), one| {
            (resent + one.resent, reconnects + one.reconnects)
        })
    }

    /// Chat of which nobody knows what became of it: each member of a room is to have had, or to have been
    /// told that it missed, all that both have said and were not told was shed. None where the rooms of
    /// both directions are not one. What is on its way is waited for.
    pub async fn chat_unaccounted(&self) -> Option<u64> {
        if self.chats.is_empty() {
            return None;
        }
        let end = tokio::time::Instant::now() + SETTLES;
        loop {
            let unaccounted = self.chats.iter().map(|one| self.unaccounted(one)).sum();
            if unaccounted == 0 || tokio::time::Instant::now() >= end {
                return Some(unaccounted);
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    fn unaccounted(&self, one: &Chat) -> u64 {
        let here = self.chats.iter().filter(|other| other.link == one.link);
        let offered = here.map(|other| {
            let stats = other.client.stats();
            other.said.load(Relaxed).saturating_sub(stats.shed + stats.failed)
        });
        offered.sum::<u64>().abs_diff(one.had.load(Relaxed))
    }

    /// Ends everything.
    pub async fn close(mut self) -> Result<()> {
        self.tasks.abort_all();
        drop(self.chats);
        drop(self.members);
        self.server.stop().await
    }
}

/// Starts the server and connects everyone.
pub async fn start(
    sides: &Sides,
    args: &ServerArgs,
    mode: Mode,
    record: &Arc<Record>,
    clients: u32,
    one_room: bool,
) -> Result<(Ends, Edgeway)> {
    let users: Vec<_> = (0..clients).flat_map(|n| [user(n), peer(n)]).collect();
    let server = sides.edgeway(args, &users).await?;
    let mut all = Edgeway {
        members: Vec::new(),
        seen: Arc::new(Seen::default()),
        chats: Vec::new(),
        tasks: JoinSet::new(),
        server,
    };
    let mut ends = Ends::default();
    for direction in [Direction::Down, Direction::Up] {
        // Peers first: they are there when the members come.
        let joined = join_all(sides, mode, direction, &all.server, (clients, one_room)).await?;
        for (link, (member, events)) in joined.into_iter().enumerate() {
            // Who speaks upwards hears what comes down.
            let hears = match direction {
                Direction::Up => Direction::Down,
                Direction::Down => Direction::Up,
            };
            let side = side(sides, direction);
            let had = Arc::<AtomicU64>::default();
            let of_chat = (Arc::clone(&all.seen), Arc::clone(&had));
            let listening = listen(events, hears, Arc::clone(record), of_chat);
            let (client, said) = (member.client.clone(), Arc::clone(&member.chat));
            all.chats.extend(one_room.then_some(Chat { client, link, said, had }));
            all.tasks.spawn_on(listening, &side);
            if direction == Direction::Up {
                all.members.push(member.client.clone());
            }
            ends.speakers(direction).push(Arc::new(member));
        }
    }
    Ok((ends, all))
}

fn user(n: u32) -> String {
    format!("member-{n:04}")
}

fn peer(n: u32) -> String {
    format!("peer-{n:04}")
}

/// Where those run who speak in this direction.
fn side(sides: &Sides, speaks: Direction) -> Handle {
    match speaks {
        Direction::Up => sides.clients.handle().clone(),
        Direction::Down => sides.server.handle().clone(),
    }
}

async fn join_all(
    sides: &Sides,
    mode: Mode,
    speaks: Direction,
    server: &Server,
    (clients, one_room): (u32, bool),
) -> Result<Vec<(Member, Events)>> {
    let side = side(sides, speaks);
    let mut joining = JoinSet::new();
    let mut joined = Vec::new();
    for n in 0..clients {
        if joining.len() == CONNECTING {
            joined.extend(joining.join_next().await);
        }
        let config = match speaks {
            Direction::Up => ClientConfig {
                transport: mode.transport(),
                bind: Some(sides.bind(n)),
                // The kernel's, as the row asks.
                tcp_bbr: false,
                repair: mode != Mode::QuicNorepair,
                login: login(&user(n)),
                ..config(sides, server)
            },
            Direction::Down => ClientConfig {
                transport: TransportChoice::Tcp,
                login: login(&peer(n)),
                ..config(sides, server)
            },
        };
        let joined = async move { (n, join(n, config, speaks, one_room).await) };
        joining.spawn_on(joined, &side);
    }
    joined.extend(joining.join_all().await.into_iter().map(Ok));
    let mut members = joined
        .into_iter()
        .map(|done| {
            let (n, member) = done?;
            Ok((n, member.with_context(|| format!("client {n} cannot connect"))?))
        })
        .collect::<Result<Vec<_>>>()?;
    members.sort_by_key(|(n, _)| *n);
    Ok(members.into_iter().map(|(_, member)| member).collect())
}

/// What all have in common.
pub fn config(sides: &Sides, server: &Server) -> ClientConfig {
    ClientConfig {
        server_name: Some(SERVER_NAME.to_owned()),
        trust: Trust::Ca(server.ca_pem.clone().into_bytes()),
        agent: "loadtest".to_owned(),
        connect_timeout: Duration::from_secs(60),
        ..ClientConfig::new(&sides.address().to_string(), login(""))
    }
}

/// As an app does: where a link loses so much that one attempt runs out of time, again. What is measured
/// begins when all are there; that it took more than one attempt is said.
async fn connect(n: u32, config: ClientConfig) -> Result<(Client, Events)> {
    for attempt in 1..CONNECTS {
        match Client::connect(config.clone()).await {
            Ok(connected) => return Ok(connected),
            Err(error) => println!("client {n}, attempt {attempt} to connect: {error}"),
        }
    }
    Ok(Client::connect(config).await?)
}

async fn join(
    n: u32,
    config: ClientConfig,
    speaks: Direction,
    one_room: bool,
) -> Result<(Member, Events)> {
    let (client, events) = connect(n, config).await?;
    if one_room {
        let says = client.join(&format!("link-{n}")).await?;
        return Ok((Member { client, says, chat: Arc::default(), _hears: None }, events));
    }
    let [says, hears] = match speaks {
        Direction::Up => ["up", "down"],
        Direction::Down => ["down", "up"],
    };
    let only_to_send = JoinOptions { send_only: true, ..JoinOptions::default() };
    let says = client.join_with(&format!("{says}-{n}"), only_to_send).await?;
    let hears = client.join(&format!("{hears}-{n}")).await?;
    Ok((Member { client, says, chat: Arc::default(), _hears: Some(hears) }, events))
}

async fn listen(
    mut events: Events,
    hears: Direction,
    record: Arc<Record>,
    (seen, had): (Arc<Seen>, Arc<AtomicU64>),
) {
    loop {
        let batch = events.next_batch(BATCH).await;
        if batch.is_empty() {
            return;
        }
        for event in batch {
            match event {
                Event::Message(message) => {
                    had.fetch_add(u64::from(message.class == Class::Chat), Relaxed);
                    record.arrived(hears, message.class, &message.payload);
                }
                Event::Gap { missed, .. } => {
                    had.fetch_add(missed, Relaxed);
                    seen.missed.fetch_add(missed, Relaxed);
                }
                Event::Presence(change) if hears == Direction::Up => {
                    seen.leaves.fetch_add(change.left.len() as u64, Relaxed);
                    // A whole list, after changes were missed, says nothing of who came.
                    let joined = if change.complete { 0 } else { change.joined.len() };
                    seen.joins.fetch_add(joined as u64, Relaxed);
                }
                Event::HistoryLost { .. } | Event::Left { .. } | Event::Closed { .. } => {
                    record.problem(|| format!("unexpected: {event:?}"));
                }
                _ => {}
            }
        }
    }
}
