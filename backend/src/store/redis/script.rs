//! Scripts that change several keys of one slot at once. Nothing comes in between, and what one has
//! written is replicated as a whole.

use redis::{Cmd, ErrorKind, RedisResult, ServerErrorKind, Value, cmd};

use super::link::Link;

/// In front of each script.
const IDS: &str = include_str!("ids.lua");

/// A script, known to servers by the hash of its text.
pub(super) struct Script {
    text: String,
    hash: String,
}

impl Script {
    fn new(text: &str) -> Self {
        let text = [IDS, text].concat();
        let hash = redis::Script::new(&text).get_hash().to_owned();
        Self { text, hash }
    }

    /// Appends what a batch has of one group.
    pub(super) fn append() -> Self {
        Self::new(include_str!("append.lua"))
    }

    /// Hides the entries of a log before a position.
    pub(super) fn trim() -> Self {
        Self::new(include_str!("trim.lua"))
    }

    /// Keeps the list of the instances that live.
    pub(super) fn registry() -> Self {
        Self::new(include_str!("registry.lua"))
    }

    /// Calls it, with its text where the server does not know it yet. Never twice, where it may have
    /// been done: whoever calls knows whether it may be.
    pub(super) async fn call(
        &self,
        link: &Link,
        keys: &[String],
        args: impl Fn(&mut Cmd),
    ) -> RedisResult<Value> {
        let call = |name: &str, which: &str| {
            let mut command = cmd(name);
            command.arg(which).arg(keys.len()).arg(keys);
            args(&mut command);
            command
        };
        match link.once(&call("EVALSHA", &self.hash)).await {
            Err(e) if e.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
                link.once(&call("EVAL", &self.text)).await
            }
            answer => answer,
        }
    }
}
