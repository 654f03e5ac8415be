//! One backend process: the sole place where its parts are put together.

mod check;

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use edgeway_events::{Events, Writer};
use edgeway_filter::Filter;
use edgeway_linktls::{AddressProblem, Identity, Limits, incoming};
use edgeway_proto::{
    auth::auth_server::AuthServer,
    link::{Welcome, backend_server::BackendServer},
    rooms::rooms_server::RoomsServer,
};
use tokio::{
    net::{TcpListener, TcpSocket},
    sync::watch,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    access::{Access, Owners, User},
    auth::{Auth, TokenKey},
    config::{Config, ConfigProblem, HistorySync, Place, RedisConfig, Retention, StoreConfig},
    control::{Control, owner_config},
    directory::{self, Directory, Lookup, MemoryDirectory, Writing},
    everywhere::Everywhere,
    http2,
    links::{LinkService, Links},
    placement::{Own, Owned, Placement},
    push::{Pusher, WeakPusher},
    registry::{Instance, Load, Looker, Measure, Registry, View},
    retention,
    roles::{Role, Roles},
    room::Kind,
    shard::{Environment, Gateways, Owner, StrokeOwners},
    store::{
        Durability, Embedded, EmbeddedOptions, NotOpened, Redis, RedisDirectory, RedisOptions,
        Store, StoreError, read_ca,
    },
    strokes::Rooms,
    uplink::UplinkService,
};

pub use check::check_roles;

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
    /// The directory cannot be used.
    #[error("cannot open the directory {place}: {source}")]
    Directory {
        /// `on` a server.
        place: String,
        /// Why.
        source: StoreError,
    },
    /// The registry cannot be used.
    #[error("cannot use the registry {place}: {source}")]
    Registry {
        /// `on` a server.
        place: String,
        /// Why.
        source: StoreError,
    },
    /// An owner's address cannot be dialled.
    #[error("`{address}` {problem}")]
    Address {
        /// From `nodes.room`, `nodes.binary` or `nodes.peer`.
        address: String,
        /// Why.
        problem: AddressProblem,
    },
    /// Events cannot be written.
    #[error(transparent)]
    Events(#[from] edgeway_events::StartError),
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
    owned: Owned,
    /// How the owner of rooms reaches those of their strokes.
    rooms: Option<Rooms>,
    pusher: Option<Pusher>,
    everywhere: Option<Everywhere>,
    control: Control,
    store: Option<Arc<dyn Store>>,
    retention: Retention,
    registry: Option<Registry>,
    placement: Placement,
    /// Ends with the process.
    events: Writer,
    /// The owners' tasks, which stop before those that carry their answers.
    owner_tasks: TaskTracker,
    stop_owners: CancellationToken,
    tasks: TaskTracker,
}

/// Whether a backend is ready, asked from beside it. Cheap to clone.
#[derive(Clone)]
pub struct Readiness {
    access: Option<std::sync::Weak<crate::access::Inner>>,
    strokes: Option<std::sync::Weak<Owners>>,
    push: Option<std::sync::Weak<Owners>>,
    view: Option<watch::Receiver<Arc<View>>>,
}

