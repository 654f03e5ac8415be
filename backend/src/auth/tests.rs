#![allow(clippy::unwrap_used)]

use edgeway_proto::CloseCode;

use super::*;

/// Of each device the latest token holds.
#[derive(Debug, Default)]
struct LastOnly(parking_lot::Mutex<Option<u64>>);

impl Resumable for LastOnly {
    fn resume(&self, _: &str, device: &str, token: u64, next: u64) -> bool {
        let mut last = self.0.lock();
        let holds = device == "phone" && last.is_none_or(|last| last == token);
        if holds {
            *last = Some(next);
        }
        holds
    }
}

fn auth(mode: config::Auth) -> Auth {
    Auth::new(mode, TokenKey::new(&[7; 32]), Arc::new(LastOnly::default()))
}

fn passwords() -> Auth {
    let hash = PasswordHash::new(b"correct horse").unwrap();
    auth(config::Auth::with_passwords([("ada".to_owned(), hash)].into()))
}

fn request(method: u64, user: &str, secret: &'static [u8]) -> LoginRequest {
    LoginRequest {
        method,
        user: user.into(),
        device: "phone".into(),
        secret: bytes::Bytes::from_static(secret),
        remote: String::new(),
        renews: 0,
    }
}

async fn login(auth: &Auth, request: LoginRequest) -> Result<Accepted, u64> {
    let response = auth.login(Request::new(request)).await.unwrap().into_inner();
    match response.result.unwrap() {
        Verdict::Accepted(accepted) => Ok(accepted),
        Verdict::Rejected(rejected) => Err(u64::from(rejected.code)),
    }
}

const FAILED: u64 = CloseCode::LoginFailed.code();

#[tokio::test]
async fn the_right_password_is_accepted_and_a_wrong_one_or_an_unknown_user_is_not() {
    let auth = passwords();
    assert_eq!(login(&auth, request(1, "ada", b"correct horse")).await.unwrap().user, "ada");
    assert_eq!(login(&auth, request(1, "ada", b"wrong")).await, Err(FAILED));
    assert_eq!(login(&auth, request(1, "eve", b"correct horse")).await, Err(FAILED));
}

#[tokio::test]
async fn passwords_cannot_be_gone_round_with_a_development_login() {
    assert_eq!(login(&passwords(), request(0, "ada", b"")).await, Err(FAILED));
}

#[tokio::test]
async fn development_takes_any_name_that_is_one() {
    let auth = auth(config::Auth::Development);
    let first = login(&auth, request(0, "ada", b"")).await.unwrap();
    let second = login(&auth, request(0, "ada", b"")).await.unwrap();
    assert!(second.generation > first.generation);
    for bad in ["", "@me", "a/b", "a\nb", &"x".repeat(129)] {
        assert_eq!(login(&auth, request(0, bad, b"")).await, Err(FAILED), "{bad:?}");
    }
    assert_eq!(login(&auth, request(1, "ada", b"x")).await, Err(FAILED));
}

#[tokio::test]
async fn logins_above_the_bound_are_told_to_come_back() {
    let auth = passwords();
    auth.shared.waiting.store(WAITING, Ordering::Relaxed);
    let busy = CloseCode::AuthUnavailable.code();
    assert_eq!(login(&auth, request(1, "ada", b"correct horse")).await, Err(busy));
    auth.shared.waiting.store(0, Ordering::Relaxed);
    assert!(login(&auth, request(1, "ada", b"correct horse")).await.is_ok());
    assert_eq!(auth.shared.waiting.load(Ordering::Relaxed), 0);
}

fn resume(user: &str, device: &str, token: &bytes::Bytes) -> LoginRequest {
    let secret = token.clone();
    let (user, device) = (user.to_owned(), device.to_owned());
    LoginRequest { method: method::RESUME, user, device, secret, ..LoginRequest::default() }
}

#[tokio::test]
async fn a_session_token_logs_in_without_a_password_and_raises_the_generation() {
    let auth = passwords();
    let first = login(&auth, request(1, "ada", b"correct horse")).await.unwrap();
    let second = login(&auth, resume("ada", "phone", &first.token)).await.unwrap();
    assert!(second.generation > first.generation && second.user == "ada");
    let third = login(&auth, resume("ada", "phone", &second.token)).await.unwrap();
    assert!(third.generation > second.generation);
    assert_eq!(login(&auth, resume("ada", "phone", &second.token)).await, Err(FAILED), "replayed");
}

