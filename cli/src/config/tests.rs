//! What a wrong config is told, and that the example says the truth.

use std::collections::BTreeSet;

use serde::Deserialize;

use super::*;

const EXAMPLE_TEXT: &str = include_str!("../../../edgeway.example.toml");

fn settings(text: &str, purpose: Use) -> Result<Settings, BadConfig> {
    File { path: Some("f".into()), ..File::parse(text.to_owned()) }.settings(purpose)
}

/// What is wrong with a file named `f`, one a line.
fn told(text: &str) -> Vec<String> {
    match settings(text, Use::Up) {
        Ok(_) => Vec::new(),
        Err(bad) => bad.to_string().lines().map(str::to_owned).collect(),
    }
}

/// Each line that is told must begin with the first of its pair and hold the second.
#[track_caller]
fn check(text: &str, expected: &[(&str, &str)]) {
    let told = told(text);
    assert_eq!(told.len(), expected.len(), "{text}\n{told:#?}");
    for (line, (start, what)) in told.iter().zip(expected) {
        assert!(
            line.starts_with(start) && line.contains(what),
            "{line:?} is not {start:?} {what:?}"
        );
    }
}

#[test]
fn an_unknown_key_is_told_with_its_line_and_the_one_that_was_meant() {
    check(
        "[gateway.listen]\nqiuc = \"127.0.0.1:1\"\n",
        &[(
            "f:2: gateway.listen.qiuc: ",
            "did you mean `quic`? ([gateway.listen] has: quic, tcp, plain, tcp_bbr)",
        )],
    );
    check("[gatway]\nname = \"x\"\n", &[("f:1: gatway: ", "did you mean `gateway`?")]);
    check(
        "\n\nrooms.frobnicate = 1\n",
        &[("f:3: rooms.frobnicate: ", "unknown key ([rooms] has: ")],
    );
    check("http = { listn = \"\" }\n", &[("f:1: http.listn: ", "did you mean `listen`?")]);
}

#[test]
fn a_value_of_the_wrong_type_is_told_what_is_wanted() {
    check(
        "[log]\nlevel = 5\n",
        &[("f:2: log.level: ", "must be text in quotes, and is the number 5")],
    );
    check(
        "[rooms]\nmax_members = \"many\"\n",
        &[("f:2: rooms.max_members: ", "must be a whole number, and is the text \"many\"")],
    );
    check("[rooms]\nmax_members = 1.5\n", &[("f:2: rooms.max_members: ", "a whole number")]);
    check(
        "[gateway.limits]\nconnections = -1\n",
        &[("f:2: gateway.limits.connections: ", "0 or more")],
    );
    check("gateway = true\n", &[("f:1: gateway: ", "must be a section, and is true")]);
    check(
        "[history]\nchat = \"off\"\n",
        &[("f:2: history.chat: ", "must be true or false, and is the text \"off\"")],
    );
    check("[backends]\nmine = \"127.0.0.1:1\"\n", &[("f:2: backends.mine: ", "must be a list")]);
    check(
        "[backends]\nmine = [\n  1,\n  \"x\",\n  true,\n]\n",
        &[("f:3: backends.mine: ", "and is the number 1"), ("f:5: backends.mine: ", "and is true")],
    );
}

#[test]
fn what_is_no_toml_is_told_with_its_line_and_nothing_twice() {
    check(
        "[gateway.listen]\nquic = 127.0.0.1:4433\n",
        &[("f:2: gateway.listen.quic: ", "text must stand in quotes: \"127.0.0.1:4433\"")],
    );
    check("[log]\nlevel =\n", &[("f:2: log.level: ", "has no value")]);
    check("[log]\nlevel = \"info\n", &[("f:2: log.level: ", "invalid basic string")]);
    check("[log]\nlevel = \"info\"\nlevel = \"info\"\n", &[("f:3: log.level: ", "duplicate key")]);
    check("[log]\n[log]\n", &[("f:2: log: ", "duplicate key")]);
    check("[gateway\nname = \"x\"\n", &[("f:1: gateway: ", "unclosed table")]);
    check("\u{0}\u{1}", &[("f:1: ", "")]);
}

