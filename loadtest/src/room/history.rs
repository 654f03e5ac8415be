//! Whether chat is stored, where that is what is compared.

use std::time::Duration;

use edgeway_client::Class;
use serde_json::json;
use tokio::time::sleep;

use super::shared::Shared;
use crate::{report::Report, target::Target};

/// Of a server that is started for a comparison.
#[derive(Debug, Clone)]
pub struct History {
    /// Whether chat is to be stored.
    pub on: bool,
    /// The config that says so, and what else it needs.
    pub config: String,
}

/// Chat is stored within so long after its delivery, or the store is slow; then how often, and how long
/// in between, is looked for the rest.
const BEHIND: Duration = Duration::from_millis(300);
const LOOKS: u32 = 500;
const LOOK: Duration = Duration::from_millis(20);

/// Entries that the server has appended to its store since it started.
pub async fn stored(target: &Target) -> f64 {
    target.metric("edgeway_backend_store_appended_total", "").await.unwrap_or(0.0)
}

impl History {
    /// All chat of the run must have been stored since `before`, or none; signals are, always.
    #[allow(clippy::cast_precision_loss)] // counts of messages
    pub async fn check(&self, target: &Target, shared: &Shared, before: f64, report: &mut Report) {
        let (chat, signals) =
            (shared.audit.messages(Class::Chat), shared.audit.messages(Class::Signal));
        let expected = (signals + if self.on { chat } else { 0 }) as f64;
        sleep(BEHIND).await;
        let mut appended = stored(target).await - before;
        for _ in 0..LOOKS {
            if appended >= expected {
                break;
            }
            sleep(LOOK).await;
            appended = stored(target).await - before;
        }
        report.run(&[("stored", json!(appended))]);
        if (appended - expected).abs() > 0.5 {
            report.problems.push(format!(
                "{appended} entries were stored of {chat} messages of chat and {signals} signals, where \
                 {expected} had to be"
            ));
        }
    }
}
