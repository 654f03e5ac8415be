//! Where the instances of each backend are: turns the places of the config into addresses, as the registry
//! and name servers know them now, and tells gateway and backend when they change.

mod found;
mod tasks;

use std::{collections::BTreeMap, sync::Arc};

use anyhow::anyhow;
use edgeway_backend::{
    Placement, Role,
    config::{self, Nodes, Place, StoreConfig},
};
use edgeway_gateway::{Control as GatewayControl, config::Routing};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::stat::Stat;
use found::{Found, Known};

/// The places of each backend.
pub type Places = BTreeMap<String, Vec<Place>>;

/// See the module.
pub struct Discovery {
    gateway: Option<GatewayControl>,
    backend: Option<Placement>,
    store: StoreConfig,
    pace: config::Discovery,
    /// Links have certificates, so that they may lead to other machines.
    has_links: bool,
    state: Mutex<State>,
    /// What this process is in the registry, where no backend of it is there.
    me: Option<Stat>,
    /// Through which all loads are seen.
    stat: Stat,
    /// There may be names to be resolved, or a registry to be looked at.
    changed: Notify,
}

/// What the config says of a process's parts.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// Of a gateway: its backends, and where Sessions go.
    pub gateway: Option<(Places, Routing)>,
    /// Of a backend: the owners.
    pub nodes: Nodes,
}

#[derive(Default)]
struct State {
    wanted: Wanted,
    known: Known,
    /// What the parts were told last.
    told: Told,
}

#[derive(Default, PartialEq)]
struct Told {
    routing: Option<Routing>,
    nodes: Vec<(Role, Found)>,
}

impl Discovery {
    /// For these parts of a process. Nothing is found before [`Self::run`].
    pub fn new(
        gateway: Option<GatewayControl>,
        backend: Option<Placement>,
        store: StoreConfig,
        pace: config::Discovery,
        has_links: bool,
        wanted: Wanted,
        stat: Stat,
    ) -> Arc<Self> {
        let me = gateway.is_some().then(|| stat.clone());
        let state = Mutex::new(State { wanted, ..State::default() });
        let changed = Notify::new();
        Arc::new(Self { gateway, backend, store, pace, has_links, state, me, stat, changed })
    }

    /// Uses another config from now on.
    ///
    /// # Errors
    /// An address that cannot be dialled.
    pub fn change(&self, wanted: Wanted) -> anyhow::Result<()> {
        let mut state = self.state.lock();
        let before = std::mem::replace(&mut state.wanted, wanted);
        let told = self.tell(&mut state);
        if told.is_err() {
            state.wanted = before;
        }
        drop(state);
        self.changed.notify_one();
        told
    }

    fn learn(&self, learn: impl FnOnce(&mut Known)) {
        let mut state = self.state.lock();
        learn(&mut state.known);
        if let Err(error) = self.tell(&mut state) {
            tracing::warn!("what was found cannot be used: {error:#}");
        }
    }

    /// Tells the parts what has changed for them.
    fn tell(&self, state: &mut State) -> anyhow::Result<()> {
        let State { wanted, known, told } = state;
        if let (Some(gateway), Some((places, routing))) = (&self.gateway, &wanted.gateway) {
            let found = places.iter().map(|(name, places)| {
                let found = known.find(name, places);
                (name.clone(), found.addresses)
            });
            let routing = Routing { backends: found.collect(), ..routing.clone() };
            if told.routing.as_ref() != Some(&routing) {
                gateway.route(routing.clone()).map_err(|e| anyhow!(e))?;
                told.routing = Some(routing);
            }
        }
        if let Some(backend) = &self.backend {
            for (role, places) in of_owners(&wanted.nodes) {
                let found = known.find(role.name(), places);
                let old = told.nodes.iter().position(|(of, _)| *of == role);
                if !found.is_known || old.is_some_and(|at| told.nodes[at].1 == found) {
                    continue;
                }
                backend.set_nodes(role, &found.addresses, found.is_registered)?;
                told.nodes.retain(|(of, _)| *of != role);
                told.nodes.push((role, found));
            }
        }
        Ok(())
    }

    /// Whether each backend of a gateway has an instance.
    ///
    /// # Errors
    /// Says which has none.
    pub fn check(&self) -> Result<(), String> {
        let state = self.state.lock();
        let Some((places, _)) = &state.wanted.gateway else { return Ok(()) };
        let is_lost = |(name, places): &(&String, &Vec<Place>)| {
            state.known.find(name, places).addresses.is_empty()
        };
        let lost: Vec<_> = places.iter().filter(is_lost).map(|(name, _)| name.as_str()).collect();
        if lost.is_empty() {
            return Ok(());
        }
        Err(format!("no instance is found of {}", lost.join(", ")))
    }

    fn places(&self) -> Vec<Place> {
        let state = self.state.lock();
        let of_gateway =
            state.wanted.gateway.iter().flat_map(|(places, _)| places.values().flatten());
        let of_owners = of_owners(&state.wanted.nodes).map(|(_, places)| places);
        of_gateway.chain(of_owners.into_iter().flatten()).cloned().collect()
    }
}

fn of_owners(nodes: &Nodes) -> [(Role, &[Place]); 3] {
    [Role::Room, Role::Binary, Role::Peer].map(|role| (role, nodes.of(role)))
}
