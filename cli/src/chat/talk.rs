//! What goes on in the room: events are shown, commands are done, one after the other.

mod own;

use std::{future::Future, pin::Pin};

use anyhow::{Context, anyhow};
use bytes::Bytes;
use edgeway_client::{
    Ack, AckStatus, Class, Client, CloseCode, Event, Events, Inbox, Message, Outgoing, Presence,
    RequestError, Room, SendError, Seq, Transport,
};
use own::Own;
use tokio_util::sync::CancellationToken;

use super::{
    command::{Command, HELP},
    history,
    paint::{Painter, clean},
    terminal::Terminal,
};

/// Of each class: a screen of what was said before.
const HISTORY: u64 = 20;
/// Names that `/who` lists, and that are told at the join.
const WHO: u64 = 200;
const WHO_AT_JOIN: u64 = 10;

/// What a command that was started gives.
enum Done {
    /// A message for the room was answered.
    Sent(Class, Result<Ack, SendError>),
    /// Notes to show.
    Notes(Vec<String>),
}

type Doing = Pin<Box<dyn Future<Output = Done>>>;

pub struct Talk {
    client: Client,
    room: Room,
    /// None where the server has no inboxes.
    inbox: Option<Inbox>,
    terminal: Terminal,
    painter: Painter,
    own: Own,
    /// What the history has shown: it is not shown again.
    shown: [Seq; 3],
    /// How much chat the room's policy has shed, as of the last message.
    shed: Option<(u64, u64)>,
}

impl Talk {
    /// Joins, and shows where one is and what was said before.
    ///
    /// # Errors
    /// Where the room cannot be joined.
    pub async fn join(
        client: Client,
        room: &str,
        terminal: Terminal,
        painter: Painter,
    ) -> anyhow::Result<Self> {
        let room = client.join(room).await.with_context(|| format!("cannot join {room}"))?;
        let inbox = client.im().await.ok();
        let own = Own::new(terminal.shows_typing());
        let mut talk =
            Self { client, room, inbox, terminal, painter, own, shown: [Seq::ZERO; 3], shed: None };
        talk.show_arrival().await;
        talk.show_history().await;
        Ok(talk)
    }

    async fn show_arrival(&mut self) {
        let transport = self.client.transport().map_or("no connection", transport_name);
        let rtt = match self.client.ping().await {
            Ok(rtt) => format!(", {:.1} ms away", rtt.as_secs_f64() * 1e3),
            Err(_) => String::new(),
        };
        self.note(&format!(
            "in {} as {} over {transport}{rtt}; /help tells what there is",
            self.room.name(),
            self.client.user(),
        ));
        for note in who(&self.room, WHO_AT_JOIN).await {
            self.note(&note);
        }
        for m in self.room.state() {
            let (key, value) = (clean(&m.key), clean(&String::from_utf8_lossy(&m.payload)));
            self.note(&format!("state: {key} = {value}"));
        }
    }

    async fn show_history(&mut self) {
        let mut earlier = Vec::new();
        for class in [Class::Signal, Class::Chat] {
            let head = self.room.position(class);
            self.shown[class as usize] = head;
            match history::tail(&self.room, class, head, HISTORY).await {
                Ok(messages) => earlier.extend(messages),
                Err(error) => self.note(&format!("the history cannot be read: {error}")),
            }
        }
        // Two classes have no common order; the clock will do.
        earlier.sort_by_key(|m| m.time_ms);
        for m in &earlier {
            self.terminal.print(&self.painter.message(m, false));
        }
    }

    /// Talks until the input ends, `shutdown`, or the connection ends for good.
    ///
    /// # Errors
    /// Where the server ended it.
    pub async fn run(
        &mut self,
        mut events: Events,
        shutdown: CancellationToken,
    ) -> anyhow::Result<()> {
        let mut doing: Option<Doing> = None;
        loop {
            tokio::select! {
                event = events.next() => match event {
                    Some(Event::Closed { code, reason }) => return closed(code, &reason),
                    Some(event) => self.on_event(event),
                    None => return Ok(()),
                },
                done = finished(&mut doing) => {
                    doing = None;
                    self.on_done(done);
                }
                // One at a time, so that what is said arrives in the order in which it was typed.
                command = self.terminal.next(), if doing.is_none() => match command {
                    None | Some(Command::Quit) => break,
                    Some(command) => doing = self.start(command),
                },
                () = shutdown.cancelled() => break,
            }
        }
        self.leave(events).await;
        Ok(())
    }

    /// Says goodbye, and shows what came in until then.
    async fn leave(&mut self, mut events: Events) {
        let client = self.client.clone();
        let closing = async {
            client.close().await;
        };
        tokio::pin!(closing);
        let mut closed = false;
        loop {
            tokio::select! {
                event = events.next() => match event {
                    Some(Event::Closed { .. }) | None => break,
                    Some(event) => self.on_event(event),
                },
                () = &mut closing, if !closed => closed = true,
            }
        }
    }

    fn start(&mut self, command: Command) -> Option<Doing> {
        let room = self.room.clone();
        match command {
            Command::Nothing | Command::Quit => None,
            Command::Chat(text) => Some(self.send(Outgoing::chat(Bytes::from(text)))),
            Command::Signal(text) => Some(self.send(Outgoing::signal(Bytes::from(text)))),
            Command::State { key, value } => {
                Some(self.send(Outgoing { key, ..Outgoing::signal(Bytes::from(value)) }))
            }
            Command::Tell { user, text } => self.tell(user, text),
            Command::Who => Some(Box::pin(async move { Done::Notes(who(&room, WHO).await) })),
            Command::Stats => {
                self.notes(&format!("{:#?}", self.client.stats()));
                None
            }
            Command::Help => {
                self.notes(HELP);
                None
            }
            Command::Wrong(told) => {
                self.note(&told);
                None
            }
        }
    }

