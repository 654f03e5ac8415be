//! Logins that go on by another proof, on the connection that stands.

use std::sync::{Arc, Weak, atomic::Ordering};

use edgeway_proto::{
    CloseCode, Text,
    frame::{Login, Renew, Renewed, method},
    limits::REASON_BYTES,
};
use edgeway_transport::Stop;
use parking_lot::Mutex;

use crate::{
    conn::Conn,
    context::Context,
    handshake,
    outbox::Closing,
    sessions::{Identity, Sessions},
};

/// Begins to renew a login.
///
/// # Errors
/// The client breaks the protocol.
pub fn begin(
    ctx: &Arc<Context>,
    conn: &Arc<Conn>,
    sessions: &Arc<Mutex<Sessions>>,
    renew: Renew,
) -> Result<(), Stop> {
    let Some(identity) = sessions.lock().identity() else {
        return Err(Stop::new(CloseCode::Protocol, "a Renew before the login was accepted"));
    };
    if conn.renewing.swap(true, Ordering::AcqRel) {
        return Err(Stop::new(
            CloseCode::Protocol,
            "a second Renew before the answer to the first",
        ));
    }
    let (ctx, conn, sessions) = (Arc::clone(ctx), Arc::clone(conn), Arc::downgrade(sessions));
    ctx.tracker.clone().spawn(async move {
        let answer = ask(&ctx, &conn, &sessions, identity, renew).await;
        // Before the answer, so that who has it may ask again.
        conn.renewing.store(false, Ordering::Release);
        conn.outbox.push_control(answer.to_bytes());
    });
    Ok(())
}

async fn ask(
    ctx: &Context,
    conn: &Conn,
    sessions: &Weak<Mutex<Sessions>>,
    Identity { device, generation, .. }: Identity,
    renew: Renew,
) -> Renewed {
    let Renew { method, secret } = renew;
    if ![method::PASSWORD, method::TOKEN].contains(&method) {
        let reason = "a login is renewed by password (method 1) or token (method 2)".into();
        return refused(Closing { code: CloseCode::LoginFailed, reason, retry_after_ms: 0 });
    }
    let user = Text::from(device.user.clone());
    let login = Login { method, user, device: Text::from(device.device.clone()), secret };
    let asking = handshake::ask(&ctx.links, login, conn.remote.to_string(), generation);
    let accepted = match tokio::time::timeout(ctx.limits().login_timeout, asking).await {
        Ok(Ok(accepted)) => accepted,
        Ok(Err(closing)) => return refused(closing),
        Err(_) => {
            let reason = "the login could not be checked in time".into();
            let code = CloseCode::AuthUnavailable;
            return refused(Closing { code, reason, retry_after_ms: 0 });
        }
    };
    if let Some(sessions) = sessions.upgrade() {
        sessions.lock().renewed(accepted.rights);
    }
    conn.expires_ms.store(accepted.expires_ms, Ordering::Relaxed);
    let (expires_ms, token) = (accepted.expires_ms, accepted.token);
    Renewed { code: 0, expires_ms, token, reason: Text::default() }
}

fn refused(Closing { code, reason, .. }: Closing) -> Renewed {
    let reason = reason[..reason.floor_char_boundary(REASON_BYTES)].to_owned();
    Renewed { code: code.code(), reason: Text::from(reason), ..Renewed::default() }
}
