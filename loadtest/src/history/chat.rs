//! Chat with its history on and off, by turns: the machine is as busy and as warm for both.

use anyhow::Result;
use serde_json::json;

use super::{Args, Kind, stores};
use crate::{load::Load, median::median, report::Report, room};

/// Measures chat on each store.
pub async fn compare(args: &Args, report: &mut Report) -> Result<()> {
    let talk = &args.talk;
    report.members = talk.members;
    report.rooms = talk.rooms;
    report.connections = talk.members * talk.rooms;
    report.detail("burst", talk.burst);
    report.detail("rate", talk.rate);
    for kind in &args.store {
        let mut server = match kind {
            Kind::Embedded => None,
            Kind::Redis => Some(stores::Server::start(args).await?),
        };
        let store = server.as_ref().map_or(String::new(), |server| {
            let (url, prefix) = (json!(server.url), json!(server.prefix));
            format!(
                "\n[store]\nengine = \"redis\"\n[store.redis]\nurl = {url}\nprefix = {prefix}\n"
            )
        });
        let found = by_turns(args, *kind, &store, report).await?;
        found.report(*kind, talk.most, report);
        if let Some(server) = &mut server {
            server.clean().await?;
        }
    }
    Ok(())
}

async fn by_turns(args: &Args, kind: Kind, store: &str, report: &mut Report) -> Result<Found> {
    let talk = &args.talk;
    let load = Load {
        members: talk.members,
        rate: talk.rate,
        burst: talk.burst,
        size: args.size,
        secs: args.secs,
        seed: args.seed,
    };
    let sync = format!("{:?}", args.sync).to_lowercase();
    let mut found = Found::default();
    for repeat in 0..talk.repeat {
        // Neither is always the first.
        let first = repeat % 2 == 0;
        for on in [first, !first] {
            let more = format!("\n[history]\nchat = {on}\nsync = \"{sync}\"\n{store}");
            report.run(&[
                ("store", json!(kind.name())),
                ("history", json!(if on { "on" } else { "off" })),
            ]);
            let room = room::Args::of_chat(
                load.clone(),
                talk.rooms,
                talk.transport,
                talk.server.clone(),
                room::History { on, config: more },
            );
            let ran = room::once(&room, report).await?;
            let side = if on { &mut found.on } else { &mut found.off };
            side.push(ran.chat_p99_ms);
        }
    }
    Ok(found)
}

/// p99 of chat in each run, in milliseconds.
#[derive(Default)]
struct Found {
    on: Vec<f64>,
    off: Vec<f64>,
}

impl Found {
    fn report(self, kind: Kind, most: f64, report: &mut Report) {
        let Self { on, off } = self;
        let (Some(with), Some(without)) = (median(on.clone()), median(off.clone())) else { return };
        let ratio = with / without;
        let figures = json!({
            "chat_p99_ms_with_history": on,
            "chat_p99_ms_without_history": off,
            "median_with_history": with,
            "median_without_history": without,
            "ratio": ratio,
        });
        report.detail(kind.name(), figures);
        // What is no number does not hold either.
        let holds = ratio <= most;
        if !holds {
            report.problems.push(format!(
                "{}: the p99 of chat is {with:.1} ms with history and {without:.1} ms without: {ratio:.2} \
                 times, above {most}",
                kind.name()
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_are_compared_and_more_than_is_allowed_is_a_problem() {
        for (on, problems) in [(vec![3.0, 9.0, 2.0], 0), (vec![3.1, 3.1, 2.0], 1), (vec![], 0)] {
            let mut report = Report::new("history", "quic");
            Found { on, off: vec![2.0, 2.0, 90.0] }.report(Kind::Redis, 1.5, &mut report);
            assert_eq!(report.problems.len(), problems, "{:?}", report.problems);
        }
    }
}
