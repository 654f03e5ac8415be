//! The registry: which processes live, on the state server of the store. Each tells it of itself and gets
//! the list in one call of a script, four times a lease; who is not heard of for a lease is out of it.
//!
//! The server's clock decides, and only as far as it goes while it is asked (`registry.lua`). While the
//! registry is away, the last list stays in use.

mod lease;
mod task;
mod tenure;
#[cfg(test)]
mod tests;
mod view;

use std::{sync::Arc, time::Duration};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use self::task::Task;
pub use self::view::{Instance, Load, View};
pub(crate) use self::{tenure::Tenure, view::ADDRESS_BYTES};
use crate::{
    config::RedisConfig,
    store::{NotOpened, RedisCalls, read_ca},
};

/// What this process has to do now.
pub(crate) type Measure = Box<dyn Fn() -> Load + Send + Sync>;

/// A view of the registry, kept up to date by [`Registry::run`].
pub struct Registry {
    task: Task,
    view: watch::Receiver<Arc<View>>,
    tenure: Arc<Tenure>,
}

impl Registry {
    /// For a process that only looks.
    ///
    /// # Errors
    /// Where the server cannot be reached, does not let us in, or holds another schema.
    pub async fn look(config: &RedisConfig, lease: Duration) -> Result<Self, NotOpened> {
        Self::open(config, lease, None).await
    }

    /// For a process that others are to find, too.
    pub(crate) async fn join(
        config: &RedisConfig,
        lease: Duration,
        me: Instance,
        measure: Measure,
    ) -> Result<Self, NotOpened> {
        Self::open(config, lease, Some((me, measure))).await
    }

    async fn open(
        config: &RedisConfig,
        lease: Duration,
        me: Option<(Instance, Measure)>,
    ) -> Result<Self, NotOpened> {
        let ca = read_ca(config.ca.as_deref()).await?;
        let calls = RedisCalls::open(&config.state, &config.prefix, ca.as_deref()).await?;
        let (view_tx, view) = watch::channel(Arc::default());
        let tenure = Arc::new(Tenure::new(lease));
        let task = Task::new(calls, me, lease, view_tx, Arc::clone(&tenure));
        Ok(Self { task, view, tenure })
    }

    /// The list, as it changes.
    #[must_use]
    pub fn view(&self) -> watch::Receiver<Arc<View>> {
        self.view.clone()
    }

    /// What this process knows of its lease.
    pub(crate) fn tenure(&self) -> Arc<Tenure> {
        Arc::clone(&self.tenure)
    }

    /// Keeps the list, and this process in it, until `stop`; then takes it out.
    pub async fn run(self, stop: CancellationToken) {
        self.task.run(stop).await;
    }
}
