//! `quiz`: the example backend, and a player for the terminal.

// It talks to a terminal.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::{
    io::BufRead,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context;
use clap::{Parser, Subcommand, ValueEnum};
use edgeway_client::{
    Ack, AckStatus, Bytes, Client, ClientConfig, Event, LeftCause, Login, Message, Room,
    TransportChoice, Trust,
};
use edgeway_example_quiz::LinkPem;
use tokio::{net::TcpListener, sync::mpsc};
use tokio_util::sync::CancellationToken;

/// A backend for Edgeway, in Rust: quizzes, in which members ask, answer and chat.
#[derive(Debug, Parser)]
#[command(
    name = "quiz",
    after_help = "\
It serves a Session type that no code of Edgeway knows: name it in the config and point it here.

1. Start this backend:

     cargo run -p edgeway-example-quiz

2. In another terminal, start Edgeway with a route to it:

     printf '[gateway.routes]\\nquiz = \"quiz\"\\n[backends]\\nquiz = [\"127.0.0.1:7500\"]\\n' > quiz.toml
     cargo run --release -p edgeway-cli -- up --config quiz.toml

3. In two more, take part:

     cargo run -p edgeway-example-quiz -- play --user ada maths
     cargo run -p edgeway-example-quiz -- play --user bob maths

   `ask 2 + 2?|3|4` asks, `answer 2` answers, `end` ends the quiz; all else is a remark."
)]
struct Args {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve gateways; what happens where no command is given.
    Serve(Serve),
    /// Take part in a quiz.
    Play(Play),
}

#[derive(Debug, clap::Args)]
struct Serve {
    /// Where gateways dial; port 0 takes a free one.
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:7500")]
    listen: SocketAddr,
    /// The CA of the gateways' certificates, PEM: links.ca. Without the three files links are in the clear,
    /// for this machine only.
    #[arg(long, value_name = "FILE", requires = "cert", requires = "key")]
    ca: Option<PathBuf>,
    /// This backend's certificate, PEM, of the same CA (`edgeway certs link quiz`).
    #[arg(long, value_name = "FILE", requires = "ca")]
    cert: Option<PathBuf>,
    /// Its key, PEM.
    #[arg(long, value_name = "FILE", requires = "ca")]
    key: Option<PathBuf>,
}

impl Serve {
    fn links(&self) -> anyhow::Result<Option<LinkPem>> {
        let (Some(ca), Some(cert), Some(key)) = (&self.ca, &self.cert, &self.key) else {
            return Ok(None);
        };
        let read = |path: &Path| {
            std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))
        };
        Ok(Some(LinkPem { ca: read(ca)?, cert: read(cert)?, key: read(key)? }))
    }
}

#[derive(Debug, clap::Args)]
struct Play {
    /// Name of the quiz.
    quiz: String,
    /// Name of the user.
    #[arg(long)]
    user: String,
    /// Where Edgeway is.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:4433")]
    server: String,
    /// The authority of its certificate; `edgeway up` makes one.
    #[arg(long, value_name = "FILE", default_value = "edgeway-data/certs/ca.pem")]
    ca: PathBuf,
    /// What carries the connection.
    #[arg(long, value_enum, default_value_t = Transport::Auto)]
    transport: Transport,
    /// The Session type, as [gateway.routes] names it.
    #[arg(long = "type", value_name = "TYPE", default_value = "quiz")]
    kind: String,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Transport {
    Auto,
    Quic,
    Tcp,
}

#[tokio::main]
async fn main() -> ExitCode {
    let done = match Args::parse().command {
        None => {
            let listen = SocketAddr::from(([127, 0, 0, 1], 7500));
            serve(Serve { listen, ca: None, cert: None, key: None }).await
        }
        Some(Command::Serve(args)) => serve(args).await,
        Some(Command::Play(args)) => play(args).await,
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("error: {e:#}");
            ExitCode::FAILURE
        }
    }
}

