#![allow(clippy::unwrap_used)]

use std::{path::Path, time::Duration};

use edgeway_certs::{DevCa, Request, Usage};

use super::*;
use crate::DEFAULT_NAME;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// A CA in a directory of its own.
fn ca(dir: &Path) -> DevCa {
    DevCa::make(dir, "A CA", 365 * DAY, false).unwrap()
}

fn issue(dir: &Path, ca: &DevCa, name: &str, usage: Usage) -> Pem {
    let names = [name, "10.0.0.1"];
    let request = Request { subject: "gw-1", names: &names, usage, lifetime: 30 * DAY };
    let saved = ca.issue_to(dir, &request, true).unwrap();
    Pem {
        ca: ca.pem().into(),
        cert: std::fs::read(saved.cert_path).unwrap(),
        key: std::fs::read(saved.key_path).unwrap(),
    }
}

fn good(dir: &Path) -> Pem {
    issue(dir, &ca(dir), DEFAULT_NAME, Usage::Peer)
}

/// What is told is of this key and says this.
#[track_caller]
fn check(pem: &Pem, name: &str, key: &str, says: &[&str]) {
    let problems = Identity::from_pem(pem, name).unwrap_err();
    assert_eq!(problems[0].key, key, "{problems:?}");
    for part in says {
        assert!(problems[0].problem.contains(part), "{part:?} is not in {problems:?}");
    }
}

#[test]
fn a_good_certificate_is_told_by_name_issuer_and_last_day() {
    let dir = tempfile::tempdir().unwrap();
    let about = Identity::from_pem(&good(dir.path()), DEFAULT_NAME).unwrap().about();
    assert_eq!(about.subject, "gw-1");
    assert!(about.issuer.starts_with("A CA "), "{about:?}");
    assert_eq!(about.until.len(), "2026-11-28".len());
    let now = i64::try_from(UnixTime::now().as_secs()).unwrap();
    assert!((29..=30).contains(&((about.not_after - now) / (24 * 60 * 60))), "{about:?}");
}

#[test]
fn what_is_wrong_with_the_files_is_told_of_the_one_that_is_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let pem = good(dir.path());
    let other = tempfile::tempdir().unwrap();
    let other = good(other.path());
    let nonsense = || b"nonsense".to_vec();
    check(&Pem { ca: nonsense(), ..pem.clone() }, DEFAULT_NAME, "links.ca", &["no certificate"]);
    check(
        &Pem { cert: nonsense(), ..pem.clone() },
        DEFAULT_NAME,
        "links.cert",
        &["no certificate"],
    );
    check(&Pem { key: nonsense(), ..pem.clone() }, DEFAULT_NAME, "links.key", &["no private key"]);
    let key = other.key.clone();
    check(
        &Pem { key, ..pem.clone() },
        DEFAULT_NAME,
        "links.key",
        &["is not the key of links.cert"],
    );
    let ca = pem.cert.clone();
    check(&Pem { ca, ..pem.clone() }, DEFAULT_NAME, "links.ca", &["of no authority", "ca.pem"]);
    let ca = other.ca;
    check(
        &Pem { ca, ..pem.clone() },
        DEFAULT_NAME,
        "links.cert",
        &["not issued by links.ca but by `A CA "],
    );
    check(&pem, "other-cluster", "links.cert", &["`other-cluster`", "edgeway certs link"]);
    check(&pem, "not a name", "links.name", &["`not a name`"]);
    check(&pem, "10.0.0.1", "links.name", &["`10.0.0.1`"]);
    // All at once.
    let all = Pem { ca: nonsense(), cert: nonsense(), key: nonsense() };
    assert_eq!(Identity::from_pem(&all, "").unwrap_err().len(), 4);
}

#[test]
fn a_certificate_for_one_direction_is_not_enough() {
    let dir = tempfile::tempdir().unwrap();
    let ca = ca(dir.path());
    for usage in [Usage::Server, Usage::Client] {
        let pem = issue(dir.path(), &ca, DEFAULT_NAME, usage);
        check(&pem, DEFAULT_NAME, "links.cert", &["both clients and servers"]);
    }
}

#[test]
fn what_is_not_in_date_is_told_with_its_date() {
    let dir = tempfile::tempdir().unwrap();
    let pem = good(dir.path());
    let mut problems = Vec::new();
    let chain = certificates(&pem.cert, "links.cert", &mut problems);
    let (_, cert) = parse_x509_certificate(&chain[0]).unwrap();
    let at = |seconds: i64| in_date_at(&cert, "links.cert", "do this", seconds);
    let (from, until) =
        (cert.validity().not_before.timestamp(), cert.validity().not_after.timestamp());
    assert!(at(from).is_ok() && at(until).is_ok());
    let late = at(until + 1).unwrap_err().problem;
    assert!(late.contains("has run out on 20") && late.contains("do this"), "{late}");
    let early = at(from - 1).unwrap_err().problem;
    assert!(early.contains("not valid before 20") && early.contains("clock"), "{early}");
}

#[test]
fn another_certificate_replaces_that_of_every_clone_and_the_same_is_no_change() {
    let dir = tempfile::tempdir().unwrap();
    let ca = ca(dir.path());
    let first = issue(dir.path(), &ca, DEFAULT_NAME, Usage::Peer);
    let identity = Identity::from_pem(&first, DEFAULT_NAME).unwrap();
    let clone = identity.clone();
    assert!(!identity.replace(&Identity::from_pem(&first, DEFAULT_NAME).unwrap()));
    let before = clone.current();
    let second = issue(dir.path(), &ca, DEFAULT_NAME, Usage::Peer);
    assert!(identity.replace(&Identity::from_pem(&second, DEFAULT_NAME).unwrap()));
    assert!(!Arc::ptr_eq(&before.client, &clone.current().client));
    assert_ne!(before.chain, clone.current().chain);
}
