#![allow(clippy::unwrap_used)]

use super::*;

fn passwords() -> Auth {
    let hash = PasswordHash::new(b"correct horse").unwrap();
    Auth::new(config::Auth::Passwords([("ada".to_owned(), hash)].into()))
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
    let auth = Auth::new(config::Auth::Development);
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
