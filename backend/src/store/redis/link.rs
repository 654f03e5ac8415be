//! A connection that is made anew when it is lost.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use redis::{Cmd, ErrorKind, Pipeline, RedisError, RedisResult, ServerErrorKind, Value, cmd};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep, timeout},
};

use super::{
    RedisServer,
    dial::{Connection, Dialler},
    error::lost,
};

/// How long a command waits for a connection that is being made anew.
const WAIT: Duration = Duration::from_secs(1);
/// Between two attempts to connect: twice the one before, between these.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// A connection that lasted as long is lost by something new: the next attempt comes at once.
const LASTED: Duration = Duration::from_secs(5);

/// The connection as it is now.
#[derive(Clone)]
struct Current {
    /// Counts connections, so that one is not given up for what happened to the one before.
    number: u64,
    connection: Result<Connection, Arc<str>>,
}

/// A connection that somebody found to be lost.
struct Lost {
    number: u64,
    why: String,
}

/// A key that a server must have, with its value.
struct Mark {
    key: String,
    value: String,
}

/// A connection that is kept. Dropping it closes it.
pub(super) struct Link {
    cluster: bool,
    mark: Arc<OnceLock<Mark>>,
    current: watch::Receiver<Current>,
    lost: mpsc::Sender<Lost>,
}

impl Link {
    /// Connects, and starts the task that keeps the connection. `name` is for logs and metrics.
    pub(super) async fn open(
        name: &'static str,
        server: &RedisServer,
        ca_pem: Option<&[u8]>,
    ) -> RedisResult<Self> {
        let dialler = Dialler::new(server, ca_pem)?;
        let connection = Ok(dialler.dial().await?);
        let (current_tx, current) = watch::channel(Current { number: 0, connection });
        let (lost, lost_rx) = mpsc::channel(16);
        let mark = Arc::default();
        let keeper =
            Keeper { name, dialler, mark: Arc::clone(&mark), current: current_tx, lost: lost_rx };
        keeper.measure(true);
        tokio::spawn(keeper.run());
        Ok(Self { cluster: server.cluster, mark, current, lost })
    }

    /// From here on, a server that does not have this key with this value is not taken for the one
    /// that was lost: it has lost its data, or is another one. Once.
    pub(super) fn insist(&self, key: String, value: String) {
        let _ = self.mark.set(Mark { key, value });
    }

    /// Sends a command once.
    pub(super) async fn once(&self, cmd: &Cmd) -> RedisResult<Value> {
        let (number, connection) = self.connection(None).await?;
        Request::One(cmd).send(connection).await.or_else(|e| self.failed(number, e)).map(first)
    }

    /// Sends a command, and again on a new connection where the one there was is lost: for what may
    /// be done twice. Servers close what was idle for long, which is seen only now.
    pub(super) async fn command(&self, cmd: &Cmd) -> RedisResult<Value> {
        self.twice(Request::One(cmd)).await.map(first)
    }

    /// Sends commands about one slot of which nothing comes in between, as [`Self::command`] does.
    pub(super) async fn transaction<const N: usize>(
        &self,
        commands: [Cmd; N],
    ) -> RedisResult<[Value; N]> {
        let mut pipeline = Pipeline::with_capacity(N);
        pipeline.atomic();
        for cmd in commands {
            pipeline.add_command(cmd);
        }
        self.twice(Request::Transaction(&pipeline)).await?.try_into().map_err(|_| {
            (ErrorKind::UnexpectedReturnType, "a transaction with another number of answers").into()
        })
    }

    async fn twice(&self, request: Request<'_>) -> RedisResult<Vec<Value>> {
        let (number, connection) = self.connection(None).await?;
        match request.send(connection).await {
            // Who has waited for an answer in vain has waited long enough.
            Err(e) if lost(&e) && !e.is_timeout() => {
                let _ = self.failed::<()>(number, e);
                let (number, connection) = self.connection(Some(number)).await?;
                request.send(connection).await.or_else(|e| self.failed(number, e))
            }
            Err(e) => self.failed(number, e),
            Ok(answers) => Ok(answers),
        }
    }

    /// The connection, if possible one that came after a lost one.
    async fn connection(&self, lost: Option<u64>) -> RedisResult<(u64, Connection)> {
        let mut watching = self.current.clone();
        let good = |current: &Current| {
            current.connection.is_ok() && lost.is_none_or(|lost| current.number > lost)
        };
        let current = match timeout(WAIT, watching.wait_for(good)).await {
            Ok(Ok(current)) => current.clone(),
            // Not in time, or the runtime is being shut down.
            Ok(Err(_)) | Err(_) => self.current.borrow().clone(),
        };
        match current.connection {
            Ok(connection) => Ok((current.number, connection)),
            Err(why) => Err((ErrorKind::Io, "not connected", why.to_string()).into()),
        }
    }