    fn send(&mut self, message: Outgoing) -> Doing {
        let room = self.room.clone();
        let class = message.class;
        self.own.sending(class, message.payload.clone());
        Box::pin(async move { Done::Sent(class, room.send(message).await) })
    }

    fn tell(&mut self, user: String, text: String) -> Option<Doing> {
        let Some(inbox) = self.inbox.clone() else {
            self.note("this server has no direct messages");
            return None;
        };
        Some(Box::pin(async move {
            let note = match inbox.send_to(&user, Bytes::from(text)).await {
                Ok(_) => format!("in the inbox of {}", clean(&user)),
                Err(error) => format!("not sent to {}: {error}", clean(&user)),
            };
            Done::Notes(vec![note])
        }))
    }

    fn on_done(&mut self, done: Done) {
        match done {
            Done::Sent(class, result) => {
                self.own.sent(class, result.as_ref().ok().map(|ack| ack.seq));
                match result {
                    Ok(Ack { status: AckStatus::Shed, .. }) => {
                        self.note("not shown: more is said in this room than it passes on");
                    }
                    Ok(_) => {}
                    Err(error) => self.note(&format!("not sent: {error}")),
                }
            }
            Done::Notes(notes) => notes.iter().for_each(|note| self.note(note)),
        }
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::Message(m) => self.on_message(&m),
            Event::Presence(p) if p.room == self.room.name() => self.on_presence(&p),
            Event::Gap { missed, class, .. } => {
                self.note(&format!(
                    "{missed} {} shed for this connection",
                    messages(class, missed)
                ));
            }
            Event::HistoryLost { class, .. } => {
                self.note(&format!("{} that are no longer kept were missed", messages(class, 2)));
            }
            Event::Left { room, reason, .. } => {
                self.note(&format!("no longer in {}: {}", clean(&room), clean(&reason)));
            }
            Event::LoginExpires { left } => {
                self.note(&format!("the login ends in {} s", left.as_secs()));
            }
            Event::GoingAway { reconnect_after, .. } => {
                let wait = reconnect_after.as_secs_f64();
                self.note(&format!("the server is going away; connecting anew in {wait:.1} s"));
            }
            Event::Reconnecting { reason, attempt: 1 } => {
                self.note(&format!("connection lost ({}); trying again", clean(&reason)));
            }
            Event::Reconnected { transport, .. } => {
                self.note(&format!("back, over {}", transport_name(transport)));
            }
            _ => {}
        }
    }

    fn on_message(&mut self, m: &Message) {
        let to_me = self.inbox.as_ref().is_some_and(|inbox| inbox.session() == m.session);
        if to_me {
            // Marks of what was read are for one's other devices.
            if m.key.is_empty() {
                self.terminal.print(&self.painter.message(m, true));
            }
            return;
        }
        if m.seq <= self.shown[m.class as usize] {
            return;
        }
        self.show_policy(m);
        let mine = *m.sender == *self.client.user();
        if !(mine && self.own.is_on_screen(m.class, m.seq, &m.payload)) {
            self.terminal.print(&self.painter.message(m, false));
        }
    }

    /// What the room's policy has shed since the last message.
    fn show_policy(&mut self, m: &Message) {
        if m.class != Class::Chat {
            return;
        }
        let before = self.shed.replace((m.seq.epoch, m.shed));
        let shed = before.filter(|(epoch, _)| *epoch == m.seq.epoch).map_or(0, |(_, n)| m.shed - n);
        if shed > 0 {
            self.note(&format!(
                "{shed} {} not passed on: the room is busy",
                messages(m.class, shed)
            ));
        }
    }

    fn on_presence(&mut self, p: &Presence) {
        if p.complete || p.count_only {
            return;
        }
        let me = self.client.user();
        for (users, what) in [(&p.joined, "came"), (&p.left, "left")] {
            let names: Vec<_> =
                users.iter().filter(|user| ***user != *me).map(|user| clean(user)).collect();
            if !names.is_empty() {
                self.note(&format!("{} {what} ({} here)", names.join(", "), p.members));
            }
        }
    }

    fn note(&mut self, text: &str) {
        let line = self.painter.note(text);
        self.terminal.print_note(&line);
    }

    fn notes(&mut self, text: &str) {
        text.lines().for_each(|line| self.note(line));
    }
}

async fn finished(doing: &mut Option<Doing>) -> Done {
    match doing {
        Some(doing) => doing.await,
        None => std::future::pending().await,
    }
}

async fn who(room: &Room, limit: u64) -> Vec<String> {
    let members: Result<_, RequestError> = room.members("", limit).await;
    match members {
        Ok(page) => {
            let names: Vec<_> = page.users.iter().map(|user| clean(user)).collect();
            let more = if page.more { ", ..." } else { "" };
            vec![format!("{} here: {}{more}", page.total, names.join(", "))]
        }
        Err(error) => vec![format!("who is here cannot be told: {error}")],
    }
}

fn closed(code: CloseCode, reason: &str) -> anyhow::Result<()> {
    if code == CloseCode::Normal {
        return Ok(());
    }
    Err(anyhow!("the server closed the connection: {} ({code:?})", clean(reason)))
}

fn messages(class: Class, count: u64) -> String {
    let kind = match class {
        Class::Signal => "signal",
        Class::Binary => "stroke",
        Class::Chat => "chat message",
    };
    if count == 1 { kind.to_owned() } else { format!("{kind}s") }
}

fn transport_name(transport: Transport) -> &'static str {
    match transport {
        Transport::Quic => "QUIC",
        Transport::Tcp => "TCP",
    }
}
