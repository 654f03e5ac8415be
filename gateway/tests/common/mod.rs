//! A gateway over real sockets, a small backend that the tests command, and a client that does
//! what it is told.
#![allow(clippy::unwrap_used, clippy::panic, dead_code)]

pub mod backend;
pub mod client;

use std::{net::SocketAddr, time::Duration};

pub use backend::Backend;
pub use client::{Client, Via};
use edgeway_gateway::{
    Gateway,
    config::{RawGateway, validate},
};
use edgeway_linktls::Links;
use edgeway_transport::{
    Dialer, Settings,
    tls::{ClientTls, Trust},
};
use tokio_util::sync::CancellationToken;

/// Makes a test of each way to carry a connection.
#[macro_export]
macro_rules! over {
    ($([$($via:ident),+] async fn $name:ident($arg:ident: Via) $body:block)+) => { $(
        mod $name {
            #[allow(unused_imports)]
            use super::*;
            async fn check($arg: Via) $body
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $via() {
                    check(Via::$via()).await;
                }
            )+
        }
    )+ };
}

/// A condition that a busy machine may take its time to meet.
pub async fn within<T>(what: impl Future<Output = T>) -> T {
    match tokio::time::timeout(Duration::from_secs(30), what).await {
        Ok(t) => t,
        Err(_) => panic!("it did not happen within 30 s"),
    }
}

/// Waits until a condition holds.
pub async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let wait = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(30), wait).await;
    assert!(waited.is_ok(), "{what}: not within 30 s");
}

/// A gateway that runs, with the backends that it was given.
pub struct Edge {
    pub quic: SocketAddr,
    pub tcp: SocketAddr,
    pub plain: SocketAddr,
    pub dialer: Dialer,
    pub ca: Vec<u8>,
    pub readiness: edgeway_gateway::Readiness,
    pub control: edgeway_gateway::Control,
    /// As it was started with.
    pub routing: edgeway_gateway::Routing,
    pub shutdown: CancellationToken,
    pub task: tokio::task::JoinHandle<()>,
}

impl Edge {
    /// A gateway whose types `chat`, `im`, `push` and `research_push` lead to `backend`.
    pub async fn start(backend: &Backend, change: impl FnOnce(&mut RawGateway)) -> Self {
        Self::with(&[("access", backend)], change).await
    }

    /// A gateway with named backends; the first is asked about logins.
    pub async fn with(backends: &[(&str, &Backend)], change: impl FnOnce(&mut RawGateway)) -> Self {
        let addrs: Vec<_> =
            backends.iter().map(|(name, b)| ((*name).to_owned(), b.addr.to_string())).collect();
        let edge = Self::of_addresses(&addrs, change);
        until("the links stand", || edge.readiness.missing().is_empty()).await;
        edge
    }

    /// The same, without waiting for the backends.
    pub fn of_addresses(
        backends: &[(String, String)],
        change: impl FnOnce(&mut RawGateway),
    ) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let certs = edgeway_certs::DevCa::ensure(dir.path(), &["localhost", "127.0.0.1"]).unwrap();
        let mut raw = RawGateway::default();
        raw.listen.quic = "127.0.0.1:0".into();
        raw.listen.tcp = "127.0.0.1:0".into();
        raw.listen.plain = "127.0.0.1:0".into();
        raw.login.clone_from(&backends[0].0);
        raw.routes.values_mut().for_each(|to| *to = backends[0].0.as_str().into());
        raw.limits.drain_ms = 200;
        change(&mut raw);
        // Three of port 0 are not the same address.
        let plain = std::mem::take(&mut raw.listen.plain);
        let backends =
            backends.iter().map(|(name, addr)| (name.clone(), vec![addr.clone()])).collect();
        let pem = (certs.cert_pem.into_bytes(), certs.key_pem.into_bytes());
        let mut config = validate(raw, backends, Some(pem), &Links::Off).unwrap();
        config.plain = Some(plain.parse().unwrap());
        let routing = config.routing.clone();
        let gateway = Gateway::bind(config).unwrap();
        let shutdown = CancellationToken::new();
        let (quic, tcp) = (gateway.quic_addr().unwrap(), gateway.tcp_addr().unwrap());
        let plain = gateway.plain_addr().unwrap();
        let readiness = gateway.readiness();
        let control = gateway.control();
        let task = tokio::spawn(gateway.run(shutdown.clone()));
        let tls = ClientTls::new(&Trust::Ca(certs.ca_pem.clone().into_bytes())).unwrap();
        let dialer = Dialer::new(tls, Settings::default());
        let ca = certs.ca_pem.into_bytes();
        Self { quic, tcp, plain, dialer, ca, readiness, control, routing, shutdown, task }
    }

    /// Ends it in order.
    pub async fn stop(self) {
        self.shutdown.cancel();
        within(self.task).await.unwrap();
    }
}
