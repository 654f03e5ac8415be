use std::{fs, sync::Arc};

use rustls::{
    ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
    server::WebPkiClientVerifier,
};

use super::*;

const NAMES: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

fn roots(ca_pem: &str) -> Arc<RootCertStore> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca_pem.as_bytes()).unwrap()).unwrap();
    Arc::new(roots)
}

fn chain(issued: &Issued) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
    (
        vec![CertificateDer::from_pem_slice(issued.cert_pem.as_bytes()).unwrap()],
        PrivateKeyDer::from_pem_slice(issued.key_pem.as_bytes()).unwrap(),
    )
}

fn server_of(certs: &DevCerts) -> Issued {
    Issued { cert_pem: certs.cert_pem.clone(), key_pem: certs.key_pem.clone() }
}

/// Shakes hands in memory: does each side accept the other's certificate?
fn handshake(ca: &str, server: &Issued, client: Option<&Issued>, name: &str) -> bool {
    let (certs, key) = chain(server);
    let builder = ServerConfig::builder();
    let builder = match client {
        None => builder.with_no_client_auth(),
        Some(_) => builder
            .with_client_cert_verifier(WebPkiClientVerifier::builder(roots(ca)).build().unwrap()),
    };
    let server_config = builder.with_single_cert(certs, key).unwrap();
    let builder = ClientConfig::builder().with_root_certificates(roots(ca));
    let client_config = match client {
        None => builder.with_no_client_auth(),
        Some(issued) => {
            let (certs, key) = chain(issued);
            builder.with_client_auth_cert(certs, key).unwrap()
        }
    };
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut client = ClientConnection::new(Arc::new(client_config), name).unwrap();
    let mut server = ServerConnection::new(Arc::new(server_config)).unwrap();
    while client.is_handshaking() || server.is_handshaking() {
        let mut wire = Vec::new();
        client.write_tls(&mut wire).unwrap();
        server.read_tls(&mut wire.as_slice()).unwrap();
        if server.process_new_packets().is_err() {
            return false;
        }
        wire.clear();
        server.write_tls(&mut wire).unwrap();
        client.read_tls(&mut wire.as_slice()).unwrap();
        if client.process_new_packets().is_err() {
            return false;
        }
    }
    true
}

#[test]
fn a_client_that_trusts_the_ca_accepts_the_server_by_each_of_its_names() {
    let dir = tempfile::tempdir().unwrap();
    let certs = DevCa::ensure(dir.path(), &NAMES).unwrap();
    assert!(certs.new_ca);
    for name in NAMES {
        assert!(handshake(&certs.ca_pem, &server_of(&certs), None, name), "{name}");
    }
    assert!(!handshake(&certs.ca_pem, &server_of(&certs), None, "example.org"));
}

#[test]
fn a_client_that_trusts_another_ca_refuses_the_server() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let certs = DevCa::ensure(dir.path(), &NAMES).unwrap();
    let other = DevCa::open(other.path()).unwrap();
    assert!(!handshake(other.pem(), &server_of(&certs), None, "localhost"));
}

#[test]
fn what_is_there_is_used_again() {
    let dir = tempfile::tempdir().unwrap();
    let first = DevCa::ensure(dir.path(), &NAMES).unwrap();
    let second = DevCa::ensure(dir.path(), &["127.0.0.1", "localhost", "0:0:0:0:0:0:0:1"]).unwrap();
    assert_eq!(first.ca_pem, second.ca_pem);
    assert_eq!(first.cert_pem, second.cert_pem);
    assert!(!second.new_ca);
    assert_eq!(fs::read_to_string(&second.cert_path).unwrap(), second.cert_pem);
}

#[test]
fn other_names_make_a_new_server_certificate_of_the_same_ca() {
    let dir = tempfile::tempdir().unwrap();
    let first = DevCa::ensure(dir.path(), &NAMES).unwrap();
    let second = DevCa::ensure(dir.path(), &["edge.example"]).unwrap();
    assert_eq!(first.ca_pem, second.ca_pem);
    assert_ne!(first.cert_pem, second.cert_pem);
    assert!(handshake(&first.ca_pem, &server_of(&second), None, "edge.example"));
}

#[test]
fn a_server_certificate_that_runs_out_within_30_days_is_made_anew() {
    let dir = tempfile::tempdir().unwrap();
    let start = SystemTime::now();
    let first = DevCa::ensure_at(dir.path(), &NAMES, start).unwrap();
    let early = DevCa::ensure_at(dir.path(), &NAMES, start + 366 * DAY).unwrap();
    assert_eq!(first.cert_pem, early.cert_pem);
    let late = DevCa::ensure_at(dir.path(), &NAMES, start + 368 * DAY).unwrap();
    assert_ne!(first.cert_pem, late.cert_pem);
    assert_eq!(first.ca_pem, late.ca_pem);
}

