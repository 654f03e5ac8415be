//! Random sequences of calls, compared with the model.

use proptest::{
    prelude::*,
    strategy::ValueTree,
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};

use super::{model::Model, *};

const LOGS: usize = 4;

#[derive(Debug, Clone)]
enum Step {
    Append(Vec<Planned>),
    Read { log: usize, after: Seq, limit: usize, limit_bytes: usize, now_ms: u64 },
    Head(usize),
    State { log: usize, now_ms: u64 },
    Trim { log: usize, before: Seq },
    Reopen,
}

/// An append whose place depends on the log's last one.
#[derive(Debug, Clone)]
struct Planned {
    log: usize,
    next: Next,
    device: usize,
    id: u64,
    expires_ms: u64,
    key: usize,
    payload: String,
}

#[derive(Debug, Clone, Copy)]
enum Next {
    Counter(u64),
    Seal,
    /// May be older than what is there.
    Any(Seq),
}

fn seqs() -> impl Strategy<Value = Seq> {
    (0..5u64, 0..30u64).prop_map(|(epoch, counter)| Seq { epoch, counter })
}

fn times() -> impl Strategy<Value = u64> {
    NOW_MS - 3..NOW_MS + 3
}

fn planned() -> impl Strategy<Value = Planned> {
    let next = prop_oneof![
        20 => (1..4u64).prop_map(Next::Counter),
        2 => Just(Next::Seal),
        1 => seqs().prop_map(Next::Any),
    ];
    let expires_ms = prop_oneof![3 => Just(0), 1 => times()];
    let payload = prop_oneof![1 => Just(String::new()), 3 => "[a-z]{1,40}\\."];
    (0..LOGS, next, 0..4usize, any::<u64>(), expires_ms, 0..4usize, payload).prop_map(
        |(log, next, device, id, expires_ms, key, payload)| Planned {
            log,
            next,
            device,
            id,
            expires_ms,
            key,
            payload,
        },
    )
}

fn step() -> impl Strategy<Value = Step> {
    let read = (0..LOGS, seqs(), 0..6usize, 0..500usize, times()).prop_map(
        |(log, after, limit, limit_bytes, now_ms)| Step::Read {
            log,
            after,
            limit,
            limit_bytes,
            now_ms,
        },
    );
    prop_oneof![
        30 => prop::collection::vec(planned(), 1..5).prop_map(Step::Append),
        30 => read,
        10 => (0..LOGS).prop_map(Step::Head),
        10 => (0..LOGS, times()).prop_map(|(log, now_ms)| Step::State { log, now_ms }),
        5 => (0..LOGS, seqs()).prop_map(|(log, before)| Step::Trim { log, before }),
        1 => Just(Step::Reopen),
    ]
}

/// What is planned, with the places that follow from what is there.
fn place_of(planned: &[Planned], logs: &[LogId], model: &Model) -> Vec<Append> {
    let mut lasts = logs.iter().map(|log| model.head(*log).last).collect::<Vec<_>>();
    let mut appends = Vec::new();
    for plan in planned {
        let last = &mut lasts[plan.log];
        *last = match plan.next {
            Next::Counter(n) => Seq { epoch: last.epoch.max(1), counter: last.counter + n },
            Next::Seal => Seq { epoch: last.epoch + 1, counter: 0 },
            Next::Any(seq) => seq,
        };
        let log = logs[plan.log];
        if last.counter == 0 {
            appends.push(seal(log, last.epoch));
            continue;
        }
        let device = ["", "ann/a", "ann/b", "\u{e9}/c"][plan.device];
        let append = expiring(from_device(message(log, *last), device, plan.id), plan.expires_ms);
        let key = ["", "a-key", "b-key", "aa-key"][plan.key];
        appends.push(with_key(append, key, &plan.payload));
    }
    appends
}

fn by_group(batch: Vec<Append>) -> Vec<Vec<Append>> {
    let mut parts = std::collections::BTreeMap::<u64, Vec<Append>>::new();
    for append in batch {
        parts.entry(append.log.group).or_default().push(append);
    }
    parts.into_values().collect()
}

pub(crate) async fn random_sequences_behave_like_the_model(place: &Place) {
    const CASES: usize = 60;
    // The same sequences each time: a failure is found again.
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let mut store = place.open().await;
    for _ in 0..CASES {
        let steps = prop::collection::vec(step(), 1..120).new_tree(&mut runner).unwrap().current();
        store = run(place, store, &steps).await;
    }
}

async fn run(place: &Place, mut store: Arc<dyn Store>, steps: &[Step]) -> Arc<dyn Store> {
    let group = new_log(&*store, Class::Signal).await.group;
    let other = new_log(&*store, Class::Signal).await.group;
    let logs: [LogId; LOGS] = [
        LogId { group, class: Class::Signal },
        LogId { group, class: Class::Chat },
        LogId { group: other, class: Class::Signal },
        LogId { group: other, class: Class::Binary },
    ];
    let mut model = Model::default();
    for (number, step) in steps.iter().enumerate() {
        let told = || format!("step {number} of {steps:#?}");
        match step {
            Step::Append(planned) => {
                let batch = place_of(planned, &logs, &model);
                // Where one room of a batch is refused, what it has of others is stored or not.
                let parts = if model.fits(&batch) { vec![batch] } else { by_group(batch) };
                for part in parts {
                    let stored = match store.append(part.clone()).await {
                        Ok(()) => true,
                        Err(StoreError::Stale { .. }) => false,
                        Err(e) => panic!("{e}, {}", told()),
                    };
                    assert_eq!(stored, model.append(&part), "{}", told());
                }
            }
            Step::Read { log, after, limit, limit_bytes, now_ms } => {
                let log = logs[*log];
                let found = store.read(log, *after, *limit, *limit_bytes, *now_ms).await.unwrap();
                let expected = model.read(log, *after, (*limit, *limit_bytes), *now_ms);
                assert_eq!(found, expected, "{}", told());
            }
            Step::Head(log) => {
                let mut head = store.head(logs[*log]).await.unwrap();
                head.last_ids.sort_by(|a, b| a.device.cmp(&b.device));
                assert_eq!(head, model.head(logs[*log]), "{}", told());
            }
            Step::State { log, now_ms } => {
                let LogId { group, .. } = logs[*log];
                let found = store.state(group, *now_ms).await.unwrap();
                assert_eq!(found, model.state(group, *now_ms), "{}", told());
            }
            Step::Trim { log, before } => {
                store.trim(logs[*log], *before).await.unwrap();
                model.trim(logs[*log], *before);
            }
            Step::Reopen => store = place.reopen(store).await,
        }
    }
    store
}
