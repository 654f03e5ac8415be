//! A small server that speaks the protocol over real sockets: one process, all rooms in memory.

#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used, dead_code)]

pub mod proxy;

use std::{
    collections::{HashMap, VecDeque},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use edgeway_client::{ClientConfig, Login, Trust};
use edgeway_proto::{
    AckStatus, Class, CloseCode, ErrorCode, Lane, RawFrame, Rest, Seq,
    frame::{self, Frame, page_flag, param},
};
use edgeway_transport::{
    Connection, QuicListener, Sender, Settings, Sink, Stop, TcpListener, tls::ServerTls,
};
use parking_lot::Mutex;
use tokio::{sync::Notify, task::JoinSet};

/// What can be switched while it runs.
#[derive(Debug, Default)]
pub struct Switches {
    /// Logins are refused.
    pub refuse_logins: bool,
    /// Signals are stored and their acks swallowed.
    pub swallow_acks: bool,
    /// Only this version.
    pub version: Option<u64>,
    /// Nothing is answered.
    pub mute: bool,
}

#[derive(Debug, Default)]
struct Room {
    logs: [Vec<frame::Deliver>; 3],
    last_ids: HashMap<(String, String, u8), u64>,
    /// Connection and Session.
    members: Vec<(u64, u8)>,
    state: HashMap<String, frame::Deliver>,
}

#[derive(Debug, Default)]
struct State {
    rooms: Vec<(String, Room)>,
    conns: HashMap<u64, Arc<Conn>>,
    next: u64,
    logins: u64,
    /// The connection of each user's device.
    devices: HashMap<(String, String), u64>,
    switches: Switches,
}

#[derive(Debug, Default)]
struct Out {
    lanes: HashMap<Lane, OutLane>,
    grant: [u64; 3],
    close: Option<(CloseCode, u64)>,
}

#[derive(Debug, Default)]
struct OutLane {
    sent: u64,
    total: u64,
    queue: VecDeque<Bytes>,
}

#[derive(Debug, Default)]
struct Conn {
    out: Mutex<Out>,
    wake: Notify,
}

impl Conn {
    fn send(&self, lane: Lane, frame: impl Into<Frame>) {
        let mut bytes = BytesMut::new();
        frame.into().encode(&mut bytes);
        self.raw(lane, bytes.freeze());
    }

    fn raw(&self, lane: Lane, bytes: Bytes) {
        let mut out = self.out.lock();
        let grant = out.grant[lane.class.index()];
        let lane = out.lanes.entry(lane).or_insert(OutLane { total: grant, ..OutLane::default() });
        lane.queue.push_back(bytes);
        drop(out);
        self.wake.notify_one();
    }

    fn close(&self, code: CloseCode, retry_after_ms: u64) {
        self.out.lock().close = Some((code, retry_after_ms));
        self.wake.notify_one();
    }

    async fn write(&self, mut sender: Sender) {
        loop {
            let next = {
                let mut out = self.out.lock();
                let mut lanes: Vec<Lane> = out.lanes.keys().copied().collect();
                lanes.sort_by_key(|l| (!l.is_control(), l.class));
                let ready = lanes.into_iter().find(|l| {
                    let lane = &out.lanes[l];
                    !lane.queue.is_empty() && (l.is_control() || lane.sent < lane.total)
                });
                ready.map(|l| {
                    let lane = out.lanes.get_mut(&l).unwrap();
                    let bytes = lane.queue.pop_front().unwrap();
                    lane.sent += bytes.len() as u64;
                    (l, bytes)
                })
            };
            if let Some((lane, bytes)) = next {
                if sender.send(lane, &mut [bytes]).await.is_err() {
                    return;
                }
                continue;
            }
            if sender.flush().await.is_err() {
                return;
            }
            let close = self.out.lock().close.take();
            if let Some((code, retry)) = close {
                return sender.close(code, "by the test", retry).await;
            }
            self.wake.notified().await;
        }
    }
}

/// A running server. Dropping it ends it.
pub struct Server {
    pub quic: Option<SocketAddr>,
    pub tcp: Option<SocketAddr>,
    ca: Vec<u8>,
    state: Arc<Mutex<State>>,
    _tasks: JoinSet<()>,
    _dir: tempfile::TempDir,
}

pub enum Listen {
    Both,
    Quic,
    Tcp,
}

impl Server {
    pub fn start(listen: Listen) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let certs = edgeway_certs::DevCa::ensure(dir.path(), &["localhost", "127.0.0.1"]).unwrap();
        let read = |path: &std::path::Path| std::fs::read(path).unwrap();
        let ca = read(&certs.ca_path);
        let chain = read(&certs.cert_path);
        let key = read(&certs.key_path);
        let tls = ServerTls::from_pem(&chain, &key).unwrap();
        let state = Arc::new(Mutex::new(State::default()));
        let mut tasks = JoinSet::new();
        let (mut quic, mut tcp) = (None, None);
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        // UDP and TCP on one port, as a client expects: the port that TCP got is tried on UDP.
        loop {
            if !matches!(listen, Listen::Quic) {
                let listener = TcpListener::bind(any, Some(&tls), true).unwrap();
                tcp = Some(listener.local_addr().unwrap());
                let state = Arc::clone(&state);
                if !matches!(listen, Listen::Tcp) {
                    match QuicListener::bind(tcp.unwrap(), &tls, Settings::default()) {
                        Ok(listener) => {
                            quic = Some(listener.local_addr().unwrap());
                            tasks.spawn(accept_quic(listener, Arc::clone(&state)));
                        }
                        Err(_) => continue,
                    }
                }
                tasks.spawn(accept_tcp(listener, state));
            } else {
                let listener = QuicListener::bind(any, &tls, Settings::default()).unwrap();
                quic = Some(listener.local_addr().unwrap());
                tasks.spawn(accept_quic(listener, Arc::clone(&state)));
            }
            return Self { quic, tcp, ca, state, _tasks: tasks, _dir: dir };
        }
    }

    pub fn config(&self, user: &str) -> ClientConfig {
        let addr = self.tcp.or(self.quic).unwrap();
        let login = Login::Development { user: user.into() };
        let mut config = ClientConfig::new(&addr.to_string(), login);
        config.trust = Trust::Ca(self.ca.clone());
        config.server_name = Some("localhost".into());
        config.backoff_min = Duration::from_millis(20);
        config.backoff_max = Duration::from_millis(200);
        config
    }

    pub fn switch(&self, change: impl FnOnce(&mut Switches)) {
        change(&mut self.state.lock().switches);
    }

    pub fn logins(&self) -> u64 {
        self.state.lock().logins
    }

    pub fn connections(&self) -> usize {
        self.state.lock().conns.len()
    }

    /// Closes every connection.
    pub fn close_all(&self, code: CloseCode) {
        self.state.lock().conns.values().for_each(|conn| conn.close(code, 0));
    }

    /// Tells every client to come back.
    pub fn go_away(&self) {
        let away = frame::GoAway {
            code: CloseCode::GoingAway.code(),
            reconnect_after_ms: 10,
            endpoint: "".into(),
        };
        self.state.lock().conns.values().for_each(|conn| conn.send(Lane::CONTROL, away.clone()));
    }

    /// Payloads of a room's log.
    pub fn log(&self, room: &str, class: Class) -> Vec<Bytes> {
        let mut state = self.state.lock();
        let (_, room) = state.room(room);
        room.logs[class.index()].iter().map(|m| m.payload.0.clone()).collect()
    }

    /// Publishes as the system.
    pub fn publish(&self, room: &str, class: Class, payload: Bytes) {
        let mut state = self.state.lock();
        let deliver = frame::Deliver { payload: Rest(payload), ..frame::Deliver::default() };
        state.publish(room, class, deliver);
    }

    /// Bytes that wait for credit.
    pub fn waiting(&self) -> usize {
        let state = self.state.lock();
        let waiting = |c: &Arc<Conn>| -> usize {
            c.out.lock().lanes.values().flat_map(|l| &l.queue).map(Bytes::len).sum()
        };
        state.conns.values().map(waiting).sum()
    }
}

