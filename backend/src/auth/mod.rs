//! Who may log in: the gRPC service that the gateway asks once for each login.

mod callback;
mod crypto;
mod generations;
mod hashing;
mod jwt;
mod names;
mod password;
mod refusal;
mod rights;
#[cfg(test)]
mod tests;
mod token;
mod users;

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use edgeway_proto::{
    auth::{
        Accepted, LoginRequest, LoginResponse, Rejected, auth_server::Auth as AuthService,
        login_response::Result as Verdict,
    },
    frame::method,
    limits, link,
};
use parking_lot::RwLock;
use tokio::sync::Semaphore;
use tonic::{Request, Response, Status};

pub(crate) use self::names::{check_name, check_user};
pub use self::{
    callback::Endpoint,
    jwt::{Algorithm, Audience, Claims, Good, KeyProblem, SigningKey, Tokens, VerifyKey, inspect},
    password::{HashProblem, PasswordHash},
    refusal::Refusal,
    token::TokenKey,
    users::{USERS_MAX, UsersProblem, parse_users, user_line},
};
use self::{
    generations::Generations,
    hashing::Hashing,
    token::{Claim, Source, Who},
};
use crate::config;

/// How long a login may wait for its turn: a client gives a login up soon after.
const WAIT: Duration = Duration::from_secs(5);

/// Logins that may wait for their turn. At 20 ms a hash this is what `WAIT` lets through on one
/// core several times over; above it clients are told to come back.
const WAITING: usize = 2_000;

const BAD_USER: Refusal = Refusal::failed(
    "bad_user",
    "the user's name must be 1 to 128 bytes, without control characters or /, and not begin with @",
);
const BAD_DEVICE: Refusal = Refusal::failed(
    "bad_device",
    "the device's name must be 1 to 128 bytes, without control characters",
);
const BUSY: Refusal = Refusal::unavailable("busy", "too many logins at a time");

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
    /// Who may check a password now: as many as there are cores, each with its 19 MiB.
    turns: Arc<Semaphore>,
    hashing: Hashing,
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
        let decoy = mode.passwords().and_then(|users| users.values().max_by_key(|h| h.cost()));
        Arc::new(Self { decoy: decoy.cloned(), mode })
    }

    /// What the session tokens of a user's logins are bound to; none where nobody could log in like that (any
    /// more).
    fn proof(&self, user: &str, source: &Source) -> Option<String> {
        match (source, &self.mode) {
            (Source::Development, config::Auth::Development) => Some(String::new()),
            (Source::Development, config::Auth::Checked(_)) | (_, config::Auth::Development) => {
                None
            }
            (Source::Password, config::Auth::Checked(checked)) => {
                checked.passwords.as_ref()?.get(user).map(ToString::to_string)
            }
            (Source::Token(kid), config::Auth::Checked(checked)) => {
                checked.tokens.as_ref()?.proof(kid)
            }
            (Source::Callback, config::Auth::Checked(checked)) => {
                checked.callback.is_some().then(String::new)
            }
        }
    }
}

/// Who a login has proved to be.
struct Proved {
    user: String,
    expires_ms: u64,
    source: Source,
    rights: Option<link::Rights>,
}

