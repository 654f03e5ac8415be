//! The beginning of a connection, above TLS: hello, version, login.

use edgeway_proto::{
    CloseCode, VERSION,
    auth::{Accepted, LoginRequest, login_response::Result as Answer},
    frame::{Hello, Login, Welcome, param},
};
use edgeway_transport::Stop;

use crate::{config::Limits, outbox::Closing, uplink::Links};

/// What a client grants on its lanes where its hello says nothing, by class.
const DEFAULT_WINDOW: [u64; 3] = [64 * 1024, 16 * 1024, 16 * 1024];

/// Chooses the version.
///
/// # Errors
/// There is none in common; the reason says what there is.
pub fn negotiate(hello: &Hello) -> Result<u64, Stop> {
    if hello.version_min <= VERSION && VERSION <= hello.version_max {
        return Ok(VERSION);
    }
    let reason = format!(
        "the client speaks versions {} to {}; this server speaks {VERSION}",
        hello.version_min, hello.version_max
    );
    Err(Stop::new(CloseCode::Version, reason))
}

/// The credit that a client grants on each lane at first, by class.
#[must_use]
pub fn window(hello: &Hello) -> [u64; 3] {
    let mut window = DEFAULT_WINDOW;
    for (id, value) in &hello.params {
        match *id {
            param::CREDIT_SIGNAL => window[0] = *value,
            param::CREDIT_BINARY => window[1] = *value,
            param::CREDIT_CHAT => window[2] = *value,
            _ => {}
        }
    }
    window
}

/// Whether the client takes copies of frames as datagrams.
#[must_use]
pub fn understands_copies(hello: &Hello) -> bool {
    hello.params.contains(&(param::REPAIR, 1))
}

/// The answer to hello.
#[must_use]
pub fn welcome(version: u64, connection: u64, limits: &Limits) -> Welcome {
    let credit = limits.uplink_credit;
    Welcome {
        version,
        connection,
        time_ms: crate::clock::unix_ms(),
        params: vec![
            (param::CREDIT_SIGNAL, credit[0]),
            (param::CREDIT_BINARY, credit[1]),
            (param::CREDIT_CHAT, credit[2]),
            (param::IDLE_MS, crate::clock::ms(limits.idle_timeout)),
            (param::SESSIONS, u64::from(limits.sessions)),
            (param::REPAIR, 1),
            (param::GRACE_MS, crate::clock::ms(limits.grace)),
            (param::RENEW, 1),
        ],
    }
}

/// Asks who a login is.
///
/// # Errors
/// How the connection is to be closed.
pub async fn login(links: &Links, login: Login, remote: String) -> Result<Accepted, Closing> {
    ask(links, login, remote, 0).await
}

/// The same, of a login of a generation that stands and is to go on; 0 for a new one.
///
/// # Errors
/// How the connection would have to be closed.
pub async fn ask(
    links: &Links,
    login: Login,
    remote: String,
    renews: u64,
) -> Result<Accepted, Closing> {
    let request = LoginRequest {
        method: login.method,
        user: login.user.to_string(),
        device: login.device.to_string(),
        secret: login.secret,
        remote,
        renews,
    };
    let closing = |code, reason: String| Closing { code, reason, retry_after_ms: 0 };
    match links.login(request).await {
        Ok(response) => match response.result {
            Some(Answer::Accepted(accepted)) => Ok(accepted),
            Some(Answer::Rejected(rejected)) => {
                let code = CloseCode::from_code(u64::from(rejected.code));
                Err(closing(code, rejected.reason))
            }
            None => Err(closing(CloseCode::Internal, "an empty answer to the login".into())),
        },
        Err(problem) => {
            tracing::warn!(problem, "login could not be checked");
            Err(closing(CloseCode::AuthUnavailable, "the login cannot be checked now".into()))
        }
    }
}
