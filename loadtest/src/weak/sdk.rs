//! Edgeway itself: the real gateway, and rooms of two for each link. One member is behind the link,
//! its peer sits beside the server, so each direction is measured by itself, on one clock. There is a
//! room for each direction, to which the one only sends and in which the other listens; or one room
//! for both, where they are to see each other come and go.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
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

/// Members that are connecting at a time: the links are slow, and not what is measured yet.
const CONNECTING: usize = 32;

/// A member of a room, as one who speaks.
struct Member {
    client: Client,
    says: Room,
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
        self.says.send_nowait(message).map(drop).map_err(|error| error.to_string())
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

impl Seen {
    /// Forgets what was seen: everyone came once.
    pub fn reset(&self) {
        for count in [&self.leaves, &self.joins, &self.missed] {
            count.store(0, Relaxed);
        }
    }
}

/// Everything of Edgeway that runs.
pub struct Edgeway {
    pub server: Server,
    pub members: Vec<Client>,
    pub seen: Arc<Seen>,
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

    /// Ends everything.
    pub async fn close(mut self) -> Result<()> {
        self.tasks.abort_all();
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
        tasks: JoinSet::new(),
        server,
    };
    let mut ends = Ends::default();
    for direction in [Direction::Down, Direction::Up] {
        // Peers first: they are there when the members come.
        let joined = join_all(sides, mode, direction, &all.server, (clients, one_room)).await?;
        for (member, events) in joined {
            // Who speaks upwards hears what comes down.
            let hears = match direction {
                Direction::Up => Direction::Down,
                Direction::Down => Direction::Up,
            };
            let side = side(sides, direction);
            let listening = listen(events, hears, Arc::clone(record), Arc::clone(&all.seen));
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
        connect_timeout: std::time::Duration::from_secs(60),
        ..ClientConfig::new(&sides.address().to_string(), login(""))
    }
}

async fn join(
    n: u32,
    config: ClientConfig,
    speaks: Direction,
    one_room: bool,
) -> Result<(Member, Events)> {
    let (client, events) = Client::connect(config).await?;
    if one_room {
        let says = client.join(&format!("link-{n}")).await?;
        return Ok((Member { client, says, _hears: None }, events));
    }
    let [says, hears] = match speaks {
        Direction::Up => ["up", "down"],
        Direction::Down => ["down", "up"],
    };
    let only_to_send = JoinOptions { send_only: true, ..JoinOptions::default() };
    let says = client.join_with(&format!("{says}-{n}"), only_to_send).await?;
    let hears = client.join(&format!("{hears}-{n}")).await?;
    Ok((Member { client, says, _hears: Some(hears) }, events))
}

async fn listen(mut events: Events, hears: Direction, record: Arc<Record>, seen: Arc<Seen>) {
    loop {
        let batch = events.next_batch(BATCH).await;
        if batch.is_empty() {
            return;
        }
        for event in batch {
            match event {
                Event::Message(message) => record.arrived(hears, message.class, &message.payload),
                Event::Gap { missed, .. } => {
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
