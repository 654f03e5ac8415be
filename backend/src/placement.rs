//! What of a backend changes while it runs: where the owners are.

use std::{net::SocketAddr, sync::Arc};

use edgeway_linktls::Identity;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::{
    StartError,
    access::{Access, Node},
    config::Config,
    push::Pusher,
    registry::View,
    ring::Ring,
    roles::Role,
    shard::Owner,
    strokes::Rooms,
    uplink::Dialler,
};

/// Changes a backend while it runs. Cheap to clone.
#[derive(Clone)]
pub struct Placement {
    /// `None` once the backend ends.
    parts: Arc<Mutex<Option<Parts>>>,
    view: Option<watch::Receiver<Arc<View>>>,
}

struct Parts {
    own: Own,
    access: Option<Access>,
    /// How the owner of rooms reaches those of their strokes.
    rooms: Option<Rooms>,
    pusher: Option<Pusher>,
    owned: Owned,
}

/// The owners of this process.
#[derive(Clone, Default)]
pub(crate) struct Owned {
    pub(crate) room: Option<Owner>,
    pub(crate) binary: Option<Owner>,
    pub(crate) peer: Option<Owner>,
}

impl Owned {
    fn get(&self, role: Role) -> Option<&Owner> {
        match role {
            Role::Access | Role::Push => None,
            Role::Room => self.room.as_ref(),
            Role::Binary => self.binary.as_ref(),
            Role::Peer => self.peer.as_ref(),
        }
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = (Role, Owner)> + '_ {
        Role::ALL.into_iter().filter_map(|role| Some((role, self.get(role)?.clone())))
    }
}

/// This process, as others know it.
pub(crate) struct Own {
    name: String,
    listens: [SocketAddr; 2],
    address: String,
    /// With which owners are dialled; none in the clear.
    identity: Option<Identity>,
}

impl Own {
    pub(crate) fn new(config: &Config, local_addr: SocketAddr) -> Self {
        let address = config.advertise.clone().unwrap_or_else(|| local_addr.to_string());
        let listens = [local_addr, config.listen];
        Self { name: config.name.clone(), listens, address, identity: config.links.clone() }
    }

    /// Where others dial it.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    fn is_at(&self, address: &str) -> bool {
        address == self.address || address.parse().is_ok_and(|addr| self.listens.contains(&addr))
    }
}

impl Placement {
    pub(crate) fn new(
        own: Own,
        access: Option<Access>,
        rooms: Option<Rooms>,
        pusher: Option<Pusher>,
        owned: Owned,
        view: Option<watch::Receiver<Arc<View>>>,
    ) -> Self {
        let parts = Parts { own, access, rooms, pusher, owned };
        Self { parts: Arc::new(Mutex::new(Some(parts))), view }
    }

    /// Which processes live, where this one is in the registry.
    #[must_use]
    pub fn view(&self) -> Option<watch::Receiver<Arc<View>>> {
        self.view.clone()
    }

    /// The instances of a role are at these addresses now; where there are none, and this process has the
    /// role, it is the only one. `registered`: all know them from the registry, so that each owner takes only
    /// what is its own, and hands over what is not any more.
    ///
    /// # Errors
    /// An address that cannot be dialled; nothing has changed then.
    pub fn set_nodes(
        &self,
        role: Role,
        addresses: &[String],
        registered: bool,
    ) -> Result<(), StartError> {
        let parts = self.parts.lock();
        let Some(parts) = &*parts else { return Ok(()) };
        let here = parts.owned.get(role);
        if let Some(owner) = here {
            owner.set_ring(
                registered.then(|| Ring::new(parts.own.ring_address(addresses), addresses)),
            );
        }
        let alone = [String::new()];
        let only_here = addresses.is_empty() && here.is_some() && !registered;
        let names = if only_here { &alone[..] } else { addresses };
        let node = |address: &str| parts.own.node(role, address, here);
        if let Some(rooms) = &parts.rooms {
            rooms.set_owners(role, names, node)?;
        }
        if let Some(pusher) = &parts.pusher {
            pusher.set_owners(role, names, node)?;
        }
        if let Some(access) = &parts.access {
            access.set_owners(role, names, node)?;
        }
        Ok(())
    }

    /// Lets go of the backend's parts, so that they can end.
    pub(crate) fn disconnect(&self) {
        *self.parts.lock() = None;
    }
}

impl Own {
    /// Its own among these addresses; else the one that it tells others.
    fn ring_address<'a>(&'a self, addresses: &'a [String]) -> &'a str {
        addresses.iter().find(|address| self.is_at(address)).unwrap_or(&self.address)
    }

    /// An owner that is listed under this process's own address is reached without a detour by the
    /// network.
    fn node(&self, role: Role, address: &str, here: Option<&Owner>) -> Result<Node, StartError> {
        if let Some(owner) = here
            && (address.is_empty() || self.is_at(address))
        {
            return Ok(Node::here(role, address.to_owned(), owner.clone()));
        }
        let dialler = Dialler::new(address, self.name.clone(), role, self.identity.as_ref());
        let wrong = |problem| StartError::Address { address: address.to_owned(), problem };
        Ok(Node::there(role, address.to_owned(), dialler.map_err(wrong)?))
    }
}
