//! One lesson of a small class through the whole system. See README.md of the project, and `run` beside this.

mod school;
mod server;
mod student;

use std::{io::Write, path::Path, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use edgeway_client::{AckStatus, Class, SendError, TransportChoice};

use crate::{
    school::School,
    server::Server,
    student::{Place, Student},
};

/// Where it is played.
#[derive(Debug, Clone, Copy)]
pub struct Stage<'a> {
    /// The `edgeway` program.
    pub edgeway: &'a Path,
    /// A directory of its own: config, certificates, history.
    pub dir: &'a Path,
    /// Between scenes.
    pub pause: Duration,
}

const ROOM: &str = "maths-7b";
/// Strokes of a pen a second.
const PEN: u64 = 20;

/// Tells what happens, a line at a time.
struct Story<'a> {
    out: &'a mut (dyn Write + Send),
    pause: Duration,
}

impl Story<'_> {
    async fn scene(&mut self, title: &str) -> Result<()> {
        tokio::time::sleep(self.pause).await;
        writeln!(self.out, "\n== {title}").context("cannot tell it")
    }

    fn line(&mut self, text: &str) -> Result<()> {
        writeln!(self.out, "   {text}").context("cannot tell it")
    }
}

/// Plays it; each scene checks what it tells.
///
/// # Errors
/// Whatever is not as it is told.
pub async fn lesson(stage: Stage<'_>, out: &mut (dyn Write + Send)) -> Result<()> {
    let mut story = Story { out, pause: stage.pause };

    story.scene("The system starts: one process with all its parts").await?;
    let mut server = Server::start(stage).await?;
    story.line(&format!(
        "edgeway up: QUIC at {}, TCP at {}, HTTP at {}",
        server.quic, server.tcp, server.http
    ))?;
    let school = School { http: &server.http, key: &server.key };

    story.scene("Where to connect: dispatch").await?;
    let answer = school.dispatch("ada").await?;
    story.line(&format!("GET /dispatch?user=ada  ->  {answer}"))?;
    ensure!(answer.contains(&server.quic), "dispatch gives another gateway");

    story.scene("Logins: ada, who teaches, and bob over QUIC; cid's network has no UDP").await?;
    if let Ok(eve) = Student::log_in(&server, "ada", "guess", TransportChoice::Quic).await {
        bail!("{} was let in with a guessed password", eve.name);
    }
    story.line("somebody guesses ada's password: refused")?;
    let mut ada = Student::log_in(&server, "ada", "chalk", TransportChoice::Auto).await?;
    let mut bob = Student::log_in(&server, "bob", "ball", TransportChoice::Quic).await?;
    let mut cid = Student::log_in(&server, "cid", "cake", TransportChoice::Tcp).await?;
    for one in [&ada, &bob, &cid] {
        story.line(&format!(
            "{} is in by {}, {}",
            one.name,
            one.transport(),
            one.round_trip().await?
        ))?;
    }

    story.scene("All join the room").await?;
    let (at_ada, at_bob, at_cid) =
        (ada.join(ROOM).await?, bob.join(ROOM).await?, cid.join(ROOM).await?);
    story.line(&format!("in {ROOM}: {}", school.members(ROOM, 3).await?))?;

    story.scene("Signals: never lost, one order, each acked once it is stored").await?;
    for text in ["page 12", "listen, please"] {
        let ack = at_ada.send_signal(text.into()).await?;
        for one in [&mut ada, &mut bob, &mut cid] {
            let heard = one.hears(Class::Signal).await?;
            ensure!(
                heard.text == text && heard.seq == ack.seq,
                "{} heard {}",
                one.name,
                heard.text
            );
        }
        story.line(&format!("ada: {text:?}: place {} for all three", ack.seq))?;
    }

    story.scene("Chat, with a word that is on the school's list").await?;
    at_bob.send_chat("this is darn hard".into()).await?;
    story.line(&format!(
        "bob types \"this is darn hard\"; cid reads {:?}",
        cid.hears(Class::Chat).await?.text
    ))?;
    bob.hears(Class::Chat).await?;
    ada.hears(Class::Chat).await?;

    story.scene("Strokes: ada draws, 20 a second from one pen").await?;
    let mut pen = tokio::time::interval(Duration::from_secs(1) / u32::try_from(PEN)?);
    for n in 0..PEN {
        pen.tick().await;
        at_ada.send_stroke_nowait(format!("{n},{}", n * n).into())?;
    }
    for one in [&mut ada, &mut bob, &mut cid] {
        for n in 0..PEN {
            let heard = one.hears(Class::Binary).await?.text;
            ensure!(heard == format!("{n},{}", n * n), "{} saw {heard} as stroke {n}", one.name);
        }
    }
    story.line(&format!("{PEN} strokes in a second; all three see the same curve, in order"))?;

    story.scene("A quiz, as state of the room").await?;
    let quiz = r#"{"json": {"ask": "7 x 8?", "of": [54, 56, 58]}}"#;
    let told = school.curl("PUT", &format!("/v1/rooms/{ROOM}/state/quiz"), Some(quiz)).await?;
    story.line(&told.command)?;
    story.line(&format!("->  {}", told.answer))?;
    for one in [&mut ada, &mut bob, &mut cid] {
        ensure!(one.hears(Class::Signal).await?.key == "quiz", "{} has no quiz", one.name);
    }
    at_cid.send_signal_with("56".into(), "answer/cid", 0).await?;
    for one in [&mut ada, &mut bob, &mut cid] {
        one.hears(Class::Signal).await?;
    }
    story.line("cid answers 56")?;

    story.scene("The school's own systems speak to the room, and to a user").await?;
    let told = school
        .curl(
            "POST",
            &format!("/v1/rooms/{ROOM}/messages"),
            Some(r#"{"text": "Five minutes left"}"#),
        )
        .await?;
    story.line(&told.command)?;
    story.line(&format!("->  {}", told.answer))?;
    for one in [&mut ada, &mut bob, &mut cid] {
        ensure!(
            one.hears(Class::Signal).await?.text == "Five minutes left",
            "{} was not told",
            one.name
        );
    }
    let told = school
        .curl("POST", "/v1/users/dora/messages", Some(r#"{"text": "Your lesson has begun"}"#))
        .await?;
    story.line(&told.command)?;
    story.line("(dora is not online: it waits in her inbox)")?;

    story.scene("Bob is too loud: ada has him muted").await?;
    let told = school.curl("PUT", &format!("/v1/rooms/{ROOM}/mutes/bob?for_s=600"), None).await?;
    story.line(&told.command)?;
    match at_bob.send_chat("la la la".into()).await {
        Err(SendError::Refused { detail, .. }) => {
            story.line(&format!("bob types \"la la la\" and is told: {detail}"))?
        }
        other => bail!("bob was not muted: {other:?}"),
    }
    ensure!(
        at_cid.send_chat("thank you".into()).await?.status == AckStatus::Accepted,
        "cid is muted too"
    );
    story.line("cid may speak")?;

    story.scene("Dora comes late: the quiz is there at once, and the lesson is replayed").await?;
    let mut dora = Student::log_in(&server, "dora", "sand", TransportChoice::Quic).await?;
    let (place, inbox) = (Place::Start, dora.open_inbox().await?);
    story.line(&format!("her inbox: {:?}", dora.hears_in(&inbox).await?.text))?;
    let at_dora = dora.join_from(ROOM, place).await?;
    let quiz = at_dora.state_of("quiz").context("no quiz")?;
    story.line(&format!("state: quiz = {}", String::from_utf8_lossy(&quiz.payload)))?;
    for text in ["page 12", "listen, please"] {
        let heard = dora.hears(Class::Signal).await?;
        ensure!(heard.text == text, "dora was replayed {}", heard.text);
        story.line(&format!("replayed: {} {}: {text:?}", heard.seq, heard.sender))?;
    }

    story.scene("What is left: history, for whoever asks by HTTP; and the load").await?;
    let told = school.curl("GET", &format!("/v1/rooms/{ROOM}/history?limit=2"), None).await?;
    story.line(&told.command)?;
    story.line(&format!("->  {}", told.answer))?;
    story.line(&school.load().await?)?;

    for one in [ada, bob, cid, dora] {
        one.leave().await;
    }
    server.stop().await?;
    story.scene("The lesson is over; the process ended in order").await
}
