//! Who is in the lesson: a client of the SDK.

use std::{collections::VecDeque, time::Duration};

use anyhow::{Context, Result};
use edgeway_client::{
    Class, Client, ClientConfig, Event, Events, Inbox, JoinOptions, Login, Message, Room, Seq,
    SessionId, Transport, TransportChoice, Trust,
};

use crate::server::Server;

/// Nothing takes that long; what does is not there.
const PATIENCE: Duration = Duration::from_secs(60);

pub struct Student {
    pub name: String,
    client: Client,
    events: Events,
    /// Messages that were not asked for yet.
    heard: VecDeque<Message>,
}

/// From where on one joins.
pub enum Place {
    Now,
    Start,
}

pub struct Heard {
    pub sender: String,
    pub text: String,
    pub key: String,
    pub seq: Seq,
}

impl Student {
    pub async fn log_in(
        server: &Server,
        name: &str,
        password: &str,
        transport: TransportChoice,
    ) -> Result<Self> {
        let addr = if transport == TransportChoice::Tcp { &server.tcp } else { &server.quic };
        let login = Login::Password { user: name.to_owned(), password: password.to_owned() };
        let mut config = ClientConfig::new(addr, login);
        config.tcp_server = Some(server.tcp.clone());
        config.trust = Trust::Ca(server.ca.clone());
        config.transport = transport;
        let connecting = tokio::time::timeout(PATIENCE, Client::connect(config));
        let (client, events) = connecting.await.context("no connection in time")??;
        Ok(Self { name: name.to_owned(), client, events, heard: VecDeque::new() })
    }

    pub fn transport(&self) -> &'static str {
        match self.client.transport() {
            Some(Transport::Quic) => "QUIC",
            Some(Transport::Tcp) => "TCP with TLS",
            None => "nothing",
        }
    }

    pub async fn round_trip(&self) -> Result<String> {
        let took = self.client.ping().await?;
        Ok(format!("{} us to the server and back", took.as_micros()))
    }

    pub async fn join(&self, room: &str) -> Result<Room> {
        self.join_from(room, Place::Now).await
    }

    pub async fn join_from(&self, room: &str, place: Place) -> Result<Room> {
        let positions = match place {
            Place::Now => Vec::new(),
            Place::Start => vec![(Class::Signal, Seq::ZERO)],
        };
        Ok(self.client.join_with(room, JoinOptions { positions, send_only: false }).await?)
    }

    /// Opens the inbox of pushes, with all that has come while nobody was there.
    pub async fn open_inbox(&self) -> Result<Inbox> {
        Ok(self.client.inbox_from("push", Seq::ZERO).await?)
    }

    pub async fn hears_in(&mut self, inbox: &Inbox) -> Result<Heard> {
        let session = inbox.session();
        self.next(|message| message.session == session).await
    }

    /// The next message of a class in the room.
    pub async fn hears(&mut self, class: Class) -> Result<Heard> {
        self.next(|message| message.session == SessionId::CHAT && message.class == class).await
    }

    async fn next(&mut self, wanted: impl Fn(&Message) -> bool) -> Result<Heard> {
        loop {
            if let Some(at) = self.heard.iter().position(&wanted)
                && let Some(message) = self.heard.remove(at)
            {
                let text = String::from_utf8_lossy(&message.payload).into_owned();
                let (sender, key) = (message.sender.to_string(), message.key.to_string());
                return Ok(Heard { sender, text, key, seq: message.seq });
            }
            let event = tokio::time::timeout(PATIENCE, self.events.next());
            let event = event.await.with_context(|| format!("{} hears nothing", self.name))?;
            if let Event::Message(message) = event.context("the client has ended")? {
                self.heard.push_back(message);
            }
        }
    }

    pub async fn leave(self) {
        self.client.close().await;
    }
}
