#![allow(clippy::unwrap_used)]

use tokio_stream::StreamExt;

use super::*;

#[derive(Debug, PartialEq, Clone, Copy)]
struct Item {
    name: u32,
    weight: usize,
    sheddable: bool,
}

impl Weighed for Item {
    fn weight(&self) -> usize {
        self.weight
    }
    fn sheddable(&self) -> bool {
        self.sheddable
    }
}

fn chat(name: u32) -> Item {
    Item { name, weight: 10, sheddable: true }
}

fn stroke(name: u32) -> Item {
    Item { name, weight: 10, sheddable: false }
}

fn queue(limit: usize) -> Arc<Queue<Item>> {
    Queue::new(limit, Meters::new("test"))
}

async fn names(drain: &mut Drain<Item>) -> Vec<u32> {
    drain.next().await.unwrap().unwrap().iter().map(|item| item.name).collect()
}

#[tokio::test]
async fn at_the_bound_the_oldest_chat_makes_room_and_order_is_kept() {
    let queue = queue(40);
    for item in [chat(1), stroke(2), chat(3), stroke(4), chat(5), stroke(6)] {
        queue.push(item).unwrap();
    }
    assert_eq!(names(&mut Drain::new(queue)).await, [2, 4, 5, 6]);
}

#[tokio::test]
async fn what_is_not_chat_and_does_not_fit_is_refused_and_chat_then_sheds_itself() {
    let queue = queue(20);
    queue.push(stroke(1)).unwrap();
    queue.push(stroke(2)).unwrap();
    assert!(matches!(queue.push(stroke(3)), Err(Refused::Full(item)) if item.name == 3));
    queue.push(chat(4)).unwrap();
    assert_eq!(names(&mut Drain::new(queue)).await, [1, 2]);
}

#[tokio::test]
async fn an_item_above_the_bound_still_passes_alone() {
    let queue = queue(5);
    queue.push(stroke(1)).unwrap();
    assert!(queue.push(stroke(2)).is_err());
    let mut drain = Drain::new(Arc::clone(&queue));
    assert_eq!(names(&mut drain).await, [1]);
    queue.push(stroke(2)).unwrap();
}

#[tokio::test]
async fn shedding_after_some_were_read_sheds_the_right_one() {
    let queue = queue(20);
    let mut drain = Drain::new(Arc::clone(&queue));
    queue.push(chat(1)).unwrap();
    assert_eq!(names(&mut drain).await, [1]);
    for item in [stroke(2), chat(3), stroke(4)] {
        queue.push(item).unwrap();
    }
    assert_eq!(names(&mut drain).await, [2, 4]);
}

#[tokio::test]
async fn batches_are_bounded_in_items_and_bytes() {
    let queue = queue(usize::MAX);
    for name in 0..300 {
        queue.push(stroke(name)).unwrap();
    }
    queue.push(Item { name: 300, weight: BATCH_BYTES, sheddable: false }).unwrap();
    queue.push(stroke(301)).unwrap();
    let mut drain = Drain::new(queue);
    assert_eq!(names(&mut drain).await.len(), BATCH_ITEMS);
    assert_eq!(names(&mut drain).await.len(), 300 - BATCH_ITEMS);
    assert_eq!(names(&mut drain).await, [300]);
    assert_eq!(names(&mut drain).await, [301]);
}

#[tokio::test]
async fn a_waiting_writer_goes_on_when_there_is_room_and_gives_up_when_the_reader_is_gone() {
    let queue = queue(10);
    let mut drain = Drain::new(Arc::clone(&queue));
    queue.push(stroke(1)).unwrap();
    let writer = tokio::spawn({
        let queue = Arc::clone(&queue);
        async move { (queue.push_waiting(stroke(2)).await, queue.push_waiting(stroke(3)).await) }
    });
    assert_eq!(names(&mut drain).await, [1]);
    assert_eq!(names(&mut drain).await, [2]);
    assert_eq!(names(&mut drain).await, [3]);
    assert_eq!(writer.await.unwrap(), (true, true));
    queue.push(stroke(4)).unwrap();
    let writer = tokio::spawn({
        let queue = Arc::clone(&queue);
        async move { queue.push_waiting(stroke(5)).await }
    });
    drop(drain);
    assert!(!writer.await.unwrap());
}

#[tokio::test]
async fn finishing_lets_out_what_is_queued_and_cutting_does_not() {
    let finished = queue(100);
    finished.push(stroke(1)).unwrap();
    finished.finish();
    assert!(matches!(finished.push(stroke(2)), Err(Refused::Closed)));
    let mut drain = Drain::new(finished);
    assert_eq!(names(&mut drain).await, [1]);
    assert!(drain.next().await.is_none());

    let cut = queue(100);
    cut.push(stroke(1)).unwrap();
    cut.cut(Status::resource_exhausted("full"));
    let mut drain = Drain::new(cut);
    assert!(drain.next().await.unwrap().is_err());
    assert!(drain.next().await.is_none());
}
