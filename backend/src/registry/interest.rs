//! Who wants to know what all have to do. The list is sent when it has changed; loads change all the time, and
//! with a thousand instances are half a megabyte, so they are read while somebody wants them.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio::{sync::watch, time::timeout};

use super::View;

/// For how long loads are read after somebody has asked for them.
const LASTS: Duration = Duration::from_secs(10);
/// Loads that are younger are given at once.
const YOUNG: Duration = Duration::from_secs(1);
/// How long somebody who asks waits for younger ones.
const WAIT: Duration = Duration::from_secs(2);

/// Until when loads are read along with the list.
#[derive(Debug, Clone, Default)]
pub(super) struct Interest(Arc<Mutex<Option<Instant>>>);

impl Interest {
    pub(super) fn is_there(&self) -> bool {
        self.0.lock().is_some_and(|until| Instant::now() < until)
    }

    fn show(&self) {
        *self.0.lock() = Some(Instant::now() + LASTS);
    }
}

/// Looks at the loads of all instances. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Looker {
    view: watch::Receiver<Arc<View>>,
    interest: Interest,
}

impl Looker {
    pub(super) const fn new(view: watch::Receiver<Arc<View>>, interest: Interest) -> Self {
        Self { view, interest }
    }

    /// The list with loads of now; an older one where the registry does not answer, as
    /// [`View::read_at`] tells.
    pub async fn now(&mut self) -> Arc<View> {
        self.interest.show();
        let is_young = |view: &View| view.read_at.is_some_and(|at| at.elapsed() < YOUNG);
        let _ = timeout(WAIT, self.view.wait_for(|view| is_young(view))).await;
        self.view.borrow_and_update().clone()
    }

    /// The next list. It keeps the interest up as long as it is called. `None` where the registry is left.
    pub async fn next(&mut self) -> Option<Arc<View>> {
        loop {
            self.interest.show();
            match timeout(LASTS / 2, self.view.changed()).await {
                Ok(Ok(())) => return Some(self.view.borrow_and_update().clone()),
                Ok(Err(_)) => return None,
                Err(_) => {}
            }
        }
    }
}
