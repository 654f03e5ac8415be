//! Joins a room, says hello, and prints what happens:
//!
//! ```text
//! cargo run -p edgeway-client --example room -- 127.0.0.1:4433 ca.pem ann maths
//! ```

#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::error::Error;

use edgeway_client::{Bytes, Client, ClientConfig, Event, Login, Trust};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [server, ca, user, room] = &args[..] else {
        return Err("usage: room SERVER:PORT CA.PEM USER ROOM".into());
    };
    let mut config = ClientConfig::new(server, Login::Development { user: user.clone() });
    config.trust = Trust::Ca(std::fs::read(ca)?);
    let (client, mut events) = Client::connect(config).await?;
    let room = client.join(room).await?;
    println!("{} members, over {:?}", room.members_count(), client.transport());
    room.send_chat_nowait(Bytes::from_static(b"hello"))?;
    while let Some(event) = events.next().await {
        match event {
            Event::Message(m) => {
                println!("{} {} {}: {}", m.class, m.seq, m.sender, m.payload.escape_ascii());
            }
            Event::Presence(p) => println!("+{:?} -{:?} = {}", p.joined, p.left, p.members),
            Event::Closed { code, reason } => eprintln!("closed: {code} {reason}"),
            other => println!("{other:?}"),
        }
    }
    Ok(())
}
