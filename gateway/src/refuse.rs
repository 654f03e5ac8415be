//! Refusing connections that are too many, with a word where that costs little: a client that knows why
//! comes back later, and one that does not tries another transport at once.

use std::{sync::Arc, time::Duration};

use edgeway_proto::{CloseCode, Lane, RawFrame};
use edgeway_transport::{AcceptError, Connection, End, Sink, Stop};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Refusals with a word at a time. Each takes a handshake; what is above is dropped at the first
/// packet.
const AT_A_TIME: usize = 32;

/// A place is taken for so long at least: so there are [`AT_A_TIME`] handshakes a second at most, a
/// few hundredths of a core, however many knock.
const PLACE: Duration = Duration::from_secs(1);

/// How long a client may take to say Hello, and to take the answer.
const PATIENCE: Duration = Duration::from_secs(3);

/// When it may come back.
const RETRY_AFTER_MS: u64 = 5_000;

/// See the module.
#[derive(Debug)]
pub struct Refusals(Arc<Semaphore>);

impl Default for Refusals {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(AT_A_TIME)))
    }
}

impl Refusals {
    /// A place for a refusal with a word; `None` where there are enough of them.
    #[must_use]
    pub fn place(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.0).try_acquire_owned().ok()
    }
}

/// Waits for the first words, which also say how the client lays out its frames, and answers them.
pub async fn refuse(
    handshake: impl Future<Output = Result<Connection, AcceptError>>,
    reason: &'static str,
    place: OwnedSemaphorePermit,
) {
    let answering = async {
        let Ok(mut connection) = handshake.await else { return };
        let end = connection.receiver.run(&mut FirstWords(reason)).await;
        if let End::Stopped(Stop { code, reason }) = end {
            connection.sender.close(code, &reason, RETRY_AFTER_MS).await;
            connection.receiver.drain().await;
        }
    };
    let answering = Box::pin(tokio::time::timeout(PATIENCE, answering));
    let _ = tokio::join!(answering, tokio::time::sleep(PLACE));
    drop(place);
}

/// Answers whatever comes first.
struct FirstWords(&'static str);

impl Sink for FirstWords {
    fn frame(&mut self, _: Lane, _: RawFrame) -> Result<(), Stop> {
        Err(Stop::new(CloseCode::TooManyConnections, self.0))
    }
    fn flush(&mut self) {}
    fn ended(&mut self, _: Lane) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_so_many_places() {
        let refusals = Refusals::default();
        let taken: Vec<_> = (0..AT_A_TIME).map_while(|_| refusals.place()).collect();
        assert_eq!(taken.len(), AT_A_TIME);
        assert!(refusals.place().is_none());
        drop(taken);
        assert!(refusals.place().is_some());
    }
}
