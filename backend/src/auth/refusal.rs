//! Logins that are refused. The table of them is `docs/AUTH.md`.

use std::fmt;

use edgeway_proto::CloseCode;

/// Why a login is refused: the code that the connection is closed with, a name that programs can rely on and
/// metrics count by, and what a person may want to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// `login_failed`, `login_expired`, or where another try may help `auth_unavailable`.
    pub code: CloseCode,
    /// Such as `token_audience`.
    pub name: &'static str,
    /// What is wrong.
    pub detail: std::borrow::Cow<'static, str>,
}

/// Mostly a constant.
type Text = std::borrow::Cow<'static, str>;

impl Refusal {
    /// Not without other credentials.
    pub(super) const fn failed(name: &'static str, detail: &'static str) -> Self {
        let detail = Text::Borrowed(detail);
        Self { code: CloseCode::LoginFailed, name, detail }
    }

    /// Whoever knows cannot be asked now: nobody is let in by a failure, and nobody kept out by one for good.
    pub(super) const fn unavailable(name: &'static str, detail: &'static str) -> Self {
        let detail = Text::Borrowed(detail);
        Self { code: CloseCode::AuthUnavailable, name, detail }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name, self.detail)
    }
}
