//! Flags that give one process its own addresses and directory, over the config that several share.

use crate::{
    args::not_empty,
    config::{File, RawFile},
};

/// Addresses of one process, over those of the config that several processes share.
#[derive(Debug, Clone, clap::Args)]
pub struct Listen {
    /// Address for QUIC; `off` for none.
    #[arg(long, value_name = "IP:PORT")]
    quic: Option<String>,
    /// Address for TLS over TCP; `off` for none.
    #[arg(long, value_name = "IP:PORT")]
    tcp: Option<String>,
    /// Address for TCP in the clear, for legacy clients behind something that ends TLS; off by
    /// default.
    #[arg(long, value_name = "IP:PORT")]
    plain: Option<String>,
    /// Address for metrics and health; `off` for none.
    #[arg(long, value_name = "IP:PORT")]
    http: Option<String>,
}

impl Listen {
    /// Sets what was given.
    pub fn apply(&self, file: &mut File) {
        let Self { quic, tcp, plain, http } = self.clone();
        file.set("--quic", "gateway.listen.quic", addr(quic), |raw, v| raw.gateway.listen.quic = v);
        file.set("--tcp", "gateway.listen.tcp", addr(tcp), |raw, v| raw.gateway.listen.tcp = v);
        file.set("--plain", "gateway.listen.plain", addr(plain), |raw, v| {
            raw.gateway.listen.plain = v;
        });
        set_http(file, http);
    }
}

/// The certificate of one process, over that of the config that several processes of a machine share.
#[derive(Debug, Clone, clap::Args)]
pub struct LinkFiles {
    /// Certificate of this process on links, PEM (`edgeway certs link`).
    #[arg(long, value_name = "FILE", value_parser = not_empty())]
    link_cert: Option<String>,
    /// Its key, PEM.
    #[arg(long, value_name = "FILE", value_parser = not_empty())]
    link_key: Option<String>,
}

impl LinkFiles {
    /// Sets what was given.
    pub fn apply(&self, file: &mut File) {
        let Self { link_cert, link_key } = self.clone();
        file.set("--link-cert", "links.cert", link_cert, |raw, v| raw.links.cert = v);
        file.set("--link-key", "links.key", link_key, |raw, v| raw.links.key = v);
    }
}

/// The flag `--http`.
pub fn set_http(file: &mut File, http: Option<String>) {
    file.set("--http", "http.listen", addr(http), |raw, v| raw.http.listen = Some(v));
}

/// The flag `--data-dir`.
pub fn set_data_dir(file: &mut File, dir: Option<String>) {
    let apply = |raw: &mut RawFile, v| raw.backend.data_dir = Some(v);
    file.set("--data-dir", "backend.data_dir", dir, apply);
}

/// What is off is empty in the config.
fn addr(flag: Option<String>) -> Option<String> {
    flag.map(|text| if text == "off" { String::new() } else { text })
}
