//! The registry: which processes live, on the state server of the store. Each tells it of itself and gets
//! the list in one call of a script, four times a lease; who is not heard of for a lease is out of it.
//!
//! The server's clock decides, and only as far as it goes while it is asked (`registry.lua`). While the
//! registry is away, the last list stays in use.

mod interest;
mod lease;
mod task;
mod tenure;
#[cfg(test)]
mod tests;
mod view;

use std::{sync::Arc, time::Duration};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use self::{interest::Interest, task::Task};
pub use self::{
    interest::Looker,
    view::{Instance, Load, View},
};
pub(crate) use self::{tenure::Tenure, view::ADDRESS_BYTES};
use crate::{
    config::RedisConfig,
    store::{NotOpened, RedisCalls, read_ca},
};

/// What this process has to do now, and what else it tells of itself.
pub type Measure = Box<dyn Fn() -> (Load, String) + Send + Sync>;

/// A view of the registry, kept up to date by [`Registry::run`].
pub struct Registry {
    task: Task,
    view: watch::Receiver<Arc<View>>,
    tenure: Arc<Tenure>,
    interest: Interest,
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
    ///
    /// # Errors
    /// As [`Self::look`].
    pub async fn join(
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
        let interest = Interest::default();
        let task = Task::new(calls, me, lease, view_tx, Arc::clone(&tenure), interest.clone());
        Ok(Self { task, view, tenure, interest })
    }

    /// The list, as it changes.
    #[must_use]
    pub fn view(&self) -> watch::Receiver<Arc<View>> {
        self.view.clone()
    }

    /// For those who want to know what all have to do.
    #[must_use]
    pub fn looker(&self) -> Looker {
        Looker::new(self.view.clone(), self.interest.clone())
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
