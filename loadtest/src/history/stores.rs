//! The stores that are measured: opened as a backend opens them, and what they take.

use std::{fs, os::unix::fs::MetadataExt, path::Path, sync::Arc};

use anyhow::{Context, Result, anyhow};
use edgeway_backend::store::{
    Durability, Embedded, EmbeddedOptions, Redis, RedisOptions, RedisServer, RedisUrl, Store,
};
use edgeway_testredis as testredis;
use redis::aio::MultiplexedConnection;
use tempfile::TempDir;
use tokio::task::spawn_blocking;

use super::{Args, Keeps, Kind};

/// Keys that are looked through and removed at a time.
const KEYS: usize = 1000;

/// A store that is open, in a place of its own.
pub struct Opened {
    pub store: Arc<dyn Store>,
    place: Place,
}

enum Place {
    Dir(TempDir),
    Server(Box<Server>),
}

/// What the logs of a run take.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Size {
    /// In files. Nothing where a server keeps none.
    pub disk_bytes: Option<u64>,
    /// In the memory of a server.
    pub memory_bytes: Option<u64>,
}

impl Opened {
    pub async fn open(kind: Kind, args: &Args) -> Result<Self> {
        match kind {
            Kind::Embedded => {
                let (dir, sync) = (args.dir.clone(), args.sync);
                spawn_blocking(move || embedded(dir.as_deref(), sync)).await?
            }
            Kind::Redis => {
                let server = Server::start(args).await?;
                let urls = vec![RedisUrl::parse(&server.url).map_err(|told| anyhow!(told))?];
                let state = RedisServer { urls, cluster: false };
                let options =
                    RedisOptions { prefix: server.prefix.clone(), ..RedisOptions::new(state) };
                let store = Arc::new(Redis::open(options).await?);
                Ok(Self { store, place: Place::Server(Box::new(server)) })
            }
        }
    }

    /// The server's process, where it is ours to look at.
    pub fn pids(&self) -> Vec<u32> {
        match &self.place {
            Place::Server(server) if server.own.is_some() => server.pid.into_iter().collect(),
            _ => Vec::new(),
        }
    }

    /// Closes it, and says what it took. Nothing of it is left.
    pub async fn close(self) -> Result<Size> {
        let Self { store, place } = self;
        // The embedded one writes what it has, and blocks for that long.
        spawn_blocking(move || drop(store)).await?;
        match place {
            Place::Dir(dir) => {
                let disk_bytes = Some(dir_bytes(dir.path())?);
                Ok(Size { disk_bytes, memory_bytes: None })
            }
            Place::Server(mut server) => {
                let size = server.size().await?.since(server.before);
                server.clean().await?;
                spawn_blocking(move || drop(server)).await?;
                Ok(size)
            }
        }
    }
}

fn embedded(dir: Option<&Path>, sync: Keeps) -> Result<Opened> {
    let dir = match dir {
        Some(dir) => tempfile::Builder::new().prefix("loadtest-history-").tempdir_in(dir),
        None => TempDir::with_prefix("loadtest-history-"),
    };
    let dir = dir.context("no directory for the store")?;
    let durability = match sync {
        Keeps::Process => Durability::Process,
        Keeps::Disk => Durability::Disk,
    };
    let options = EmbeddedOptions { durability, ..EmbeddedOptions::default() };
    let store = Arc::new(Embedded::open(&dir.path().join("history"), options)?);
    Ok(Opened { store, place: Place::Dir(dir) })
}

/// What the files below a directory take on the disk: a file may have been given room in advance that
/// it does not use.
fn dir_bytes(dir: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))? {
        let entry = entry?;
        let about = entry.metadata()?;
        bytes += if about.is_dir() { dir_bytes(&entry.path())? } else { about.blocks() * 512 };
    }
    Ok(bytes)
}

/// A Redis, and what is ours of it.
pub struct Server {
    pub url: String,
    /// In front of all keys of this run.
    pub prefix: String,
    connection: MultiplexedConnection,
    pid: Option<u32>,
    before: Size,
    own: Option<testredis::Server>,
}

