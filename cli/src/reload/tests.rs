//! Whatever was read before, good or bad: in effect is what a process would start with now.

use std::sync::Arc;

use edgeway_backend::{Backend, Roles};
use edgeway_gateway::Gateway;
use proptest::prelude::*;
use tokio::runtime::Runtime;

use super::*;
use crate::config::Settings;

/// Two hashes of passwords, made beforehand: that takes long.
const HASHES: [&str; 2] = [
    "$argon2id$v=19$m=8,t=1,p=1$c29tZXNhbHRzb21l$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
    "$argon2id$v=19$m=8,t=1,p=1$b3RoZXJzYWx0b3Ro$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
];

/// What a file says of keys that are live, and whether there is a mistake in it.
#[derive(Debug, Clone)]
struct Said {
    lines: Vec<(&'static str, &'static str, u64)>,
    users: Vec<(usize, usize)>,
    mistake: Option<&'static str>,
}

fn said() -> impl Strategy<Value = Said> {
    let key = |section: &'static str, key: &'static str, range: std::ops::Range<u64>| {
        prop::option::of(range).prop_map(move |value| value.map(|value| (section, key, value)))
    };
    let limits = (
        key("gateway.limits", "connections", 1..1000),
        key("gateway.limits", "connections_per_ip", 1..1000),
        key("gateway.limits", "sessions_per_connection", 1..63),
        key("gateway.limits", "outbox_bytes", 131_072..1_000_000),
        key("gateway.limits", "credit_chat_bytes", 1024..100_000),
        key("gateway.limits", "open_timeout_ms", 100..10_000),
        key("gateway.limits", "grace_ms", 0..10_000),
        key("gateway.limits", "user_bytes_per_second", 1..10_000),
    );
    let rooms = (
        key("rooms", "chat_per_second", 0..100),
        key("rooms", "chat_batch_ms", 1..100),
        key("rooms", "max_members", 1..100),
        key("rooms", "per_session", 1..100),
    );
    let users = prop::collection::btree_map(0usize..4, 0usize..2, 1..4);
    let mistake = prop::option::weighted(
        0.3,
        prop::sample::select(vec![
            "[gateway.limits]\nfrobnicate = 1\n",
            "[rooms]\nmax_members = 0\n",
            "[log]\nlevel = \"loud\"\n",
            "[backends]\nquiz = [\"nowhere\"]\n",
            "rooms = [",
        ]),
    );
    (limits, rooms, users, mistake).prop_map(|(a, b, users, mistake)| {
        let all = [a.0, a.1, a.2, a.3, a.4, a.5, a.6, a.7, b.0, b.1, b.2, b.3];
        Said {
            lines: all.into_iter().flatten().collect(),
            users: users.into_iter().collect(),
            mistake,
        }
    })
}

impl Said {
    fn text(&self) -> String {
        let mut text = "gateway.listen = { quic = \"\", tcp = \"\", plain = \"127.0.0.1:0\" }\n\
            backend.listen = \"127.0.0.1:0\"\nauth.mode = \"passwords\"\n"
            .to_owned();
        for (section, key, value) in &self.lines {
            text += &format!("{section}.{key} = {value}\n");
        }
        for (user, hash) in &self.users {
            text += &format!("auth.users.user-{user} = {:?}\n", HASHES[*hash]);
        }
        text + self.mistake.unwrap_or_default()
    }
}

/// What is in effect of keys that are live.
type Effective = (String, Option<edgeway_backend::config::Rooms>, String);

fn effective(gateway: &edgeway_gateway::Control, backend: &edgeway_backend::Control) -> Effective {
    // Hashes do not show themselves, but write themselves.
    let users = match backend.users() {
        Some(auth) if auth.passwords().is_some() => {
            let users = auth.passwords().cloned().unwrap_or_default();
            users.iter().map(|(user, hash)| format!("{user} {hash}\n")).collect()
        }
        other => format!("{other:?}"),
    };
    (format!("{:?}", gateway.limits()), backend.rooms(), users)
}

/// A process, as far as it is changed, in a runtime that is entered.
async fn start(settings: Settings) -> (Gateway, Backend) {
    let backend = Backend::start(settings.backend, Roles::up()).await.unwrap();
    let gateway = settings.gateway.with_roles_at(backend.local_addr());
    (Gateway::bind(gateway.config().unwrap()).unwrap(), backend)
}

fn settings(text: &str, dir: &std::path::Path) -> Result<Settings, BadConfig> {
    load(text, dir).settings(Use::Up)
}

fn load(text: &str, dir: &std::path::Path) -> File {
    let mut file = File::parsed(text);
    let dir = dir.display().to_string();
    file.set("--data-dir", "backend.data_dir", Some(dir), |raw, v| raw.backend.data_dir = Some(v));
    file
}

#[test]
fn after_any_reloads_that_is_in_effect_which_a_fresh_start_would_have() {
    let runtime = Runtime::new().unwrap();
    let _entered = runtime.enter();
    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(8) };
    proptest!(config, |(first in said(), files in prop::collection::vec(said(), 1..20))| {
        let dirs = [(); 2].map(|()| tempfile::tempdir().unwrap());
        let first = Said { mistake: None, ..first };
        let now = Arc::new(Mutex::new(first.text()));
        let started = load(&now.lock(), dirs[0].path());
        let (read, dir) = (Arc::clone(&now), dirs[0].path().to_owned());
        let again = move || Ok(load(&read.lock(), &dir));
        let mut reload = Reload::new(Box::new(again), Use::Up, false, &started);
        let (gateway, backend) = runtime.block_on(start(started.settings(Use::Up).unwrap()));
        let roles_at = backend.local_addr();
        let complete = move |settings: GatewaySettings| settings.with_roles_at(roles_at);
        reload.gateway(gateway.control(), Box::new(complete), Listening::default());
        reload.backend(backend.control());

        let mut good = first;
        for file in files {
            *now.lock() = file.text();
            let before = effective(&gateway.control(), &backend.control());
            match reload.now() {
                Ok(changes) => {
                    prop_assert!(file.mistake.is_none() && changes.at_restart.is_empty());
                    good = file;
                }
                Err(_) => {
                    prop_assert!(file.mistake.is_some());
                    prop_assert_eq!(effective(&gateway.control(), &backend.control()), before);
                }
            }
        }
        let fresh = settings(&good.text(), dirs[1].path()).unwrap();
        let (fresh_gateway, fresh_backend) = runtime.block_on(start(fresh));
        let expected = effective(&fresh_gateway.control(), &fresh_backend.control());
        prop_assert_eq!(effective(&gateway.control(), &backend.control()), expected);
    });
}