#[test]
fn a_value_that_makes_no_sense_is_told_what_would() {
    check("[gateway.listen]\nquic = \"here\"\n", &[("f:2: gateway.listen.quic: ", "IP:PORT")]);
    check("[http]\nlisten = \"8080\"\n", &[("f:2: http.listen: ", "such as 127.0.0.1:8080")]);
    check("[log]\nlevel = \"loud\"\n", &[("f:2: log.level: ", "`loud` is no level")]);
    check("[runtime]\nthreads = -1\n", &[("f:2: runtime.threads: ", "1 to 1024")]);
    check("[rooms]\nchat_batch_ms = 0\n", &[("f:2: rooms.chat_batch_ms: ", "1 to 1000")]);
    check("[history]\nsync = \"maybe\"\n", &[("f:2: history.sync: ", "\"process\"")]);
    check(
        "[gateway.tls]\ncert = \"/no/such.pem\"\n",
        &[
            ("f:1: gateway.tls.key: ", "go together"),
            ("f:2: gateway.tls.cert: ", "cannot read /no/such.pem"),
        ],
    );
    check(
        "[auth]\nmode = \"passwords\"\n[auth.users]\n\"a.b\" = \"secret\"\n",
        &[("f:4: auth.users.a.b: ", "argon2id")],
    );
    check("[auth]\nmode = \"passwords\"\n", &[("f:1: auth.users: ", "nobody could log in")]);
}

#[test]
fn what_is_wrong_with_the_store_is_told_with_its_line_and_without_its_password() {
    check("[store]\nengine = \"disk\"\n", &[("f:2: store.engine: ", "\"embedded\"")]);
    check("[store]\nengine = \"redis\"\n", &[("f: store.redis.url: ", "is empty")]);
    let text = "[store]\nengine = \"redis\"\n[store.redis]\nurl = \"http://:secret@a\"\n\
                cluster = \"redis://:secret@b\"\nnodes = [\"redis://c\", \"secret\"]\nprefix = \"{\"\n";
    check(
        text,
        &[
            ("f:4: store.redis.url: ", "must begin with redis://"),
            ("f:5: store.redis.cluster: ", "must be true or false, and is text"),
            ("f:6: store.redis.nodes: ", "has no effect without store.redis.cluster"),
            ("f:6: store.redis.nodes.1: ", "must begin with redis://"),
            ("f:7: store.redis.prefix: ", "letters"),
        ],
    );
    assert!(!told(text).concat().contains("secret"));
}

#[test]
fn what_is_wrong_with_links_is_told_once_and_of_the_key_that_is_wrong() {
    check(
        "[links]\nca = \"/no/such.pem\"\n[backend]\nlisten = \"0.0.0.0:1\"\n",
        &[
            ("f:1: links.cert: ", "go together"),
            ("f:1: links.key: ", "go together"),
            ("f:2: links.ca: ", "cannot read /no/such.pem"),
        ],
    );
    check("[links]\nnames = \"a\"\n", &[("f:2: links.names: ", "did you mean `name`?")]);
    check(
        "[backends]\na = [\"10.0.0.1:1\"]\nb = [\"localhost:1\", \"b:1\"]\nc = [\"https://c:1\"]\n\
         d = [\"d\"]\n",
        &[
            ("f:2: backends.a.0: ", "certificates of both sides"),
            ("f:3: backends.b.1: ", "edgeway certs --help"),
            ("f:4: backends.c.0: ", "begins with https://"),
            ("f:5: backends.d.0: ", "HOST:PORT"),
        ],
    );
    // The same rule of gateways and backends is told once.
    let far = "[backends]\naccess = [\"127.0.0.1:1\"]\nroom = [\"10.0.0.1:1\"]\npeer = [\"http://127.0.0.1:1\"]\n";
    let room = Use::Backend(Roles::parse("room").expect("a role"));
    let told = settings(far, room).expect_err("far").to_string();
    let lines: Vec<_> = told.lines().collect();
    assert_eq!(lines.len(), 2, "{told}");
    assert!(
        lines[0].starts_with("f:3: backends.room.0: `10.0.0.1:1` is on another machine"),
        "{told}"
    );
    assert!(
        lines[1].starts_with("f:4: backends.peer.0: `http://127.0.0.1:1` begins with"),
        "{told}"
    );
}