async fn serve(args: Serve) -> anyhow::Result<()> {
    let links = args.links()?;
    let listener = TcpListener::bind(args.listen).await.with_context(|| {
        format!("cannot listen on {}: choose another address with --listen", args.listen)
    })?;
    println!("ready grpc={}", listener.local_addr()?);
    let stop = CancellationToken::new();
    let stopper = stop.clone();
    tokio::spawn(async move {
        let _ = tokio::signal::ctrl_c().await;
        stopper.cancel();
    });
    Ok(edgeway_example_quiz::serve(listener, links, stop).await?)
}

async fn play(args: Play) -> anyhow::Result<()> {
    let ca = std::fs::read(&args.ca).with_context(|| {
        format!("cannot read {}: name the ca.pem of `edgeway up` with --ca", args.ca.display())
    })?;
    let mut config = ClientConfig::new(&args.server, Login::Development { user: args.user });
    config.trust = Trust::Ca(ca);
    config.transport = match args.transport {
        Transport::Auto => TransportChoice::Auto,
        Transport::Quic => TransportChoice::Quic,
        Transport::Tcp => TransportChoice::Tcp,
    };
    let (client, mut events) = Client::connect(config)
        .await
        .with_context(|| format!("cannot connect to {}: is `edgeway up` running?", args.server))?;
    let quizzes = client.rooms(&args.kind, Vec::new()).await.with_context(|| {
        format!("no Session of type `{}`: is its route configured, and its backend up?", args.kind)
    })?;
    let quiz = quizzes.join(&args.quiz).await?;
    eprintln!("* in {}; ask QUESTION|CHOICE|CHOICE, answer N, end, or a remark", quiz.name());
    quiz.state().iter().for_each(tell);

    let mut lines = typed();
    loop {
        tokio::select! {
            event = events.next() => match event {
                Some(event) if goes_on(&event) => {}
                _ => break,
            },
            line = lines.recv() => match line {
                Some(line) => say(&quiz, &line).await,
                None => {
                    // Acks come after the deliveries of what they acknowledge.
                    for event in events.try_batch(usize::MAX) {
                        goes_on(&event);
                    }
                    break;
                }
            },
        }
    }
    client.close().await;
    Ok(())
}

/// Lines of standard input; none at its end.
fn typed() -> mpsc::UnboundedReceiver<String> {
    let (tell, lines) = mpsc::unbounded_channel();
    // Reading blocks until there is a line.
    std::thread::spawn(move || {
        std::io::stdin().lock().lines().map_while(Result::ok).try_for_each(|line| tell.send(line))
    });
    lines
}

async fn say(quiz: &Room, line: &str) {
    let is_command = ["ask ", "answer ", "end"].iter().any(|c| line.starts_with(c));
    let payload = Bytes::copy_from_slice(line.as_bytes());
    let sent =
        if is_command { quiz.send_signal(payload).await } else { quiz.send_chat(payload).await };
    match sent {
        Ok(Ack { status: AckStatus::Shed, .. }) => eprintln!("* too many remarks: not passed on"),
        Ok(_) => {}
        Err(e) => eprintln!("* {e}"),
    }
}

/// Prints what happens; false where the quiz is over.
fn goes_on(event: &Event) -> bool {
    match event {
        Event::Message(message) => tell(message),
        Event::Left { cause: LeftCause::Ended(_), reason, .. } => {
            println!("* {reason}");
            return false;
        }
        Event::Closed { reason, .. } => {
            eprintln!("* closed: {reason}");
            return false;
        }
        Event::SessionClosed { reason, reopening, .. } => {
            eprintln!("* {reason}");
            return *reopening;
        }
        Event::Gap { missed, .. } => eprintln!("* {missed} remarks did not get through"),
        Event::Reconnecting { reason, .. } => eprintln!("* connecting again: {reason}"),
        _ => {}
    }
    true
}

fn tell(message: &Message) {
    let text = String::from_utf8_lossy(&message.payload);
    match &*message.key {
        "question" => {
            let mut parts = text.split('|').map(str::trim);
            println!("{} asks: {}", message.sender, parts.next().unwrap_or_default());
            parts.enumerate().for_each(|(n, choice)| println!("  {} {choice}", n + 1));
        }
        "tally" => println!("answers: {text}"),
        _ => println!("{}: {text}", message.sender),
    }
}
