//! All connections of a gateway: counted, limited, watched and, at the end, drained.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
};

use parking_lot::Mutex;

use crate::{config::Limits, conn::Conn};

/// See the module.
#[derive(Debug, Default)]
pub struct Registry {
    conns: Mutex<HashMap<u64, Arc<Conn>>>,
    admitted: Mutex<Admitted>,
    devices: Mutex<HashMap<Arc<Device>, Holder>>,
    next: AtomicU64,
}

/// A user's device: it has one connection.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Device {
    /// The user.
    pub user: String,
    /// The device.
    pub device: String,
}

/// The connection that a device has.
#[derive(Debug)]
struct Holder {
    generation: u64,
    conn: Weak<Conn>,
}

#[derive(Debug, Default)]
struct Admitted {
    all: u64,
    by_ip: HashMap<IpAddr, u64>,
}

/// Why a connection is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The gateway has as many as it may have.
    Full,
    /// The address has.
    AddressFull,
}

impl Refusal {
    /// The label in metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Full => "connections",
            Self::AddressFull => "connections_per_ip",
        }
    }
}

impl Refusal {
    /// For a person.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Full => "the server has as many connections as it may have",
            Self::AddressFull => "this address has as many connections as it may have",
        }
    }
}

/// A connection's place among those let in, from its first packet on.
#[derive(Debug)]
pub struct Admission {
    registry: Arc<Registry>,
    ip: IpAddr,
}

impl Drop for Admission {
    fn drop(&mut self) {
        let mut admitted = self.registry.admitted.lock();
        admitted.all -= 1;
        if let Some(n) = admitted.by_ip.get_mut(&self.ip) {
            *n -= 1;
            if *n == 0 {
                admitted.by_ip.remove(&self.ip);
            }
        }
    }
}

/// A connection's entry; dropping it removes it.
#[derive(Debug)]
pub struct Entry<'a> {
    registry: &'a Registry,
    id: u64,
}

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        let conn = self.registry.conns.lock().remove(&self.id);
        let Some(conn) = conn else { return };
        let Some(device) = conn.device.get() else { return };
        let mut devices = self.registry.devices.lock();
        // A newer one may hold it by now.
        if devices.get(device).is_some_and(|h| Weak::as_ptr(&h.conn) == Arc::as_ptr(&conn)) {
            devices.remove(device);
        }
    }
}

impl Registry {
    /// Lets a connection of an address in, before anything is spent on it.
    ///
    /// # Errors
    /// A limit has been reached.
    pub fn admit(self: &Arc<Self>, ip: IpAddr, limits: &Limits) -> Result<Admission, Refusal> {
        let mut admitted = self.admitted.lock();
        if admitted.all >= limits.connections {
            return Err(Refusal::Full);
        }
        let of_ip = admitted.by_ip.entry(ip).or_default();
        if *of_ip >= limits.connections_per_ip {
            return Err(Refusal::AddressFull);
        }
        *of_ip += 1;
        admitted.all += 1;
        Ok(Admission { registry: Arc::clone(self), ip })
    }

    /// A number for a connection.
    pub fn next_id(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Enters a connection.
    pub fn add(&self, conn: &Arc<Conn>) -> Entry<'_> {
        self.conns.lock().insert(conn.id, Arc::clone(conn));
        Entry { registry: self, id: conn.id }
    }

    /// Makes a connection its device's. Gives back the one that is to be closed for it: an older one,
    /// or itself, where a newer one is there.
    pub fn hold(
        &self,
        conn: &Arc<Conn>,
        device: Arc<Device>,
        generation: u64,
    ) -> Option<Arc<Conn>> {
        let mut devices = self.devices.lock();
        if let Some(holder) = devices.get(&device)
            && holder.generation > generation
            && holder.conn.strong_count() > 0
        {
            return Some(Arc::clone(conn));
        }
        // A connection logs in once.
        let _ = conn.device.set(Arc::clone(&device));
        let holder = Holder { generation, conn: Arc::downgrade(conn) };
        let older = devices.insert(device, holder)?.conn.upgrade()?;
        (older.id != conn.id).then_some(older)
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.conns.lock().len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All of them.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Conn>> {
        self.conns.lock().values().cloned().collect()
    }
}
