//! How often a stream of a link takes a message.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::time::{Instant, Sleep, sleep_until};
use tokio_stream::Stream;

/// The least time between two messages while many come; tokio's timer makes it two to three milliseconds.
const PAUSE: Duration = Duration::from_millis(2);
/// Many come where one follows the last within this time.
const MANY: Duration = Duration::from_millis(4);

/// A stream whose items are batches of what has gathered, taken each two to three milliseconds while much comes, and
/// at once else. As network cards moderate their interrupts: with thousands of messages a second for as many
/// connections, a batch for each would cost a write, a read and several wakes of threads for each.
///
/// For strokes and chat. What is urgent travels on streams that are not paced.
#[derive(Debug)]
pub struct Paced<S> {
    stream: S,
    last: Option<Instant>,
    /// Made when it is needed first, and used again.
    pause: Option<Pin<Box<Sleep>>>,
    pausing: bool,
}

impl<S> Paced<S> {
    /// Paces a stream that has, by the lower bound of its size, more to give where a batch could not hold all:
    /// then nothing is gained by a pause.
    pub fn new(stream: S) -> Self {
        Self { stream, last: None, pause: None, pausing: false }
    }

    fn pause_until(&mut self, end: Instant) {
        match &mut self.pause {
            Some(pause) => pause.as_mut().reset(end),
            None => self.pause = Some(Box::pin(sleep_until(end))),
        }
        self.pausing = true;
    }
}

impl<S: Stream + Unpin> Stream for Paced<S> {
    type Item = S::Item;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<S::Item>> {
        let this = self.get_mut();
        if this.pausing
            && let Some(pause) = &mut this.pause
        {
            ready!(pause.as_mut().poll(cx));
            this.pausing = false;
        }
        let item = ready!(Pin::new(&mut this.stream).poll_next(cx));
        let now = Instant::now();
        let many = this.last.replace(now).is_some_and(|last| now - last < MANY);
        if many && this.stream.size_hint().0 == 0 {
            this.pause_until(now + PAUSE);
        }
        Poll::Ready(item)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.stream.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use tokio::{sync::mpsc, time::sleep};
    use tokio_stream::StreamExt;

    use super::*;

    /// Batches of what has gathered, of two at most.
    struct Batches(mpsc::UnboundedReceiver<u32>);

    impl Stream for Batches {
        type Item = Vec<u32>;

        fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Vec<u32>>> {
            let mut batch = Vec::new();
            while batch.len() < 2 {
                match self.0.poll_recv(cx) {
                    Poll::Ready(Some(n)) => batch.push(n),
                    Poll::Ready(None) if batch.is_empty() => return Poll::Ready(None),
                    Poll::Pending if batch.is_empty() => return Poll::Pending,
                    _ => break,
                }
            }
            Poll::Ready(Some(batch))
        }

        fn size_hint(&self) -> (usize, Option<usize>) {
            (self.0.len().div_ceil(2), None)
        }
    }

    fn paced() -> (mpsc::UnboundedSender<u32>, Paced<Batches>) {
        let (tx, rx) = mpsc::unbounded_channel();
        (tx, Paced::new(Batches(rx)))
    }

    #[tokio::test]
    async fn what_comes_now_and_then_is_taken_at_once() {
        let (tx, mut stream) = paced();
        for n in 0..3 {
            tx.send(n).unwrap();
            assert_eq!(stream.next().await, Some(vec![n]));
            assert!(!stream.pausing);
            sleep(MANY).await;
        }
    }

    #[tokio::test]
    async fn what_comes_close_together_gathers_for_a_pause() {
        let (tx, mut stream) = paced();
        tx.send(1).unwrap();
        assert_eq!(stream.next().await, Some(vec![1]));
        // Nobody is quick enough for certain: as if the last one had just been taken.
        stream.last = Some(Instant::now() + MANY);
        tx.send(2).unwrap();
        assert_eq!(stream.next().await, Some(vec![2]));
        assert!(stream.pausing);
        tx.send(3).unwrap();
        let (next, ()) = tokio::join!(stream.next(), async { tx.send(4).unwrap() });
        assert_eq!(next, Some(vec![3, 4]), "both were there when the pause ended");
    }

    #[tokio::test]
    async fn a_backlog_is_taken_without_a_pause_and_nothing_is_lost_at_the_end() {
        let (tx, mut stream) = paced();
        (0..5).for_each(|n| tx.send(n).unwrap());
        drop(tx);
        stream.last = Some(Instant::now() + MANY);
        assert_eq!(stream.next().await, Some(vec![0, 1]));
        assert!(!stream.pausing, "more is there already");
        stream.last = Some(Instant::now() + MANY);
        assert_eq!(stream.next().await, Some(vec![2, 3]));
        assert_eq!(stream.next().await, Some(vec![4]));
        assert_eq!(stream.next().await, None);
    }
}
