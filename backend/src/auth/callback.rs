//! The operator's own endpoint: asked by HTTP POST who a login is. Nothing is remembered of its answers, and whatever
//! is no answer (silence, an error, nonsense) lets nobody in, and is told as what may pass.

use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use edgeway_proto::auth::LoginRequest;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Request, Response, StatusCode, Uri, body::Incoming, header};
use hyper_util::rt::TokioIo;
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    sync::Semaphore,
    task::JoinSet,
};
use tokio_rustls::TlsConnector;

use super::{refusal::Refusal, rights};

/// An answer says who a user is and what it may do, and no more.
const ANSWER_BYTES: usize = 64 * 1024;

/// Where and how to ask.
#[derive(Clone)]
pub struct Endpoint {
    uri: Uri,
    host: String,
    port: u16,
    /// With `https`.
    tls: Option<(Arc<rustls::ClientConfig>, ServerName<'static>)>,
    /// Sent as `Authorization`.
    authorization: Option<header::HeaderValue>,
    timeout: Duration,
    /// Shared by those who ask at a time.
    places: Arc<Semaphore>,
    at_a_time: usize,
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // What authorizes is secret, and a URL may hold something that is.
        write!(f, "Endpoint {{ host: {:?}, port: {} }}", self.host, self.port)
    }
}

/// What is asked. A secret that is no UTF-8 is not asked about.
#[derive(Serialize)]
struct Question<'a> {
    method: &'static str,
    user: &'a str,
    device: &'a str,
    secret: &'a str,
    remote: &'a str,
    /// The login stands already and is to go on.
    renews: bool,
}

/// What is answered, with status 200. Other fields are ignored.
#[derive(Debug, Deserialize)]
struct RawAnswer {
    allow: bool,
    #[serde(default)]
    reason: Option<String>,
    #[serde(default)]
    user: Option<String>,
    #[serde(default)]
    exp: Option<u64>,
    #[serde(default)]
    rooms: Option<Vec<String>>,
    #[serde(default)]
    speak: Option<Vec<String>>,
    #[serde(default)]
    rights: Option<Vec<String>>,
}

/// Who it is, by the endpoint's word.
#[derive(Debug)]
pub(super) struct Allowed {
    /// Where it is another name than what was asked for.
    pub(super) user: Option<String>,
    /// In milliseconds since 1970; 0 for never.
    pub(super) expires_ms: u64,
    pub(super) rights: Option<edgeway_proto::link::Rights>,
}

impl Endpoint {
    /// `ca`: authorities to trust in PEM form; those of the public web without.
    ///
    /// # Errors
    /// What is wrong, with the key of the section that says it.
    pub fn new(
        url: &str,
        ca: Option<&[u8]>,
        authorization: Option<&str>,
        timeout: Duration,
        at_a_time: usize,
    ) -> Result<Self, (&'static str, String)> {
        let bad = |problem: &str| {
            let shown = "write http://HOST:PORT/PATH or https://HOST/PATH";
            ("url", format!("{problem}; {shown}"))
        };
        let uri: Uri = url.parse().map_err(|_| bad("is no URL"))?;
        let secure = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(bad("must begin with http:// or https://")),
        };
        let host =
            uri.host().filter(|host| !host.is_empty()).ok_or_else(|| bad("names no host"))?;
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
        let tls = if secure { Some(tls(&host, ca)?) } else { None };
        let authorization = authorization.map(|value| {
            let mut value = header::HeaderValue::from_str(value)
                .map_err(|_| ("authorization", "has characters that no header has".to_owned()))?;
            value.set_sensitive(true);
            Ok::<_, (&'static str, String)>(value)
        });
        let authorization = authorization.transpose()?;
        let places = Arc::new(Semaphore::new(at_a_time));
        Ok(Self { uri, host, port, tls, authorization, timeout, places, at_a_time })
    }

    /// Asks. Takes at most the time-out, waiting for a place included.
    pub(super) async fn ask(
        &self,
        method: &'static str,
        request: &LoginRequest,
    ) -> Result<Allowed, Refusal> {
        let secret = std::str::from_utf8(&request.secret)
            .map_err(|_| Refusal::failed("wrong_password", "the secret must be UTF-8"))?;
        let question = Question {
            method,
            user: &request.user,
            device: &request.device,
            secret,
            remote: &request.remote,
            renews: request.renews != 0,
        };
        // Texts only: there is nothing that could fail.
        let question = Bytes::from(serde_json::to_vec(&question).unwrap_or_default());
        let asking = async {
            let _place = self.places.acquire().await.map_err(|_| "is not asked any more")?;
            let asked = (self.at_a_time - self.places.available_permits()) as f64;
            metrics::gauge!("edgeway_auth_callback_in_flight").set(asked);
            self.post(question).await
        };
        let result = match tokio::time::timeout(self.timeout, asking).await {
            Err(_) => Err("did not answer in time"),
            Ok(result) => result,
        };
        let asked = (self.at_a_time - self.places.available_permits()) as f64;
        metrics::gauge!("edgeway_auth_callback_in_flight").set(asked);
        let told = if result.is_ok() { "answered" } else { "failed" };
        metrics::counter!("edgeway_auth_callback_total", "result" => told).increment(1);
        match result {
            Ok(answer) => answer.judge(),
            Err(problem) => {
                tracing::warn!(host = self.host, problem, "the operator's login endpoint failed");
                Err(Refusal::unavailable("callback_failed", "the login cannot be checked now"))
            }
        }
    }