#[test]
fn a_damaged_server_certificate_is_made_anew() {
    let dir = tempfile::tempdir().unwrap();
    let first = DevCa::ensure(dir.path(), &NAMES).unwrap();
    let other = DevCa::open(dir.path()).unwrap().issue("localhost", Usage::Server).unwrap();
    for (path, text) in [
        (&first.cert_path, "not a certificate"),
        (&first.key_path, "not a key"),
        // As after a crash between the two writes.
        (&first.key_path, other.key_pem.as_str()),
    ] {
        fs::write(path, text).unwrap();
        let again = DevCa::ensure(dir.path(), &NAMES).unwrap();
        assert!(handshake(&first.ca_pem, &server_of(&again), None, "localhost"));
    }
}

#[test]
fn a_server_certificate_of_an_older_ca_is_made_anew() {
    let dir = tempfile::tempdir().unwrap();
    let first = DevCa::ensure(dir.path(), &NAMES).unwrap();
    fs::remove_file(dir.path().join("ca.pem")).unwrap();
    fs::remove_file(dir.path().join("ca.key")).unwrap();
    let second = DevCa::ensure(dir.path(), &NAMES).unwrap();
    assert!(second.new_ca);
    assert_ne!(first.ca_pem, second.ca_pem);
    assert!(handshake(&second.ca_pem, &server_of(&second), None, "localhost"));
}

#[cfg(unix)]
#[test]
fn keys_are_readable_by_their_owner_only() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    // What a crash left must not lend its mode to the key.
    fs::write(dir.path().join("server.key.new"), "").unwrap();
    DevCa::ensure(dir.path(), &NAMES).unwrap();
    for key in ["ca.key", "server.key"] {
        let mode = fs::metadata(dir.path().join(key)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{key}");
    }
}

#[test]
fn a_client_certificate_is_accepted_by_a_server_that_asks_for_one() {
    let dir = tempfile::tempdir().unwrap();
    let ca = DevCa::open(dir.path()).unwrap();
    let server = ca.issue("localhost", Usage::Server).unwrap();
    for (usage, accepted) in [(Usage::Client, true), (Usage::Peer, true), (Usage::Server, false)] {
        let client = ca.issue("gateway-1", usage).unwrap();
        assert_eq!(handshake(ca.pem(), &server, Some(&client), "localhost"), accepted, "{usage:?}");
    }
}

#[test]
fn two_processes_that_start_at_once_agree_on_one_ca() {
    let dir = tempfile::tempdir().unwrap();
    let pems: Vec<_> = std::thread::scope(|scope| {
        let open = || DevCa::ensure(dir.path(), &NAMES).unwrap().ca_pem;
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(open)).collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    assert!(pems.iter().all(|pem| *pem == pems[0]));
}

/// Errors name the file and the next step.
fn check_error(damage: impl FnOnce(&Path), expected: &[&str]) {
    let dir = tempfile::tempdir().unwrap();
    DevCa::ensure(dir.path(), &NAMES).unwrap();
    damage(dir.path());
    let text = DevCa::ensure(dir.path(), &NAMES).unwrap_err().to_string();
    for part in expected {
        assert!(text.contains(part), "{part:?} is not in {text:?}");
    }
}

#[test]
fn a_damaged_ca_is_an_error_that_says_what_to_do_and_is_never_replaced() {
    let write =
        |name: &'static str| move |dir: &Path| fs::write(dir.join(name), "nonsense").unwrap();
    let remove = |name: &'static str| move |dir: &Path| fs::remove_file(dir.join(name)).unwrap();
    check_error(write("ca.pem"), &["ca.pem is no certificate", "delete ca.pem and ca.key"]);
    check_error(write("ca.key"), &["ca.key is no private key", "delete"]);
    check_error(remove("ca.key"), &["ca.key is missing", "put it back"]);
    check_error(remove("ca.pem"), &["ca.pem is missing", "put it back"]);
    check_error(
        |dir| {
            let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
            fs::write(dir.join("ca.key"), key.serialize_pem()).unwrap();
        },
        &["is not the key of ca.pem"],
    );
}

#[test]
fn a_ca_that_has_run_out_is_an_error_that_says_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let now = SystemTime::now();
    DevCa::ensure_at(dir.path(), &NAMES, now).unwrap();
    let error = DevCa::ensure_at(dir.path(), &NAMES, now + 3651 * DAY).unwrap_err().to_string();
    assert!(error.contains("ca.pem has run out") && error.contains("delete"), "{error}");
}

#[test]
fn a_directory_that_cannot_be_made_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    let error = DevCa::ensure(&file.join("certs"), &NAMES).unwrap_err().to_string();
    assert!(error.contains("file/certs"), "{error}");
}

#[test]
fn a_name_that_no_certificate_can_carry_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let error = DevCa::ensure(dir.path(), &["bücher"]).unwrap_err().to_string();
    assert!(error.contains("bücher"), "{error}");
}
