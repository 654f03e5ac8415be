//! Logins by signed token on living connections, over QUIC and TCP: what a token permits, its end, its renewal, and
//! keys that are rotated; and users with passwords in a file.

#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::{
    path::Path,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use edgeway_backend::auth::{Algorithm, Audience, Claims, SigningKey};
use edgeway_client::{
    Client, ClientConfig, CloseCode, ConnectError, ErrorCode, Event, Events, LeftCause, Login,
    RenewError, RequestError, SendError, TransportChoice, Trust,
};
use support::{Process, Up, ask, output, run, write};

/// Above what a busy machine takes.
const PATIENCE: Duration = Duration::from_secs(60);

const OLD: &str = "the old secret, of which nobody knows";
const NEW: &str = "the new secret, of which nobody knows";

async fn within<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what).await.expect("it did not happen in time")
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn claims(user: &str, secs: u64) -> Claims {
    Claims {
        sub: user.to_owned(),
        exp: now() + secs,
        nbf: None,
        iss: None,
        aud: Some(Audience::One("edgeway".to_owned())),
        rooms: None,
        speak: None,
        rights: None,
    }
}

fn only(rooms: &[&str]) -> Option<Vec<String>> {
    Some(rooms.iter().map(|room| (*room).to_owned()).collect())
}

fn signed(kid: &str, secret: &str, claims: &Claims) -> Vec<u8> {
    let key = SigningKey::new(Algorithm::Hs256, secret.as_bytes()).unwrap();
    key.sign(kid, claims).unwrap().into_bytes()
}

fn config(keys: &[(&str, &str)]) -> String {
    let mut text =
        "[auth]\nmode = \"tokens\"\n[auth.tokens]\nleeway_s = 0\naudience = \"edgeway\"\n\
                    [auth.tokens.keys]\n"
            .to_owned();
    for (kid, secret) in keys {
        text += &format!("{kid} = {{ alg = \"HS256\", key = {secret:?} }}\n");
    }
    text
}

fn up(dir: &Path) -> Up {
    let any = "127.0.0.1:0";
    let args = ["up", "--config", "edgeway.toml", "--quic", any, "--tcp", any, "--http", any];
    Up::ready(Process::spawn(dir, &args))
}

async fn connect(
    up: &Up,
    transport: TransportChoice,
    login: Login,
) -> Result<(Client, Events), ConnectError> {
    let server = if transport == TransportChoice::Quic { &up.quic } else { &up.tcp };
    let mut config = ClientConfig::new(server, login);
    config.trust = Trust::Ca(std::fs::read(&up.ca).unwrap());
    config.transport = transport;
    within(Client::connect(config)).await
}

fn by(token: Vec<u8>) -> Login {
    Login::Token { user: String::new(), token }
}

async fn until<T>(events: &mut Events, pick: impl Fn(Event) -> Option<T>) -> T {
    loop {
        let event = within(events.next()).await.expect("the client is closed");
        if let Some(found) = pick(event) {
            return found;
        }
    }
}