async fn accept_quic(listener: QuicListener, state: Arc<Mutex<State>>) {
    let mut tasks = JoinSet::new();
    while let Some(incoming) = listener.accept().await {
        let state = Arc::clone(&state);
        tasks.spawn(async move {
            if let Ok(conn) = incoming.handshake().await {
                serve(conn, state).await;
            }
        });
    }
}

async fn accept_tcp(listener: TcpListener, state: Arc<Mutex<State>>) {
    let mut tasks = JoinSet::new();
    loop {
        let incoming = listener.accept().await.unwrap();
        let state = Arc::clone(&state);
        tasks.spawn(async move {
            if let Ok(conn) = incoming.handshake().await {
                serve(conn, state).await;
            }
        });
    }
}

async fn serve(conn: Connection, state: Arc<Mutex<State>>) {
    let Connection { mut receiver, sender, .. } = conn;
    let conn = Arc::new(Conn::default());
    let id = {
        let mut state = state.lock();
        state.next += 1;
        let id = state.next;
        state.conns.insert(id, Arc::clone(&conn));
        id
    };
    let mut reader = Reader { id, conn: Arc::clone(&conn), state, user: None, early: Vec::new() };
    tokio::select! {
        _ = receiver.run(&mut reader) => {}
        () = conn.write(sender) => {
            // The peer reads the last words before the sockets go.
            let _ = tokio::time::timeout(Duration::from_secs(1), receiver.drain()).await;
        }
    }
    let mut state = reader.state.lock();
    state.conns.remove(&id);
    for (_, room) in &mut state.rooms {
        room.members.retain(|(conn, _)| *conn != id);
    }
}

