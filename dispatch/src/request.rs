//! What a request says: app and user, from a query or from JSON. Pure.

use std::borrow::Cow;

use serde::Deserialize;

use crate::{
    config::{DEFAULT_APP, NAME_BYTES},
    problem::Problem,
};

/// Of a query, with its escapes.
pub(crate) const QUERY_BYTES: usize = 2048;
/// Of a body.
pub(crate) const BODY_BYTES: usize = 4096;

/// Who wants to connect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Request<'a> {
    pub(crate) app: Cow<'a, str>,
    pub(crate) user: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    app: Option<String>,
    user: Option<String>,
}

impl<'a> Request<'a> {
    /// `app=..&user=..`; each may be left out.
    pub(crate) fn of_query(query: &'a str) -> Result<Self, Problem> {
        if query.len() > QUERY_BYTES {
            let detail = format!("the query has {} bytes; at most {QUERY_BYTES}", query.len());
            return Err(Problem::bad("", detail));
        }
        let (mut app, mut user) = (None, None);
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            let (slot, name) = match &*name {
                "app" => (&mut app, "app"),
                "user" => (&mut user, "user"),
                other => {
                    let other: String = other.chars().take(40).collect();
                    let detail = format!("`{other}` is no parameter; there are app and user");
                    return Err(Problem::bad("", detail));
                }
            };
            if slot.replace(value).is_some() {
                return Err(Problem::bad(name, format!("{name} is there twice")));
            }
        }
        Self::new(app, user)
    }

    /// `{"app": .., "user": ..}`; each may be left out.
    pub(crate) fn of_json(body: &[u8]) -> Result<Self, Problem> {
        let body: Body = serde_json::from_slice(body).map_err(|error| {
            let detail = format!(
                "the body is not as expected: {error}; expected an object with app and user, texts, such as \
                 {{\"app\": \"default\", \"user\": \"ada\"}}"
            );
            Problem::bad("", detail)
        })?;
        Self::new(body.app.map(Cow::Owned), body.user.map(Cow::Owned))
    }

    fn new(app: Option<Cow<'a, str>>, user: Option<Cow<'a, str>>) -> Result<Self, Problem> {
        for (name, value) in [("app", &app), ("user", &user)] {
            let Some(value) = value else { continue };
            if value.len() > NAME_BYTES {
                let detail = format!("{name} has {} bytes; at most {NAME_BYTES}", value.len());
                return Err(Problem::bad(name, detail));
            }
            if value.contains(char::is_control) || value.contains(char::REPLACEMENT_CHARACTER) {
                let detail = format!(
                    "{name} holds what is no text; expected UTF-8 without control characters"
                );
                return Err(Problem::bad(name, detail));
            }
            if value.is_empty() {
                let detail =
                    format!("{name} is empty; leave it out, or give it 1 to {NAME_BYTES} bytes");
                return Err(Problem::bad(name, detail));
            }
        }
        Ok(Self { app: app.unwrap_or(Cow::Borrowed(DEFAULT_APP)), user })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(query: &str, app: &str, user: Option<&str>) {
        let request = Request::of_query(query).unwrap();
        assert_eq!((&*request.app, request.user.as_deref()), (app, user));
    }

    #[test]
    fn a_query_says_app_and_user_or_leaves_them_out() {
        check("", "default", None);
        check("app=maths", "maths", None);
        check("user=ada%20l&app=maths", "maths", Some("ada l"));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let long = format!("user={}", "x".repeat(NAME_BYTES + 1));
        let longer = format!("user={}", "x".repeat(QUERY_BYTES));
        for (query, says) in [
            ("ap=maths", "`ap` is no parameter"),
            ("app=a&app=b", "app is there twice"),
            ("app=", "app is empty"),
            ("user=a%00b", "user holds what is no text"),
            ("user=%ff", "user holds what is no text"),
            (&long, "user has 129 bytes"),
            (&longer, "the query has"),
        ] {
            let problem = Request::of_query(query).unwrap_err().body();
            assert!(problem.contains(says), "{problem}");
        }
        for (body, says) in [
            ("", "expected an object"),
            ("[]", "expected an object"),
            ("{\"app\": 1}", "expected an object"),
            ("{\"usr\": \"a\"}", "unknown field `usr`"),
            ("{\"user\": \"\"}", "user is empty"),
        ] {
            let problem = Request::of_json(body.as_bytes()).unwrap_err().body();
            assert!(problem.contains(says), "{problem}");
        }
    }

    proptest! {
        #[test]
        fn nothing_that_anybody_sends_breaks_the_reader(query in any::<String>(), body in any::<Vec<u8>>()) {
            let _ = Request::of_query(&query);
            let _ = Request::of_json(&body);
        }

        #[test]
        fn what_is_escaped_is_read_again(user in "[^\\p{C}\u{fffd}]{1,30}") {
            let query: String =
                form_urlencoded::Serializer::new(String::new()).append_pair("user", &user).finish();
            let request = Request::of_query(&query).unwrap();
            prop_assert_eq!(request.user.as_deref(), Some(&*user));
        }
    }
}
