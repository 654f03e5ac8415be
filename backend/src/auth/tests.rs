#![allow(clippy::unwrap_used)]

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
    auth(config::Auth::Passwords([("ada".to_owned(), hash)].into()))
}

fn request(method: u64, user: &str, secret: &'static [u8]) -> LoginRequest {
    LoginRequest {
        method,
        user: user.into(),
        device: "phone".into(),
        secret: bytes::Bytes::from_static(secret),
        remote: String::new(),
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
    LoginRequest { method: method::RESUME, user, device, secret, remote: String::new() }
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
        let proof = auth.shared.users.read().proof("ada").unwrap();
        let who = Who { user: "ada", device: "phone", proof: &proof };
        auth.shared.key.sign(&who, Claim { generation: 1, expires_ms: 1 })
    };
    assert_eq!(login(&auth, resume("ada", "phone", &expired)).await, Err(FAILED));
}

fn users(all: &[(&str, &[u8])]) -> config::Auth {
    let hash =
        |(name, secret): &(&str, &[u8])| ((*name).to_owned(), PasswordHash::new(secret).unwrap());
    config::Auth::Passwords(all.iter().map(hash).collect())
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
        config::Auth::Passwords([("ada".to_owned(), ada.clone())].into_iter().chain(eve).collect())
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
