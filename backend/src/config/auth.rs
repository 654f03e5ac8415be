//! `[auth]`: who may log in, and by what.

use std::{collections::BTreeMap, time::Duration};

use serde::Deserialize;

use super::check::Check;
use crate::auth::{
    Algorithm, Endpoint, PasswordHash, Tokens, VerifyKey, check_name, check_user, parse_users,
};

/// Clocks that are set by NTP differ by less; a phone's that is off by more is not asked.
const LEEWAY_S: i64 = 30;
/// A person waits so long for a login, and a gateway for ten seconds.
const TIMEOUT_MS: i64 = 3_000;
/// At 50 ms an answer these are a thousand logins a second.
const AT_A_TIME: i64 = 64;
/// Keys are looked up by name, and a site rotates a few.
const KEYS_MAX: usize = 64;

/// `[auth]`: who may log in.
#[derive(Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RawAuth {
    /// `development`, or one or several of `passwords`, `tokens` and `callback`.
    pub mode: Option<Listed>,
    /// With `passwords`: argon2id hashes in PHC form, by user.
    pub users: BTreeMap<String, String>,
    /// With `passwords`: a file with more of them.
    pub users_file: Option<String>,
    /// `[auth.tokens]`
    pub tokens: RawTokens,
    /// `[auth.callback]`
    pub callback: RawCallback,
    /// Of a process that checks no logins: files may be on other machines.
    #[serde(skip)]
    pub is_elsewhere: bool,
}

/// One text, or several.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum Listed {
    /// One.
    One(String),
    /// Several.
    Many(Vec<String>),
}

impl Listed {
    /// All of them.
    #[must_use]
    pub fn all(&self) -> &[String] {
        match self {
            Self::One(one) => std::slice::from_ref(one),
            Self::Many(many) => many,
        }
    }
}

impl From<&str> for Listed {
    fn from(one: &str) -> Self {
        Self::One(one.to_owned())
    }
}

/// `[auth.tokens]`: which signed tokens are taken.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RawTokens {
    /// Who may sign them (`iss`).
    pub issuer: Option<Listed>,
    /// For whom they must be (`aud`).
    pub audience: Option<Listed>,
    /// Seconds that clocks may differ.
    pub leeway_s: Option<i64>,
    /// `[auth.tokens.keys]`, by `kid`.
    pub keys: BTreeMap<String, RawKey>,
}

/// A key of tokens: `key` or `file`.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RawKey {
    /// HS256, RS256 or EdDSA.
    pub alg: Option<String>,
    /// The secret, or the public key in PEM form.
    pub key: Option<String>,
    /// A file with it.
    pub file: Option<String>,
}

impl std::fmt::Debug for RawKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RawKey").field("alg", &self.alg).field("file", &self.file).finish()
    }
}

/// `[auth.callback]`: the operator's own endpoint.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RawCallback {
    /// Where it is.
    pub url: Option<String>,
    /// Milliseconds that an answer may take.
    pub timeout_ms: Option<i64>,
    /// Questions at a time.
    pub at_a_time: Option<i64>,
    /// Sent as the header `Authorization`.
    pub authorization: Option<String>,
    /// PEM file of the authorities to trust.
    pub ca: Option<String>,
}

impl std::fmt::Debug for RawAuth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Hashes are secrets too: they do not belong into a log.
        f.debug_struct("RawAuth")
            .field("mode", &self.mode)
            .field("users", &self.users.len())
            .field("tokens", &self.tokens)
            .finish_non_exhaustive()
    }
}

impl RawAuth {
    /// Whether anyone is let in under any name.
    #[must_use]
    pub fn is_development(&self) -> bool {
        self.mode.as_ref().is_none_or(|mode| mode.all() == ["development"])
    }

    /// An empty text says nothing.
    fn without_empty(mut self) -> Self {
        let RawCallback { url, authorization, ca, .. } = &mut self.callback;
        for text in [&mut self.users_file, url, authorization, ca] {
            text.take_if(|text| text.is_empty());
        }
        for list in [&mut self.tokens.issuer, &mut self.tokens.audience] {
            list.take_if(|list| list.all().iter().all(String::is_empty));
        }
        self
    }

    /// The files that it names: what is in them is part of the config.
    #[must_use]
    pub fn files(&self) -> Vec<&str> {
        let keys = self.tokens.keys.values().filter_map(|key| key.file.as_deref());
        keys.chain(self.users_file.as_deref())
            .chain(self.callback.ca.as_deref())
            .filter(|file| !file.is_empty())
            .collect()
    }
}

/// Who may log in.
#[derive(Debug, Clone)]
pub enum Auth {
    /// Anyone, under any name. For development.
    Development,
    /// Who proves who it is.
    Checked(Box<Checked>),
}

