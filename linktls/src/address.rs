//! Addresses of peers: HOST:PORT, or http://HOST:PORT for one in the clear on this machine.

use std::net::IpAddr;

/// Longer than any name of the DNS (253 bytes) with a port.
const ADDRESS_BYTES: usize = 256;

/// What is wrong with an address, for a person: follows the address in a sentence.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct AddressProblem(pub(crate) String);

/// Whether links may be in the clear there.
#[must_use]
pub fn is_loopback(host: &str) -> bool {
    let ip = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host == "localhost" || ip.is_ok_and(|ip| ip.is_loopback())
}

/// An address taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Address<'a> {
    /// HOST:PORT.
    pub(crate) authority: &'a str,
    /// It is written http://, so that it is in the clear where other links are TLS.
    pub(crate) clear: bool,
    pub(crate) loopback: bool,
}

impl<'a> Address<'a> {
    pub(crate) fn parse(text: &'a str) -> Result<Self, AddressProblem> {
        let wrong = |problem: &str| Err(AddressProblem(problem.to_owned()));
        let (clear, authority) = match text.split_once("://") {
            None => (false, text),
            Some(("http", authority)) => (true, authority),
            Some((scheme, _)) => {
                return wrong(&format!(
                    "begins with {scheme}://; write HOST:PORT ([links] says whether it is TLS), or \
                     http://HOST:PORT for a backend of your own that is in the clear on this machine"
                ));
            }
        };
        let Some((host, port)) = authority.rsplit_once(':') else {
            return wrong("has no port; write HOST:PORT, such as 127.0.0.1:7400");
        };
        if !port.parse::<u16>().is_ok_and(|port| port != 0) {
            let problem = format!("has the port `{port}`; a port is a number from 1 to 65535");
            return wrong(&problem);
        }
        let is_ip6 = host.starts_with('[') && host.ends_with(']');
        let plain = host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
        if host.is_empty() || !(plain || is_ip6) || text.len() > ADDRESS_BYTES {
            return wrong(
                "has no host, or none that can be dialled; write HOST:PORT, [IP6]:PORT for IPv6",
            );
        }
        Ok(Self { authority, clear, loopback: is_loopback(host) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_an_address_and_where_it_may_be_in_the_clear() {
        for (text, authority, clear, loopback) in [
            ("127.0.0.1:7400", "127.0.0.1:7400", false, true),
            ("127.9.9.9:1", "127.9.9.9:1", false, true),
            ("localhost:65535", "localhost:65535", false, true),
            ("[::1]:7400", "[::1]:7400", false, true),
            ("http://127.0.0.1:7500", "127.0.0.1:7500", true, true),
            ("10.0.0.1:7400", "10.0.0.1:7400", false, false),
            ("0.0.0.0:7400", "0.0.0.0:7400", false, false),
            ("[fe80::1]:7400", "[fe80::1]:7400", false, false),
            ("room-1.internal:7400", "room-1.internal:7400", false, false),
            // Looks like loopback to a person only.
            ("127.0.0.1.example.org:7400", "127.0.0.1.example.org:7400", false, false),
            ("http://10.0.0.1:7500", "10.0.0.1:7500", true, false),
        ] {
            assert_eq!(Address::parse(text), Ok(Address { authority, clear, loopback }), "{text}");
        }
    }

    #[test]
    fn what_is_no_address_is_told_what_would_be() {
        for (text, told) in [
            ("", "no port"),
            ("nowhere", "no port"),
            ("a:", "1 to 65535"),
            ("a:0", "1 to 65535"),
            ("a:70000", "1 to 65535"),
            (":7400", "no host"),
            ("::1:7400", "[IP6]:PORT"),
            ("a b:7400", "no host"),
            ("user@host:7400", "no host"),
            ("https://a:7400", "begins with https://"),
            ("http://", "no port"),
        ] {
            let problem = Address::parse(text).err().map(|p| p.to_string()).unwrap_or_default();
            assert!(problem.contains(told), "{text}: {problem}");
        }
    }
}
