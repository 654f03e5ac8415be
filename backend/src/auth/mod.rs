//! Who may log in: the gRPC service that the gateway asks once for each login.

mod generations;
mod names;
mod password;
#[cfg(test)]
mod tests;
mod token;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use edgeway_proto::{
    CloseCode,
    auth::{
        Accepted, LoginRequest, LoginResponse, Rejected, auth_server::Auth as AuthService,
        login_response::Result as Verdict,
    },
    frame::method,
    limits,
};
use parking_lot::RwLock;
use tokio::sync::Semaphore;
use tonic::{Request, Response, Status};

pub(crate) use self::names::{check_name, check_user};
use self::{
    generations::Generations,
    token::{Claim, Who},
};
pub use self::{
    password::{HashProblem, PasswordHash},
    token::TokenKey,
};
use crate::config;

/// How long a login may wait for its turn: a client gives a login up soon after.
const WAIT: Duration = Duration::from_secs(5);

/// Logins that may wait for their turn. At 20 ms a hash this is what `WAIT` lets through on one
/// core several times over; above it clients are told to come back.
const WAITING: usize = 2_000;

/// Who knows of which devices a Session lives, or is kept for their return.
pub trait Resumable: Send + Sync + std::fmt::Debug {
    /// Whether the session token holds that a login of generation `token` of this device has got;
    /// where it does, its next login is of generation `next`.
    fn resume(&self, user: &str, device: &str, token: u64, next: u64) -> bool;
}

/// The service of the config's `auth.mode`.
#[derive(Debug, Clone)]
pub struct Auth {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    users: RwLock<Arc<Users>>,
    /// Hashing takes a core and 19 MiB for each login: as many at a time as there are cores.
    hashing: Arc<Semaphore>,
    waiting: AtomicUsize,
    generations: Generations,
    key: TokenKey,
    devices: Arc<dyn Resumable>,
}

/// Who may log in; changed as a whole.
#[derive(Debug)]
struct Users {
    mode: config::Auth,
    /// What a login of an unknown user is checked against, so that it takes as long.
    decoy: Option<PasswordHash>,
}

impl Users {
    fn new(mode: config::Auth) -> Arc<Self> {
        let decoy = match &mode {
            config::Auth::Development => None,
            config::Auth::Passwords(users) => users.values().max_by_key(|h| h.cost()).cloned(),
        };
        Arc::new(Self { mode, decoy })
    }

    /// What this user's tokens are bound to; none where there is no such user.
    fn proof(&self, user: &str) -> Option<String> {
        match &self.mode {
            config::Auth::Development => Some(String::new()),
            config::Auth::Passwords(users) => users.get(user).map(ToString::to_string),
        }
    }
}

