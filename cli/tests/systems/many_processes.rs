//! Rows that need processes of their own.

use edgeway_client::{Class, Event, JoinOptions, Seq};
use redis::Commands;

use crate::{ask, cluster::Cluster, hears, hears_text, until, within};

fn redis(server: &edgeway_testredis::Server) -> redis::Connection {
    redis::Client::open(server.url()).unwrap().get_connection().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn access_server_hands_messages_to_the_owner_of_the_room_and_gateways_deliver_them() {
    let cluster = Cluster::start();
    let (ada, mut ada_hears) = cluster.connect("ada", 0).await;
    let (bob, mut bob_hears) = cluster.connect("bob", 1).await;
    // So many that each of the two services owns some.
    for n in 0..32 {
        let name = format!("room {n}");
        let room = within("a join", ada.join(&name)).await.unwrap();
        within("a join", bob.join(&name)).await.unwrap();
        within("an ack", room.send_signal(name.clone().into())).await.unwrap();
        for events in [&mut ada_hears, &mut bob_hears] {
            let message = hears(events).await;
            assert_eq!((&*message.room, &message.payload[..]), (&*name, name.as_bytes()));
        }
    }
    let owned = cluster.rooms.each_ref().map(|node| node.metric("edgeway_owner_rooms", "room"));
    assert!(owned[0] + owned[1] == 32.0 && owned[0].min(owned[1]) > 0.0, "{owned:?}");
    cluster.end();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bin_msg_server_takes_strokes_apart_so_that_they_cannot_starve_signals() {
    let cluster = Cluster::start();
    let (ada, _ada_hears) = cluster.connect("ada", 0).await;
    let (bob, mut bob_hears) = cluster.connect("bob", 1).await;
    let room = within("a join", ada.join("lesson")).await.unwrap();
    within("a join", bob.join("lesson")).await.unwrap();
    for n in 0..20 {
        within("an ack", room.send_stroke(format!("stroke {n}").into())).await.unwrap();
    }
    for n in 0..20 {
        let message = hears(&mut bob_hears).await;
        assert_eq!(message.class, Class::Binary);
        assert_eq!(message.payload, format!("stroke {n}"));
    }
    let taken = |node: &crate::support::node::Node| {
        node.metric("edgeway_owner_messages_total", "class=\"binary\",outcome=\"accepted\"")
    };
    assert_eq!(taken(&cluster.binary), 20.0);
    assert_eq!(cluster.rooms.iter().map(taken).sum::<f64>(), 0.0);
    // While it hangs, signals go on; then what it was sent meanwhile comes.
    cluster.binary.process.signal("STOP");
    room.send_stroke_nowait("late".into()).unwrap();
    for n in 0..20 {
        within("an ack", room.send_signal(format!("signal {n}").into())).await.unwrap();
        assert_eq!(hears_text(&mut bob_hears).await, format!("signal {n}"));
    }
    cluster.binary.process.signal("CONT");
    assert_eq!(hears_text(&mut bob_hears).await, "late");
    cluster.end();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn peer_msg_server_knows_who_is_online_and_keeps_messages_for_who_is_not() {
    let cluster = Cluster::start();
    let http = cluster.peer.at("http");
    let online = |name: &str| {
        let user = ask(&http, &format!("/users/{name}"));
        user["sessions"].as_array().unwrap().iter().any(|one| one["standing"] == "live")
    };
    let (ada, mut ada_hears) = cluster.connect("ada", 0).await;
    let inbox = within("an inbox", ada.im()).await.unwrap();
    until("ada is online", || online("ada").then_some(()));
    assert!(!online("bob"));
    for text in ["one", "two"] {
        within("an ack", inbox.send_to("bob", text.into())).await.unwrap();
    }
    let (bob, mut bob_hears) = cluster.connect("bob", 1).await;
    let of_bob = within("an inbox", bob.inbox_from("im", Seq::ZERO)).await.unwrap();
    let mut places = Vec::new();
    for text in ["one", "two"] {
        let message = hears(&mut bob_hears).await;
        assert_eq!((&*message.sender, &message.payload[..]), ("ada", text.as_bytes()));
        places.push(message.seq);
    }
    within("a read mark", of_bob.mark_read(places[1])).await.unwrap();
    // Another device has a place of its own, and learns what was read.
    let (tablet, mut tablet_hears) = cluster.connect("bob", 0).await;
    within("an inbox", tablet.inbox_from("im", places[0])).await.unwrap();
    assert_eq!(hears_text(&mut tablet_hears).await, "two");
    let read = hears(&mut tablet_hears).await;
    assert_eq!((&*read.key, read.payload), ("read", places[1].to_string().into()));
    within("the end", tablet.close()).await;
    until("bob is online", || online("bob").then_some(()));
    within("an ack", of_bob.send_to("ada", "back".into())).await.unwrap();
    assert_eq!(hears_text(&mut ada_hears).await, "back");
    within("the end", bob.close()).await;
    until("bob is gone", || (!online("bob")).then_some(()));
    cluster.end();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_holds_member_lists_room_routes_and_user_routes_which_expire() {
    let cluster = Cluster::start();
    let (ada, _ada_hears) = cluster.connect("ada", 0).await;
    let (bob, _bob_hears) = cluster.connect("bob", 1).await;
    for client in [&ada, &bob] {
        within("a join", client.join("lesson")).await.unwrap();
    }
    // Asked of a process that has to do neither with the room nor with the connections.
    let http = cluster.peer.at("http");
    let members = until("both members", || {
        let members = ask(&http, "/rooms/lesson/members");
        (members["total"] == 2).then_some(members)
    });
    let names: Vec<_> =
        members["members"].as_array().unwrap().iter().map(|one| &one["user"]).collect();
    assert_eq!(names, ["ada", "bob"]);
    let gateways = |route: &serde_json::Value| route["gateways"].as_array().unwrap().len();
    until("the route", || (gateways(&ask(&http, "/rooms/lesson/route")) == 2).then_some(()));
    until("where bob is", || {
        let user = ask(&http, "/users/bob");
        let of = |one: &serde_json::Value| one["gateway_name"] == "gateway-2" && one["rooms"] == 1;
        user["sessions"].as_array().unwrap().iter().any(of).then_some(())
    });
    // All of the directory is in Redis and would vanish with who wrote it.
    let mut redis = redis(&cluster.redis);
    let keys: Vec<String> = redis.keys("*lesson*").unwrap();
    let lives = keys.iter().map(|key| redis.pttl::<_, i64>(key).unwrap()).filter(|ms| *ms > 0);
    assert!(lives.count() > 0, "{keys:?}");
    within("the end", ada.close()).await;
    until("the route has one gateway", || {
        (gateways(&ask(&http, "/rooms/lesson/route")) == 1).then_some(())
    });
    cluster.end();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pika_holds_history_apart_and_who_comes_late_reads_it() {
    let cluster = Cluster::start();
    let (ada, _ada_hears) = cluster.connect("ada", 0).await;
    let room = within("a join", ada.join("lesson")).await.unwrap();
    for n in 0..10 {
        within("an ack", room.send_signal(format!("signal {n}").into())).await.unwrap();
    }
    let lengths = |server: &edgeway_testredis::Server| {
        let mut redis = redis(server);
        let keys: Vec<String> = redis.keys("*").unwrap();
        let mut entries = 0;
        for key in keys {
            let kind: String = redis::cmd("TYPE").arg(&key).query(&mut redis).unwrap();
            if kind == "stream" {
                entries += redis::cmd("XLEN").arg(&key).query::<u64>(&mut redis).unwrap();
            }
        }
        entries
    };
    // Ten signals, and the seals of the owners.
    assert!(lengths(&cluster.history) >= 10);
    assert_eq!(lengths(&cluster.redis), 0);
    let (bob, mut bob_hears) = cluster.connect("bob", 1).await;
    let options =
        JoinOptions { positions: vec![(Class::Signal, Seq::ZERO)], ..JoinOptions::default() };
    within("a join", bob.join_with("lesson", options)).await.unwrap();
    for n in 0..10 {
        assert_eq!(hears_text(&mut bob_hears).await, format!("signal {n}"));
    }
    cluster.end();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_level_caches_answer_from_memory_and_follow_what_changes() {
    let cluster = Cluster::start();
    let (ada, mut ada_hears) = cluster.connect("ada", 0).await;
    within("a join", ada.join("lesson")).await.unwrap();
    let http = cluster.peer.at("http");
    let total = || ask(&http, "/rooms/lesson/members")["total"].as_u64().unwrap();
    until("ada is listed", || (total() == 1).then_some(()));
    let hits = || cluster.peer.metric("edgeway_directory_reads_total", "outcome=\"hit\"");
    let before = hits();
    until("an answer from memory", || {
        assert_eq!(total(), 1);
        (hits() > before).then_some(())
    });
    // What is in memory is not believed for long.
    let (bob, _bob_hears) = cluster.connect("bob", 1).await;
    let room = within("a join", bob.join("lesson")).await.unwrap();
    until("bob is listed", || (total() == 2).then_some(()));
    // A warm room needs nothing of Redis for what is said in it, but its append.
    within("an ack", room.send_signal("here".into())).await.unwrap();
    loop {
        let event = within("a message", ada_hears.next()).await.unwrap();
        if let Event::Message(message) = event {
            assert_eq!(message.payload, "here");
            break;
        }
    }
    cluster.end();
}