    /// Notes what the failure of a request says of its connection.
    fn failed<T>(&self, number: u64, e: RedisError) -> RedisResult<T> {
        if !self.cluster && e.kind() == ErrorKind::Server(ServerErrorKind::Moved) {
            let hint = "set store.redis.cluster, or history_cluster".to_owned();
            return Err((ErrorKind::InvalidClientConfig, "it is a Cluster", hint).into());
        }
        if lost(&e) {
            // Where there is no room, others have said so.
            let _ = self.lost.try_send(Lost { number, why: e.to_string() });
        }
        Err(e)
    }
}

/// What is sent.
enum Request<'a> {
    One(&'a Cmd),
    Transaction(&'a Pipeline),
}

impl Request<'_> {
    async fn send(&self, mut connection: Connection) -> RedisResult<Vec<Value>> {
        match self {
            Self::One(cmd) => Ok(vec![cmd.query_async(&mut connection).await?]),
            Self::Transaction(pipeline) => pipeline.query_async(&mut connection).await,
        }
    }
}

fn first(answers: Vec<Value>) -> Value {
    answers.into_iter().next().unwrap_or_default()
}

/// The task that makes the connection anew. It ends with its link.
struct Keeper {
    name: &'static str,
    dialler: Dialler,
    mark: Arc<OnceLock<Mark>>,
    current: watch::Sender<Current>,
    lost: mpsc::Receiver<Lost>,
}

impl Keeper {
    async fn run(mut self) {
        let (mut since, mut attempts) = (Instant::now(), 0);
        while let Some(Lost { number, why }) = self.lost.recv().await {
            if number != self.current.borrow().number {
                continue;
            }
            tracing::warn!(link = self.name, why, "the connection to Redis is lost");
            if since.elapsed() >= LASTED {
                attempts = 0;
            }
            self.down(why);
            let mut told = String::new();
            loop {
                tokio::select! {
                    () = sleep(pause(attempts)) => {}
                    () = self.current.closed() => return,
                }
                attempts = attempts.saturating_add(1);
                match self.dial().await {
                    Ok(connection) => {
                        self.up(number + 1, connection);
                        break;
                    }
                    Err(e) => {
                        let now = e.to_string();
                        if now != told {
                            tracing::warn!(link = self.name, why = now, "no connection to Redis");
                            told.clone_from(&now);
                        }
                        self.down(now);
                    }
                }
            }
            since = Instant::now();
        }
    }

    async fn dial(&self) -> RedisResult<Connection> {
        let mut connection = self.dialler.dial().await?;
        if let Some(Mark { key, value }) = self.mark.get() {
            let mut get = cmd("GET");
            get.arg(key);
            let found: Option<String> = get.query_async(&mut connection).await?;
            if found.as_ref() != Some(value) {
                let why = "the server has lost its data, or is another one; give it back what it \
                           had, or start all processes of this store anew to start empty";
                return Err((ErrorKind::Client, why).into());
            }
        }
        Ok(connection)
    }

    fn measure(&self, connected: bool) {
        let level = f64::from(u8::from(connected));
        metrics::gauge!("edgeway_backend_store_connected", "link" => self.name).set(level);
    }

    fn up(&self, number: u64, connection: Connection) {
        tracing::info!(link = self.name, "connected to Redis again");
        metrics::counter!("edgeway_backend_store_reconnects_total", "link" => self.name)
            .increment(1);
        self.measure(true);
        self.current.send_replace(Current { number, connection: Ok(connection) });
    }

    fn down(&self, why: String) {
        self.measure(false);
        self.current.send_if_modified(|current| {
            // The old connection still reaches the other nodes of a Cluster.
            let single = !matches!(current.connection, Ok(Connection::Cluster(_)));
            if single {
                current.connection = Err(why.into());
            }
            single
        });
    }
}

/// Before an attempt: none before the first, then longer each time, and of many processes that
/// lost the same server not all at once.
fn pause(attempts: u32) -> Duration {
    let Some(doublings) = attempts.checked_sub(1) else { return Duration::ZERO };
    let longest = PAUSE_MIN.saturating_mul(1 << doublings.min(16)).min(PAUSE_MAX);
    let mut random = [0];
    // Without random numbers all wait for the longest time.
    let part = getrandom::fill(&mut random).map_or(1.0, |()| f64::from(random[0]) / 255.0);
    longest.mul_f64(0.5 + part / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_come_at_once_and_then_further_apart_up_to_a_bound() {
        assert_eq!(pause(0), Duration::ZERO);
        let mut longest = PAUSE_MIN;
        for attempts in 1..100 {
            let pause = pause(attempts);
            assert!(longest / 2 <= pause && pause <= longest, "{attempts}: {pause:?}");
            longest = (longest * 2).min(PAUSE_MAX);
        }
    }
}
