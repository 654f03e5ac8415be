//! The task that renews the lease and reads the list.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    sync::{mpsc, watch},
    time::{MissedTickBehavior, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{Instance, Measure, Tenure, View, interest::Interest, lease::Lease};
use crate::{
    roles::Role,
    store::{RedisCalls, RegistryCall, StoreError},
};

/// Instances at most: each asks four times a lease, and gets all of the list when it has changed.
const INSTANCES: usize = 1024;
/// How long a process that stops may take to say so. Otherwise its lease ends.
const FAREWELL: Duration = Duration::from_secs(1);

pub(super) struct Task {
    calls: Arc<RedisCalls>,
    me: Option<(Instance, Measure)>,
    lease: Duration,
    view: watch::Sender<Arc<View>>,
    tenure: Arc<Tenure>,
    state: Lease,
    interest: Interest,
    failing: bool,
}

/// What the registry answers.
enum Answer {
    List { absent: bool, version: String, entries: Vec<[String; 3]> },
    Full,
}

type Answered = (Duration, Result<Answer, StoreError>);

impl Task {
    pub(super) fn new(
        calls: RedisCalls,
        me: Option<(Instance, Measure)>,
        lease: Duration,
        view: watch::Sender<Arc<View>>,
        tenure: Arc<Tenure>,
        interest: Interest,
    ) -> Self {
        let state = Lease::new(lease, tenure.now());
        Self { calls: Arc::new(calls), me, lease, view, tenure, state, interest, failing: false }
    }

    pub(super) async fn run(mut self, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(self.lease / 4);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // One call at a time; that it hangs must not keep this task from its ticks.
        let (answered, mut answers) = mpsc::channel::<Answered>(1);
        let mut calling = false;
        loop {
            let answer = tokio::select! {
                () = stop.cancelled() => break,
                answer = answers.recv() => answer,
                _ = ticks.tick() => None,
            };
            let now = self.tenure.now();
            self.state.tick(now);
            match answer {
                Some((sent, result)) => {
                    calling = false;
                    self.answered(sent, result);
                    self.tenure.seen(now, self.state.is_in_doubt());
                    if !self.state.is_in_doubt() {
                        continue;
                    }
                }
                None => self.tenure.seen(now, self.state.is_in_doubt()),
            }
            if !calling {
                calling = true;
                let call = self.call(if self.me.is_some() { "renew" } else { "look" });
                let (calls, answered) = (Arc::clone(&self.calls), answered.clone());
                tokio::spawn(async move {
                    let result = calls.registry(&call).await.and_then(Answer::read);
                    let _ = answered.send((now, result)).await;
                });
            }
        }
        self.tenure.end();
        if self.me.is_some() {
            let gone = timeout(FAREWELL, self.calls.registry(&self.call("leave"))).await;
            if !matches!(gone, Ok(Ok(_))) {
                tracing::warn!(
                    "the registry was not told of the end; the lease will end by itself"
                );
            }
        }
    }

    fn call(&self, what: &'static str) -> RegistryCall {
        let (id, record, load) = match &self.me {
            Some((me, measure)) => {
                let (load, report) = measure();
                (me.id(), me.record(), load.text(&report))
            }
            None => Default::default(),
        };
        // Who knows no version is sent all of the list.
        let known = match self.interest.is_there() {
            true => String::new(),
            false => self.view.borrow().version.clone(),
        };
        RegistryCall { what, id, record, load, lease: self.lease, known, most: INSTANCES }
    }

    fn answered(&mut self, sent: Duration, result: Result<Answer, StoreError>) {
        let problem = match result {
            Ok(Answer::List { absent, version, entries }) => {
                if std::mem::take(&mut self.failing) {
                    tracing::info!("the registry is back");
                }
                let lost = self.state.renewed(sent, absent);
                if lost && self.me.is_some() {
                    tracing::warn!(
                        "this process was out of the registry; others may have its rooms"
                    );
                    metrics::counter!("edgeway_registry_leases_lost_total").increment(1);
                    self.tenure.lost();
                }
                let is_new = version != self.view.borrow().version;
                if is_new || !entries.is_empty() {
                    self.publish(View::read(version, &entries), is_new);
                }
                return;
            }
            Ok(Answer::Full) => {
                format!("it has {INSTANCES} instances, which is all that it may have")
            }
            Err(error) => error.to_string(),
        };
        self.state.failed(sent);
        metrics::counter!("edgeway_registry_calls_failed_total").increment(1);
        if !std::mem::replace(&mut self.failing, true) {
            tracing::warn!(
                problem,
                "the registry does not take this process; the last list stays in use"
            );
        }
    }

    fn publish(&self, mut view: View, is_new: bool) {
        view.read_at = Some(Instant::now());
        if !is_new {
            self.view.send_replace(Arc::new(view));
            return;
        }
        if view.unreadable > self.view.borrow().unreadable {
            tracing::warn!(entries = view.unreadable, "the registry holds what is no instance");
        }
        metrics::gauge!("edgeway_registry_unreadable").set(view.unreadable as f64);
        for role in Role::ALL.map(Role::name) {
            let count = view.addresses(role).len();
            metrics::gauge!("edgeway_registry_instances", "role" => role).set(count as f64);
        }
        let all: Vec<_> = view.instances.iter().map(|one| one.address.as_str()).collect();
        tracing::info!(
            instances = all.join(" "),
            version = view.version,
            "the registry has changed"
        );
        self.view.send_replace(Arc::new(view));
    }
}

impl Answer {
    fn read(answer: Vec<String>) -> Result<Self, StoreError> {
        let (head, rest) = answer.split_at_checked(2).unwrap_or((&answer, &[]));
        let (entries, more) = rest.as_chunks::<3>();
        match head {
            [full] if full == "-1" => Ok(Self::Full),
            [absent, version] if more.is_empty() => Ok(Self::List {
                absent: absent == "1",
                version: version.clone(),
                entries: entries.to_vec(),
            }),
            _ => Err(StoreError::Corrupt {
                what: "an answer that cannot be read".to_owned(),
                place: "the registry".to_owned(),
            }),
        }
    }
}
