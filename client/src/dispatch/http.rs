//! One request over HTTP/1.1, in the clear or over TLS.

use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::{Request, StatusCode, Uri, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig as TlsConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject};
use serde::Deserialize;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;

use crate::{ConnectError, DispatchConfig, Trust, connector::Connector};

/// Of an answer.
const ANSWER_BYTES: usize = 64 * 1024;

fn failed(reason: impl ToString) -> ConnectError {
    ConnectError::Dispatch { reason: reason.to_string(), may_retry: true }
}

/// Where dispatch is.
#[derive(Debug)]
pub(crate) struct Target {
    tls: bool,
    host: String,
    port: u16,
    /// As in `Host`.
    authority: String,
    path: String,
}

impl Target {
    /// Of `http://HOST[:PORT][/PATH]` or https; without a path it is `/dispatch`.
    pub(crate) fn parse(url: &str) -> Result<Self, ConnectError> {
        let problem = || ConnectError::Config {
            problem: format!(
                "dispatch.url `{url}`: expected http:// or https:// and a host, for example \
                 https://dispatch.example.com/dispatch"
            ),
        };
        let uri: Uri = url.parse().map_err(|_| problem())?;
        let tls = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(problem()),
        };
        let authority = uri.authority().ok_or_else(problem)?;
        if uri.query().is_some() || authority.as_str().contains('@') {
            return Err(problem());
        }
        let path = if uri.path() == "/" { "/dispatch" } else { uri.path() };
        Ok(Self {
            tls,
            host: authority.host().trim_matches(['[', ']']).to_owned(),
            port: authority.port_u16().unwrap_or(if tls { 443 } else { 80 }),
            authority: authority.to_string(),
            path: path.to_owned(),
        })
    }
}

/// TLS to dispatch.
#[derive(Clone)]
pub(crate) struct Https(TlsConnector);

impl std::fmt::Debug for Https {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Https")
    }
}

impl Https {
    pub(crate) fn new(trust: &Trust) -> Result<Self, ConnectError> {
        let problem =
            |e: &dyn std::fmt::Display| ConnectError::Config { problem: format!("trust: {e}") };
        let mut roots = RootCertStore::empty();
        match trust {
            Trust::Web => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
            Trust::Ca(pem) => {
                for cert in CertificateDer::pem_slice_iter(pem) {
                    roots.add(cert.map_err(|e| problem(&e))?).map_err(|e| problem(&e))?;
                }
            }
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = TlsConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|e| problem(&e))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self(TlsConnector::from(Arc::new(config))))
    }
}

/// What dispatch says to `user`; the caller limits the time.
pub(crate) async fn get(
    connector: &Connector,
    dispatch: &DispatchConfig,
    user: &str,
) -> Result<Bytes, ConnectError> {
    let target = Target::parse(&dispatch.url)?;
    let path = path(&target, dispatch, user);
    let request = Request::get(path)
        .header(header::HOST, &target.authority)
        .header(header::ACCEPT, "application/json")
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(failed)?;
    let stream = TcpStream::connect((target.host.as_str(), target.port)).await.map_err(failed)?;
    if !target.tls {
        return send(stream, request).await;
    }
    let name = ServerName::try_from(target.host.clone()).map_err(failed)?;
    let stream = connector.https()?.0.connect(name, stream).await.map_err(failed)?;
    send(stream, request).await
}

fn path(target: &Target, dispatch: &DispatchConfig, user: &str) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    for (name, value) in [("app", dispatch.app.as_str()), ("user", user)] {
        if !value.is_empty() {
            query.append_pair(name, value);
        }
    }
    match query.finish() {
        query if query.is_empty() => target.path.clone(),
        query => format!("{}?{query}", target.path),
    }
}

/// As far as it matters of an error (RFC 9457).
#[derive(Default, Deserialize)]
#[serde(default)]
struct Problem {
    title: String,
    detail: String,
}

async fn send<S>(stream: S, request: Request<Empty<Bytes>>) -> Result<Bytes, ConnectError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
    let asking = async {
        let response = sender.send_request(request).await.map_err(failed)?;
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_BYTES).collect().await;
        let body = body.map_err(failed)?.to_bytes();
        if status == StatusCode::OK {
            return Ok(body);
        }
        let Problem { title, detail } = serde_json::from_slice(&body).unwrap_or_default();
        let told: String = format!("{title}: {detail}").chars().take(300).collect();
        Err(ConnectError::Dispatch {
            reason: format!("{}: {told}", status.as_u16()),
            may_retry: status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS,
        })
    };
    tokio::pin!(asking);
    tokio::pin!(connection);
    tokio::select! {
        body = &mut asking => body,
        // What it has read until its end is still to be taken.
        _ = &mut connection => asking.await,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_url_says_where_dispatch_is() {
        let target = |url| {
            let Target { tls, host, port, path, .. } = Target::parse(url).unwrap();
            (tls, host, port, path)
        };
        let path = "/dispatch".to_owned();
        assert_eq!(target("http://a.example"), (false, "a.example".into(), 80, path.clone()));
        assert_eq!(target("https://[::1]:8443/"), (true, "::1".into(), 8443, path));
        assert_eq!(target("https://a/x/y"), (true, "a".into(), 443, "/x/y".into()));
        for bad in ["", "a.example", "ftp://a", "http://", "http://u:p@a/", "http://a/?app=b"] {
            assert!(Target::parse(bad).is_err(), "{bad}");
        }
    }
}
