//! A queue into a shard, bounded by bytes. Who sends waits while it is full; what must not wait
//! or be lost (a link that is gone) takes no room.

use std::sync::Arc;

use tokio::sync::{Semaphore, mpsc};

/// The sending end.
#[derive(Debug)]
pub(super) struct Sender<T> {
    items: mpsc::UnboundedSender<(T, u32)>,
    room: Arc<Semaphore>,
    capacity: u32,
}

/// The receiving end.
#[derive(Debug)]
pub(super) struct Receiver<T> {
    items: mpsc::UnboundedReceiver<(T, u32)>,
    room: Arc<Semaphore>,
    capacity: u32,
}

pub(super) fn queue<T>(capacity_bytes: usize) -> (Sender<T>, Receiver<T>) {
    let capacity = u32::try_from(capacity_bytes).unwrap_or(u32::MAX).max(1);
    let room = Arc::new(Semaphore::new(capacity as usize));
    let (tx, rx) = mpsc::unbounded_channel();
    let sender = Sender { items: tx, room: room.clone(), capacity };
    (sender, Receiver { items: rx, room, capacity })
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        let (items, room) = (self.items.clone(), self.room.clone());
        Self { items, room, capacity: self.capacity }
    }
}

impl<T> Sender<T> {
    /// What an item costs: at most the whole queue, so that each fits at some time.
    fn cost(&self, bytes: usize) -> u32 {
        u32::try_from(bytes).unwrap_or(u32::MAX).min(self.capacity)
    }

    /// Waits for room. A receiver that is gone takes the item, unread.
    pub(super) async fn send(&self, item: T, bytes: usize) {
        let cost = self.cost(bytes);
        if let Ok(permit) = self.room.acquire_many(cost).await {
            permit.forget();
            let _ = self.items.send((item, cost));
        }
    }

    /// Gives the item back where there is no room.
    pub(super) fn try_send(&self, item: T, bytes: usize) -> Result<(), T> {
        let cost = self.cost(bytes);
        match self.room.try_acquire_many(cost) {
            Ok(permit) => {
                permit.forget();
                let _ = self.items.send((item, cost));
                Ok(())
            }
            Err(_) => Err(item),
        }
    }

    /// For the few items whose number is bounded by that of the links.
    pub(super) fn send_free(&self, item: T) {
        let _ = self.items.send((item, 0));
    }
}

impl<T> Receiver<T> {
    pub(super) async fn recv(&mut self) -> Option<T> {
        let (item, cost) = self.items.recv().await?;
        self.room.add_permits(cost as usize);
        Some(item)
    }

    pub(super) fn try_recv(&mut self) -> Option<T> {
        let (item, cost) = self.items.try_recv().ok()?;
        self.room.add_permits(cost as usize);
        Some(item)
    }

    /// Bytes that wait.
    pub(super) fn bytes(&self) -> usize {
        (self.capacity as usize).saturating_sub(self.room.available_permits())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_full_queue_makes_its_senders_wait_and_never_those_that_must_not() {
        let (tx, mut rx) = queue::<u32>(100);
        tx.send(1, 60).await;
        assert_eq!(tx.try_send(2, 60), Err(2));
        tx.send_free(3);
        assert_eq!(rx.bytes(), 60);
        let waiting = tokio::spawn({
            let tx = tx.clone();
            async move { tx.send(4, 1_000_000).await }
        });
        assert_eq!(rx.recv().await, Some(1));
        waiting.await.unwrap();
        assert_eq!(rx.recv().await, Some(3));
        assert_eq!(rx.try_recv(), Some(4), "larger than the queue, and still let in");
        assert!(rx.is_empty());
        assert_eq!(rx.bytes(), 0);
    }
}
