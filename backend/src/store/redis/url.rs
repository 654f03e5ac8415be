//! Where a server is.

use std::fmt;

use redis::{ConnectionAddr, IntoConnectionInfo};

/// Where a server is and how to log in there: `redis://USER:PASSWORD@HOST:PORT`, or `rediss://` for
/// TLS. It is printed without user and password.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisUrl {
    secret: String,
    shown: String,
    tls: bool,
    database: i64,
}

impl RedisUrl {
    /// Reads a URL.
    ///
    /// # Errors
    /// What is wrong, without a word of the URL: it may hold a password.
    pub fn parse(url: &str) -> Result<Self, &'static str> {
        if !url.starts_with("redis://") && !url.starts_with("rediss://") {
            return Err("must begin with redis://, or with rediss:// for TLS");
        }
        if url.contains('#') {
            return Err("holds a `#`; in a password it is written %23");
        }
        let info = url.into_connection_info().map_err(|_| {
            "is no URL of a Redis server; write redis://HOST:PORT, or redis://USER:PASSWORD@HOST:PORT \
             with what is no letter or digit of the password as %XX"
        })?;
        let (scheme, host, port) = match info.addr() {
            ConnectionAddr::Tcp(host, port) => ("redis", host, port),
            ConnectionAddr::TcpTls { host, port, .. } => ("rediss", host, port),
            _ => return Err("must name a host"),
        };
        let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
        let database = info.redis_settings().db();
        let path = if database == 0 { String::new() } else { format!("/{database}") };
        let shown = format!("{scheme}://{host}:{port}{path}");
        Ok(Self { secret: url.to_owned(), shown, tls: scheme == "rediss", database })
    }

    /// Whether it is spoken to over TLS.
    #[must_use]
    pub const fn is_tls(&self) -> bool {
        self.tls
    }

    /// The number of the database; a Cluster has only 0.
    #[must_use]
    pub const fn database(&self) -> i64 {
        self.database
    }

    /// All of it.
    pub(super) fn secret(&self) -> &str {
        &self.secret
    }
}

impl fmt::Display for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_url_is_printed_without_its_password() {
        for (url, shown) in [
            ("redis://ann:secret@redis.example:7000", "redis://redis.example:7000"),
            ("rediss://:secret@10.0.0.1", "rediss://10.0.0.1:6379"),
            ("redis://[::1]:7000/2", "redis://[::1]:7000/2"),
        ] {
            let url = RedisUrl::parse(url).unwrap();
            assert_eq!((url.to_string(), format!("{url:?}")), (shown.to_owned(), shown.to_owned()));
        }
        assert!(RedisUrl::parse("rediss://a").unwrap().is_tls());
    }

    #[test]
    fn what_is_wrong_is_told_without_the_url() {
        for url in
            ["", "10.0.0.1:6379", "http://secret@a", "redis://:sec#ret@a", "redis://:secret@a:b"]
        {
            let told = RedisUrl::parse(url).unwrap_err();
            assert!(!told.contains("secret"), "{told}");
        }
    }
}
