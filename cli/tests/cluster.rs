//! The parts as processes of their own, with one config file.

#![allow(clippy::unwrap_used)]

mod support;

use support::{Process, free_ports, run, write};

#[test]
fn a_room_spans_two_gateways_whose_backends_are_processes_of_their_own() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path();
    // `up` makes the certificates that the gateways use here.
    drop(support::Up::start(path));
    let [access, room_1, room_2, peer] = free_ports();
    let text = format!(
        "[backends]\naccess = [\"{access}\"]\nroom = [\"{room_1}\", \"{room_2}\"]\n\
         peer = [\"{peer}\"]\n[gateway.tls]\ncert = \"edgeway-data/certs/server.pem\"\n\
         key = \"edgeway-data/certs/server.key\"\n[http]\nlisten = \"\"\n"
    );
    write(path, "edgeway.toml", &text);
    let (code, said, error) = run(path, &["check", "edgeway.toml"], "");
    assert_eq!(code, 0, "{error}");
    assert!(said.contains(&room_2), "{said}");

    let backend = |role, addr: &str, slot| {
        let args = ["backend", "--config", "edgeway.toml", "--roles", role, "--listen", addr];
        let dir = format!("data-{slot}");
        Process::spawn(path, &[&args[..], &["--data-dir", &dir, "--slot", slot]].concat())
    };
    let gateway = |name| {
        let any = "127.0.0.1:0";
        let args =
            ["gateway", "--config", "edgeway.toml", "--name", name, "--quic", any, "--tcp", any];
        Process::spawn(path, &args)
    };
    let mut gateways = [gateway("gw-1"), gateway("gw-2")];
    let mut backends = [
        backend("room", &room_1, "1"),
        backend("room", &room_2, "2"),
        backend("peer", &peer, "3"),
        backend("access", &access, "4"),
    ];
    for backend in &mut backends {
        backend.wait_for("ready grpc=");
    }
    let servers = gateways.each_mut().map(|gateway| {
        let ready = gateway.wait_for("ready ");
        ready.split("quic=").nth(1).unwrap().split(' ').next().unwrap().to_owned()
    });

    // Several rooms, so that both owners have some.
    for room in ["lesson-1", "lesson-2", "lesson-3", "lesson-4"] {
        let chat = |user, server: &str| {
            let args = ["chat", "--user", user, "--room", room, "--server", server];
            Process::spawn(path, &[&args[..], &["--transport", "quic"]].concat())
        };
        let mut ada = chat("ada", &servers[0]);
        let mut bob = chat("bob", &servers[1]);
        bob.type_in("/signal here\n");
        bob.wait_for("bob (signal): here");
        ada.type_in("/signal one\n/msg bob psst\n");
        bob.wait_for("ada (signal): one");
        bob.wait_for("ada (to you): psst");
        bob.type_in("/signal two\n");
        ada.wait_for("bob (signal): two");
        assert_eq!(ada.finish().0, 0);
        assert_eq!(bob.finish().0, 0);
    }
    for process in gateways.into_iter().chain(backends) {
        process.signal("TERM");
        let (code, _, log) = process.finish();
        assert_eq!(code, 0, "{log}");
    }
}