struct Reader {
    id: u64,
    conn: Arc<Conn>,
    state: Arc<Mutex<State>>,
    user: Option<(String, String)>,
    early: Vec<(Lane, RawFrame)>,
}

impl Sink for Reader {
    fn frame(&mut self, lane: Lane, frame: RawFrame) -> Result<(), Stop> {
        // On QUIC a Session's stream may be read before the control stream.
        if !lane.is_control() && self.user.is_none() {
            self.early.push((lane, frame));
            return Ok(());
        }
        self.serve(lane, frame)?;
        if self.user.is_some() {
            for (lane, frame) in std::mem::take(&mut self.early) {
                self.serve(lane, frame)?;
            }
        }
        Ok(())
    }
    fn flush(&mut self) {}
    fn ended(&mut self, _lane: Lane) {}
}

impl Reader {
    fn serve(&mut self, lane: Lane, raw: RawFrame) -> Result<(), Stop> {
        if self.state.lock().switches.mute {
            return Ok(());
        }
        if (0x80..0xc0).contains(&raw.kind) {
            // Custom Sessions echo.
            self.conn.raw(lane, raw.whole);
            return Ok(());
        }
        let signal = Lane::new(lane.session, Class::Signal);
        let state = Arc::clone(&self.state);
        let mut state = state.lock();
        match raw.parse()? {
            Frame::Hello(hello) => {
                let grant = |n| {
                    hello.params.iter().find(|(number, _)| *number == n).map_or(1 << 20, |p| p.1)
                };
                self.conn.out.lock().grant = [
                    grant(param::CREDIT_SIGNAL),
                    grant(param::CREDIT_BINARY),
                    grant(param::CREDIT_CHAT),
                ];
                let version = state.switches.version.unwrap_or(1);
                if !(hello.version_min..=hello.version_max).contains(&version) {
                    self.conn.close(CloseCode::Version, 0);
                    return Ok(());
                }
                let big = 1 << 40;
                let params = vec![
                    (param::CREDIT_SIGNAL, big),
                    (param::CREDIT_BINARY, big),
                    (param::CREDIT_CHAT, big),
                    (param::REPAIR, 1),
                ];
                let welcome = frame::Welcome { version, connection: self.id, time_ms: 0, params };
                self.conn.send(Lane::CONTROL, welcome);
            }
            Frame::Login(login) => {
                state.logins += 1;
                if state.switches.refuse_logins {
                    self.conn.close(CloseCode::LoginFailed, 0);
                    return Ok(());
                }
                self.user = Some((login.user.to_string(), login.device.to_string()));
                let device = (login.user.to_string(), login.device.to_string());
                if let Some(older) = state.devices.insert(device, self.id)
                    && let Some(conn) = state.conns.get(&older)
                {
                    conn.close(CloseCode::Replaced, 0);
                }
                let logged_in = frame::LoggedIn { user: login.user, ..frame::LoggedIn::default() };
                self.conn.send(Lane::CONTROL, logged_in);
            }
            Frame::Ping(ping) => self.conn.send(Lane::CONTROL, frame::Pong { token: ping.token }),
            Frame::Credit(credit) => {
                let lane = Lane::new(u8::try_from(credit.session).unwrap(), credit.class);
                if let Some(lane) = self.conn.out.lock().lanes.get_mut(&lane) {
                    lane.total = lane.total.max(credit.total);
                }
                self.conn.wake.notify_one();
            }
            Frame::Open(open) => {
                if &*open.kind == "none" {
                    let code = CloseCode::NoRoute.code();
                    let close = frame::CloseSession {
                        session: open.session,
                        code,
                        retry_after_ms: 0,
                        reason: "no such type".into(),
                    };
                    self.conn.send(signal, close);
                } else {
                    self.conn.send(signal, frame::Opened { session: open.session });
                }
            }
            Frame::Join(join) => self.join(&mut state, signal, join),
            Frame::Leave(leave) => {
                let room = &mut state.rooms[usize::try_from(leave.group).unwrap() - 1].1;
                room.members.retain(|member| *member != (self.id, lane.session));
                let left = frame::Left {
                    request: leave.request,
                    group: leave.group,
                    ..frame::Left::default()
                };
                self.conn.send(signal, left);
            }
            Frame::Send(send) => self.send(&mut state, signal, send),
            Frame::History(history) => {
                let room = &state.rooms[usize::try_from(history.group).unwrap() - 1].1;
                self.conn.send(signal, page(room, &history));
            }
            Frame::Members(members) => {
                let page = frame::MemberPage {
                    request: members.request,
                    group: members.group,
                    total: 1,
                    presence_version: 1,
                    more: 0,
                    users: vec!["ann".into()],
                };
                self.conn.send(signal, page);
            }
            Frame::CaughtUp(_) | Frame::CloseSession(_) | Frame::Close(_) => {}
            other => panic!("{other:?}"),
        }
        Ok(())
    }

