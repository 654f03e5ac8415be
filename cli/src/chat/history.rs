//! The last messages before now. The protocol pages forwards, as a client that was away needs it;
//! here the end is wanted, so its place is searched for.

use edgeway_client::{Class, HistoryPage, Message, RequestError, Room, Seq};

/// A room that restarted more often lately has little to tell of each time.
const EPOCHS: u64 = 8;

/// Pages of history; a room, or in tests a list.
pub trait Pages {
    async fn page(&self, class: Class, after: Seq, limit: u64)
    -> Result<HistoryPage, RequestError>;
}

impl Pages for Room {
    async fn page(
        &self,
        class: Class,
        after: Seq,
        limit: u64,
    ) -> Result<HistoryPage, RequestError> {
        self.history(class, after, limit).await
    }
}

/// The last `count` messages up to `head`, oldest first.
pub async fn tail(
    pages: &impl Pages,
    class: Class,
    head: Seq,
    count: u64,
) -> Result<Vec<Message>, RequestError> {
    let mut found = Vec::new();
    let mut end = head;
    for _ in 0..EPOCHS {
        if end.epoch == 0 {
            break;
        }
        let missing = count - found.len() as u64;
        let start = Seq { epoch: end.epoch, counter: end.counter.saturating_sub(missing) };
        let mut earlier = between(pages, class, start, end).await?;
        earlier.append(&mut found);
        found = earlier;
        // Some may have expired; further back they would not be the last ones any more.
        if start.counter > 0 || found.len() as u64 >= count {
            break;
        }
        end = last_of_epoch(pages, class, end.epoch - 1).await?;
    }
    Ok(found)
}

/// What is after `after`, up to `end`.
async fn between(
    pages: &impl Pages,
    class: Class,
    mut after: Seq,
    end: Seq,
) -> Result<Vec<Message>, RequestError> {
    let mut found = Vec::new();
    while after < end {
        let page = pages.page(class, after, edgeway_proto::limits::PAGE_MESSAGES).await?;
        found.extend(page.messages.into_iter().filter(|m| m.seq <= end));
        if !page.more || page.upto <= after {
            break;
        }
        after = page.upto;
    }
    Ok(found)
}

/// The last position of an epoch: counters have no holes, so halving finds it.
async fn last_of_epoch(pages: &impl Pages, class: Class, epoch: u64) -> Result<Seq, RequestError> {
    // Whether there is anything of the epoch after `counter`.
    let more = async |counter| {
        let page = pages.page(class, Seq { epoch, counter }, 1).await?;
        // One that has expired has a place and is not in the page; behind the last one the page's
        // end may be in a later epoch.
        let is_more = |seq: Seq| seq.epoch == epoch && seq.counter > counter;
        let found = page.messages.first().is_some_and(|m| is_more(m.seq)) || is_more(page.upto);
        Ok::<_, RequestError>(found)
    };
    let (mut low, mut high) = (0_u64, 1_u64);
    while more(high - 1).await? {
        (low, high) = (high, high.saturating_mul(2));
    }
    // The last is at least `low` and below `high`.
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        if more(middle - 1).await? { low = middle } else { high = middle }
    }
    Ok(Seq { epoch, counter: low })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use bytes::Bytes;
    use edgeway_client::{SessionId, Text};

    use super::*;

    /// A history with so many messages in each epoch, from the first.
    struct Log(Vec<u64>);

    impl Log {
        fn all(&self) -> impl Iterator<Item = Seq> {
            let epochs = (1..).zip(self.0.clone());
            epochs.flat_map(|(epoch, count)| (1..=count).map(move |counter| Seq { epoch, counter }))
        }

        fn head(&self) -> Seq {
            Seq { epoch: self.0.len() as u64, counter: self.0.last().copied().unwrap_or(0) }
        }
    }

    impl Pages for Log {
        async fn page(
            &self,
            class: Class,
            after: Seq,
            limit: u64,
        ) -> Result<HistoryPage, RequestError> {
            let rest: Vec<_> = self.all().filter(|seq| *seq > after).collect();
            let page: Vec<_> = rest.iter().take(usize::try_from(limit).unwrap()).copied().collect();
            Ok(HistoryPage {
                upto: if rest.len() > page.len() { page[page.len() - 1] } else { self.head() },
                head: self.head(),
                more: rest.len() > page.len(),
                truncated: false,
                messages: page.into_iter().map(|seq| message(class, seq)).collect(),
            })
        }
    }

    fn message(class: Class, seq: Seq) -> Message {
        Message {
            session: SessionId::CHAT,
            room: "r".into(),
            class,
            seq,
            sender: Text::from("ada"),
            time_ms: 0,
            expires_ms: 0,
            key: Text::from(""),
            shed: 0,
            payload: Bytes::new(),
        }
    }

    #[tokio::test]
    async fn the_tail_is_the_last_messages_over_all_restarts() {
        for epochs in [
            vec![],
            vec![0],
            vec![5],
            vec![20],
            vec![21],
            vec![1_000],
            vec![7, 7, 7],
            vec![500, 0, 3],
            vec![500, 0, 0],
            vec![64, 1],
            vec![450, 19],
        ] {
            let log = Log(epochs.clone());
            let all: Vec<_> = log.all().collect();
            let expected = &all[all.len().saturating_sub(20)..];
            let found = tail(&log, Class::Chat, log.head(), 20).await.unwrap();
            let found: Vec<_> = found.into_iter().map(|m| m.seq).collect();
            assert_eq!(found, expected, "{epochs:?}");
        }
    }

    #[tokio::test]
    async fn what_came_after_the_join_is_not_in_the_tail() {
        let log = Log(vec![100]);
        let found = tail(&log, Class::Chat, Seq { epoch: 1, counter: 50 }, 20).await.unwrap();
        assert_eq!(found.last().unwrap().seq.counter, 50);
        assert_eq!(found.len(), 20);
    }
}