/// A login that is refused: the client's close code and a reason for a person.
type Refusal = (CloseCode, &'static str);

impl Auth {
    /// The service for a mode.
    #[must_use]
    pub fn new(mode: config::Auth, key: TokenKey, devices: Arc<dyn Resumable>) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            shared: Arc::new(Shared {
                users: RwLock::new(Users::new(mode)),
                hashing: Arc::new(Semaphore::new(cores)),
                waiting: AtomicUsize::new(0),
                generations: Generations::default(),
                key,
                devices,
            }),
        }
    }

    /// Other users may log in from now on. The mode of logins does not change while a process runs: what is given
    /// in another one is not used. Who is logged in stays so; the session tokens of users who are no more, or
    /// have another password, hold no longer.
    pub fn set_users(&self, mode: config::Auth) {
        let mut users = self.shared.users.write();
        if matches!((&users.mode, &mode), (config::Auth::Passwords(_), config::Auth::Passwords(_)))
        {
            *users = Users::new(mode);
        }
    }

    /// Who may log in now.
    #[must_use]
    pub fn users(&self) -> config::Auth {
        self.shared.users.read().mode.clone()
    }

    async fn decide(&self, request: LoginRequest) -> Result<Accepted, Refusal> {
        check_user(&request.user).map_err(|_| {
            (
                CloseCode::LoginFailed,
                "the user's name must be 1 to 128 bytes, without control characters or /",
            )
        })?;
        check_name(&request.device).map_err(|_| {
            (
                CloseCode::LoginFailed,
                "the device's name must be 1 to 128 bytes, without control characters",
            )
        })?;
        // The same to the end, also where they change meanwhile.
        let users = Arc::clone(&self.shared.users.read());
        if request.method == method::RESUME {
            return self.resume(&users, request);
        }
        match &users.mode {
            config::Auth::Development if request.method == method::DEVELOPMENT => {}
            config::Auth::Development => {
                return Err((
                    CloseCode::LoginFailed,
                    "this server has development logins only (method 0)",
                ));
            }
            config::Auth::Passwords(_) if request.method == method::PASSWORD => {
                self.check_password(&users, &request).await?;
            }
            config::Auth::Passwords(_) => {
                return Err((
                    CloseCode::LoginFailed,
                    "this server has logins by password only (method 1)",
                ));
            }
        }
        let generation = self.next_generation(&request);
        let proof = users.proof(&request.user).unwrap_or_default();
        Ok(self.accept(request, &proof, generation, 0))
    }

    fn next_generation(&self, request: &LoginRequest) -> u64 {
        self.shared.generations.next(&request.user, &request.device, now_ms())
    }

    fn accept(
        &self,
        request: LoginRequest,
        proof: &str,
        generation: u64,
        expires_ms: u64,
    ) -> Accepted {
        let LoginRequest { user, device, .. } = request;
        let who = Who { user: &user, device: &device, proof };
        let token = self.shared.key.sign(&who, Claim { generation, expires_ms });
        Accepted { user, expires_ms, generation, token }
    }

    /// A login by session token: no password is asked for, and nothing is hashed for it.
    fn resume(&self, users: &Users, request: LoginRequest) -> Result<Accepted, Refusal> {
        const REFUSED: Refusal =
            (CloseCode::LoginFailed, "the session token is unknown or expired; log in anew");
        let (user, device) = (&request.user, &request.device);
        let proof = users.proof(user).ok_or(REFUSED)?;
        let who = Who { user, device, proof: &proof };
        let claim = self.shared.key.check(&who, &request.secret).ok_or(REFUSED)?;
        if claim.expires_ms != 0 && now_ms() >= claim.expires_ms {
            return Err(REFUSED);
        }
        let generation = self.next_generation(&request);
        if !self.shared.devices.resume(user, device, claim.generation, generation) {
            return Err(REFUSED);
        }
        Ok(self.accept(request, &proof, generation, claim.expires_ms))
    }

    async fn check_password(&self, users: &Users, request: &LoginRequest) -> Result<(), Refusal> {
        const REFUSED: Refusal = (CloseCode::LoginFailed, "wrong user or password");
        let config::Auth::Passwords(by_name) = &users.mode else { return Err(REFUSED) };
        if request.secret.len() > limits::SECRET_BYTES {
            return Err((CloseCode::LoginFailed, "the password is too long"));
        }
        let known = by_name.get(&request.user);
        let Some(hash) = known.or(users.decoy.as_ref()).cloned() else { return Err(REFUSED) };
        let known = known.is_some();
        let turn = self.turn().await?;
        let secret = request.secret.clone();
        let right = tokio::task::spawn_blocking(move || {
            let right = hash.verify(&secret);
            drop(turn);
            right
        });
        match right.await {
            Ok(true) if known => Ok(()),
            Ok(_) => Err(REFUSED),
            Err(_) => Err((CloseCode::AuthUnavailable, "the login could not be checked")),
        }
    }

    async fn turn(&self) -> Result<tokio::sync::OwnedSemaphorePermit, Refusal> {
        const BUSY: Refusal = (CloseCode::AuthUnavailable, "too many logins at a time");
        let _waiting = Waiting::enter(&self.shared.waiting).ok_or(BUSY)?;
        let turn = Arc::clone(&self.shared.hashing).acquire_owned();
        match tokio::time::timeout(WAIT, turn).await {
            Ok(Ok(turn)) => Ok(turn),
            _ => Err(BUSY),
        }
    }
}

/// One of the logins that wait.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn enter(count: &'a AtomicUsize) -> Option<Self> {
        let before = count.fetch_add(1, Ordering::Relaxed);
        // Made before the check, so that refusing takes the count back too.
        let waiting = Self(count);
        metrics::gauge!("edgeway_auth_waiting").set(before as f64);
        (before < WAITING).then_some(waiting)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[tonic::async_trait]
impl AuthService for Auth {
    async fn login(
        &self,
        request: Request<LoginRequest>,
    ) -> Result<Response<LoginResponse>, Status> {
        let request = request.into_inner();
        let (user, remote) = (request.user.clone(), request.remote.clone());
        let resumes = request.method == method::RESUME;
        let result = match self.decide(request).await {
            Ok(accepted) => {
                let result = if resumes { "resumed" } else { "accepted" };
                metrics::counter!("edgeway_auth_logins_total", "result" => result).increment(1);
                Verdict::Accepted(accepted)
            }
            Err((code, reason)) => {
                let result = if resumes { "resume_refused" } else { code.name() };
                metrics::counter!("edgeway_auth_logins_total", "result" => result).increment(1);
                tracing::info!(%user, %remote, %code, reason, "login refused");
                Verdict::Rejected(Rejected {
                    code: u32::try_from(code.code()).unwrap_or_default(),
                    reason: reason.to_owned(),
                })
            }
        };
        Ok(Response::new(LoginResponse { result: Some(result) }))
    }
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
