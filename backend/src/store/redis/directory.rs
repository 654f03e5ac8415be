//! The directory of many processes: of each listing a hash and a sorted set in one slot, which vanish
//! when they are not renewed.

use std::{pin::Pin, sync::Arc};

use bytes::Bytes;
use futures_util::future::join_all;
use redis::{Cmd, Value, cmd};

use super::{
    NotOpened, RedisOptions, connect,
    error::{failed, unreadable},
    groups,
    keys::Keys,
    link::Link,
    script::Script,
    values,
};
use crate::{
    directory::{Action, Directory, Found, Name, Outcome, Outcomes, Term, Write},
    store::{StoreError, StoreFuture},
};

/// The directory on Redis, on a connection of its own: what waits for answers here holds up nothing else.
pub struct RedisDirectory {
    keys: Keys,
    link: Link,
    write: Script,
}

impl RedisDirectory {
    /// Connects to the server of the state, and checks that it holds what this version can use. Must be
    /// called within a tokio runtime. Listings are their writers' to restore, so a server that comes
    /// back without its data is as good as any.
    ///
    /// # Errors
    /// As [`super::Redis::open`].
    pub async fn open(options: RedisOptions) -> Result<Self, NotOpened> {
        let RedisOptions { state, prefix, ca_pem, .. } = options;
        let keys = Keys::new(prefix);
        let link = connect("directory", &state, ca_pem.as_deref()).await?;
        groups::check_one(&keys, &link).await?;
        Ok(Self { keys, link, write: Script::directory() })
    }

    async fn one(&self, write: &Write) -> Result<Outcome, StoreError> {
        let keys = self.keys.listing(&write.name);
        let answer = self.write.call(&self.link, &keys, |cmd| args(cmd, write)).await;
        let answer = answer.map_err(|e| failed(&e, &keys[0]))?;
        match values::bytes(answer).as_deref() {
            Some(b"done") => Ok(Outcome::Done),
            Some(b"behind") => Ok(Outcome::Behind),
            Some(b"stale") => Ok(Outcome::Stale),
            _ => Err(unreadable("an answer of a script", &keys[0])),
        }
    }

    async fn page(
        &self,
        name: Name,
        after: Bytes,
        limit: usize,
    ) -> Result<Option<Found>, StoreError> {
        let keys = self.keys.listing(&name);
        let (listing, lines) = (&keys[0], &keys[1]);
        let mut head = cmd("HMGET");
        head.arg(listing).arg("term").arg("version").arg("head");
        let mut total = cmd("ZCARD");
        total.arg(lines);
        let mut range = cmd("ZRANGEBYLEX");
        let from = if after.is_empty() { b"-".to_vec() } else { [b"(", &after[..]].concat() };
        // One more, to know whether it is the last page.
        let wanted = if limit == 0 { 0 } else { limit + 1 };
        range.arg(lines).arg(from).arg("+").arg("LIMIT").arg(0).arg(wanted);
        let answers = self.link.transaction([head, total, range]).await;
        let answers = answers.map_err(|e| failed(&e, listing))?;
        found(answers, limit).ok_or_else(|| unreadable("a listing", listing))
    }

    async fn names(&self, user: &str, limit: usize) -> Result<Vec<String>, StoreError> {
        let key = self.keys.sessions(user);
        let mut ask = cmd("SRANDMEMBER");
        ask.arg(&key).arg(limit);
        let names = self.link.command(&ask).await.map_err(|e| failed(&e, &key))?;
        let text = |name| String::from_utf8(values::bytes(name)?).ok();
        let names = values::items(names).and_then(|names| names.into_iter().map(text).collect());
        names.ok_or_else(|| unreadable("names", &key))
    }
}

fn args(cmd: &mut Cmd, write: &Write) {
    let what = match write.action {
        Action::Anew => "anew",
        Action::Change => "change",
        Action::Close => "close",
    };
    let lives = u64::try_from(write.lives.as_millis()).unwrap_or(u64::MAX);
    let name = write.name.of_user().map_or("", |(_, name)| name);
    let head = write.head.as_ref().map(|head| [b"=", &head[..]].concat()).unwrap_or_default();
    cmd.arg(write.term.to_string()).arg(what).arg(write.before).arg(write.after).arg(lives);
    cmd.arg(name).arg(head).arg(write.total).arg(write.added.len());
    for line in write.added.iter().chain(&write.removed) {
        cmd.arg(&line[..]);
    }
}

/// What was read; `None` within where there is none.
fn found([head, total, range]: [Value; 3], limit: usize) -> Option<Option<Found>> {
    let [term, version, head] = <[Value; 3]>::try_from(values::items(head)?).ok()?;
    if version == Value::Nil {
        // There is nothing, or only the term of one that was closed.
        return Some(None);
    }
    let term = String::from_utf8(values::bytes(term)?).ok()?;
    let (first, second) = term.split_once('-')?;
    let term = Term(first.parse().ok()?, second.parse().ok()?);
    let head = if head == Value::Nil { Bytes::new() } else { values::bytes(head)?.into() };
    let lines = values::items(range)?.into_iter().map(|line| values::bytes(line).map(Bytes::from));
    let mut lines: Vec<_> = lines.collect::<Option<_>>()?;
    let more = lines.len() > limit;
    lines.truncate(limit);
    Some(Some(Found { term, head, total: values::number(&total)?, lines, more }))
}

impl Directory for RedisDirectory {
    fn write(&self, batch: Vec<Arc<Write>>) -> Pin<Box<dyn Future<Output = Outcomes> + Send + '_>> {
        Box::pin(async move { join_all(batch.iter().map(|write| self.one(write))).await })
    }

    fn read(&self, name: Name, after: Bytes, limit: usize) -> StoreFuture<'_, Option<Found>> {
        Box::pin(self.page(name, after, limit))
    }

    fn sessions(&self, user: &str, limit: usize) -> StoreFuture<'_, Vec<String>> {
        let user = user.to_owned();
        Box::pin(async move { self.names(&user, limit).await })
    }
}
