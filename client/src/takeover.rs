//! What is left of a connection that another takes over from.

use std::time::Duration;

use edgeway_proto::CloseCode;
use edgeway_transport::Sender;
use tokio::{
    task::JoinHandle,
    time::{sleep, timeout},
};

use crate::{greet::Reading, writer::Ended};

/// How long the writer may take to stop.
const RELEASE: Duration = Duration::from_millis(100);

/// How long the old connection is kept: by then the server has put the new one in its place, and
/// nobody has left in between.
const KEEP_OLD: Duration = Duration::from_secs(2);

/// How long its close may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(3);

/// A connection that another takes over from: no longer read or written.
pub(crate) struct Old {
    pub(crate) reading: Reading,
    /// `None` where the writer did not stop in time.
    pub(crate) sender: Option<Sender>,
}

impl Old {
    /// Ends it once the server knows the new one. Where that has not come about its client is still to be
    /// back: it does not leave its rooms.
    pub(crate) async fn end(self) {
        sleep(KEEP_OLD).await;
        self.close(CloseCode::GoingAway, "moved to another connection").await;
    }

    /// Ends it now.
    pub(crate) async fn close(self, code: CloseCode, reason: &str) {
        if let Some(sender) = self.sender {
            // Where the path is dead there is nobody to tell.
            let _ = timeout(CLOSE_TIMEOUT, sender.close(code, reason, 0)).await;
        }
        drop(self.reading);
    }
}

/// Stops a task when it is no longer wanted.
pub(crate) struct Aborting<T>(pub(crate) JoinHandle<T>);

impl<T> Drop for Aborting<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The sending half of a writer that was told to stop.
pub(crate) async fn released(writer: &mut Aborting<Ended>) -> Option<Sender> {
    match timeout(RELEASE, &mut writer.0).await {
        Ok(Ok(Ended::Released(sender) | Ended::Silent(sender))) => Some(sender),
        _ => None,
    }
}
