#![allow(clippy::unwrap_used)]

use std::time::{SystemTime, UNIX_EPOCH};

use super::*;

const SECRET: &[u8] = b"a secret of a good length, and more";
const RSA: &[u8] = include_bytes!("../../../tests/keys/rsa.key");
const RSA_PUBLIC: &[u8] = include_bytes!("../../../tests/keys/rsa.pub.pem");
const ED: &[u8] = include_bytes!("../../../tests/keys/ed.key");
const ED_PUBLIC: &[u8] = include_bytes!("../../../tests/keys/ed.pub.pem");

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn tokens() -> Tokens {
    let key = |algorithm, bytes| VerifyKey::new(algorithm, bytes).unwrap();
    Tokens {
        keys: [
            ("hs".to_owned(), key(Algorithm::Hs256, SECRET)),
            ("rs".to_owned(), key(Algorithm::Rs256, RSA_PUBLIC)),
            ("ed".to_owned(), key(Algorithm::EdDsa, ED_PUBLIC)),
        ]
        .into(),
        issuers: vec!["school".to_owned()],
        audiences: vec!["edgeway".to_owned()],
        leeway: Duration::from_secs(30),
    }
}

fn claims() -> Claims {
    Claims {
        sub: "ada".to_owned(),
        exp: now() + 3600,
        nbf: None,
        iss: Some("school".to_owned()),
        aud: Some(Audience::Many(vec!["others".to_owned(), "edgeway".to_owned()])),
        rooms: None,
        speak: None,
        rights: None,
    }
}

fn sign(algorithm: Algorithm, key: &[u8], kid: &str, claims: &Claims) -> String {
    SigningKey::new(algorithm, key).unwrap().sign(kid, claims).unwrap()
}

fn signed(claims: &Claims) -> String {
    sign(Algorithm::Hs256, SECRET, "hs", claims)
}

/// Of this header and these claims, signed with HMAC by `key`: what no honest signer makes.
fn forged(header: &str, claims: &Claims, key: &[u8]) -> String {
    let claims = serde_json::to_string(claims).unwrap();
    let text = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, key);
    let tag = ring::hmac::sign(&key, text.as_bytes());
    format!("{text}.{}", URL_SAFE_NO_PAD.encode(tag.as_ref()))
}

fn name(token: &str) -> &'static str {
    match tokens().check(token.as_bytes()) {
        Ok(_) => "good",
        Err(refusal) => refusal.name,
    }
}

#[test]
fn a_good_token_of_each_algorithm_says_who_and_until_when() {
    for (algorithm, key, kid) in [
        (Algorithm::Hs256, SECRET, "hs"),
        (Algorithm::Rs256, RSA, "rs"),
        (Algorithm::EdDsa, ED, "ed"),
    ] {
        let claims = claims();
        let good = tokens().check(sign(algorithm, key, kid, &claims).as_bytes()).unwrap();
        assert_eq!((good.kid.as_str(), good.expires_ms), (kid, (claims.exp + 30) * 1000));
        assert_eq!(good.claims, claims);
    }
}

#[test]
fn each_bad_token_is_refused_by_its_name() {
    let with = |change: fn(&mut Claims)| {
        let mut claims = claims();
        change(&mut claims);
        name(&signed(&claims))
    };
    assert_eq!(with(|_| {}), "good");
    assert_eq!(with(|c| c.exp = now() - 31), "token_expired");
    assert_eq!(with(|c| c.exp = now() - 5), "good", "clocks differ");
    assert_eq!(with(|c| c.nbf = Some(now() + 60)), "token_not_yet_valid");
    assert_eq!(with(|c| c.nbf = Some(now() + 5)), "good", "clocks differ");
    assert_eq!(with(|c| c.aud = Some(Audience::One("others".into()))), "token_audience");
    assert_eq!(with(|c| c.aud = None), "token_audience");
    assert_eq!(with(|c| c.iss = Some("another school".into())), "token_issuer");
    assert_eq!(with(|c| c.iss = None), "token_issuer");
    assert_eq!(with(|c| c.sub = String::new()), "token_claims");
    assert_eq!(with(|c| c.rooms = Some(vec!["x".to_owned(); 65])), "token_claims");
    assert_eq!(with(|c| c.rooms = Some(vec!["x".repeat(129)])), "token_claims");
    assert_eq!(with(|c| c.exp = u64::MAX), "good", "and it ends some day");
    assert_eq!(name(&sign(Algorithm::Hs256, SECRET, "old", &claims())), "token_unknown_key");
    assert_eq!(name(&sign(Algorithm::EdDsa, ED, "rs", &claims())), "token_algorithm");
    let other = b"another secret that is long enough";
    assert_eq!(name(&sign(Algorithm::Hs256, other, "hs", &claims())), "token_signature");
    for bad in ["", ".", "..", "a.b.c", "\u{0}", "eyJhbGciOiJIUzI1NiJ9"] {
        let refused = name(bad);
        assert!(["token_malformed", "token_unknown_key"].contains(&refused), "{bad}: {refused}");
    }
}