impl Readiness {
    /// Ready to serve.
    ///
    /// # Errors
    /// What is missing, for a person.
    pub fn ready(&self) -> Result<(), String> {
        if self.view.as_ref().is_some_and(|view| !view.borrow().is_known()) {
            return Err("not in the registry yet".to_owned());
        }
        let mut lost = Vec::new();
        if let Some(access) = &self.access {
            let Some(access) = Access::upgrade(access) else { return Err("stopped".to_owned()) };
            lost = access.owners().unreachable();
        }
        let others = [&self.strokes, &self.push].into_iter().flatten();
        for others in others.filter_map(std::sync::Weak::upgrade) {
            let more = others.unreachable().into_iter().filter(|name| !lost.contains(name));
            lost.extend(more.collect::<Vec<_>>());
        }
        if lost.is_empty() { Ok(()) } else { Err(format!("not reached: {}", lost.join(", "))) }
    }
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
        let owns = [Role::Room, Role::Binary, Role::Peer].into_iter().any(|role| roles.has(role));
        // Who sees nothing that users do takes no directory for it.
        let (events, writer) = if owns || roles.has(Role::Access) {
            Events::start(config.events.clone())?
        } else {
            Default::default()
        };
        let store = if owns { Some(open_store(&config, &tell).await?) } else { None };
        let filter = Arc::new(Filter::default());
        let mut everywhere = None;
        if let Some(store) = store.as_ref().filter(|_| roles.has(Role::Room)) {
            let mut rules = Everywhere::new(Arc::clone(store), Arc::clone(&filter));
            // Before anybody can speak.
            rules.look().await;
            everywhere = Some(rules);
        }
        let opened = open_directory(&config, &tell).await?;
        let (recorder, writing, lookup) = directory::start(opened);
        let start = |role, kind, strokes: Option<Arc<dyn StrokeOwners>>| {
            let store = store.as_ref().filter(|_| roles.has(role))?;
            let gateways: Arc<dyn Gateways> = Arc::new(links.clone());
            let (store, recorder) = (Arc::clone(store), Some(recorder.clone()));
            let environment = Environment { store, gateways, strokes, recorder };
            let (mut config, stop) = (owner_config(&config, &filter), stop_owners.clone());
            config.events = events.clone();
            Some(Owner::start(config, kind, environment, &owner_tasks, stop))
        };
        let mut owned = Owned {
            binary: start(Role::Binary, Kind::Strokes, None),
            peer: start(Role::Peer, Kind::Inbox, None),
            room: None,
        };
        let tasks = TaskTracker::new();
        // By the config, which all processes share, and not by who is there now.
        let apart = roles.has(Role::Binary) || !config.nodes.binary.is_empty();
        let mut rooms = None;
        if roles.has(Role::Room) && apart {
            let strokes = Arc::new(Owners::new(random()?, vec![Role::Binary], tasks.clone()));
            owned.room = start(Role::Room, Kind::Apart, Some(Arc::clone(&strokes) as Arc<_>));
            rooms = owned.room.as_ref().map(|room| Rooms::new(strokes, room.downgrade()));
        } else {
            owned.room = start(Role::Room, Kind::Room, None);
        }
        let rooms_per_session = Arc::new(AtomicUsize::new(config.rooms.per_session));
        let access = if roles.has(Role::Access) {
            let mut owned = vec![Role::Room, Role::Peer];
            owned.extend(apart.then_some(Role::Binary));
            let owners = Owners::new(random()?, owned, tasks.clone());
            let (rooms_max, tasks) = (Arc::clone(&rooms_per_session), tasks.clone());
            Some(Access::new(owners, rooms_max, recorder.clone(), tasks, events.clone()))
        } else {
            None
        };
        let pusher = if roles.has(Role::Push) {
            Some(Pusher::new(Owners::new(random()?, vec![Role::Room, Role::Peer], tasks.clone())))
        } else {
            None
        };
        let own = Own::new(&config, local_addr);
        let me = Instance {
            run: random()?,
            address: own.address().to_owned(),
            roles: roles.names(),
            name: config.name.clone(),
            load: Load::default(),
            report: String::new(),
        };
        let registry = join_registry(&config, &me, &tell, || {
            let measure = measure(links.clone(), access.as_ref(), &owned);
            let report = config.report.clone();
            Box::new(move || (measure(), report.text()))
        });
        let registry = registry.await?;
        if let Some(registry) = &registry {
            owned.all().for_each(|(_, owner)| owner.guard(registry.tenure()));
        }
        let view = registry.as_ref().map(Registry::view);
        let (for_access, for_rooms) = (access.clone(), rooms.clone());
        let for_push = pusher.clone();
        let placement = Placement::new(own, for_access, for_rooms, for_push, owned.clone(), view);
        for role in [Role::Room, Role::Binary, Role::Peer] {
            let places = config.nodes.of(role);
            // Those that are to be found are told of once they are.
            if places.iter().all(Place::is_fixed) {
                let addresses: Vec<_> = places.iter().map(ToString::to_string).collect();
                placement.set_nodes(role, &addresses, false)?;
            }
        }
        let listener = socket.listen(BACKLOG).map_err(listen)?;
        links.connect(access.clone(), owned.all().map(|(_, owner)| owner).collect());
        let auth = match &access {
            Some(access) => {
                let key = TokenKey::random().map_err(StartError::Random)?;
                Some(Auth::new(config.auth, key, Arc::new(access.downgrade())))
            }
            None => None,
        };
        let owners = owned.all().map(|(_, owner)| owner.live_config()).collect();
        let control = Control::new(owners, rooms_per_session, auth.clone(), filter);
        Ok(Self {
            listener,
            local_addr,
            retention: config.retention,
            identity: config.links,
            links,
            access,
            auth,
            lookup,
            writing,
            owned,
            rooms,
            pusher,
            everywhere,
            control,
            store,
            registry,
            placement,
            events: writer,
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

    /// Changes where the owners are while it runs.
    #[must_use]
    pub fn placement(&self) -> Placement {
        self.placement.clone()
    }

    /// Who is where.
    #[must_use]
    pub fn directory(&self) -> Lookup {
        self.lookup.clone()
    }

    /// What business systems ask of rooms and inboxes, where this process has the role push.
    #[must_use]
    pub fn pusher(&self) -> Option<WeakPusher> {
        self.pusher.as_ref().map(Pusher::downgrade)
    }

    /// Looks at the loads of all instances, where this one is in the registry.
    #[must_use]
    pub fn looker(&self) -> Option<Looker> {
        self.registry.as_ref().map(Registry::looker)
    }

    /// For the health endpoint.
    #[must_use]
    pub fn readiness(&self) -> Readiness {
        Readiness {
            access: self.access.as_ref().map(Access::downgrade),
            strokes: self.rooms.as_ref().map(Rooms::owners_weak),
            push: self.pusher.as_ref().map(Pusher::owners_weak),
            view: self.placement.view(),
        }
    }

    /// Serves until `shutdown`, and stops in order.
    ///
    /// # Errors
    /// Where the server fails, which it does not by anything that a peer does.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), tonic::transport::Error> {
        let stop_serving = CancellationToken::new();
        if let Some(rooms) = &self.rooms {
            Owners::keep_all(rooms, &stop_serving);
        }
        if let Some(everywhere) = self.everywhere {
            self.owner_tasks.spawn(everywhere.run(self.stop_owners.clone()));
        }
        if let Some(store) = &self.store {
            let sweeping =
                retention::run(Arc::clone(store), self.retention, self.stop_owners.clone());
            self.owner_tasks.spawn(sweeping);
        }
        if let Some(pusher) = &self.pusher {
            Owners::keep_all(pusher, &stop_serving);
        }
        if let Some(access) = &self.access {
            access.run(&stop_serving);
        }
        let (leave, left) = (CancellationToken::new(), TaskTracker::new());
        if let Some(registry) = self.registry {
            left.spawn(registry.run(leave.clone()));
        }
        let link = LinkService::new(self.links.clone(), self.tasks.clone(), shutdown.clone());
        let uplinks = self
            .store
            .is_some()
            .then(|| UplinkService::new(self.owned.all(), self.tasks.clone(), shutdown.clone()));
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

        // 1. Others are told, so that those who are sent away find the next owners.
        leave.cancel();
        left.close();
        left.wait().await;
        // 2. New links are refused from here on, by the services. The owners append and answer what
        //    they hold: what was acked is stored, and what is stored is acked where it can be. Then they
        //    tell members that their rooms are elsewhere.
        self.stop_owners.cancel();
        self.owner_tasks.close();
        if tokio::time::timeout(DRAIN, self.owner_tasks.wait()).await.is_err() {
            tracing::warn!("the owners did not stop in time; what they held is not acked");
        }
        // 3. The answers go out, and the links end: gateways tell clients to open anew.
        self.links.finish();
        if let Some(uplinks) = &uplinks {
            uplinks.finish();
        }
        // 4. The server ends with its last connection, or is ended.
        stop_serving.cancel();
        self.tasks.close();
        if tokio::time::timeout(FLUSH, self.tasks.wait()).await.is_err() {
            tracing::info!("peers did not close their connections in time");
            server.abort();
        }
        // 5. The last users of the directory go, and it is told that they have.
        self.links.disconnect();
        self.placement.disconnect();
        drop((self.access, self.owned, self.rooms, self.pusher, uplinks));
        self.writing.finish(LAST_WORDS).await;
        // 6. The store and the events go, and both close; that blocks while they write and sync.
        let (store, events) = (self.store, self.events);
        let close = move || {
            events.stop();
            drop(store);
        };
        let _ = tokio::task::spawn_blocking(close).await;
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
            let place = format!("on {}", redis.state);
            let open = || async move { Redis::open(redis_options(redis).await?).await };
            match once_there(&format!("the store {place}"), tell, open).await {
                Ok(store) => Ok(Arc::new(store)),
                Err(source) => Err(StartError::Store { place, source }),
            }
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
            let place = format!("on {}", redis.state);
            let open = || async move { RedisDirectory::open(redis_options(redis).await?).await };
            match once_there(&format!("the directory {place}"), tell, open).await {
                Ok(directory) => Ok(Arc::new(directory)),
                Err(source) => Err(StartError::Directory { place, source }),
            }
        }
    }
}

