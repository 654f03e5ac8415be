//! The calls of the registry: which processes live is on the server of the state.

use std::time::Duration;

use parking_lot::Mutex;
use redis::Cmd;

use super::{
    NotOpened, RedisServer, connect,
    error::{failed, unreadable},
    groups,
    keys::Keys,
    link::Link,
    script::Script,
    values,
};
use crate::store::StoreError;

/// A connection for the registry.
pub(crate) struct RedisCalls {
    link: Link,
    script: Script,
    keys: Keys,
    places: [String; 4],
    /// Whether it is known which store the server belongs to.
    marked: Mutex<bool>,
}

/// What is asked.
pub(crate) struct RegistryCall {
    /// `renew`, `look` or `leave`.
    pub(crate) what: &'static str,
    /// The instance; empty for one who only looks.
    pub(crate) id: String,
    /// What is told of it.
    pub(crate) record: String,
    /// What it has to do.
    pub(crate) load: String,
    /// How long it may be silent.
    pub(crate) lease: Duration,
    /// The list that is known already.
    pub(crate) known: String,
    /// Instances that there may be.
    pub(crate) most: usize,
}

impl RedisCalls {
    /// Connects, and checks that the server's schema is this version's, where it has one yet.
    pub(crate) async fn open(
        server: &RedisServer,
        prefix: &str,
        ca_pem: Option<&[u8]>,
    ) -> Result<Self, NotOpened> {
        let keys = Keys::new(prefix.to_owned());
        let link = connect("registry", server, ca_pem).await?;
        let places = ["due", "records", "loads", "clock"].map(|name| keys.registry(name));
        let marked = Mutex::new(groups::insist_on_mark(&keys, &link).await?);
        Ok(Self { link, script: Script::registry(), keys, places, marked })
    }

    /// What the script answers, as text.
    pub(crate) async fn registry(&self, call: &RegistryCall) -> Result<Vec<String>, StoreError> {
        if !*self.marked.lock() {
            let marked = groups::insist_on_mark(&self.keys, &self.link).await?;
            *self.marked.lock() = marked;
        }
        let place = &self.places[0];
        let args = |cmd: &mut Cmd| {
            let lease = u64::try_from(call.lease.as_millis()).unwrap_or(u64::MAX);
            cmd.arg(call.what).arg(&call.id).arg(&call.record).arg(&call.load);
            cmd.arg(lease).arg(&call.known).arg(call.most);
        };
        let answer = self.script.call(&self.link, &self.places, args).await;
        let answer = answer.map_err(|e| failed(&e, place))?;
        values::texts(answer).ok_or_else(|| unreadable("a list of instances", place))
    }
}
