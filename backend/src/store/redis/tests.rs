//! The conformance suite on one server, on one over TLS with a password and on a Cluster, and what
//! only this store promises.
#![allow(clippy::unwrap_used, clippy::panic)]

mod directory;
mod faults;
mod servers;

use std::sync::OnceLock;

use bytes::Bytes;
use edgeway_proto::Class;
use edgeway_testredis::{Cluster, Options, Server, TlsFront};

use super::*;
use crate::store::{
    Origin,
    conformance::{self, Place},
};

/// The servers that the tests share live as long as the process, which their watchdogs notice.
fn single() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(|| Server::start(&Options::default()))
}

fn with_password() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(|| Server::start(&password()))
}

/// TLS in front of [`with_password`].
fn tls() -> &'static TlsFront {
    static FRONT: OnceLock<TlsFront> = OnceLock::new();
    FRONT.get_or_init(|| TlsFront::start(with_password().port()))
}

fn cluster() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(|| Cluster::start(&Options::default()))
}

/// With what has to be escaped in a URL.
const PASSWORD: &str = "p%40ss%20word";

fn password() -> Options {
    Options { password: Some("p@ss word".to_owned()), ..Options::default() }
}

fn options(urls: &[String], cluster: bool) -> RedisOptions {
    let urls = urls.iter().map(|url| RedisUrl::parse(url).unwrap()).collect();
    RedisOptions::new(RedisServer { urls, cluster })
}

fn on_single() -> RedisOptions {
    options(&[single().url()], false)
}

fn on_tls() -> RedisOptions {
    let url = format!("rediss://:{PASSWORD}@127.0.0.1:{}", tls().port());
    RedisOptions { ca_pem: Some(TlsFront::ca_pem().into()), ..options(&[url], false) }
}

fn on_cluster() -> RedisOptions {
    options(&cluster().urls(), true)
}

/// For what must not meet other tests on the same server.
fn prefixed(prefix: &str, options: RedisOptions) -> RedisOptions {
    RedisOptions { prefix: prefix.to_owned(), ..options }
}

async fn open(options: RedisOptions) -> Redis {
    Redis::open(options).await.unwrap()
}

/// What lasts is refused at once, and not waited for.
async fn refused(options: RedisOptions) -> StoreError {
    match Redis::open(options).await {
        Ok(_) => panic!("it was opened"),
        Err(NotOpened { error, may_pass }) => {
            assert!(!may_pass, "{error}");
            error
        }
    }
}

fn place(options: RedisOptions) -> Place {
    Place::new(move || {
        let options = options.clone();
        async move { Arc::new(open(options).await) as Arc<dyn Store> }
    })
}

mod on_one_server {
    use super::*;
    conformance::promises!(place(on_single()));
}

mod over_tls_with_a_password {
    use super::*;
    conformance::promises!(place(on_tls()));
}

mod on_a_cluster {
    use super::*;
    conformance::promises!(place(on_cluster()));
}

fn append(log: LogId, counter: u64, bytes: usize) -> Vec<Append> {
    let record = Record {
        seq: Seq::new(1, counter),
        origin: Origin { device: "ann/phone".to_owned(), id: counter },
        time_ms: 1,
        expires_ms: 0,
        key: String::new(),
        frame: Bytes::from(vec![7; bytes]),
    };
    vec![Append { log, record }]
}

/// A log that no other test has.
async fn new_log(store: &Redis, room: &str) -> LogId {
    let group = store.group(room, true).await.unwrap().unwrap();
    LogId { group, class: Class::Binary }
}

/// Asks the server itself.
fn ask<T: redis::FromRedisValue>(url: &str, command: &[&str]) -> T {
    let mut connection = redis::Client::open(url).unwrap().get_connection().unwrap();
    let mut cmd = redis::Cmd::new();
    cmd.arg(command);
    cmd.query(&mut connection).unwrap()
}
