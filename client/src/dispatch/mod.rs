//! Where dispatch sends this client: asked over HTTP, remembered, and done without where it is away.
//!
//! `answer` reads what it says, `http` asks, `ways` decides what is tried next (pure).

mod answer;
mod http;
mod ways;

use std::{collections::HashMap, sync::Arc, time::Instant};

use edgeway_proto::CloseCode;

use crate::{
    ClientConfig, ConnectError, DispatchConfig, Login,
    connect::connect,
    connector::Connector,
    greet::{Established, Flight},
};
use answer::Answer;
use ways::{Step, Ways};

pub(crate) use http::Https;

/// Answers that a connector remembers; the oldest is forgotten first.
const ANSWERS_MAX: usize = 64;

/// Whose answer it is: URL, app and user.
type Key = (String, String, String);

/// The last answers.
#[derive(Debug, Default)]
pub(crate) struct Answers(HashMap<Key, Known>);

/// An answer, and what has come of it.
#[derive(Debug, Clone)]
struct Known {
    answer: Arc<Answer>,
    since: Instant,
    /// It is not to be used before dispatch was asked again.
    spent: bool,
}

impl Known {
    fn is_fresh(&self, now: Instant) -> bool {
        !self.spent && now.saturating_duration_since(self.since) < self.answer.ttl
    }
}

impl Answers {
    fn put(&mut self, key: Key, answer: Arc<Answer>, since: Instant) {
        if self.0.len() >= ANSWERS_MAX && !self.0.contains_key(&key) {
            let oldest = self.0.iter().min_by_key(|(_, known)| known.since);
            if let Some(oldest) = oldest.map(|(key, _)| key.clone()) {
                self.0.remove(&oldest);
            }
        }
        self.0.insert(key, Known { answer, since, spent: false });
    }

    fn spend(&mut self, key: &Key) {
        if let Some(known) = self.0.get_mut(key) {
            known.spent = true;
        }
    }
}

/// Connects where dispatch says, or where the configuration does. With the connection comes the configuration of the
/// place that it leads to. `present` is the place of the connection before, `endpoint` where its server said to
/// come back to.
pub(crate) async fn connect_somewhere(
    connector: &Connector,
    config: &Arc<ClientConfig>,
    present: Option<&ClientConfig>,
    flight: impl Fn(&ClientConfig) -> Flight,
    endpoint: Option<&str>,
) -> Result<(Established, Arc<ClientConfig>), ConnectError> {
    let Some(dispatch) = &config.dispatch else {
        let established = Box::pin(connect(connector, config, &flight(config), endpoint)).await?;
        return Ok((established, Arc::clone(config)));
    };
    if let (Some(present), Some(endpoint)) = (present, endpoint) {
        let flight = flight(present);
        if let Ok(done) = Box::pin(connect(connector, present, &flight, Some(endpoint))).await {
            return Ok((done, Arc::new(present.clone())));
        }
    }
    let key = key(config, dispatch);
    let known = connector.answers(|answers| answers.0.get(&key).cloned());
    let fresh = known.as_ref().is_some_and(|known| known.is_fresh(Instant::now()));
    let mut ways = Ways::new(fresh, known.is_some(), !config.server.is_empty());
    let mut answer = known.map(|known| known.answer);
    let mut last = None;
    while let Some(step) = ways.next() {
        let places = match step {
            Step::Ask => match ask(connector, config, dispatch, &key).await {
                Ok(new) => {
                    answer = Some(new);
                    ways.answered(true);
                    continue;
                }
                Err(error) => {
                    tracing::warn!(%error, url = dispatch.url, "dispatch has not answered");
                    last = Some(last.unwrap_or(error));
                    ways.answered(false);
                    continue;
                }
            },
            Step::Try => answer.as_ref().map_or_else(Vec::new, |answer| {
                answer.places(config, present.map(|present| present.server.as_str()))
            }),
            Step::Fallback => {
                let ticket = answer.as_ref().map(|answer| answer.ticket.clone());
                vec![ClientConfig { ticket: ticket.unwrap_or_default(), ..(**config).clone() }]
            }
        };
        for place in places {
            let flight = flight(&place);
            match Box::pin(connect(connector, &place, &flight, None)).await {
                Ok(established) => return Ok((established, Arc::new(place))),
                Err(error) => {
                    tracing::debug!(%error, server = place.server, "not there");
                    let code = match &error {
                        ConnectError::Refused { code, .. } => Some(*code),
                        _ => None,
                    };
                    // Its ticket may have run out, or dispatch may know of a better place by now.
                    connector.answers(|answers| answers.spend(&key));
                    if code == Some(CloseCode::AuthUnavailable) || is_final(&error) {
                        return Err(error);
                    }
                    last = Some(error);
                }
            }
        }
    }
    let problem = "dispatch names no place that this client can use".to_owned();
    Err(last.unwrap_or(ConnectError::Dispatch { reason: problem, may_retry: true }))
}

/// Whether no other place can have another result.
fn is_final(error: &ConnectError) -> bool {
    matches!(
        error,
        ConnectError::LoginFailed { .. }
            | ConnectError::VersionUnsupported { .. }
            | ConnectError::Config { .. }
    )
}

fn key(config: &ClientConfig, dispatch: &DispatchConfig) -> Key {
    (dispatch.url.clone(), dispatch.app.clone(), user(&config.login).to_owned())
}

fn user(login: &Login) -> &str {
    match login {
        Login::Development { user } | Login::Password { user, .. } | Login::Token { user, .. } => {
            user
        }
    }
}

async fn ask(
    connector: &Connector,
    config: &ClientConfig,
    dispatch: &DispatchConfig,
    key: &Key,
) -> Result<Arc<Answer>, ConnectError> {
    let asking = http::get(connector, dispatch, user(&config.login));
    let body = match tokio::time::timeout(dispatch.timeout, asking).await {
        Ok(body) => body?,
        Err(_) => {
            let reason = format!("no answer within {:?}", dispatch.timeout);
            return Err(ConnectError::Dispatch { reason, may_retry: true });
        }
    };
    let answer = Arc::new(Answer::read(&body)?);
    connector.answers(|answers| answers.put(key.clone(), Arc::clone(&answer), Instant::now()));
    Ok(answer)
}

/// What is wrong with how dispatch is to be asked.
pub(crate) fn check(dispatch: &DispatchConfig) -> Result<(), ConnectError> {
    http::Target::parse(&dispatch.url).map(drop)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::time::Duration;

    use super::*;

    #[test]
    fn so_many_answers_are_remembered_and_each_until_its_time_is_over() {
        let now = Instant::now();
        let answer = br#"{"endpoints":[{"quic":"a:1"}],"ttl_ms":1000}"#;
        let answer = Arc::new(Answer::read(answer).unwrap());
        let key = |n: u64| (String::new(), n.to_string(), String::new());
        let mut answers = Answers::default();
        for n in 0..1_000 {
            answers.put(key(n), Arc::clone(&answer), now + Duration::from_millis(n));
        }
        assert_eq!(answers.0.len(), ANSWERS_MAX);
        let last = &answers.0[&key(999)];
        assert!(last.is_fresh(last.since + Duration::from_millis(999)));
        assert!(!last.is_fresh(last.since + Duration::from_millis(1_000)));
        answers.spend(&key(999));
        assert!(!answers.0[&key(999)].is_fresh(now));
    }
}
