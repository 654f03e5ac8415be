//! Requests that come again: under the same `Idempotency-Key` they have one effect, and the answer of the first.
//!
//! What a process remembers here is bounded in count, bytes and time. Behind it the owner of each room knows
//! the ids of its messages, also when the request comes again to another process.

use std::{
    collections::{HashMap, VecDeque},
    future::Future,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::http::StatusCode;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::OnceCell;

use crate::problem::Problem;

/// How long an answer is remembered: longer than any caller's retries should last.
const KEEP: Duration = Duration::from_secs(600);
/// Answers, and the bytes that all may take.
const MAX: usize = 20_000;
const MAX_BYTES: usize = 32 << 20;
/// What one takes beside its answer.
const ENTRY_BYTES: usize = 200;

/// An answer that was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) body: Bytes,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Repeats(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    /// By the id of the request, which is of the API key and the Idempotency-Key.
    requests: HashMap<u64, Request>,
    order: VecDeque<(Instant, u64)>,
    bytes: usize,
}

#[derive(Debug, Clone)]
struct Request {
    digest: u64,
    answer: Arc<OnceCell<Answer>>,
    /// Of the answer, once it is counted.
    bytes: usize,
}

impl Repeats {
    /// The answer to a request: that of before, where it was answered; who comes meanwhile waits for it. The second
    /// value: it is a repeat. A problem that may pass is not remembered.
    pub(crate) async fn answer<F>(
        &self,
        (id, digest): (u64, u64),
        now: Instant,
        work: impl FnOnce() -> F,
    ) -> Result<(Answer, bool), Problem>
    where
        F: Future<Output = Result<Answer, Problem>>,
    {
        let cell = self.begin(id, digest, now)?;
        let mut repeat = true;
        let worked = cell.get_or_try_init(|| {
            repeat = false;
            work()
        });
        let answered = worked.await.cloned();
        if !repeat && let Ok(answer) = &answered {
            self.count(id, answer.body.len());
        }
        Ok((answered?, repeat))
    }

    fn begin(&self, id: u64, digest: u64, now: Instant) -> Result<Arc<OnceCell<Answer>>, Problem> {
        let mut known = self.0.lock();
        known.forget(now);
        let request = match known.requests.get(&id) {
            Some(request) if request.digest != digest => {
                return Err(edgeway_backend::push::PushError::Differs.into());
            }
            Some(request) => request.clone(),
            None => {
                let request = Request { digest, answer: Arc::default(), bytes: 0 };
                known.requests.insert(id, request.clone());
                known.order.push_back((now, id));
                known.bytes += ENTRY_BYTES;
                request
            }
        };
        known.tell();
        Ok(request.answer)
    }

    fn count(&self, id: u64, bytes: usize) {
        let mut known = self.0.lock();
        if let Some(request) = known.requests.get_mut(&id) {
            request.bytes = bytes;
            known.bytes += bytes;
        }
    }
}

impl Known {
    fn forget(&mut self, now: Instant) {
        while let Some((since, id)) = self.order.front().copied() {
            let old = now.saturating_duration_since(since) >= KEEP;
            if !old && self.order.len() < MAX && self.bytes < MAX_BYTES {
                break;
            }
            if !old {
                metrics::counter!("edgeway_push_repeats_forgotten_total").increment(1);
            }
            self.order.pop_front();
            if let Some(request) = self.requests.remove(&id) {
                self.bytes -= ENTRY_BYTES + request.bytes;
            }
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "32 MiB")]
    fn tell(&self) {
        metrics::gauge!("edgeway_push_repeats_bytes").set(self.bytes as f64);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn ok(body: &'static str) -> Result<Answer, Problem> {
        Ok(Answer { status: StatusCode::OK, body: Bytes::from_static(body.as_bytes()) })
    }

    #[tokio::test]
    async fn a_repeat_is_not_worked_on_and_gets_the_first_answer_also_where_it_comes_at_once() {
        let repeats = Repeats::default();
        let worked = AtomicUsize::new(0);
        let now = Instant::now();
        let ask = || {
            repeats.answer((1, 2), now, || async {
                worked.fetch_add(1, Ordering::Relaxed);
                tokio::task::yield_now().await;
                ok("first")
            })
        };
        let (one, two, three) = tokio::join!(ask(), ask(), ask());
        let all = [one, two, three].map(Result::unwrap);
        assert!(all.iter().all(|(answer, _)| answer.body == "first"));
        assert_eq!(all.iter().filter(|(_, repeat)| *repeat).count(), 2);
        assert!(ask().await.unwrap().1);
        assert_eq!(worked.load(Ordering::Relaxed), 1);
        let other = repeats.answer((1, 3), now, || async { ok("other") }).await;
        assert!(!other.unwrap_err().may_pass());
    }

    #[tokio::test]
    async fn what_failed_is_tried_again() {
        let repeats = Repeats::default();
        let now = Instant::now();
        let failed = repeats.answer((1, 2), now, || async { Err(Problem::unavailable("x")) });
        assert!(failed.await.unwrap_err().may_pass());
        // One whose caller went away in the middle is, too.
        let gone = repeats.answer((1, 2), now, std::future::pending);
        assert!(tokio::time::timeout(Duration::from_millis(1), gone).await.is_err());
        let (answer, repeat) = repeats.answer((1, 2), now, || async { ok("x") }).await.unwrap();
        assert!(answer.body == "x" && !repeat);
    }

    #[tokio::test]
    async fn answers_are_forgotten_after_a_time_and_the_oldest_above_count_or_bytes() {
        let repeats = Repeats::default();
        let start = Instant::now();
        let ask =
            async |id, now| repeats.answer((id, 0), now, || async { ok("x") }).await.unwrap().1;
        assert!(!ask(1, start).await);
        assert!(ask(1, start + KEEP - Duration::from_secs(1)).await);
        assert!(!ask(1, start + KEEP).await);
        let now = start + KEEP;
        for id in 2..2 + MAX as u64 {
            ask(id, now).await;
        }
        assert!(ask(2 + MAX as u64 - 1, now).await);
        assert!(!ask(1, now).await);
        assert!(repeats.0.lock().requests.len() <= MAX);
        let large = Bytes::from(vec![0; MAX_BYTES / 4]);
        for id in 0..100 {
            let answer = Answer { status: StatusCode::OK, body: large.clone() };
            repeats.answer((1_000_000 + id, 0), now, || async { Ok(answer) }).await.unwrap();
        }
        assert!(repeats.0.lock().bytes < MAX_BYTES + MAX_BYTES / 4 + ENTRY_BYTES);
    }
}
