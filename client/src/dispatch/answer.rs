//! What dispatch says, read with care.

use std::time::Duration;

use serde::Deserialize;

use crate::{ClientConfig, ConnectError, TransportChoice, connect::split_server};

/// Places that are looked at.
const PLACES: usize = 16;
/// A ticket.
const TICKET_BYTES: usize = 1024;
/// However short or long an answer says that it holds.
const TTL_MIN: Duration = Duration::from_secs(1);
const TTL_MAX: Duration = Duration::from_secs(24 * 3600);

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answer {
    places: Vec<Place>,
    pub(super) ticket: Vec<u8>,
    pub(super) ttl: Duration,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
struct Place {
    quic: String,
    tcp: String,
    server_name: String,
}

#[derive(Deserialize)]
struct Said {
    endpoints: Vec<Place>,
    #[serde(default)]
    ticket: String,
    ttl_ms: u64,
}

impl Answer {
    pub(super) fn read(body: &[u8]) -> Result<Self, ConnectError> {
        let wrong = |reason: String| ConnectError::Dispatch { reason, may_retry: true };
        let Said { endpoints, ticket, ttl_ms } = serde_json::from_slice(body)
            .map_err(|error| wrong(format!("its answer cannot be read: {error}")))?;
        let is_good = |address: &String| address.is_empty() || split_server(address).is_ok();
        let is_place = |place: &Place| {
            is_good(&place.quic)
                && is_good(&place.tcp)
                && !(place.quic.is_empty() && place.tcp.is_empty())
        };
        let places: Vec<_> = endpoints.into_iter().filter(is_place).take(PLACES).collect();
        if places.is_empty() {
            return Err(wrong("its answer names no place that can be dialled".to_owned()));
        }
        if ticket.len() > TICKET_BYTES {
            return Err(wrong(format!("its ticket has {} bytes", ticket.len())));
        }
        let ttl = Duration::from_millis(ttl_ms).clamp(TTL_MIN, TTL_MAX);
        Ok(Self { places, ticket: ticket.into_bytes(), ttl })
    }

    /// The configurations for its places that `config` can use, in order; the place of `present` first, where the
    /// client may have left something.
    pub(super) fn places(&self, config: &ClientConfig, present: Option<&str>) -> Vec<ClientConfig> {
        let mut all: Vec<_> =
            self.places.iter().filter_map(|place| self.config(config, place)).collect();
        // Stable: all others stay in the order of dispatch.
        all.sort_by_key(|one| present != Some(one.server.as_str()));
        all
    }

    fn config(&self, config: &ClientConfig, place: &Place) -> Option<ClientConfig> {
        use TransportChoice::{Auto, Plain, Quic, Tcp};
        let (quic, tcp) = (!place.quic.is_empty(), !place.tcp.is_empty());
        let transport = match config.transport {
            Auto if quic && tcp => Auto,
            Auto | Quic if quic => Quic,
            Auto | Tcp if tcp => Tcp,
            // Dispatch knows no places in the clear.
            Auto | Quic | Tcp | Plain => return None,
        };
        let server = if transport == Tcp { &place.tcp } else { &place.quic };
        let name = Some(place.server_name.clone()).filter(|name| !name.is_empty());
        Some(ClientConfig {
            server: server.clone(),
            tcp_server: Some(place.tcp.clone()).filter(|tcp| transport == Auto && *tcp != *server),
            server_name: config.server_name.clone().or(name),
            transport,
            ticket: self.ticket.clone(),
            ..config.clone()
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;
    use crate::Login;

    const BODY: &str = r#"{"app":"default","endpoints":[
        {"quic":"a:1","tcp":"a:2","server_name":"a.example"},{"tcp":"b:1"},{"quic":"c"},{}],
        "ticket":"t","ttl_ms":60000,"more":1}"#;

    fn config(transport: TransportChoice) -> ClientConfig {
        let login = Login::Development { user: "ada".into() };
        ClientConfig { transport, ..ClientConfig::new("", login) }
    }

    #[test]
    fn the_places_of_an_answer_are_tried_in_order_over_what_they_have() {
        let answer = Answer::read(BODY.as_bytes()).unwrap();
        assert_eq!(answer.ttl, Duration::from_secs(60));
        let places = |transport, present| {
            let all = answer.places(&config(transport), present);
            all.into_iter().map(|one| (one.server, one.transport)).collect::<Vec<_>>()
        };
        let (a, b) = ("a:1".to_owned(), "b:1".to_owned());
        use TransportChoice::{Auto, Plain, Quic, Tcp};
        assert_eq!(places(Auto, None), [(a.clone(), Auto), (b.clone(), Tcp)]);
        assert_eq!(places(Auto, Some("b:1")), [(b.clone(), Tcp), (a.clone(), Auto)]);
        assert_eq!(places(Quic, None), [(a, Quic)]);
        assert_eq!(places(Tcp, None), [("a:2".to_owned(), Tcp), (b, Tcp)]);
        assert!(places(Plain, None).is_empty());
        let first = &answer.places(&config(Auto), None)[0];
        assert_eq!(first.tcp_server.as_deref(), Some("a:2"));
        assert_eq!(first.server_name.as_deref(), Some("a.example"));
        assert_eq!(first.ticket, b"t");
    }

    #[test]
    fn what_names_no_place_is_no_answer() {
        for body in ["", "[]", "{}", r#"{"endpoints":[],"ttl_ms":1}"#] {
            assert!(Answer::read(body.as_bytes()).is_err(), "{body}");
        }
        let long = BODY.replace("\"t\"", &format!("{:?}", "t".repeat(TICKET_BYTES + 1)));
        assert!(Answer::read(long.as_bytes()).is_err());
        let short = BODY.replace("60000", "0");
        assert_eq!(Answer::read(short.as_bytes()).unwrap().ttl, TTL_MIN);
    }

    proptest! {
        #[test]
        fn nothing_that_anybody_says_breaks_the_reader(body in any::<Vec<u8>>()) {
            let _ = Answer::read(&body);
        }
    }
}
