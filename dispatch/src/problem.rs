//! Errors as JSON (RFC 9457). Each type is documented in docs/DISPATCH.md.

use hyper::StatusCode;

/// What is wrong with a request, or with its time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    pub(crate) status: StatusCode,
    /// Behind `urn:edgeway:problem:`.
    pub(crate) kind: &'static str,
    title: &'static str,
    detail: String,
    /// The parameter that is wrong.
    parameter: Option<&'static str>,
    pub(crate) retry_after_secs: Option<u64>,
    pub(crate) allow: Option<&'static str>,
}

impl Problem {
    pub(crate) fn new(
        status: StatusCode,
        kind: &'static str,
        title: &'static str,
        detail: impl Into<String>,
    ) -> Self {
        Self {
            status,
            kind,
            title,
            detail: detail.into(),
            parameter: None,
            retry_after_secs: None,
            allow: None,
        }
    }

    /// A request that is wrong at a parameter.
    pub(crate) fn bad(parameter: &'static str, detail: impl Into<String>) -> Self {
        let title = "The request is not right";
        let mut problem = Self::new(StatusCode::BAD_REQUEST, "bad_request", title, detail);
        problem.parameter = Some(parameter).filter(|name| !name.is_empty());
        problem
    }

    pub(crate) fn later(mut self, secs: u64) -> Self {
        self.retry_after_secs = Some(secs);
        self
    }

    pub(crate) fn allowing(mut self, methods: &'static str) -> Self {
        self.allow = Some(methods);
        self
    }

    pub(crate) fn of(mut self, parameter: &'static str) -> Self {
        self.parameter = Some(parameter);
        self
    }

    pub(crate) fn body(&self) -> String {
        let mut json = serde_json::json!({
            "type": format!("urn:edgeway:problem:{}", self.kind),
            "title": self.title,
            "status": self.status.as_u16(),
            "detail": self.detail,
        });
        if let Some(parameter) = self.parameter {
            json["parameter"] = parameter.into();
        }
        if let Some(secs) = self.retry_after_secs {
            json["retry_after_ms"] = (secs * 1000).into();
        }
        json.to_string()
    }
}
