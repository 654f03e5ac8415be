//! Backends of one's own behind links with TLS: the examples, with certificates of the same CA as Edgeway's.

#![allow(clippy::unwrap_used)]

mod support;

use std::{path::Path, time::Duration};

use edgeway_client::{
    Bytes, Class, Client, ClientConfig, Event, Login, RawFrame, TransportChoice, Trust,
};
use edgeway_example_quiz::LinkPem;
use support::{Process, Up, python::Python, run, write};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

async fn within<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), what).await.unwrap()
}

/// A CA with a certificate for Edgeway and one for a backend.
fn certs(dir: &Path) {
    for args in [&["certs", "ca"][..], &["certs", "link", "edge"], &["certs", "link", "quiz"]] {
        let (code, _, error) = run(dir, args, "");
        assert_eq!(code, 0, "{error}");
    }
}

/// `edgeway up` with certificates of links, and the type `quiz` at this address.
fn up(dir: &Path, backend: &str) -> Up {
    let text = format!(
        "[gateway.routes]\nquiz = \"quiz\"\n[backends]\nquiz = [\"{backend}\"]\n\
         [links]\nca = \"edgeway-links/ca.pem\"\ncert = \"edgeway-links/edge.pem\"\n\
         key = \"edgeway-links/edge.key\"\n"
    );
    write(dir, "edgeway.toml", &text);
    let any = "127.0.0.1:0";
    let args = ["up", "--config", "edgeway.toml", "--quic", any, "--tcp", any, "--http", any];
    Up::ready(Process::spawn(dir, &args))
}

/// A frame that only the backend understands comes back.
async fn serves(up: &Up) {
    let mut config = ClientConfig::new(&up.quic, Login::Development { user: "ada".into() });
    config.trust = Trust::Ca(std::fs::read(&up.ca).unwrap());
    config.transport = TransportChoice::Quic;
    let (client, mut events) = within(Client::connect(config)).await.unwrap();
    let session = within(client.open("quiz", Vec::new())).await.unwrap();
    let frame = RawFrame { kind: 0x80, body: Bytes::from_static(b"anyone there?") };
    session.send(Class::Signal, frame.clone()).await.unwrap();
    let back = async {
        loop {
            if let Event::Frame { frame, .. } = events.next().await.unwrap() {
                return frame;
            }
        }
    };
    assert_eq!(within(back).await, frame);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backend_in_rust_with_a_certificate_is_served_and_one_in_the_clear_by_its_address() {
    let dir = tempfile::tempdir().unwrap();
    certs(dir.path());
    let read = |name: &str| std::fs::read(dir.path().join("edgeway-links").join(name)).unwrap();
    let links = LinkPem { ca: read("ca.pem"), cert: read("quiz.pem"), key: read("quiz.key") };
    for (scheme, links) in [("", Some(links)), ("http://", None)] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let serving = tokio::spawn(edgeway_example_quiz::serve(listener, links, stop.clone()));
        serves(&up(dir.path(), &format!("{scheme}{addr}"))).await;
        stop.cancel();
        within(serving).await.unwrap().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backend_in_python_with_a_certificate_is_served() {
    let dir = tempfile::tempdir().unwrap();
    certs(dir.path());
    let path = |name: &str| dir.path().join("edgeway-links").join(name).display().to_string();
    let (ca, cert, key) = (path("ca.pem"), path("quiz.pem"), path("quiz.key"));
    let args = ["--ca", &ca, "--cert", &cert, "--key", &key];
    let Some(python) = Python::start(&args) else { return };
    serves(&up(dir.path(), &python.addr)).await;
}
