//! The handles of rooms, and whether the servers hold what this version can use.

use futures_util::future::try_join_all;
use redis::{RedisResult, Value, cmd};

use super::{
    NotOpened, Shared,
    error::{failed, unreadable},
    keys::{Keys, SCHEMA},
    link::Link,
    values,
};
use crate::store::StoreError;

/// The handles of rooms, all asked for at once: one round trip, and two more where some are made. Two
/// who make one at the same time get the same: a number that was drawn in vain is left out.
pub(super) async fn handles(
    shared: &Shared,
    rooms: &[String],
    create: bool,
) -> Result<Vec<Option<u64>>, StoreError> {
    let link = &shared.state;
    let keys: Vec<String> = rooms.iter().map(|room| shared.keys.room(room)).collect();
    let mut handles = try_join_all(keys.iter().map(|key| number(link, key))).await?;
    let missing: Vec<usize> = (0..keys.len()).filter(|at| handles[*at].is_none()).collect();
    if missing.is_empty() || !create {
        return Ok(handles);
    }
    let first = draw(shared, missing.len() as u64).await?;
    let made = missing.iter().zip(first..).map(|(at, drawn)| make(link, &keys[*at], drawn));
    for (at, handle) in missing.iter().zip(try_join_all(made).await?) {
        handles[*at] = Some(handle);
    }
    Ok(handles)
}

/// Draws numbers that nobody has had; the first of them.
async fn draw(shared: &Shared, count: u64) -> Result<u64, StoreError> {
    let groups = shared.keys.groups();
    let mut draw = cmd("INCRBY");
    draw.arg(&groups).arg(count);
    let last = shared.state.command(&draw).await.map_err(|e| failed(&e, &groups))?;
    let first = values::number(&last).and_then(|last| last.checked_sub(count)).map(|n| n + 1);
    first.ok_or_else(|| unreadable("a number of groups", &groups))
}

/// The last number that was drawn; 0 where none was.
pub(super) async fn drawn(shared: &Shared) -> Result<u64, StoreError> {
    let groups = shared.keys.groups();
    match get(&shared.state, &groups).await.map_err(|e| failed(&e, &groups))? {
        Value::Nil => Ok(0),
        value => values::number(&value).ok_or_else(|| unreadable("a number of groups", &groups)),
    }
}

/// Gives a room the handle that was drawn for it, unless it has one meanwhile; the one it has.
async fn make(link: &Link, key: &str, drawn: u64) -> Result<u64, StoreError> {
    let (mut set, mut get) = (cmd("SET"), cmd("GET"));
    set.arg(key).arg(drawn).arg("NX");
    get.arg(key);
    let answers = link.transaction([set, get]).await;
    let [_, handle] = answers.map_err(|e| failed(&e, key))?;
    let handle = values::number(&handle).filter(|n| *n > 0);
    handle.ok_or_else(|| unreadable("a handle that was stored", key))
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
    let found = check_one(keys, state).await?;
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

/// Checks that a server holds this schema, and gives what it is marked with.
pub(super) async fn check_one(keys: &Keys, link: &Link) -> Result<String, NotOpened> {
    let mut id = [0; 8];
    getrandom::fill(&mut id)
        .map_err(|e| StoreError::Unavailable(format!("the system gives no random numbers: {e}")))?;
    mark(keys, link, &format!("{SCHEMA} {:016x}", u64::from_be_bytes(id))).await
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