impl Server {
    /// Starts one, or connects to the one that was named.
    pub async fn start(args: &Args) -> Result<Self> {
        let own = match &args.redis {
            Some(_) => None,
            None => Some(start(args.sync).await?),
        };
        let named = args.redis.clone().or_else(|| own.as_ref().map(testredis::Server::url));
        let url = named.context("no server")?;
        let connection = redis::Client::open(&*url)?.get_multiplexed_async_connection().await;
        let connection = connection.context("cannot connect to the server of --redis")?;
        let prefix = format!("loadtest-{:08x}", rand::random::<u32>());
        let before = Size::default();
        let mut server = Self { url, prefix, connection, pid: None, before, own };
        server.before = server.size().await?;
        server.pid = server.info("server", "process_id").await?.map(u32::try_from).transpose()?;
        Ok(server)
    }

    async fn info(&mut self, section: &str, key: &str) -> Result<Option<u64>> {
        let asked = redis::cmd("INFO").arg(section).query_async(&mut self.connection).await;
        let text: String = asked.context("the server does not say what it uses")?;
        Ok(value(&text, key))
    }

    async fn size(&mut self) -> Result<Size> {
        Ok(Size {
            disk_bytes: self.info("persistence", "aof_current_size").await?,
            memory_bytes: self.info("memory", "used_memory").await?,
        })
    }

    /// Removes what was written.
    pub async fn clean(&mut self) -> Result<()> {
        let mut cursor = 0_u64;
        loop {
            let mut scan = redis::cmd("SCAN");
            scan.arg(cursor).arg("MATCH").arg(format!("{}:*", self.prefix));
            scan.arg("COUNT").arg(KEYS);
            let found: (u64, Vec<String>) = scan.query_async(&mut self.connection).await?;
            if !found.1.is_empty() {
                let mut unlink = redis::cmd("UNLINK");
                unlink.arg(found.1).exec_async(&mut self.connection).await?;
            }
            cursor = found.0;
            if cursor == 0 {
                return Ok(());
            }
        }
    }
}

/// One that keeps its log on disk, as operators are told to.
async fn start(sync: Keeps) -> Result<testredis::Server> {
    let fsync = match sync {
        Keeps::Process => "everysec",
        Keeps::Disk => "always",
    };
    let args = ["--appendfsync", fsync].map(str::to_owned).into();
    let options = testredis::Options { durable: true, args, ..testredis::Options::default() };
    spawn_blocking(move || {
        testredis::find().map_err(|told| {
            anyhow!("no Redis to start: name one with --redis, or leave it out with --store embedded\n{told}")
        })?;
        Ok(testredis::Server::start(&options))
    })
    .await?
}

/// A number in an answer to INFO.
fn value(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':')?.trim().parse().ok())
}

impl Size {
    fn since(self, before: Self) -> Self {
        let grown = |now: Option<u64>, before: Option<u64>| {
            now.map(|now| now.saturating_sub(before.unwrap_or(0)))
        };
        Self {
            disk_bytes: grown(self.disk_bytes, before.disk_bytes),
            memory_bytes: grown(self.memory_bytes, before.memory_bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_says_of_itself_is_found_by_its_whole_name() {
        let text = "# Memory\r\nused_memory_rss:7\r\nused_memory:123\r\n";
        assert_eq!(value(text, "used_memory"), Some(123));
        assert_eq!(value(text, "aof_current_size"), None);
    }

    #[test]
    fn a_directory_takes_what_its_files_do() {
        let dir = tempfile::tempdir().unwrap();
        let empty = dir_bytes(dir.path()).unwrap();
        fs::create_dir(dir.path().join("deep")).unwrap();
        fs::write(dir.path().join("deep/file"), vec![1; 100_000]).unwrap();
        assert!(dir_bytes(dir.path()).unwrap() >= empty + 100_000);
        assert!(dir_bytes(&dir.path().join("none")).is_err());
    }

    #[test]
    fn a_server_that_kept_something_before_counts_only_what_came() {
        let size = |disk, memory| Size { disk_bytes: disk, memory_bytes: memory };
        assert_eq!(size(Some(9), Some(9)).since(size(None, Some(4))), size(Some(9), Some(5)));
        assert_eq!(size(None, Some(3)).since(size(Some(2), Some(4))), size(None, Some(0)));
    }
}