    fn join(&self, state: &mut State, signal: Lane, join: frame::Join) {
        if &*join.room == "forbidden" {
            let code = ErrorCode::Forbidden.code();
            let detail = "not for you".into();
            let error = frame::Error { request: join.request, code, retry_after_ms: 0, detail };
            return self.conn.send(signal, error);
        }
        let (user, device) = self.user.clone().unwrap();
        let name = if &*join.room == "@me" { &*user } else { &*join.room };
        let (group, room) = state.room(name);
        let heads = Class::ALL.map(|class| Seq::new(1, room.logs[class.index()].len() as u64));
        let id = |class: Class| {
            room.last_ids.get(&(user.clone(), device.clone(), class as u8)).copied().unwrap_or(0)
        };
        let classes = Class::ALL.into_iter().map(|c| (heads[c.index()], id(c))).collect();
        let mut state = BytesMut::new();
        room.state.values().for_each(|deliver| deliver.encode(&mut state));
        let joined = frame::Joined {
            request: join.request,
            room: join.room.clone(),
            group,
            members: room.members.len() as u64 + 1,
            presence_version: 1,
            classes,
            state: Rest(state.freeze()),
        };
        self.conn.send(signal, joined);
        if join.flags & frame::join_flag::SEND_ONLY == 0 {
            room.members.push((self.id, signal.session));
        }
        for (class, have) in join.positions {
            let head = heads[class.index()];
            if have != head {
                self.conn
                    .send(Lane::new(signal.session, class), frame::Behind { group, class, head });
            }
        }
    }

    fn send(&self, state: &mut State, signal: Lane, send: frame::Send) {
        let (user, device) = self.user.clone().unwrap();
        let swallow = state.switches.swallow_acks && send.class.reliable();
        let (name, room) = &mut state.rooms[usize::try_from(send.group).unwrap() - 1];
        let name = name.clone();
        let last = room.last_ids.entry((user.clone(), device, send.class as u8)).or_default();
        let mut ack = frame::Ack {
            group: send.group,
            class: send.class,
            id: send.id,
            status: AckStatus::Accepted,
            seq: Seq::ZERO,
            expected: 0,
        };
        if send.id <= *last {
            ack.status = AckStatus::Duplicate;
        } else if send.class.reliable() && send.id != *last + 1 {
            ack.status = AckStatus::OutOfOrder;
            ack.expected = *last + 1;
        } else {
            *last = send.id;
            let deliver = frame::Deliver {
                sender: user.into(),
                key: send.key,
                payload: send.payload,
                ..frame::Deliver::default()
            };
            ack.seq = state.publish(&name, send.class, deliver);
        }
        if !swallow {
            self.conn.send(signal, ack);
        }
    }
}

impl State {
    fn room(&mut self, name: &str) -> (u64, &mut Room) {
        let at = match self.rooms.iter().position(|(n, _)| n == name) {
            Some(at) => at,
            None => {
                self.rooms.push((name.into(), Room::default()));
                self.rooms.len() - 1
            }
        };
        (at as u64 + 1, &mut self.rooms[at].1)
    }

    fn publish(&mut self, name: &str, class: Class, mut deliver: frame::Deliver) -> Seq {
        let (group, room) = self.room(name);
        let log = &mut room.logs[class.index()];
        deliver.group = group;
        deliver.class = class;
        deliver.seq = Seq::new(1, log.len() as u64 + 1);
        let seq = deliver.seq;
        log.push(deliver.clone());
        if !deliver.key.is_empty() {
            room.state.insert(deliver.key.to_string(), deliver.clone());
        }
        let members = room.members.clone();
        for (conn, session) in members {
            if let Some(conn) = self.conns.get(&conn) {
                conn.send(Lane::new(session, class), deliver.clone());
            }
        }
        seq
    }
}

fn page(room: &Room, history: &frame::History) -> frame::Page {
    let log = &room.logs[history.class.index()];
    let head = Seq::new(1, log.len() as u64);
    let mut messages = BytesMut::new();
    let mut upto = history.after;
    let mut flags = 0;
    for (n, deliver) in log.iter().filter(|m| m.seq > history.after).enumerate() {
        if n >= 5 {
            flags = page_flag::MORE;
            break;
        }
        deliver.encode(&mut messages);
        upto = deliver.seq;
    }
    let messages = Rest(messages.freeze());
    let (request, group, class) = (history.request, history.group, history.class);
    frame::Page { request, group, class, flags, upto, head, messages }
}