/// How a login proves who it is.
#[derive(Debug, Clone, Default)]
pub struct Checked {
    /// These users, with their passwords.
    pub passwords: Option<BTreeMap<String, PasswordHash>>,
    /// Signed tokens.
    pub tokens: Option<Tokens>,
    /// The operator's endpoint says so: of passwords and tokens, where the others do not look at them.
    pub callback: Option<Endpoint>,
}

impl Auth {
    /// With passwords alone.
    #[must_use]
    pub fn with_passwords(users: BTreeMap<String, PasswordHash>) -> Self {
        Self::Checked(Box::new(Checked { passwords: Some(users), ..Checked::default() }))
    }

    /// With tokens alone.
    #[must_use]
    pub fn with_tokens(tokens: Tokens) -> Self {
        Self::Checked(Box::new(Checked { tokens: Some(tokens), ..Checked::default() }))
    }

    /// The users with passwords, where there are any logins by password here.
    #[must_use]
    pub fn passwords(&self) -> Option<&BTreeMap<String, PasswordHash>> {
        match self {
            Self::Development => None,
            Self::Checked(checked) => checked.passwords.as_ref(),
        }
    }

    /// Which methods there are: they change with a restart only.
    pub(crate) fn methods(&self) -> [bool; 3] {
        match self {
            Self::Development => [false; 3],
            Self::Checked(c) => [c.passwords.is_some(), c.tokens.is_some(), c.callback.is_some()],
        }
    }
}

impl Checked {
    /// In words.
    #[must_use]
    pub fn said(&self) -> String {
        let said = [
            self.passwords.as_ref().map(|_| "password (method 1)"),
            self.tokens.as_ref().map(|_| "signed token (method 2)"),
            self.callback.as_ref().map(|_| match self.tokens {
                None => "what the operator's endpoint takes (methods 1 and 2)",
                Some(_) => "password, as the operator's endpoint takes it (method 1)",
            }),
        ];
        said.into_iter().flatten().collect::<Vec<_>>().join(" or ")
    }
}

const MODES: &str = "\"development\" lets anyone in, \"passwords\" those of auth.users and auth.users_file, \
                     \"tokens\" who has one signed by a key of auth.tokens.keys, \"callback\" whom the \
                     endpoint at auth.callback.url lets in; [\"passwords\", \"tokens\"] is both";

