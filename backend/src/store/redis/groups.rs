//! The handles of rooms, and whether the servers hold what this version can use.

use redis::{RedisResult, Value, cmd};

use super::{
    NotOpened, Shared,
    error::{failed, unreadable},
    keys::{Keys, SCHEMA},
    link::Link,
    values,
};
use crate::store::StoreError;

/// The handle of a room. Two that make it at the same time get the same one: a number that was drawn
/// in vain is left out.
pub(super) async fn handle(
    shared: &Shared,
    room: &str,
    create: bool,
) -> Result<Option<u64>, StoreError> {
    let (keys, link) = (&shared.keys, &shared.state);
    let key = keys.room(room);
    let known = number(link, &key).await?;
    if known.is_some() || !create {
        return Ok(known);
    }
    let groups = keys.groups();
    let mut draw = cmd("INCR");
    draw.arg(&groups);
    let drawn = link.command(&draw).await.map_err(|e| failed(&e, &groups))?;
    let drawn = values::number(&drawn).filter(|n| *n > 0);
    let drawn = drawn.ok_or_else(|| unreadable("a number of groups", &groups))?;
    set_new(link, &key, &drawn.to_string()).await.map_err(|e| failed(&e, &key))?;
    let known = number(link, &key).await?;
    known.map(Some).ok_or_else(|| unreadable("a handle that was stored", &key))
}

async fn number(link: &Link, key: &str) -> Result<Option<u64>, StoreError> {
    match get(link, key).await.map_err(|e| failed(&e, key))? {
        Value::Nil => Ok(None),
        value => match values::number(&value).filter(|n| *n > 0) {
            Some(number) => Ok(Some(number)),
            None => Err(unreadable("a handle", key)),
        },
    }
}

/// Sets a key that is not there; leaves one that is.
async fn set_new(link: &Link, key: &str, value: &str) -> RedisResult<Value> {
    let mut set = cmd("SET");
    set.arg(key).arg(value).arg("NX");
    link.command(&set).await
}

async fn get(link: &Link, key: &str) -> RedisResult<Value> {
    let mut get = cmd("GET");
    get.arg(key);
    link.command(&get).await
}

/// Checks that both servers hold this schema, and belong together: the logs of a history whose
/// handles were given out by another state would be taken for those of other rooms. What is empty
/// is made this store's.
pub(super) async fn check(keys: &Keys, state: &Link, history: &Link) -> Result<(), NotOpened> {
    let mut id = [0; 8];
    getrandom::fill(&mut id)
        .map_err(|e| StoreError::Unavailable(format!("the system gives no random numbers: {e}")))?;
    let offered = format!("{SCHEMA} {:016x}", u64::from_be_bytes(id));
    let found = mark(keys, state, &offered).await?;
    let of_history = mark(keys, history, &found).await?;
    if of_history == found {
        // Also when a connection is made anew: an owner must not go on in logs that begin again.
        state.insist(keys.schema(), found.clone());
        history.insist(keys.schema(), found);
        return Ok(());
    }
    Err(StoreError::Corrupt {
        what: "a history that belongs to another state: store.redis.url and \
               store.redis.history_url do not go together, or one of them has lost its data; give \
               them back what they had, or choose another store.redis.prefix to start empty"
            .to_owned(),
        place: keys.schema(),
    }
    .into())
}

/// Has the connection insist on the mark of its server, where that has one yet.
pub(super) async fn insist_on_mark(keys: &Keys, link: &Link) -> Result<bool, StoreError> {
    let key = keys.schema();
    let found = match get(link, &key).await.map_err(|e| failed(&e, &key))? {
        Value::Nil => return Ok(false),
        value => of_this_version(value, &key)?,
    };
    link.insist(key, found);
    Ok(true)
}

/// What a server is marked with; where it has no mark, `offered`.
async fn mark(keys: &Keys, link: &Link, offered: &str) -> Result<String, NotOpened> {
    let key = keys.schema();
    let told = |e| NotOpened::new(&e, failed(&e, &key));
    set_new(link, &key, offered).await.map_err(told)?;
    let found = get(link, &key).await.map_err(told)?;
    Ok(of_this_version(found, &key)?)
}

/// A mark of the schema that this version reads.
fn of_this_version(mark: Value, key: &str) -> Result<String, StoreError> {
    let found = values::bytes(mark).and_then(|mark| String::from_utf8(mark).ok());
    let found = found.ok_or_else(|| unreadable("a schema", key))?;
    let schema = found.split(' ').next().unwrap_or_default();
    if schema == SCHEMA.to_string() {
        return Ok(found);
    }
    Err(StoreError::Corrupt {
        what: format!(
            "a store of the schema `{schema}`, where this version reads {SCHEMA}; run the version \
             that wrote it, or choose another store.redis.prefix to start empty"
        ),
        place: key.to_owned(),
    })
}
