//! How long a login holds, and proving it anew on the connection that stands.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use edgeway_proto::{CloseCode, frame, frame::method, limits};

use crate::{Event, Login, RenewError, greet::Resume, shared::Shared};

/// What is known of the login.
#[derive(Default)]
pub(crate) struct LoginState {
    /// By which the next connection logs in, where that is not the configuration's.
    login: Option<Login>,
    resume: Option<Resume>,
    /// When the login ends, by this machine's clock.
    ends: Option<Instant>,
    /// When the app is to be told; once.
    tell: Option<Instant>,
    /// The server's clock less this machine's, in milliseconds.
    ahead_ms: i64,
    before: Duration,
}

impl LoginState {
    /// It ends at a time of the server's clock; 0 for never.
    fn holds_until(&mut self, expires_ms: u64, now: Instant) {
        let left = self.left(expires_ms);
        self.ends = left.map(|left| now + left);
        self.tell = left.map(|left| now + left.saturating_sub(self.before).max(left / 2));
    }

    fn left(&self, expires_ms: u64) -> Option<Duration> {
        let now_ms = unix_ms().saturating_add_signed(self.ahead_ms);
        // Longer than anybody waits, and no instant overflows.
        const LONG: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);
        let left = Duration::from_millis(expires_ms.saturating_sub(now_ms));
        (expires_ms != 0 && left < LONG).then_some(left)
    }

    /// Nothing is told of a login whose connection is gone.
    pub(crate) fn disconnected(&mut self) {
        (self.ends, self.tell) = (None, None);
    }
}

impl Shared {
    /// A login was accepted. `before` its end the app is told.
    pub(crate) fn logged_in(
        &self,
        welcome: &frame::Welcome,
        logged_in: &frame::LoggedIn,
        before: Duration,
    ) {
        let mut state = self.login.lock();
        state.resume = Resume::new(logged_in);
        state.before = before;
        // The answer has just come: the way back is little beside what a login holds.
        let ahead = i128::from(welcome.time_ms) - i128::from(unix_ms());
        state.ahead_ms = i64::try_from(ahead).unwrap_or(0);
        state.holds_until(logged_in.expires_ms, Instant::now());
    }

    /// By what the next connection logs in: where it is not the configuration's, and the session token.
    pub(crate) fn next_login(&self) -> (Option<Login>, Option<Resume>) {
        let state = self.login.lock();
        (state.login.clone(), state.resume.clone())
    }

    /// When the app is to be told that the login ends.
    pub(crate) fn expiring(&self) -> Option<Instant> {
        self.login.lock().tell
    }

    /// Tells the app, once for each login.
    pub(crate) fn tell_expiry(&self, now: Instant) {
        let mut state = self.login.lock();
        if state.tell.take_if(|at| *at <= now).is_none() {
            return;
        }
        let left = state.ends.map_or(Duration::ZERO, |ends| ends.saturating_duration_since(now));
        drop(state);
        self.with(|core| core.event(Event::LoginExpires { left }));
    }

    /// Proves anew who the user is.
    pub(crate) async fn renew(&self, login: Login) -> Result<Option<Duration>, RenewError> {
        let (user, method, secret) = match &login {
            Login::Token { user, token } => (user, method::TOKEN, token.as_slice()),
            Login::Password { user, password } => (user, method::PASSWORD, password.as_bytes()),
            Login::Development { .. } => return Err(RenewError::Unsupported),
        };
        if secret.len() > limits::SECRET_BYTES {
            return Err(RenewError::TooLarge);
        }
        let secret = Bytes::copy_from_slice(secret);
        let waiting = self.with(|core| core.renew(frame::Renew { method, secret }))?;
        let renewed = waiting.await.map_err(|_| match self.with(|core| core.is_closed()) {
            true => RenewError::Closed,
            false => RenewError::ConnectionLost,
        })?;
        if renewed.code != 0 {
            let code = CloseCode::from_code(renewed.code);
            return Err(RenewError::Refused { code, reason: renewed.reason.to_string() });
        }
        let left = {
            let mut state = self.login.lock();
            state.resume = Resume::renewed(user, &renewed).or(state.resume.take());
            state.holds_until(renewed.expires_ms, Instant::now());
            state.login = Some(login);
            state.left(renewed.expires_ms)
        };
        // Who drives the connection looks at the new time.
        self.control.notify_one();
        Ok(left)
    }
}

fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
