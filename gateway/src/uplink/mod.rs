//! Links to backends: which there are, whom they serve, and sending on them.

mod node;
mod pulse;
mod queue;
mod settle;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use edgeway_linktls::{AddressProblem, Identity, causes};
use edgeway_proto::{
    CloseCode,
    auth::{LoginRequest, LoginResponse, auth_client::AuthClient},
    link::{self, up_item::Item},
};
use parking_lot::{Mutex, RwLock};
use tokio::{runtime::Handle, sync::Notify};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use node::Node;
use queue::Queue;
pub use queue::Return;

use crate::{
    hub::Hub,
    routing::{self, Keys, PUBLISHERS, Policy, Route, Routing},
};

/// A link that stands.
#[derive(Debug)]
pub struct Link {
    /// Unique in the life of the gateway.
    pub id: u64,
    control: Arc<Queue>,
    bulk: Arc<Queue>,
}

impl Link {
    /// Sends an item of about `bytes` on a stream. False where there is no room or the link is
    /// gone.
    pub fn send(
        &self,
        stream: link::Stream,
        item: Item,
        bytes: usize,
        credit: Option<Return>,
    ) -> bool {
        // What an item takes beside its frames.
        let bytes = bytes.max(64);
        match stream {
            link::Stream::Control => self.control.push(item, bytes, credit),
            link::Stream::Bulk => self.bulk.push(item, bytes, credit),
        }
    }

    /// Whether nothing waits to be sent.
    fn is_idle(&self) -> bool {
        self.control.is_empty() && self.bulk.is_empty()
    }

    /// Whether it has ended.
    pub fn is_lost(&self) -> bool {
        self.control.is_closed() || self.bulk.is_closed()
    }
}

/// What is in use: changed as a whole.
#[derive(Debug)]
struct Table {
    routes: HashMap<Arc<str>, Arc<Route>>,
    login: String,
    backends: HashMap<String, Instances>,
}

impl Table {
    /// The backends that a route or the login names, and those that publish to the Sessions of another one.
    fn needed(&self) -> HashSet<&str> {
        let named = self.routes.values().map(|route| route.backend.as_str());
        let publish = PUBLISHERS.into_iter().filter(|name| self.backends.contains_key(*name));
        named.chain([self.login.as_str()]).chain(publish).collect()
    }
}

/// The instances of a backend, in the order of their addresses: the same on every gateway.
#[derive(Debug, Default)]
struct Instances {
    nodes: Vec<Arc<Node>>,
    hashes: Vec<u64>,
    turn: AtomicU64,
}

impl Instances {
    /// The first that can be reached, in the order of the policy.
    fn pick(&self, policy: Policy, key: u64) -> Option<(&Arc<Node>, Arc<Link>)> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let first = policy.first(&self.hashes, key, turn)?;
        let node = &self.nodes[first];
        if let Some(link) = node.link() {
            return Some((node, link));
        }
        let rest = policy.order(&self.hashes, key, turn).into_iter().map(|at| &self.nodes[at]);
        rest.into_iter().find_map(|node| Some((node, node.link()?)))
    }
}

/// Where a Session goes.
#[derive(Debug)]
pub struct Place {
    /// The link that serves it.
    pub link: Arc<Link>,
    /// The route that led there.
    pub route: Arc<Route>,
}

/// Why there is no place for a Session.
#[derive(Debug)]
pub struct NoPlace {
    /// For the client.
    pub code: CloseCode,
    /// For the client.
    pub reason: String,
}

/// All backends of a gateway.
#[derive(Debug)]
pub struct Links {
    table: RwLock<Arc<Table>>,
    kept: Mutex<Kept>,
    /// Sessions may have to move.
    changed: Notify,
    next: AtomicU64,
    gateway: u64,
    name: String,
    /// With which backends are dialled; none in the clear.
    identity: Option<Identity>,
}

/// The instances that links are kept to.
#[derive(Debug, Default)]
struct Kept {
    nodes: BTreeMap<String, Instance>,
    /// Those that no backend has any more, until their Sessions have gone.
    retiring: Vec<Instance>,
    /// Once links are dialled.
    running: Option<Running>,
}

