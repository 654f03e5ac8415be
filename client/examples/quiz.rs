//! Room state and acks: starts a quiz that late joiners see too, and knows that it is stored.
//!
//! ```text
//! cargo run -p edgeway-client --example quiz -- 127.0.0.1:4433 ca.pem teacher maths
//! ```

#![allow(clippy::print_stdout)]

use std::error::Error;

use edgeway_client::{Bytes, Class, Client, ClientConfig, Login, Seq, Trust};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [server, ca, user, room] = &args[..] else {
        return Err("usage: quiz SERVER:PORT CA.PEM USER ROOM".into());
    };
    let mut config = ClientConfig::new(server, Login::Development { user: user.clone() });
    config.trust = Trust::Ca(std::fs::read(ca)?);
    let (client, events) = Client::connect(config).await?;
    // This one only sends.
    drop(events);
    let room = client.join(room).await?;
    if let Some(quiz) = room.state_of("quiz") {
        println!("running since {}: {}", quiz.seq, quiz.payload.escape_ascii());
    }
    let ack = room.send_signal_with(Bytes::from_static(b"2 + 2 = ?"), "quiz", 0).await?;
    println!("{:?} at {}", ack.status, ack.seq);
    let page = room.history(Class::Signal, Seq::ZERO, 10).await?;
    println!("{} signals from the beginning, more: {}", page.messages.len(), page.more);
    client.close().await;
    Ok(())
}
