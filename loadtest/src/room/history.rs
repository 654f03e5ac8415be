//! Whether chat is stored, where that is what is compared.

use std::{ops::Sub, time::Duration};

use serde_json::json;
use tokio::time::sleep;

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

/// What a server counts, since its start or since another count.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Stored {
    /// Entries that its store has appended.
    entries: f64,
    /// Messages that rooms have given a place.
    chat: f64,
    signals: f64,
}

impl Stored {
    pub async fn of(target: &Target) -> Self {
        let of = async |name: &str, label: &str| target.metric(name, label).await.unwrap_or(0.0);
        let accepted = async |class: &str| {
            let label = format!("class=\"{class}\",outcome=\"accepted\"");
            of("edgeway_owner_messages_total", &label).await
        };
        Self {
            entries: of("edgeway_backend_store_appended_total", "").await,
            chat: accepted("chat").await,
            signals: accepted("signal").await,
        }
    }

    /// How many entries there have to be.
    fn expected(self, chat_is_kept: bool) -> f64 {
        self.signals + if chat_is_kept { self.chat } else { 0.0 }
    }

    fn wrong(self, chat_is_kept: bool) -> Option<String> {
        let Self { entries, chat, signals } = self;
        let expected = self.expected(chat_is_kept);
        // Whole numbers.
        let wrong = (entries - expected).abs() > 0.5 || chat < 1.0;
        wrong.then(|| {
            format!(
                "{entries} entries were stored of {chat} messages of chat and {signals} signals, where \
                 {expected} had to be, and some of it chat"
            )
        })
    }
}

impl Sub for Stored {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self {
            entries: self.entries - before.entries,
            chat: self.chat - before.chat,
            signals: self.signals - before.signals,
        }
    }
}

impl History {
    /// All chat that was accepted since `before` must have been stored, or none; signals are, always.
    pub async fn check(&self, target: &Target, before: Stored, report: &mut Report) {
        sleep(BEHIND).await;
        let mut since = Stored::of(target).await - before;
        for _ in 0..LOOKS {
            if since.entries >= since.expected(self.on) {
                break;
            }
            sleep(LOOK).await;
            since = Stored::of(target).await - before;
        }
        report.run(&[("stored", json!(since.entries)), ("chat_accepted", json!(since.chat))]);
        report.problems.extend(since.wrong(self.on));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chat_is_stored_whole_or_not_at_all() {
        let stored = |entries, chat| Stored { entries, chat, signals: 20.0 };
        assert_eq!(stored(120.0, 100.0).wrong(true), None);
        assert_eq!(stored(20.0, 100.0).wrong(false), None);
        for (entries, chat, kept) in
            [(119.0, 100.0, true), (21.0, 100.0, false), (120.0, 100.0, false), (20.0, 0.0, true)]
        {
            assert!(stored(entries, chat).wrong(kept).is_some(), "{entries} {chat} {kept}");
        }
    }
}