/// The life of a login whose token ends: it is told, renewed with other rooms, and closed at its new end.
async fn ends_and_is_renewed(up: &Up, transport: TransportChoice) {
    let start = Instant::now();
    let first = Claims { rooms: only(&["maths-*"]), ..claims("ada", 15) };
    let (client, mut events) =
        connect(up, transport, by(signed("old", OLD, &first))).await.unwrap();
    assert_eq!(client.user(), "ada");
    let maths = within(client.join("maths-1")).await.unwrap();
    within(maths.send_signal("hello".into())).await.unwrap();
    let refused = within(client.join("physics")).await.unwrap_err();
    assert!(
        matches!(refused, RequestError::Refused { code: ErrorCode::Forbidden, .. }),
        "{refused}"
    );
    let left = until(&mut events, |event| match event {
        Event::LoginExpires { left } => Some(left),
        _ => None,
    });
    assert!(left.await < Duration::from_secs(15));

    // What is no proof changes nothing.
    for (bad, code) in [
        (signed("old", OLD, &claims("eve", 60)), CloseCode::LoginFailed),
        (signed("old", NEW, &claims("ada", 60)), CloseCode::LoginFailed),
        (signed("old", OLD, &Claims { exp: 1, ..claims("ada", 0) }), CloseCode::LoginExpired),
        (b"nonsense".to_vec(), CloseCode::LoginFailed),
    ] {
        match within(client.renew(bad)).await.unwrap_err() {
            RenewError::Refused { code: got, .. } => assert_eq!(got, code),
            other => panic!("{other}"),
        }
    }
    within(maths.send_signal("still here".into())).await.unwrap();

    let second = Claims { rooms: only(&["physics"]), ..claims("ada", 15) };
    let second = Claims { exp: first.exp + 10, ..second };
    let holds = within(client.renew(signed("old", OLD, &second))).await.unwrap().unwrap();
    assert!(holds <= Duration::from_secs(26), "{holds:?}");
    let cause = until(&mut events, |event| match event {
        Event::Left { cause, .. } => Some(cause),
        _ => None,
    });
    assert_eq!(cause.await, LeftCause::Ended(CloseCode::Kicked));
    let physics = within(client.join("physics")).await.unwrap();
    within(physics.send_signal("here now".into())).await.unwrap();
    let code = until(&mut events, |event| match event {
        Event::Closed { code, .. } => Some(code),
        Event::Reconnecting { reason, .. } => panic!("lost: {reason}"),
        _ => None,
    });
    assert_eq!(code.await, CloseCode::LoginExpired);
    assert!(now() >= second.exp && start.elapsed() > Duration::from_secs(20), "it went on");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_login_ends_with_its_token_unless_it_is_renewed_on_the_living_connection() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "edgeway.toml", &config(&[("old", OLD)]));
    let up = up(dir.path());
    tokio::join!(
        ends_and_is_renewed(&up, TransportChoice::Quic),
        ends_and_is_renewed(&up, TransportChoice::Tcp)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_bad_token_is_refused_with_its_code_and_a_name() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "edgeway.toml", &config(&[("old", OLD)]));
    let up = up(dir.path());
    let good = claims("ada", 600);
    let others = Some(Audience::One("others".to_owned()));
    for transport in [TransportChoice::Quic, TransportChoice::Tcp] {
        for (token, name) in [
            (signed("old", OLD, &Claims { exp: 1, ..good.clone() }), "token_expired"),
            (
                signed("old", OLD, &Claims { nbf: Some(good.exp), ..good.clone() }),
                "token_not_yet_valid",
            ),
            (signed("old", OLD, &Claims { aud: others.clone(), ..good.clone() }), "token_audience"),
            (signed("old", NEW, &good), "token_signature"),
            (signed("new", OLD, &good), "token_unknown_key"),
            // {"alg":"none","kid":"old"}.{"sub":"ada"}.
            (
                b"eyJhbGciOiJub25lIiwia2lkIjoib2xkIn0.eyJzdWIiOiJhZGEifQ.".to_vec(),
                "token_algorithm",
            ),
            (b"nonsense".to_vec(), "token_malformed"),
        ] {
            let refused = connect(&up, transport, by(token)).await.map(|_| ()).unwrap_err();
            let said = refused.to_string();
            assert!(said.contains(name), "{name}: {said}");
            match refused {
                ConnectError::Refused { code: CloseCode::LoginExpired, .. } => {
                    assert_eq!(name, "token_expired");
                }
                ConnectError::LoginFailed { .. } => assert_ne!(name, "token_expired"),
                other => panic!("{other}"),
            }
        }
        // A megabyte does not even leave this machine; what the server says to one is in its own tests.
        let huge = connect(&up, transport, by(vec![b'a'; 1 << 20])).await.map(|_| ()).unwrap_err();
        assert!(matches!(huge, ConnectError::Config { .. }), "{huge}");
        let word = Login::Development { user: "ada".into() };
        assert!(connect(&up, transport, word).await.is_err());
    }
    let metrics = support::get(&up.http, "/metrics");
    assert!(
        metrics.contains("edgeway_auth_refused_total{reason=\"token_audience\"} 2"),
        "{metrics}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_are_rotated_without_a_restart_and_living_connections_go_on() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "edgeway.toml", &config(&[("old", OLD)]));
    let up = up(dir.path());
    for (transport, user) in [(TransportChoice::Quic, "ada"), (TransportChoice::Tcp, "bob")] {
        write(dir.path(), "edgeway.toml", &config(&[("old", OLD)]));
        assert!(ask(&up.http, "POST", "/reload").starts_with("HTTP/1.0 200"));
        let old = signed("old", OLD, &claims(user, 600));
        let new = signed("new", NEW, &claims(user, 600));
        let (client, _events) = connect(&up, transport, by(old.clone())).await.unwrap();
        let room = within(client.join("lesson")).await.unwrap();
        assert!(connect(&up, transport, by(new.clone())).await.is_err());

        write(dir.path(), "edgeway.toml", &config(&[("old", OLD), ("new", NEW)]));
        assert!(ask(&up.http, "POST", "/reload").starts_with("HTTP/1.0 200"));
        for token in [&old, &new] {
            assert!(connect(&up, transport, by(token.clone())).await.is_ok());
        }
        write(dir.path(), "edgeway.toml", &config(&[("new", NEW)]));
        assert!(ask(&up.http, "POST", "/reload").starts_with("HTTP/1.0 200"));
        let refused = connect(&up, transport, by(old)).await.map(|_| ()).unwrap_err();
        assert!(refused.to_string().contains("token_unknown_key"), "{refused}");
        within(room.send_signal("still here".into())).await.unwrap();
        within(client.renew(new)).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_login_sends_only_what_it_may_where_it_may() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "edgeway.toml", &config(&[("old", OLD)]));
    let up = up(dir.path());
    for transport in [TransportChoice::Quic, TransportChoice::Tcp] {
        let guest = Claims {
            speak: only(&["lobby"]),
            rights: only(&["chat", "signal"]),
            ..claims("guest", 600)
        };
        let token = signed("old", OLD, &guest);
        let (client, _events) = connect(&up, transport, by(token)).await.unwrap();
        let lobby = within(client.join("lobby")).await.unwrap();
        within(lobby.send_chat("hello".into())).await.unwrap();
        within(lobby.send_signal("hello".into())).await.unwrap();
        let refused = within(lobby.send_stroke("line".into())).await.unwrap_err();
        let forbidden = |e: &SendError| {
            matches!(e, SendError::Refused { code: Some(ErrorCode::Forbidden), .. })
        };
        assert!(forbidden(&refused), "{refused}");
        let lesson = within(client.join("lesson")).await.unwrap();
        let refused = within(lesson.send_signal("hello".into())).await.unwrap_err();
        assert!(forbidden(&refused), "{refused}");
        let im = within(client.im()).await.unwrap();
        let refused = within(im.send_to("ada", "psst".into())).await.unwrap_err();
        assert!(refused.to_string().contains("forbidden"), "{refused}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_users_file_is_kept_by_the_command_and_read_again_when_it_changes() {
    let dir = tempfile::tempdir().unwrap();
    let file = ["--file", "users.txt"];
    let user = |args: &[&str], input: &str| {
        run(dir.path(), &[&["user"][..], args, &file[..]].concat(), input)
    };
    assert_eq!(user(&["add", "ada"], "a secret\n").0, 0);
    let text = "[auth]\nmode = [\"passwords\", \"tokens\"]\nusers_file = \"users.txt\"\n\
                [auth.tokens.keys]\nold = { alg = \"HS256\", file = \"key\" }\n";
    write(dir.path(), "key", OLD);
    write(dir.path(), "edgeway.toml", text);
    let up = up(dir.path());
    let by_password = |user: &str, password: &str| Login::Password {
        user: user.to_owned(),
        password: password.to_owned(),
    };
    let tcp = TransportChoice::Tcp;
    assert!(connect(&up, tcp, by_password("ada", "a secret")).await.is_ok());
    assert!(connect(&up, tcp, by_password("bob", "b secret")).await.is_err());
    assert_eq!(user(&["add", "bob"], "b secret\n").0, 0);
    let start = Instant::now();
    while connect(&up, tcp, by_password("bob", "b secret")).await.is_err() {
        assert!(start.elapsed() < PATIENCE, "the file is not read again");
    }
    assert_eq!(user(&["list"], "").1, "ada\nbob");
    assert_eq!(user(&["remove", "ada"], "").0, 0);
    assert_eq!(user(&["remove", "ada"], "").0, 1);
    assert!(ask(&up.http, "POST", "/reload").starts_with("HTTP/1.0 200"));
    assert!(connect(&up, tcp, by_password("ada", "a secret")).await.is_err());

    // What the command signs, the command and the server take.
    let sign = ["token", "sign", "--alg", "HS256", "--key", "key", "--kid", "old", "--user", "eve"];
    let token = String::from_utf8(output(dir.path(), &sign).stdout).unwrap().trim().to_owned();
    assert!(connect(&up, tcp, by(token.clone().into_bytes())).await.is_ok());
    let verify = ["token", "verify", "--config", "edgeway.toml"];
    let (code, said, _) = run(dir.path(), &verify, &token);
    assert!(code == 0 && said.contains("good: key old") && said.contains("\"eve\""), "{said}");
    let (code, _, said) = run(dir.path(), &verify, &format!("{token}x"));
    assert!(code == 1 && said.contains("token_signature"), "{said}");
    let (code, said, _) = run(dir.path(), &["token", "inspect"], &token);
    assert!(code == 0 && said.contains("\"sub\":\"eve\"") && said.contains("HS256"), "{said}");
}
