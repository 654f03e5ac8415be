//! What was recorded.

use serde_json::Value;

/// An event, read.
#[derive(Debug, Clone, PartialEq)]
pub struct Recorded(pub Value);

impl Recorded {
    #[track_caller]
    pub fn parse(line: &str) -> Self {
        Self(serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}")))
    }

    /// A field that is text; empty where there is none.
    pub fn text(&self, field: &str) -> &str {
        self.0[field].as_str().unwrap_or_default()
    }

    /// What was done: the type, and by what it differs from others.
    pub fn what(&self) -> String {
        let detail = match self.text("type") {
            "join" => self.text("room"),
            "leave" => return format!("leave {} {}", self.text("room"), self.text("cause")),
            "message" => return format!("{} {}", self.text("class"), self.text("payload")),
            _ => self.text("device"),
        };
        format!("{} {detail}", self.text("type"))
    }

    /// Of its id: instance and epoch, and the counter.
    #[track_caller]
    pub fn id(&self) -> (&str, u64) {
        let (run, counter) = self.text("id").rsplit_once('-').unwrap();
        (run, counter.parse().unwrap())
    }
}

/// Each of one run, once: the counters are 1 to as many as there are.
#[track_caller]
pub fn is_whole(events: &[Recorded]) {
    let mut counters: Vec<_> = events.iter().map(|event| event.id().1).collect();
    counters.sort_unstable();
    assert!(counters.iter().copied().eq(1..=events.len() as u64), "{counters:?}");
}