#[derive(Debug, Clone)]
struct Running {
    hub: Arc<Hub>,
    tracker: TaskTracker,
    runtime: Handle,
    shutdown: CancellationToken,
}

/// Why the backends cannot be used as configured.
#[derive(Debug, thiserror::Error)]
#[error("backend address `{addr}` {problem}")]
pub struct AddressError {
    addr: String,
    problem: AddressProblem,
}

impl Links {
    /// The backends as configured; nothing is dialled yet.
    ///
    /// # Errors
    /// An address that is none, or one on another machine without an identity.
    pub fn new(
        gateway: u64,
        name: &str,
        routing: Routing,
        identity: Option<Identity>,
    ) -> Result<Arc<Self>, AddressError> {
        let mut kept = Kept::default();
        let (table, _) = kept.table(routing, identity.as_ref())?;
        Ok(Arc::new(Self {
            table: RwLock::new(Arc::new(table)),
            kept: Mutex::new(kept),
            changed: Notify::new(),
            next: AtomicU64::new(1),
            gateway,
            name: name.to_owned(),
            identity,
        }))
    }

    /// Keeps a link to every backend instance until `shutdown`.
    pub fn run(
        self: &Arc<Self>,
        hub: &Arc<Hub>,
        tracker: &TaskTracker,
        runtime: &Handle,
        shutdown: &CancellationToken,
    ) {
        let running = Running {
            hub: Arc::clone(hub),
            tracker: tracker.clone(),
            runtime: runtime.clone(),
            shutdown: shutdown.clone(),
        };
        let mut kept = self.kept.lock();
        for (node, stop) in kept.nodes.values() {
            self.spawn(&running, node, stop);
        }
        let (links, settling) = (Arc::clone(self), running.clone());
        tracker.spawn_on(async move { links.settle_always(&settling).await }, runtime);
        kept.running = Some(running);
    }

    /// Keeps a link to an instance, where that is not done already.
    fn spawn(self: &Arc<Self>, running: &Running, node: &Arc<Node>, stop: &CancellationToken) {
        if node.kept.swap(true, Ordering::AcqRel) {
            return;
        }
        let Running { hub, tracker, runtime, shutdown } = running.clone();
        let (links, node, stop) = (Arc::clone(self), Arc::clone(node), stop.clone());
        let keep = async move {
            let given_up = tokio::select! {
                () = links.keep(&node, &hub) => false,
                () = stop.cancelled() => true,
                () = shutdown.cancelled() => false,
            };
            if given_up && let Some(link) = node.link() {
                hub.retract_all(link.id);
                for session in hub.link_lost(link.id) {
                    session.close(CloseCode::BackendLost, "its backend is given up", 0);
                }
            }
            node.cut();
        };
        tracker.spawn_on(keep, &runtime);
    }

    /// Uses other routes and backends from now on. Sessions that they lead elsewhere are closed, for
    /// their clients to open them anew; all others stay. An instance that is not named any more is
    /// given up once its Sessions have gone.
    ///
    /// # Errors
    /// As of [`new`](Self::new); nothing has changed.
    pub fn apply(self: &Arc<Self>, routing: Routing) -> Result<(), AddressError> {
        let mut kept = self.kept.lock();
        let (table, gone) = kept.table(routing, self.identity.as_ref())?;
        *self.table.write() = Arc::new(table);
        if let Some(running) = &kept.running {
            for (node, stop) in kept.nodes.values() {
                self.spawn(running, node, stop);
            }
            for instance in &gone {
                let (links, instance, all) = (Arc::clone(self), instance.clone(), running.clone());
                let retire = async move { links.retire(&instance, &all).await };
                running.tracker.spawn_on(retire, &running.runtime);
            }
            kept.retiring.extend(gone);
        }
        drop(kept);
        self.changed.notify_one();
        Ok(())
    }

    /// The instances that cannot be reached now, with their backends.
    #[must_use]
    pub fn missing(&self) -> Vec<String> {
        let table = Arc::clone(&self.table.read());
        let mut missing: Vec<_> = table
            .backends
            .iter()
            .flat_map(|(name, all)| {
                let away = all.nodes.iter().filter(|node| node.link().is_none());
                away.map(move |node| format!("{name} at {}", node.addr))
            })
            .collect();
        missing.sort();
        missing
    }