#[tokio::test]
async fn a_session_token_of_another_device_or_a_garbled_one_is_refused() {
    let auth = passwords();
    let token = login(&auth, request(1, "ada", b"correct horse")).await.unwrap().token;
    assert_eq!(login(&auth, resume("ada", "tablet", &token)).await, Err(FAILED));
    assert_eq!(login(&auth, resume("bob", "phone", &token)).await, Err(FAILED));
    let mut garbled = token.to_vec();
    garbled[3] ^= 1;
    assert_eq!(login(&auth, resume("ada", "phone", &garbled.into())).await, Err(FAILED));
    assert_eq!(login(&auth, resume("ada", "phone", &bytes::Bytes::new())).await, Err(FAILED));
    assert!(login(&auth, resume("ada", "phone", &token)).await.is_ok());
}

#[tokio::test]
async fn a_session_token_ends_with_the_login_that_it_was_given_to() {
    let auth = passwords();
    let expired = {
        let proof = auth.shared.users.read().proof("ada", &Source::Password).unwrap();
        let who = Who { user: "ada", device: "phone", proof: &proof };
        let source = Source::Password;
        auth.shared.key.sign(&who, &Claim { generation: 1, expires_ms: 1, source, rights: None })
    };
    assert_eq!(login(&auth, resume("ada", "phone", &expired)).await, Err(FAILED));
}

fn users(all: &[(&str, &[u8])]) -> config::Auth {
    let hash =
        |(name, secret): &(&str, &[u8])| ((*name).to_owned(), PasswordHash::new(secret).unwrap());
    config::Auth::with_passwords(all.iter().map(hash).collect())
}

#[tokio::test]
async fn users_come_go_and_change_their_passwords_while_others_log_in() {
    let auth = auth(users(&[("ada", b"correct horse"), ("bob", b"b")]));
    let ada = login(&auth, request(1, "ada", b"correct horse")).await.unwrap();
    let bob = login(&auth, request(1, "bob", b"b")).await.unwrap();
    auth.set_users(users(&[("ada", b"another horse"), ("eve", b"e")]));
    assert_eq!(login(&auth, request(1, "ada", b"correct horse")).await, Err(FAILED));
    assert!(login(&auth, request(1, "ada", b"another horse")).await.is_ok());
    assert!(login(&auth, request(1, "eve", b"e")).await.is_ok());
    assert_eq!(login(&auth, request(1, "bob", b"b")).await, Err(FAILED));
    // By token neither.
    assert_eq!(login(&auth, resume("ada", "phone", &ada.token)).await, Err(FAILED));
    assert_eq!(login(&auth, resume("bob", "phone", &bob.token)).await, Err(FAILED));
}

#[tokio::test]
async fn a_token_outlives_changes_of_other_users() {
    let ada = PasswordHash::new(b"correct horse").unwrap();
    let with = |more: Option<PasswordHash>| {
        let eve = more.map(|hash| ("eve".to_owned(), hash));
        config::Auth::with_passwords(
            [("ada".to_owned(), ada.clone())].into_iter().chain(eve).collect(),
        )
    };
    let auth = auth(with(None));
    let first = login(&auth, request(1, "ada", b"correct horse")).await.unwrap();
    auth.set_users(with(Some(PasswordHash::new(b"e").unwrap())));
    assert!(login(&auth, resume("ada", "phone", &first.token)).await.is_ok());
}

#[tokio::test]
async fn the_mode_of_logins_stays_as_it_was_at_the_start() {
    let auth = passwords();
    auth.set_users(config::Auth::Development);
    assert_eq!(login(&auth, request(0, "ada", b"")).await, Err(FAILED));
    assert!(login(&auth, request(1, "ada", b"correct horse")).await.is_ok());
}

const SECRET: &[u8] = b"a secret of a good length, and more";
const OTHER: &[u8] = b"another secret of a good length, too";

fn keys(keys: &[(&str, &[u8])]) -> config::Auth {
    let key = |(kid, secret): &(&str, &[u8])| {
        ((*kid).to_owned(), VerifyKey::new(Algorithm::Hs256, secret).unwrap())
    };
    config::Auth::with_tokens(Tokens { keys: keys.iter().map(key).collect(), ..Tokens::default() })
}

