//! Scripts that change several keys of one slot at once. Nothing comes in between, and what one has
//! written is replicated as a whole.

use redis::{Cmd, ErrorKind, RedisError, RedisResult, ServerErrorKind, Value, cmd};

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

    /// Seals the logs of a room and reads their ends.
    pub(super) fn open() -> Self {
        Self::new(include_str!("open.lua"))
    }

    /// Hides the entries of a log before a position.
    pub(super) fn trim() -> Self {
        Self::new(include_str!("trim.lua"))
    }

    /// Keeps the list of the instances that live.
    pub(super) fn registry() -> Self {
        Self::new(include_str!("registry.lua"))
    }

    /// Writes a listing of the directory.
    pub(super) fn directory() -> Self {
        Self::new(include_str!("directory.lua"))
    }

    /// Calls it, with its text where the server does not know it yet. Never twice, where it may have
    /// been done: whoever calls knows whether it may be.
    pub(super) async fn call(
        &self,
        link: &Link,
        keys: &[String],
        args: impl Fn(&mut Cmd),
    ) -> RedisResult<Value> {
        match link.once(&command("EVALSHA", &self.hash, keys, &args)).await {
            Err(e) if is_unknown(&e) => link.once(&command("EVAL", &self.text, keys, &args)).await,
            answer => answer,
        }
    }

    /// The same, and again on a new connection where the one there was is lost: for what may be done
    /// twice.
    pub(super) async fn call_again(
        &self,
        link: &Link,
        keys: &[String],
        args: impl Fn(&mut Cmd),
    ) -> RedisResult<Value> {
        match link.command(&command("EVALSHA", &self.hash, keys, &args)).await {
            Err(e) if is_unknown(&e) => {
                link.command(&command("EVAL", &self.text, keys, &args)).await
            }
            answer => answer,
        }
    }
}

fn command(name: &str, which: &str, keys: &[String], args: impl Fn(&mut Cmd)) -> Cmd {
    let mut command = cmd(name);
    command.arg(which).arg(keys.len()).arg(keys);
    args(&mut command);
    command
}

fn is_unknown(e: &RedisError) -> bool {
    e.kind() == ErrorKind::Server(ServerErrorKind::NoScript)
}