impl Auth {
    /// The service for a mode.
    #[must_use]
    pub fn new(mode: config::Auth, key: TokenKey, devices: Arc<dyn Resumable>) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            shared: Arc::new(Shared {
                users: RwLock::new(Users::new(mode)),
                turns: Arc::new(Semaphore::new(cores)),
                hashing: Hashing::new(cores),
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
        if users.mode.methods() == mode.methods() {
            *users = Users::new(mode);
        }
    }

    /// Who may log in now.
    #[must_use]
    pub fn users(&self) -> config::Auth {
        self.shared.users.read().mode.clone()
    }

    async fn decide(&self, mut request: LoginRequest) -> Result<Accepted, Refusal> {
        // A token may say who it is; all others are told.
        if request.method != method::TOKEN || !request.user.is_empty() {
            check_user(&request.user).map_err(|_| BAD_USER)?;
        }
        check_name(&request.device).map_err(|_| BAD_DEVICE)?;
        // The same to the end, also where they change meanwhile.
        let users = Arc::clone(&self.shared.users.read());
        if request.method == method::RESUME {
            return self.resume(&users, request);
        }
        let proved = self.prove(&users, &request).await?;
        check_user(&proved.user).map_err(|_| BAD_USER)?;
        let renews = request.renews;
        if proved.user != request.user && (renews != 0 || proved.source.names_the_user(&request)) {
            return Err(Refusal::failed("other_user", "it is of another user"));
        }
        request.user.clone_from(&proved.user);
        let generation = if renews == 0 { self.next_generation(&request) } else { renews };
        Ok(self.accept(&users, request, proved, generation))
    }

    /// Who a login is, by any method but that of session tokens.
    async fn prove(&self, users: &Users, request: &LoginRequest) -> Result<Proved, Refusal> {
        let user = request.user.clone();
        let checked = match &users.mode {
            config::Auth::Development if request.method == method::DEVELOPMENT => {
                return Ok(Proved {
                    user,
                    expires_ms: 0,
                    source: Source::Development,
                    rights: None,
                });
            }
            config::Auth::Development => {
                let detail = "this server has development logins only (method 0)";
                return Err(Refusal::failed("method_not_allowed", detail));
            }
            config::Auth::Checked(checked) => checked,
        };
        match (request.method, &**checked) {
            (method::PASSWORD, config::Checked { passwords: Some(by_name), .. }) => {
                self.check_password(users, by_name, request).await?;
                Ok(Proved { user, expires_ms: 0, source: Source::Password, rights: None })
            }
            (method::TOKEN, config::Checked { tokens: Some(tokens), .. }) => {
                let Good { claims, kid, expires_ms } = tokens.check(&request.secret)?;
                let rights = rights::of_lists(claims.rooms, claims.speak, claims.rights);
                let source = Source::Token(kid);
                Ok(Proved { user: claims.sub, expires_ms, source, rights })
            }
            (
                method::PASSWORD | method::TOKEN,
                config::Checked { callback: Some(endpoint), .. },
            ) => {
                let name = if request.method == method::TOKEN { "token" } else { "password" };
                if request.secret.len() > limits::SECRET_BYTES {
                    return Err(Refusal::failed("token_too_long", "a secret may have 8 KiB"));
                }
                let _waiting = Waiting::enter(&self.shared.waiting).ok_or(BUSY)?;
                let callback::Allowed { user: named, expires_ms, rights } =
                    endpoint.ask(name, request).await?;
                if expires_ms != 0 && now_ms() >= expires_ms {
                    return Err(Refusal::failed("callback_refused", "the login is over already"));
                }
                let user = named.unwrap_or(user);
                Ok(Proved { user, expires_ms, source: Source::Callback, rights })
            }
            _ => Err(Refusal {
                detail: format!("this server has logins by {} only", checked.said()).into(),
                ..Refusal::failed("method_not_allowed", "")
            }),
        }
    }

    fn next_generation(&self, request: &LoginRequest) -> u64 {
        self.shared.generations.next(&request.user, &request.device, now_ms())
    }

    fn accept(
        &self,
        users: &Users,
        request: LoginRequest,
        proved: Proved,
        generation: u64,
    ) -> Accepted {
        let Proved { expires_ms, source, rights, .. } = proved;
        let LoginRequest { user, device, .. } = request;
        let proof = users.proof(&user, &source).unwrap_or_default();
        let who = Who { user: &user, device: &device, proof: &proof };
        let claim = Claim { generation, expires_ms, source, rights };
        let token = self.shared.key.sign(&who, &claim);
        let rights = claim.rights;
        Accepted { user, expires_ms, generation, token, rights }
    }

    /// A login by session token: no password is asked for, and nothing is hashed for it.
    fn resume(&self, users: &Users, request: LoginRequest) -> Result<Accepted, Refusal> {
        const REFUSED: Refusal = Refusal::failed(
            "session_token",
            "the session token is unknown or expired; log in anew",
        );
        let (user, device) = (&request.user, &request.device);
        let proof = |source: &Source| users.proof(user, source);
        let claim = self.shared.key.check(user, device, &request.secret, proof).ok_or(REFUSED)?;
        // A login that stands is renewed by what proves more than that it stands.
        if request.renews != 0 || (claim.expires_ms != 0 && now_ms() >= claim.expires_ms) {
            return Err(REFUSED);
        }
        let generation = self.next_generation(&request);
        if !self.shared.devices.resume(user, device, claim.generation, generation) {
            return Err(REFUSED);
        }
        let Claim { expires_ms, source, rights, .. } = claim;
        let proved = Proved { user: request.user.clone(), expires_ms, source, rights };
        Ok(self.accept(users, request, proved, generation))
    }

    async fn check_password(
        &self,
        users: &Users,
        by_name: &BTreeMap<String, PasswordHash>,
        request: &LoginRequest,
    ) -> Result<(), Refusal> {
        const REFUSED: Refusal = Refusal::failed("wrong_password", "wrong user or password");
        if request.secret.len() > limits::SECRET_BYTES {
            return Err(Refusal::failed("wrong_password", "the password is too long"));
        }
        let known = by_name.get(&request.user);
        let Some(hash) = known.or(users.decoy.as_ref()).cloned() else { return Err(REFUSED) };
        let known = known.is_some();
        let turn = self.turn().await?;
        match self.shared.hashing.verify(hash, request.secret.to_vec(), turn).await {
            Ok(true) if known => Ok(()),
            Ok(_) => Err(REFUSED),
            Err(error) => {
                tracing::error!(%error, "a password could not be checked");
                Err(Refusal::unavailable("internal", "the login could not be checked"))
            }
        }
    }

    async fn turn(&self) -> Result<tokio::sync::OwnedSemaphorePermit, Refusal> {
        let _waiting = Waiting::enter(&self.shared.waiting).ok_or(BUSY)?;
        let turn = Arc::clone(&self.shared.turns).acquire_owned();
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
        let (resumes, renews) = (request.method == method::RESUME, request.renews != 0);
        let result = match self.decide(request).await {
            Ok(accepted) => {
                let result = match (resumes, renews) {
                    (true, _) => "resumed",
                    (_, true) => "renewed",
                    _ => "accepted",
                };
                metrics::counter!("edgeway_auth_logins_total", "result" => result).increment(1);
                Verdict::Accepted(accepted)
            }
            Err(refusal) => {
                let Refusal { code, name, .. } = refusal;
                let result = if resumes { "resume_refused" } else { code.name() };
                metrics::counter!("edgeway_auth_logins_total", "result" => result).increment(1);
                metrics::counter!("edgeway_auth_refused_total", "reason" => name).increment(1);
                tracing::info!(%user, %remote, %code, reason = %refusal, "login refused");
                Verdict::Rejected(Rejected {
                    code: u32::try_from(code.code()).unwrap_or_default(),
                    reason: refusal.to_string(),
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