    async fn post(&self, question: Bytes) -> Result<RawAnswer, &'static str> {
        // Ends with the answer, or with whoever waits for it.
        let mut driver = JoinSet::new();
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await;
        let stream = stream.map_err(|_| "cannot be reached")?;
        let _ = stream.set_nodelay(true);
        let response = match &self.tls {
            None => self.send(stream, question, &mut driver).await?,
            Some((config, name)) => {
                let connector = TlsConnector::from(Arc::clone(config));
                let stream = connector.connect(name.clone(), stream).await;
                let stream = stream.map_err(|_| "is not whom the certificate says")?;
                self.send(stream, question, &mut driver).await?
            }
        };
        match response.status() {
            StatusCode::OK => {
                let body = Limited::new(response.into_body(), ANSWER_BYTES).collect().await;
                let body = body.map_err(|_| "broke off, or said more than 64 KiB")?.to_bytes();
                serde_json::from_slice(&body).map_err(|_| "answered nonsense")
            }
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Ok(RawAnswer::refused()),
            _ => Err("answered with another status than 200, 401 or 403"),
        }
    }

    async fn send<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
        &self,
        stream: S,
        question: Bytes,
        driver: &mut JoinSet<hyper::Result<()>>,
    ) -> Result<Response<Incoming>, &'static str> {
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|_| "speaks no HTTP")?;
        driver.spawn(connection);
        let path = self.uri.path_and_query().map_or("/", |path| path.as_str());
        let authority = self.uri.authority().map_or("", |authority| {
            let authority = authority.as_str();
            authority.rsplit_once('@').map_or(authority, |(_, host)| host)
        });
        let mut request = Request::post(path)
            .header(header::HOST, authority)
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::ACCEPT, "application/json")
            .header(header::CONNECTION, "close");
        if let Some(authorization) = &self.authorization {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        let request =
            request.body(Full::new(question)).map_err(|_| "has an address that is none")?;
        sender.send_request(request).await.map_err(|_| "broke off")
    }
}

impl RawAnswer {
    const fn refused() -> Self {
        Self {
            allow: false,
            reason: None,
            user: None,
            exp: None,
            rooms: None,
            speak: None,
            rights: None,
        }
    }

    fn judge(self) -> Result<Allowed, Refusal> {
        if !self.allow {
            let mut refusal = Refusal::failed("callback_refused", "wrong user or password");
            if let Some(reason) = self.reason.filter(|reason| !reason.is_empty()) {
                let end = reason.floor_char_boundary(200);
                refusal.detail = reason[..end].to_owned().into();
            }
            return Err(refusal);
        }
        if let Err(problem) = rights::check([&self.rooms, &self.speak, &self.rights]) {
            tracing::warn!(problem, "the operator's login endpoint answered nonsense");
            return Err(Refusal::unavailable("callback_failed", "the login cannot be checked now"));
        }
        let expires_ms = self.exp.unwrap_or(0).min((1 << 53) / 1000) * 1000;
        let rights = rights::of_lists(self.rooms, self.speak, self.rights);
        Ok(Allowed { user: self.user, expires_ms, rights })
    }
}

fn tls(
    host: &str,
    ca: Option<&[u8]>,
) -> Result<(Arc<rustls::ClientConfig>, ServerName<'static>), (&'static str, String)> {
    let name = ServerName::try_from(host.to_owned())
        .map_err(|_| ("url", format!("`{host}` is no name that a certificate can hold")))?;
    let mut roots = rustls::RootCertStore::empty();
    match ca {
        None => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
        Some(pem) => {
            for certificate in CertificateDer::pem_slice_iter(pem) {
                let added = certificate.ok().and_then(|one| roots.add(one).ok());
                added.ok_or(("ca", "has something that is no certificate".to_owned()))?;
            }
            if roots.is_empty() {
                return Err(("ca", "has no certificate in PEM form".to_owned()));
            }
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| ("url", e.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok((Arc::new(config), name))
}