#[test]
fn everything_that_is_wrong_is_told_at_once_in_the_order_of_the_file() {
    check(
        "[log]\nlevel = loud\n[rooms]\nper_session = 0\nmax_member = 1\n[gateway]\nname = 7\n\
         [http]\nlisten = \"x\"\n",
        &[
            ("f:2: log.level: ", "quotes"),
            ("f:4: rooms.per_session: ", "out of range"),
            ("f:5: rooms.max_member: ", "did you mean `max_members`?"),
            ("f:7: gateway.name: ", "text in quotes"),
            ("f:9: http.listen: ", "IP:PORT"),
        ],
    );
}

#[test]
fn a_file_of_another_format_fills_no_screen() {
    let json = "{ \"a\": 1 }\n".repeat(10_000);
    assert!((1..=100).contains(&told(&json).len()));
}

#[test]
fn other_machines_are_let_in_only_where_it_is_known_who_comes() {
    for (key, addr) in [("quic", "0.0.0.0:4433"), ("tcp", "[::]:4433"), ("plain", "192.168.1.1:1")]
    {
        let text = format!("[gateway.listen]\n{key} = \"{addr}\"\n");
        check(&text, &[(&format!("f:2: gateway.listen.{key}: "), "lets anyone in")]);
    }
}

#[test]
fn a_flag_is_blamed_for_what_it_set() {
    let mut file = File::parse("[http]\nlisten = \"127.0.0.1:8080\"\n".to_owned());
    file.set("--http", "http.listen", Some("x".to_owned()), |raw, v| raw.http.listen = Some(v));
    let told = file.settings(Use::Up).expect_err("no address").to_string();
    assert!(told.starts_with("--http: `x`"), "{told}");
}

#[test]
fn processes_of_their_own_need_the_others_addresses_and_a_gateway_a_certificate() {
    let text =
        "[backends]\naccess = [\"127.0.0.1:7400\"]\nroom = [\"127.0.0.1:7400\", \"10.0.0.1:1\"]\n";
    let told = settings(text, Use::Gateway).expect_err("incomplete").to_string();
    assert!(told.contains("gateway.tls: "), "{told}");
    assert!(told.contains("f:3: backends.room.1: "), "{told}");

    let access = Use::Backend(Roles::parse("access").expect("a role"));
    let text = "[backends]\naccess = [\"127.0.0.1:7400\"]\nroom = [\"127.0.0.1:7410\"]\n";
    let told = settings(text, access).expect_err("no peer").to_string();
    assert!(told.contains("backends.peer: is empty") && !told.contains("tls"), "{told}");
}

