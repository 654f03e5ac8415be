//! Links with gateways: the registry through which owners and access reach them.
//!
//! A gateway has one link with a backend process. A newer one, that a gateway dials before the end
//! of the older was seen here, ends the older.

mod link;
mod service;

use std::{collections::HashMap, sync::Arc};

use edgeway_proto::link::{Hello, Stream, Welcome, down_item::Item};
use parking_lot::{Mutex, RwLock};
use tonic::Status;

use self::link::LinkMeters;
pub(crate) use self::{link::Link, service::LinkService};
use crate::{
    access::Access,
    shard::{Gateways, Owner},
};

/// The links of this process.
#[derive(Clone)]
pub(crate) struct Links(Arc<Registry>);

struct Registry {
    welcome: Welcome,
    /// By gateway.
    links: RwLock<HashMap<u64, Arc<Link>>>,
    /// Held while a link begins or ends, so that a gateway's new link begins after the end of the
    /// old one has been told to everyone.
    turnover: Mutex<()>,
    meters: LinkMeters,
    /// `None` before the start and after the stop: they hold these links, too.
    users: RwLock<Option<Arc<Users>>>,
}

/// Who must know that a link is gone.
struct Users {
    access: Option<Access>,
    owners: Vec<Owner>,
}

impl Links {
    /// No links yet. `welcome` is what gateways are told of this process.
    pub(crate) fn new(welcome: Welcome) -> Self {
        Self(Arc::new(Registry {
            welcome,
            links: RwLock::default(),
            turnover: Mutex::default(),
            meters: LinkMeters::new(),
            users: RwLock::default(),
        }))
    }

    /// Names who must know that a link is gone. Once, before the first link.
    pub(crate) fn connect(&self, access: Option<Access>, owners: Vec<Owner>) {
        *self.0.users.write() = Some(Arc::new(Users { access, owners }));
    }

    /// Forgets them, so that they can end.
    pub(crate) fn disconnect(&self) {
        *self.0.users.write() = None;
    }

    /// Links that there are.
    pub(crate) fn len(&self) -> usize {
        self.0.links.read().len()
    }

    fn access(&self) -> Option<Access> {
        self.0.users.read().as_ref().and_then(|users| users.access.clone())
    }

    /// The link that a stream's hello names; the first of its streams makes it.
    fn attach(&self, hello: &Hello) -> Result<Arc<Link>, Status> {
        let stream = Stream::try_from(hello.stream)
            .map_err(|_| Status::invalid_argument("hello.stream must be CONTROL or BULK"))?;
        let _turnover = self.0.turnover.lock();
        let current = self.0.links.read().get(&hello.gateway).cloned();
        let link = match current {
            Some(link) if link.number == hello.link => link,
            Some(older) => {
                self.end_locked(&older, &Status::aborted("the gateway has a newer link"));
                self.begin(hello)
            }
            None => self.begin(hello),
        };
        if !link.attach(stream) {
            return Err(Status::already_exists("this stream of the link is open already"));
        }
        Ok(link)
    }

    fn begin(&self, hello: &Hello) -> Arc<Link> {
        let link = Link::new(hello, &self.0.welcome, &self.0.meters);
        let mut links = self.0.links.write();
        links.insert(hello.gateway, Arc::clone(&link));
        metrics::gauge!("edgeway_backend_links").set(links.len() as f64);
        drop(links);
        if let Some(users) = self.0.users.read().clone() {
            users.owners.iter().for_each(|owner| owner.gateway_came(hello.gateway));
        }
        link
    }

    /// Takes a link out and tells everyone. More than once is no harm.
    fn end(&self, link: &Arc<Link>, status: &Status) {
        let _turnover = self.0.turnover.lock();
        self.end_locked(link, status);
    }

    fn end_locked(&self, link: &Arc<Link>, status: &Status) {
        link.cut(status.clone());
        let current = self.0.links.read().get(&link.gateway).cloned();
        if !current.is_some_and(|current| Arc::ptr_eq(&current, link)) {
            return;
        }
        let users = self.0.users.read().clone();
        if let Some(users) = users {
            for owner in &users.owners {
                owner.gateway_gone(link.gateway);
            }
            if let Some(access) = &users.access {
                access.link_gone(link);
            }
        }
        let mut links = self.0.links.write();
        links.remove(&link.gateway);
        metrics::gauge!("edgeway_backend_links").set(links.len() as f64);
    }

    /// Lets out what is queued for every gateway, and ends the links.
    pub(crate) fn finish(&self) {
        for link in self.0.links.read().values() {
            link.finish();
        }
    }
}

impl Gateways for Links {
    fn send(&self, gateway: u64, stream: Stream, item: Item) -> bool {
        self.0.links.read().get(&gateway).is_some_and(|link| link.push(stream, item))
    }

    fn send_all(&self, gateway: u64, stream: Stream, items: &mut Vec<Item>) -> bool {
        let links = self.0.links.read();
        let Some(link) = links.get(&gateway) else {
            items.clear();
            return false;
        };
        link.push_all(stream, items)
    }

    fn connected(&self, gateway: u64) -> bool {
        self.0.links.read().get(&gateway).is_some_and(|link| link.open())
    }
}