fn token(kid: &str, secret: &[u8], user: &str, rooms: Option<&str>) -> bytes::Bytes {
    let rooms = rooms.map(|room| vec![room.to_owned()]);
    let (sub, exp) = (user.to_owned(), now_ms() / 1000 + 60);
    let claims =
        Claims { sub, exp, nbf: None, iss: None, aud: None, rooms, speak: None, rights: None };
    SigningKey::new(Algorithm::Hs256, secret).unwrap().sign(kid, &claims).unwrap().into()
}

fn by_token(user: &str, secret: bytes::Bytes) -> LoginRequest {
    LoginRequest { secret, ..request(method::TOKEN, user, b"") }
}

#[tokio::test]
async fn a_token_says_the_user_and_what_it_may_and_coming_back_changes_neither() {
    let auth = auth(keys(&[("one", SECRET)]));
    let first =
        login(&auth, by_token("", token("one", SECRET, "ada", Some("maths-*")))).await.unwrap();
    assert_eq!(first.user, "ada");
    let rooms = first.rights.clone().unwrap().rooms.unwrap();
    assert_eq!(rooms.names, ["maths-*"]);
    assert!(first.expires_ms > now_ms());
    let second = login(&auth, resume("ada", "phone", &first.token)).await.unwrap();
    assert_eq!((second.rights, second.expires_ms), (first.rights, first.expires_ms));
    let all = login(&auth, by_token("ada", token("one", SECRET, "ada", None))).await.unwrap();
    assert_eq!(all.rights, None);
    for (user, of) in [("bob", "ada"), ("", "@me"), ("", "a/b")] {
        let request = by_token(user, token("one", SECRET, of, None));
        assert_eq!(login(&auth, request).await, Err(FAILED), "{user} by a token of {of}");
    }
    assert_eq!(login(&auth, request(method::PASSWORD, "ada", b"x")).await, Err(FAILED));
    assert_eq!(login(&auth, request(method::DEVELOPMENT, "ada", b"")).await, Err(FAILED));
}

#[tokio::test]
async fn keys_are_rotated_while_others_log_in_and_session_tokens_end_with_their_key() {
    let auth = auth(keys(&[("old", SECRET)]));
    let old = login(&auth, by_token("", token("old", SECRET, "ada", None))).await.unwrap();
    auth.set_users(keys(&[("old", SECRET), ("new", OTHER)]));
    let old = login(&auth, resume("ada", "phone", &old.token)).await.unwrap();
    assert!(login(&auth, by_token("", token("new", OTHER, "bob", None))).await.is_ok());
    auth.set_users(keys(&[("new", OTHER)]));
    assert_eq!(login(&auth, by_token("", token("old", SECRET, "ada", None))).await, Err(FAILED));
    assert_eq!(login(&auth, resume("ada", "phone", &old.token)).await, Err(FAILED));
    // Another key under the old name is another key.
    auth.set_users(keys(&[("old", OTHER)]));
    assert_eq!(login(&auth, resume("ada", "phone", &old.token)).await, Err(FAILED));
}

#[tokio::test]
async fn a_login_is_renewed_by_a_proof_of_the_same_user_and_keeps_its_generation() {
    let auth = auth(keys(&[("one", SECRET)]));
    let first = login(&auth, by_token("", token("one", SECRET, "ada", Some("a")))).await.unwrap();
    let renew = |secret| LoginRequest { renews: first.generation, ..by_token("ada", secret) };
    let next = login(&auth, renew(token("one", SECRET, "ada", Some("b")))).await.unwrap();
    assert_eq!(next.generation, first.generation);
    assert_eq!(next.rights.clone().unwrap().rooms.unwrap().names, ["b"]);
    assert_eq!(login(&auth, renew(token("one", SECRET, "bob", None))).await, Err(FAILED));
    assert_eq!(login(&auth, renew("nonsense".into())).await, Err(FAILED));
    let by_itself =
        LoginRequest { renews: first.generation, ..resume("ada", "phone", &next.token) };
    assert_eq!(login(&auth, by_itself).await, Err(FAILED), "it proves no more than that it stands");
    let back = login(&auth, resume("ada", "phone", &next.token)).await.unwrap();
    assert_eq!(back.rights, next.rights);
}
