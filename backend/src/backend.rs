//! One backend process: the sole place where its parts are put together.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, atomic::AtomicUsize},
    time::Duration,
};

use edgeway_linktls::{AddressProblem, Identity, Limits, incoming};
use edgeway_proto::{
    auth::auth_server::AuthServer,
    link::{Welcome, backend_server::BackendServer},
    rooms::rooms_server::RoomsServer,
};
use tokio::net::{TcpListener, TcpSocket};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    access::{Access, Node, Owners},
    auth::{Auth, TokenKey},
    config::{Config, ConfigProblem, HistorySync, RedisConfig, StoreConfig},
    control::{Control, owner_config},
    directory::{self, Directory, Lookup, MemoryDirectory, Writing},
    http2,
    links::{LinkService, Links},
    roles::{Role, Roles},
    room::Kind,
    shard::{Gateways, Owner},
    store::{
        Durability, Embedded, EmbeddedOptions, NotOpened, Redis, RedisDirectory, RedisOptions,
        Store, StoreError,
    },
    uplink::{Dialler, UplinkService},
};

/// How long the owners may take to append and answer what they hold, when they stop.
const DRAIN: Duration = Duration::from_secs(10);
/// How long peers may then take to read what is queued for them.
const FLUSH: Duration = Duration::from_secs(2);
/// How long the directory may then take to be told of what has ended.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// Between two tries to open a store whose servers are not there.
const STORE_PAUSE: Duration = Duration::from_millis(500);
/// Connections that wait to be accepted: two of each gateway, and one of each access, at once.
const BACKLOG: u32 = 1024;

/// Why a backend does not start. All are for the operator.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The config does not fit the roles.
    #[error("the config does not fit the roles: {}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Config(Vec<ConfigProblem>),
    /// The address cannot be listened on.
    #[error("cannot listen on {addr}: {source}")]
    Listen {
        /// The address.
        addr: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The store cannot be opened.
    #[error("cannot open the store {place}: {source}")]
    Store {
        /// `in` a directory, or `on` a server.
        place: String,
        /// Why.
        source: StoreError,
    },
    /// An owner's address cannot be dialled.
    #[error("`{address}` {problem}")]
    Address {
        /// From `nodes.room` or `nodes.peer`.
        address: String,
        /// Why.
        problem: AddressProblem,
    },
    /// The system has no random numbers.
    #[error("the system gives no random numbers: {0}")]
    Random(getrandom::Error),
}

/// A backend that is bound and opened, and serves once it runs.
pub struct Backend {
    listener: TcpListener,
    local_addr: SocketAddr,
    identity: Option<Identity>,
    links: Links,
    access: Option<Access>,
    auth: Option<Auth>,
    lookup: Lookup,
    writing: Writing,
    room: Option<Owner>,
    peer: Option<Owner>,
    control: Control,
    store: Option<Arc<dyn Store>>,
    /// The owners' tasks, which stop before those that carry their answers.
    owner_tasks: TaskTracker,
    stop_owners: CancellationToken,
    tasks: TaskTracker,
}

/// Whether a backend is ready, asked from beside it. Cheap to clone.
#[derive(Clone)]
pub struct Readiness(Option<std::sync::Weak<crate::access::Inner>>);

impl Readiness {
    /// Ready to serve.
    ///
    /// # Errors
    /// What is missing, for a person.
    pub fn ready(&self) -> Result<(), String> {
        let Some(access) = &self.0 else { return Ok(()) };
        let Some(access) = Access::upgrade(access) else { return Err("stopped".to_owned()) };
        let lost = access.owners().unreachable();
        if lost.is_empty() { Ok(()) } else { Err(format!("not reached: {}", lost.join(", "))) }
    }
}