    /// The backends that Sessions or logins need and of which no instance can be reached now, with their addresses.
    #[must_use]
    pub fn unserved(&self) -> Vec<String> {
        let table = Arc::clone(&self.table.read());
        let mut unserved = Vec::new();
        for name in table.needed() {
            let nodes = table.backends.get(name).map_or(&[][..], |all| &all.nodes);
            if nodes.iter().all(|node| node.link().is_none()) {
                let addrs: Vec<_> = nodes.iter().map(|node| node.addr.as_str()).collect();
                unserved.push(format!("{name} ({})", addrs.join(", ")));
            }
        }
        unserved.sort();
        unserved
    }

    /// The place of a Session among the instances that can be reached.
    ///
    /// # Errors
    /// What the client is to be told.
    pub fn place(&self, kind: &str, keys: &Keys) -> Result<Place, NoPlace> {
        let table = Arc::clone(&self.table.read());
        let Some(route) = table.routes.get(kind) else {
            let reason = format!("no route for Session type `{kind}`");
            return Err(NoPlace { code: CloseCode::NoRoute, reason });
        };
        let key = keys.of(&route.key).map_err(|problem| NoPlace {
            code: CloseCode::NoRoute,
            reason: format!("no route for this Session of type `{kind}`: {problem}"),
        })?;
        let instances = table.backends.get(&route.backend);
        match instances.and_then(|instances| instances.pick(route.policy, key)) {
            Some((_, link)) => Ok(Place { link, route: Arc::clone(route) }),
            None => Err(NoPlace {
                code: CloseCode::BackendUnavailable,
                reason: format!("backend `{}` cannot be reached", route.backend),
            }),
        }
    }

    /// Asks access who a login is.
    ///
    /// # Errors
    /// Access cannot be reached or does not answer in time.
    pub async fn login(&self, request: LoginRequest) -> Result<LoginResponse, String> {
        let channel = {
            let table = Arc::clone(&self.table.read());
            let instances = table.backends.get(&table.login);
            // The instance that has the user's Sessions knows the device.
            let key = routing::hash(&request.user);
            instances
                .and_then(|instances| instances.pick(Policy::ConsistentHash, key))
                .map(|(node, _)| node.channel.clone())
                .ok_or_else(|| format!("no instance of backend `{}` can be reached", table.login))?
        };
        AuthClient::new(channel)
            .login(request)
            .await
            .map(tonic::Response::into_inner)
            .map_err(|status| causes(&status))
    }
}

/// An instance and what ends its link.
type Instance = (Arc<Node>, CancellationToken);

impl Kept {
    /// The table of a config, of the instances that are there and new ones; and those that are in
    /// it no more. Changes nothing where an address is none.
    fn table(
        &mut self,
        routing: Routing,
        identity: Option<&Identity>,
    ) -> Result<(Table, Vec<Instance>), AddressError> {
        let Routing { routes, login, backends } = routing;
        let named: HashSet<&String> = backends.values().flatten().collect();
        let mut new = Vec::new();
        for addr in &named {
            if !self.nodes.contains_key(*addr) {
                let node = Arc::new(Node::new(addr, identity)?);
                new.push(((*addr).clone(), (node, CancellationToken::new())));
            }
        }
        self.nodes.extend(new);
        let mut gone = Vec::new();
        self.nodes.retain(|addr, entry| {
            let stays = named.contains(addr);
            if !stays {
                gone.push(entry.clone());
            }
            stays
        });
        let backends = backends
            .iter()
            .map(|(name, addrs)| {
                let mut addrs: Vec<_> = addrs.iter().collect();
                addrs.sort();
                addrs.dedup();
                let nodes = addrs.iter().filter_map(|addr| self.nodes.get(*addr));
                let instances = Instances {
                    nodes: nodes.map(|(node, _)| Arc::clone(node)).collect(),
                    hashes: addrs.iter().map(|addr| routing::hash(addr)).collect(),
                    turn: AtomicU64::new(0),
                };
                (name.clone(), instances)
            })
            .collect();
        let routes = routes.into_iter().map(|(kind, route)| (kind, Arc::new(route))).collect();
        Ok((Table { routes, login, backends }, gone))
    }
}
