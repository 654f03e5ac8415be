//! Connections to one server or to a Cluster.

use std::time::Duration;

use redis::{
    AsyncConnectionConfig, Client, Cmd, ErrorKind, Pipeline, RedisError, RedisFuture, RedisResult,
    TlsCertificates, Value,
    aio::{ConnectionLike, MultiplexedConnection},
    cluster::{ClusterClient, ClusterClientBuilder},
    cluster_async::ClusterConnection,
    cmd,
};
use tokio::time::timeout;

use super::{RedisServer, RedisUrl};

/// For connecting and logging in.
const CONNECT: Duration = Duration::from_secs(3);
/// For an answer. A server that syncs each write to a slow disk may take seconds.
const ANSWER: Duration = Duration::from_secs(5);

/// How often a command follows a slot that moves or a node that is being replaced, and how long it
/// rests in between, in milliseconds.
const CLUSTER_RETRIES: u32 = 5;
const CLUSTER_REST_MIN_MS: u64 = 5;
const CLUSTER_REST_MAX_MS: u64 = 500;

/// What commands are sent on. Clones share it.
#[derive(Clone)]
pub(super) enum Connection {
    Single(MultiplexedConnection),
    Cluster(ClusterConnection),
}

impl ConnectionLike for Connection {
    fn req_packed_command<'a>(&'a mut self, cmd: &'a Cmd) -> RedisFuture<'a, Value> {
        match self {
            Self::Single(connection) => connection.req_packed_command(cmd),
            Self::Cluster(connection) => connection.req_packed_command(cmd),
        }
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        match self {
            Self::Single(connection) => connection.req_packed_commands(pipeline, offset, count),
            Self::Cluster(connection) => connection.req_packed_commands(pipeline, offset, count),
        }
    }

    fn get_db(&self) -> i64 {
        match self {
            Self::Single(connection) => connection.get_db(),
            Self::Cluster(connection) => connection.get_db(),
        }
    }
}

/// Makes connections.
pub(super) enum Dialler {
    Single(Client, AsyncConnectionConfig),
    Cluster(ClusterClient),
}

impl Dialler {
    pub(super) fn new(server: &RedisServer, ca_pem: Option<&[u8]>) -> RedisResult<Self> {
        let none = || RedisError::from((ErrorKind::InvalidClientConfig, "no URL"));
        let first = server.urls.first().ok_or_else(none)?;
        let certs = TlsCertificates { client_tls: None, root_cert: ca_pem.map(<[u8]>::to_vec) };
        if server.cluster {
            let mut builder = ClusterClientBuilder::new(server.urls.iter().map(RedisUrl::secret))
                .retries(CLUSTER_RETRIES)
                .min_retry_wait(CLUSTER_REST_MIN_MS)
                .max_retry_wait(CLUSTER_REST_MAX_MS)
                .connection_timeout(CONNECT)
                .response_timeout(ANSWER);
            if first.is_tls() {
                builder = builder.certs(certs);
            }
            return Ok(Self::Cluster(builder.build()?));
        }
        let client = if first.is_tls() {
            Client::build_with_tls(first.secret(), certs)?
        } else {
            Client::open(first.secret())?
        };
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT))
            .set_response_timeout(Some(ANSWER));
        Ok(Self::Single(client, config))
    }

    /// Connects and logs in.
    pub(super) async fn dial(&self) -> RedisResult<Connection> {
        let dialling = async {
            match self {
                Self::Single(client, config) => client
                    .get_multiplexed_async_connection_with_config(config)
                    .await
                    .map(Connection::Single),
                Self::Cluster(client) => {
                    client.get_async_connection().await.map(Connection::Cluster)
                }
            }
        };
        // The nodes of a Cluster are tried one after the other.
        let told = |_| RedisError::from((ErrorKind::Io, "no connection in time"));
        let mut connection = timeout(CONNECT * 3, dialling).await.map_err(told)??;
        // Whether it lets us in and has read what it kept.
        cmd("PING").query_async::<Value>(&mut connection).await?;
        Ok(connection)
    }
}