/// Opens what is on servers. Where they are not there yet, they are waited for.
async fn once_there<T, F>(
    what: &str,
    tell: &impl Fn(String),
    open: impl Fn() -> F,
) -> Result<T, StoreError>
where
    F: Future<Output = Result<T, NotOpened>>,
{
    loop {
        match open().await {
            Err(NotOpened { error, may_pass: true }) => {
                tell(format!("waits for {what}: {error}"));
                tokio::time::sleep(STORE_PAUSE).await;
            }
            opened => return opened.map_err(|not| not.error),
        }
    }
}

/// The registry, where others are to find this process there.
async fn join_registry(
    config: &Config,
    me: &Instance,
    tell: &impl Fn(String),
    measure: impl Fn() -> Measure,
) -> Result<Option<Registry>, StartError> {
    let StoreConfig::Redis(redis) = &config.store else { return Ok(None) };
    if !config.registers {
        return Ok(None);
    }
    let place = format!("on {}", redis.state);
    let join = || Registry::join(redis, config.discovery.lease, me.clone(), measure());
    match once_there(&format!("the registry {place}"), tell, join).await {
        Ok(registry) => Ok(Some(registry)),
        Err(source) => Err(StartError::Registry { place, source }),
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
    let ca_pem = read_ca(ca.as_deref()).await?;
    Ok(RedisOptions { history, prefix, ca_pem, ..RedisOptions::new(state) })
}

/// What this process has to do, asked for as long as its parts are there.
fn measure(
    links: Links,
    access: Option<&Access>,
    owned: &Owned,
) -> impl Fn() -> Load + Send + Sync + use<> {
    let access = access.map(Access::downgrade);
    let rooms: Vec<_> = owned.all().map(|(_, owner)| owner.rooms_gauge()).collect();
    move || Load {
        connections: links.len() as u64,
        sessions: access.as_ref().and_then(Access::upgrade).map_or(0, |a| a.sessions() as u64),
        rooms: rooms.iter().map(|rooms| rooms.load(Ordering::Relaxed) as u64).sum(),
    }
}