#[test]
fn strokes_apart_need_their_processes_listed_and_a_store_that_all_share() {
    let lists = "[backends]\naccess = [\"127.0.0.1:1\"]\nroom = [\"127.0.0.1:2\"]\n\
                 peer = [\"127.0.0.1:3\"]\n";
    let of = |roles| Use::Backend(Roles::parse(roles).expect("roles"));
    let refused = |text: &str, roles| settings(text, of(roles)).expect_err("refused").to_string();
    let told = refused(lists, "binary");
    assert!(told.contains("backends.binary: is empty"), "{told}");
    let apart = format!("{lists}binary = [\"127.0.0.1:4\"]\n");
    for owner in ["room", "binary"] {
        let told = refused(&apart, owner);
        assert!(told.contains("f:5: backends.binary: ") && told.contains("redis"), "{told}");
    }
    settings(&apart, of("access")).expect("access has no store");
    let redis = "[store]\nengine = \"redis\"\n[store.redis]\nurl = \"redis://127.0.0.1:1\"\n";
    settings(&format!("{apart}{redis}"), of("room")).expect("shared");
    // Everything in one process.
    let here = "[backends]\naccess = [\"127.0.0.1:7400\"]\n";
    settings(here, of("access,room,binary,peer")).expect("nobody else has to know");
    let notes = settings("[backends]\nbinary = [\"127.0.0.1:4\"]\n", Use::Up).expect("good").notes;
    assert!(notes[0].contains("leaves strokes to the rooms"), "{notes:?}");
}

#[test]
fn what_has_no_effect_is_noted() {
    let text = "[backends]\nroom = [\"127.0.0.1:1\"]\nmine = [\"127.0.0.1:2\"]\n";
    let notes = settings(text, Use::Up).expect("a good config").notes;
    assert_eq!(notes.len(), 1, "{notes:?}");
    assert!(notes[0].starts_with("backends.room has no effect"));
}

#[test]
fn the_example_is_the_defaults() {
    let without = format!("{:#?}", settings("", Use::Up).expect("the defaults are good"));
    // `up` takes any free port for its backends, and none for dispatch; the example tells the defaults of processes.
    let text = EXAMPLE_TEXT.replace("listen = \"127.0.0.1:7400\"\n", "");
    let text = text.replace("listen = \"127.0.0.1:8090\"\n", "");
    let example = settings(&text, Use::Up);
    assert_eq!(format!("{:#?}", example.expect("the example is good")), without);
    assert!(EXAMPLE_TEXT.contains(&format!("listen = \"{}\"", backend::LISTEN_BACKEND)));
}

#[test]
fn the_example_has_every_key_and_each_with_its_reason() {
    let missing: Vec<_> = known_keys("").into_iter().filter(|key| !has_reason(key)).collect();
    assert!(missing.is_empty(), "not in the example, or without a comment: {missing:?}");
}

/// Every key that the raw structs take, dotted: serde tells them when it refuses one.
fn known_keys(section: &str) -> BTreeSet<String> {
    let probe = "no-such-key = 0\n";
    let text = if section.is_empty() { probe.to_owned() } else { format!("[{section}]\n{probe}") };
    let Err(refused) = RawFile::deserialize(toml::Deserializer::parse(&text).expect("TOML")) else {
        return BTreeSet::from([section.to_owned()]);
    };
    let Some(known) = message::known_keys(refused.message()) else {
        return BTreeSet::from([section.to_owned()]);
    };
    let dotted = |key: String| if section.is_empty() { key } else { format!("{section}.{key}") };
    known.into_iter().flat_map(|key| known_keys(&dotted(key))).collect()
}

/// Whether the key stands in the example, below a comment (which may be that of its neighbour) or
/// as a section that begins with one.
fn has_reason(key: &str) -> bool {
    let Some(line) = document::line_of(EXAMPLE_TEXT, key) else { return false };
    let lines: Vec<_> = EXAMPLE_TEXT.lines().collect();
    let is_comment = |line: &str| line.starts_with('#');
    let (above, here) = (&lines[..line - 1], lines[line - 1]);
    if here == format!("[{key}]") {
        return lines[line..].first().is_some_and(|l| is_comment(l)) || is_comment(above[line - 2]);
    }
    let name = key.rsplit('.').next().unwrap_or(key);
    let mut section = above.iter().rev().take_while(|l| !l.is_empty() && !l.starts_with('['));
    here.starts_with(&format!("{name} =")) && section.any(|l| is_comment(l))
}