impl Check<'_> {
    pub(super) fn auth(&mut self, raw: RawAuth) -> Auth {
        let raw = raw.without_empty();
        let modes: Vec<&str> = match &raw.mode {
            None => vec!["development"],
            Some(mode) => mode.all().iter().map(String::as_str).collect(),
        };
        let known = ["development", "passwords", "tokens", "callback"];
        if let Some(other) = modes.iter().find(|mode| !known.contains(mode)) {
            self.problem("auth.mode", format!("`{other}` is unknown; {MODES}"));
            return Auth::Development;
        }
        let has = |mode: &str| modes.contains(&mode);
        if modes.is_empty() || (has("development") && modes.len() > 1) {
            self.problem("auth.mode", format!("must be \"development\" alone, or others; {MODES}"));
        }
        if has("callback") && has("passwords") && has("tokens") {
            let problem =
                "\"callback\" would never be asked: \"passwords\" and \"tokens\" answer all logins";
            self.problem("auth.mode", problem);
        }
        let unused = |has: bool, is_there: bool| !has && is_there;
        for (key, mode, unused) in [
            ("auth.users", "passwords", unused(has("passwords"), !raw.users.is_empty())),
            ("auth.users_file", "passwords", unused(has("passwords"), raw.users_file.is_some())),
            ("auth.tokens.keys", "tokens", unused(has("tokens"), !raw.tokens.keys.is_empty())),
            ("auth.callback.url", "callback", unused(has("callback"), raw.callback.url.is_some())),
        ] {
            if unused {
                let now = modes.join("\", \"");
                let problem =
                    format!("has no effect with auth.mode = \"{now}\"; set auth.mode = \"{mode}\"");
                self.problem(key, problem);
            }
        }
        if has("development") {
            return Auth::Development;
        }
        let elsewhere = raw.is_elsewhere;
        Auth::Checked(Box::new(Checked {
            passwords: has("passwords")
                .then(|| self.passwords(raw.users, raw.users_file, elsewhere)),
            tokens: has("tokens").then(|| self.tokens(raw.tokens, elsewhere)),
            callback: if has("callback") { self.callback(raw.callback, elsewhere) } else { None },
        }))
    }

    fn passwords(
        &mut self,
        raw: BTreeMap<String, String>,
        file: Option<String>,
        is_elsewhere: bool,
    ) -> BTreeMap<String, PasswordHash> {
        if raw.is_empty() && file.is_none() {
            self.problem(
                "auth.users",
                "is empty, so that nobody could log in; give each user an argon2id hash, by \
                 `edgeway user hash`: [auth.users] ada = \"$argon2id$v=19$...\", or name a file with auth.users_file",
            );
        }
        let mut users = BTreeMap::new();
        if let Some(text) = file.and_then(|f| self.read("auth.users_file", &f, is_elsewhere)) {
            match parse_users(&String::from_utf8_lossy(&text)) {
                Ok(found) => users = found,
                Err(problem) => self.problem("auth.users_file", problem.to_string()),
            }
        }
        for (user, hash) in raw {
            let key = format!("auth.users.{user}");
            if let Err(problem) = check_user(&user) {
                self.problem(&key, format!("the user's name {problem}"));
            }
            match PasswordHash::parse(&hash) {
                Ok(_) if users.contains_key(&user) => {
                    self.problem(key, "is in auth.users_file too; take one of them out");
                }
                Ok(hash) => {
                    users.insert(user, hash);
                }
                Err(e) => self.problem(key, e.to_string()),
            }
        }
        users
    }

    fn tokens(&mut self, raw: RawTokens, is_elsewhere: bool) -> Tokens {
        if raw.keys.is_empty() {
            let problem = "is empty, so that nobody could log in; give a key by its kid: \
                           [auth.tokens.keys] main = { alg = \"EdDSA\", file = \"main.pem\" }";
            self.problem("auth.tokens.keys", problem);
        }
        if raw.keys.len() > KEYS_MAX {
            self.problem("auth.tokens.keys", format!("at most {KEYS_MAX} keys"));
        }
        let mut keys = BTreeMap::new();
        for (kid, key) in raw.keys {
            let at = format!("auth.tokens.keys.{kid}");
            if let Err(problem) = check_name(&kid) {
                self.problem(&at, format!("the key's name {problem}"));
            }
            if let Some(key) = self.key(&at, &key, is_elsewhere) {
                keys.insert(kid, key);
            }
        }
        let list = |listed: Option<Listed>| listed.map_or_else(Vec::new, |l| l.all().to_vec());
        let leeway = self.number("auth.tokens.leeway_s", raw.leeway_s, LEEWAY_S, 0..=300);
        Tokens {
            keys,
            issuers: list(raw.issuer),
            audiences: list(raw.audience),
            leeway: Duration::from_secs(leeway.unsigned_abs()),
        }
    }

    fn key(&mut self, at: &str, raw: &RawKey, is_elsewhere: bool) -> Option<VerifyKey> {
        let algorithm = raw.alg.as_deref().and_then(Algorithm::parse);
        let Some(algorithm) = algorithm else {
            let is =
                raw.alg.as_deref().map_or("is missing".to_owned(), |alg| format!("is `{alg}`"));
            self.problem(format!("{at}.alg"), format!("{is}; there are {}", Algorithm::NAMES));
            return None;
        };
        let (field, bytes) = match (&raw.key, &raw.file) {
            (Some(key), None) => ("key", key.clone().into_bytes()),
            (None, Some(file)) => ("file", self.read(&format!("{at}.file"), file, is_elsewhere)?),
            _ => {
                let problem = "give the key, or a file with it: the secret of HS256, or a public key in PEM form";
                self.problem(at, problem);
                return None;
            }
        };
        let key = VerifyKey::new(algorithm, &bytes);
        key.map_err(|e| self.problem(format!("{at}.{field}"), e.to_string())).ok()
    }

    fn callback(&mut self, raw: RawCallback, is_elsewhere: bool) -> Option<Endpoint> {
        let timeout =
            self.number("auth.callback.timeout_ms", raw.timeout_ms, TIMEOUT_MS, 10..=8_000);
        let places = self.number("auth.callback.at_a_time", raw.at_a_time, AT_A_TIME, 1..=10_000);
        let Some(url) = raw.url else {
            let problem = "is missing; write http://HOST:PORT/PATH or https://HOST/PATH";
            self.problem("auth.callback.url", problem);
            return None;
        };
        let ca = match raw.ca {
            Some(file) => Some(self.read("auth.callback.ca", &file, is_elsewhere)?),
            None => None,
        };
        let timeout = Duration::from_millis(timeout.unsigned_abs());
        let places = usize::try_from(places).unwrap_or(1);
        Endpoint::new(&url, ca.as_deref(), raw.authorization.as_deref(), timeout, places)
            .map_err(|(key, problem)| self.problem(format!("auth.callback.{key}"), problem))
            .ok()
    }

    pub(super) fn read(&mut self, key: &str, file: &str, is_elsewhere: bool) -> Option<Vec<u8>> {
        match std::fs::read(file) {
            Ok(bytes) => Some(bytes),
            Err(_) if is_elsewhere => None,
            Err(e) => {
                self.problem(key, format!("{file} cannot be read: {e}"));
                None
            }
        }
    }
}