/// What the config lacks for a process to have these roles. [`Backend::start`] asks by itself.
#[must_use]
pub fn check_roles(config: &Config, roles: Roles) -> Vec<ConfigProblem> {
    let mut problems = Vec::new();
    for (role, nodes) in [(Role::Room, &config.nodes.room), (Role::Peer, &config.nodes.peer)] {
        if roles.has(Role::Access) && nodes.is_empty() && !roles.has(role) {
            let role = role.name();
            problems.push(ConfigProblem {
                key: format!("nodes.{role}"),
                problem: format!(
                    "is empty, so that access has no {role} to pass anything on to; list the \
                     addresses of processes with the role {role}, or give this one the role"
                ),
            });
        }
    }
    problems
}

impl Backend {
    /// Opens the store and binds the address. Must be called within a tokio runtime. The servers of a store that
    /// are not there yet are waited for.
    ///
    /// # Errors
    /// Where anything that the roles need cannot be had.
    pub async fn start(config: Config, roles: Roles) -> Result<Self, StartError> {
        Self::start_telling(config, roles, |_| {}).await
    }

    /// The same; `tell` is told what is waited for, again and again while it is.
    ///
    /// # Errors
    /// Where anything that the roles need cannot be had.
    pub async fn start_telling(
        config: Config,
        roles: Roles,
        tell: impl Fn(String),
    ) -> Result<Self, StartError> {
        let problems = check_roles(&config, roles);
        if !problems.is_empty() {
            return Err(StartError::Config(problems));
        }
        let addr = config.listen;
        let listen = |source| StartError::Listen { addr, source };
        // Bound, so that an address that is taken is told at once; not listened on before there is somebody to answer.
        let socket = bind(addr).map_err(listen)?;
        let local_addr = socket.local_addr().map_err(listen)?;
        let welcome = Welcome { backend: random()?, name: config.name.clone() };
        let links = Links::new(welcome);
        let (owner_tasks, stop_owners) = (TaskTracker::new(), CancellationToken::new());
        let store = if roles.has(Role::Room) || roles.has(Role::Peer) {
            Some(open_store(&config, &tell).await?)
        } else {
            None
        };
        let opened = open_directory(&config, &tell).await?;
        let (recorder, writing, lookup) = directory::start(opened);
        let listener = socket.listen(BACKLOG).map_err(listen)?;
        let start = |role, kind| {
            let store = store.as_ref().filter(|_| roles.has(role))?;
            let gateways: Arc<dyn Gateways> = Arc::new(links.clone());
            let (config, stop) = (owner_config(&config), stop_owners.clone());
            let (store, recorder) = (Arc::clone(store), Some(recorder.clone()));
            Some(Owner::start(config, kind, store, gateways, recorder, &owner_tasks, stop))
        };
        let room = start(Role::Room, Kind::Room);
        let peer = start(Role::Peer, Kind::Inbox);
        let tasks = TaskTracker::new();
        let rooms_per_session = Arc::new(AtomicUsize::new(config.rooms.per_session));
        let access = if roles.has(Role::Access) {
            let owners = owners(&config, local_addr, room.as_ref(), peer.as_ref())?;
            let rooms_max = Arc::clone(&rooms_per_session);
            Some(Access::new(owners, rooms_max, recorder, tasks.clone()))
        } else {
            None
        };
        links.connect(access.clone(), room.iter().chain(&peer).cloned().collect());
        let auth = match &access {
            Some(access) => {
                let key = TokenKey::random().map_err(StartError::Random)?;
                Some(Auth::new(config.auth, key, Arc::new(access.downgrade())))
            }
            None => None,
        };
        let owners = room.iter().chain(&peer).map(Owner::live_config).collect();
        let control = Control::new(owners, rooms_per_session, auth.clone());
        Ok(Self {
            listener,
            local_addr,
            identity: config.links,
            links,
            access,
            auth,
            lookup,
            writing,
            room,
            peer,
            control,
            store,
            owner_tasks,
            stop_owners,
            tasks,
        })
    }