#[test]
fn expiry_has_a_code_of_its_own_and_nothing_else_is_told_to_try_again() {
    let mut old = claims();
    old.exp = 1;
    let refusal = tokens().check(signed(&old).as_bytes()).unwrap_err();
    assert_eq!(refusal.code, CloseCode::LoginExpired);
    let refusal = tokens().check(b"nonsense").unwrap_err();
    assert_eq!(refusal.code, CloseCode::LoginFailed);
}

#[test]
fn no_algorithm_but_the_keys_own_is_taken() {
    let claims = claims();
    let none = |header: &str, tail: &str| {
        let token = forged(header, &claims, SECRET);
        name(&format!("{}.{tail}", token.rsplit_once('.').unwrap().0))
    };
    for alg in ["none", "None", "NONE", "nOnE", ""] {
        let header = format!(r#"{{"alg":"{alg}","kid":"hs"}}"#);
        assert_eq!(none(&header, ""), "token_algorithm", "{alg}");
        assert_eq!(none(&header, "AAAA"), "token_algorithm", "{alg}");
    }
    // HS256 with the public key of RS256, which everyone knows, as its secret; as a file and as its bytes.
    let header = r#"{"alg":"HS256","typ":"JWT","kid":"rs"}"#;
    assert_eq!(name(&forged(header, &claims, RSA_PUBLIC)), "token_algorithm");
    assert_eq!(name(&forged(header, &claims, RSA_PUBLIC.trim_ascii())), "token_algorithm");
    let header = r#"{"alg":"RS256","typ":"JWT","kid":"hs"}"#;
    assert_eq!(name(&forged(header, &claims, SECRET)), "token_algorithm");
    let header = r#"{"alg":"HS256","kid":"hs","crit":["exp"],"exp":1}"#;
    assert_eq!(name(&forged(header, &claims, SECRET)), "token_malformed");
    // And no operator makes a secret of it by mistake.
    assert_eq!(VerifyKey::new(Algorithm::Hs256, RSA_PUBLIC).unwrap_err(), KeyProblem::PemAsSecret);
    assert_eq!(VerifyKey::new(Algorithm::Hs256, b"short").unwrap_err(), KeyProblem::ShortSecret(5));
    for (algorithm, bytes) in
        [(Algorithm::Rs256, ED_PUBLIC), (Algorithm::EdDsa, RSA_PUBLIC), (Algorithm::Rs256, SECRET)]
    {
        assert!(VerifyKey::new(algorithm, bytes).is_err(), "{algorithm:?}");
    }
}

#[test]
fn a_token_of_a_megabyte_is_refused_unread() {
    let mut claims = claims();
    claims.iss = Some("x".repeat(1 << 20));
    assert_eq!(name(&signed(&claims)), "token_too_long");
    assert_eq!(name(&"a".repeat(1 << 20)), "token_too_long");
}

#[test]
fn one_changed_character_of_any_part_is_enough() {
    let good = signed(&claims());
    for at in (0..good.len()).step_by(7) {
        let mut bad = good.clone().into_bytes();
        bad[at] = if bad[at] == b'A' { b'B' } else { b'A' };
        if bad != good.as_bytes() && at != good.len() - 1 {
            assert!(tokens().check(&bad).is_err(), "{at}");
        }
    }
}

#[test]
fn where_there_is_one_key_a_token_need_not_name_it_and_without_an_audience_none_is_taken() {
    let mut one = tokens();
    one.keys.retain(|kid, _| kid == "hs");
    let header = r#"{"alg":"HS256"}"#;
    assert!(one.check(forged(header, &claims(), SECRET).as_bytes()).is_ok());
    assert_eq!(name(&forged(header, &claims(), SECRET)), "token_unknown_key", "of three");
    one.audiences.clear();
    let refusal = one.check(signed(&claims()).as_bytes()).unwrap_err();
    assert_eq!(refusal.name, "token_audience", "it is for somebody");
    let for_all = Claims { aud: None, ..claims() };
    assert!(one.check(signed(&for_all).as_bytes()).is_ok());
}
