//! Who asks: the API key of a request, and the names in its path.

use std::{sync::Arc, time::Instant};

use axum::{
    extract::{FromRequestParts, Path, Query},
    http::{StatusCode, header, request::Parts},
};

use serde::de::DeserializeOwned;

use crate::{
    api::Api,
    keys::{InUse, Scope},
    problem::Problem,
};

/// The system that asks.
pub(crate) struct Caller(Arc<InUse>);

impl Caller {
    /// Lets it do something that costs so many messages of its limit.
    ///
    /// # Errors
    /// It may not, or not now.
    pub(crate) fn may(&self, scope: Scope, count: usize) -> Result<(), Problem> {
        if !self.0.may(scope) {
            let detail =
                format!("the API key `{}` lacks the scope `{}`", self.0.key.name, scope.name());
            let title = "The API key may not do this";
            return Err(Problem::new(StatusCode::FORBIDDEN, "no_scope", title, detail));
        }
        self.0.take(count, Instant::now()).map_err(|ms| {
            let per_second = self.0.key.per_second;
            let detail = format!(
                "the API key `{}` may have {per_second} messages or other requests a second",
                self.0.key.name
            );
            let status = StatusCode::TOO_MANY_REQUESTS;
            Problem::new(status, "over_limit", "More than the API key may", detail).later(ms)
        })
    }

    pub(crate) fn name(&self) -> &str {
        &self.0.key.name
    }
}

impl FromRequestParts<Api> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Problem> {
        let header = parts.headers.get(header::AUTHORIZATION);
        let unauthorized = |kind, title, detail: &str| {
            Err(Problem::new(StatusCode::UNAUTHORIZED, kind, title, detail))
        };
        let Some(header) = header else {
            let detail = if api.has_keys() {
                "send `Authorization: Bearer KEY`"
            } else {
                "there are none yet: `edgeway key` makes one, and says what the config needs"
            };
            return unauthorized("no_api_key", "An API key is needed", detail);
        };
        let text = header.to_str().ok().and_then(|text| text.split_once(' '));
        let key = text.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
        match key.and_then(|(_, key)| api.find_key(key.trim())) {
            Some(key) => Ok(Self(key)),
            None => unauthorized(
                "unknown_api_key",
                "The API key is not known",
                "the header must be `Authorization: Bearer KEY`, with the key of one of [push.keys]",
            ),
        }
    }
}

/// The one name in a path.
pub struct Name(pub String);

impl<S: Send + Sync> FromRequestParts<S> for Name {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &S) -> Result<Self, Problem> {
        let name = Path::<String>::from_request_parts(parts, api).await;
        name.map(|Path(name)| Self(name)).map_err(|error| Problem::bad(error.body_text()))
    }
}

/// The two names in a path.
pub(crate) struct Names(pub(crate) String, pub(crate) String);

impl FromRequestParts<Api> for Names {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Problem> {
        let names = Path::<(String, String)>::from_request_parts(parts, api).await;
        names.map(|Path((one, two))| Self(one, two)).map_err(|e| Problem::bad(e.body_text()))
    }
}

/// The parameters of a query; unknown ones are refused.
pub struct Params<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Params<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &S) -> Result<Self, Problem> {
        let problem = match Query::<T>::from_request_parts(parts, api).await {
            Ok(Query(params)) => return Ok(Self(params)),
            Err(problem) => problem.body_text(),
        };
        let given = Query::<Vec<(String, String)>>::from_request_parts(parts, api).await;
        let given = given.map_or_else(|_| Vec::new(), |Query(given)| given);
        Err(Problem::bad(explain(&problem, &given)))
    }
}

/// What is wrong with a query, with the value that is.
fn explain(problem: &str, given: &[(String, String)]) -> String {
    let problem = problem.rsplit_once("query string: ").map_or(problem, |(_, problem)| problem);
    let of = |(key, value): &(String, String)| {
        let reason = problem.strip_prefix(key)?.strip_prefix(": ")?;
        Some((key.clone(), value.clone(), reason))
    };
    let (named, reason) = match given.iter().find_map(of) {
        Some((key, value, reason)) => (Some((key, value)), reason),
        None => (None, problem),
    };
    if let Some((unknown, there)) =
        reason.strip_prefix("unknown field ").and_then(|rest| rest.split_once(", expected "))
    {
        return format!("{unknown} is unknown; there are {}", there.replace(" or ", " and "));
    }
    match named {
        Some((key, value)) if reason.contains("digit") || reason.contains("integer") => {
            format!("`{key}` is `{value}`, which is no number")
        }
        Some((key, value)) => format!("`{key}` is `{value}`: {reason}"),
        None => reason.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_a_query_is_told_with_its_value() {
        let given = [("limit".to_owned(), "many".to_owned())];
        let told = |problem| explain(problem, &given);
        let wrong = "Failed to deserialize query string: limit: invalid digit found in string";
        assert_eq!(told(wrong), "`limit` is `many`, which is no number");
        let unknown = "Failed to deserialize query string: page: unknown field `page`, expected `after` or `limit`";
        let expected = "`page` is unknown; there are `after` and `limit`";
        assert_eq!(explain(unknown, &[("page".to_owned(), "2".to_owned())]), expected);
        assert_eq!(explain("unknown field `page`, expected `after` or `limit`", &given), expected);
        assert_eq!(told("limit: too large"), "`limit` is `many`: too large");
        assert_eq!(told("something else"), "something else");
    }
}