    /// Where gateways and other backends dial to: the port that was given, where port 0 was asked for.
    #[must_use]
    pub const fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Changes it while it runs.
    #[must_use]
    pub fn control(&self) -> Control {
        self.control.clone()
    }

    /// Who is where.
    #[must_use]
    pub fn directory(&self) -> Lookup {
        self.lookup.clone()
    }

    /// For the health endpoint.
    #[must_use]
    pub fn readiness(&self) -> Readiness {
        Readiness(self.access.as_ref().map(Access::downgrade))
    }

    /// Serves until `shutdown`, and stops in order.
    ///
    /// # Errors
    /// Where the server fails, which it does not by anything that a peer does.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), tonic::transport::Error> {
        let stop_serving = CancellationToken::new();
        if let Some(access) = &self.access {
            for owner in access.owners().ids() {
                self.tasks.spawn(Owners::keep(access.clone(), owner, stop_serving.clone()));
            }
            self.tasks.spawn(access.clone().keep_time(stop_serving.clone()));
        }
        let link = LinkService::new(self.links.clone(), self.tasks.clone(), shutdown.clone());
        let uplinks = self.store.is_some().then(|| {
            let (room, peer) = (self.room.clone(), self.peer.clone());
            UplinkService::new(room, peer, self.tasks.clone(), shutdown.clone())
        });
        let router = http2::server()
            .add_service(BackendServer::new(link))
            .add_optional_service(uplinks.clone().map(RoomsServer::new))
            .add_optional_service(self.auth.map(AuthServer::new));
        let (limits, stopped) = (Limits::default(), stop_serving.clone().cancelled_owned());
        let stop = stop_serving.clone();
        let incoming = incoming(self.listener, self.identity, limits, &self.tasks, stop);
        let server = router.serve_with_incoming_shutdown(incoming, stopped);
        let mut server = self.tasks.spawn(server);
        let ended = tokio::select! {
            () = shutdown.cancelled() => Ok(()),
            // The server ends by itself only when it fails.
            ended = &mut server => ended.unwrap_or(Ok(())),
        };

        // 1. New links are refused from here on, by the services. The owners append and answer what
        //    they hold: what was acked is stored, and what is stored is acked where it can be.
        self.stop_owners.cancel();
        self.owner_tasks.close();
        if tokio::time::timeout(DRAIN, self.owner_tasks.wait()).await.is_err() {
            tracing::warn!("the owners did not stop in time; what they held is not acked");
        }
        // 2. The answers go out, and the links end: gateways tell clients to open anew.
        self.links.finish();
        if let Some(uplinks) = &uplinks {
            uplinks.finish();
        }
        // 3. The server ends with its last connection, or is ended.
        stop_serving.cancel();
        self.tasks.close();
        if tokio::time::timeout(FLUSH, self.tasks.wait()).await.is_err() {
            tracing::info!("peers did not close their connections in time");
            server.abort();
        }
        // 4. The last users of the directory go, and it is told that they have.
        self.links.disconnect();
        drop((self.access, self.room, self.peer, uplinks));
        self.writing.finish(LAST_WORDS).await;
        // 5. The store goes, and it closes; that blocks while it writes and syncs.
        let _ = tokio::task::spawn_blocking(move || drop(self.store)).await;
        ended
    }
}

fn bind(addr: SocketAddr) -> io::Result<TcpSocket> {
    let socket = if addr.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // As a listener has it that tokio binds by itself: a restart finds its address free.
    socket.set_reuseaddr(true)?;
    socket.bind(addr)?;
    Ok(socket)
}

fn random() -> Result<u64, StartError> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map_err(StartError::Random)?;
    Ok(u64::from_le_bytes(bytes))
}

/// A store on servers that are not there yet is waited for; `tell` learns why.
async fn open_store(config: &Config, tell: &impl Fn(String)) -> Result<Arc<dyn Store>, StartError> {
    match &config.store {
        StoreConfig::Embedded => {
            let place = format!("in {}", config.data_dir.display());
            let opened = open_embedded(config).await;
            Ok(Arc::new(opened.map_err(|source| StartError::Store { place, source })?))
        }
        StoreConfig::Redis(redis) => {
            let open = async || Redis::open(redis_options(redis).await?).await;
            Ok(Arc::new(once_there(redis, tell, open).await?))
        }
    }
}

/// As [`open_store`].
async fn open_directory(
    config: &Config,
    tell: &impl Fn(String),
) -> Result<Arc<dyn Directory>, StartError> {
    match &config.store {
        StoreConfig::Embedded => Ok(Arc::new(MemoryDirectory::default())),
        StoreConfig::Redis(redis) => {
            let open = async || RedisDirectory::open(redis_options(redis).await?).await;
            Ok(Arc::new(once_there(redis, tell, open).await?))
        }
    }
}

/// Opens what is on servers, once they are there.
async fn once_there<T>(
    redis: &RedisConfig,
    tell: &impl Fn(String),
    open: impl AsyncFn() -> Result<T, NotOpened>,
) -> Result<T, StartError> {
    let place = format!("on {}", redis.state);
    loop {
        match open().await {
            Ok(opened) => return Ok(opened),
            Err(NotOpened { error, may_pass: true }) => {
                tell(format!("waits for the store {place}: {error}"));
                tokio::time::sleep(STORE_PAUSE).await;
            }
            Err(NotOpened { error: source, .. }) => {
                return Err(StartError::Store { place, source });
            }
        }
    }
}

async fn open_embedded(config: &Config) -> Result<Embedded, StoreError> {
    let dir = config.data_dir.clone();
    let durability = match config.history_sync {
        HistorySync::Process => Durability::Process,
        HistorySync::Disk => Durability::Disk,
    };
    let options = EmbeddedOptions { durability, slot: config.slot, ..EmbeddedOptions::default() };
    let opened = tokio::task::spawn_blocking(move || Embedded::open(&dir, options)).await;
    opened.unwrap_or_else(|e| Err(StoreError::Unavailable(e.to_string())))
}

async fn redis_options(config: &RedisConfig) -> Result<RedisOptions, StoreError> {
    let RedisConfig { state, history, prefix, ca } = config.clone();
    let ca_pem = match ca {
        None => None,
        Some(ca) => {
            let pem = tokio::fs::read(&ca).await;
            let told = |e| {
                let ca = ca.display();
                StoreError::Unavailable(format!("cannot read {ca} (store.redis.ca): {e}"))
            };
            Some(pem.map_err(told)?)
        }
    };
    Ok(RedisOptions { history, prefix, ca_pem, ..RedisOptions::new(state) })
}

/// The owners that access passes things on to. One that is listed under this process's own address
/// is reached without a detour by the network.
fn owners(
    config: &Config,
    local_addr: SocketAddr,
    room: Option<&Owner>,
    peer: Option<&Owner>,
) -> Result<Owners, StartError> {
    let mut nodes = Vec::new();
    let roles = [(Role::Room, &config.nodes.room, room), (Role::Peer, &config.nodes.peer, peer)];
    for (role, listed, here) in roles {
        if let (true, Some(owner)) = (listed.is_empty(), here) {
            nodes.push(Node::here(role, String::new(), owner.clone()));
        }
        for address in listed {
            let own = address.parse() == Ok(local_addr) || address.parse() == Ok(config.listen);
            let node = match here {
                Some(owner) if own => Node::here(role, address.clone(), owner.clone()),
                _ => Node::there(role, address.clone(), dialler(config, address, role)?),
            };
            nodes.push(node);
        }
    }
    Ok(Owners::new(nodes, random()?))
}

fn dialler(config: &Config, address: &str, role: Role) -> Result<Dialler, StartError> {
    Dialler::new(address, config.name.clone(), role, config.links.as_ref())
        .map_err(|problem| StartError::Address { address: address.to_owned(), problem })
}
