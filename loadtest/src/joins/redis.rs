//! What Redis says that it was asked.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use serde_json::Value;

/// Calls of each command, those inside of scripts included.
pub type Calls = BTreeMap<String, u64>;

/// How often each command was called so far.
pub fn calls(url: &str) -> Result<Calls> {
    let asked = || {
        let mut connection = redis::Client::open(url)?.get_connection()?;
        redis::cmd("INFO").arg("commandstats").query::<String>(&mut connection)
    };
    // The URL may hold a password.
    let told = asked().context("cannot ask the server of --redis for its statistics")?;
    Ok(parse(&told))
}

/// What was called between two looks, without the looks themselves.
pub fn between(before: &Calls, after: &Calls) -> serde_json::Map<String, Value> {
    let look = |name: &str| {
        ["info", "client", "hello", "select", "auth"].iter().any(|own| name.starts_with(own))
    };
    let calls = after.iter().filter(|(name, _)| !look(name)).map(|(name, count)| {
        (name.clone(), count.saturating_sub(before.get(name).copied().unwrap_or_default()))
    });
    calls.filter(|(_, count)| *count > 0).map(|(name, count)| (name, count.into())).collect()
}

fn parse(told: &str) -> Calls {
    let lines = told.lines().filter_map(|line| {
        let (name, figures) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
        Some((name.to_owned(), figures.split(',').next()?.parse().ok()?))
    });
    lines.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_called_between_two_looks_is_counted() {
        let before =
            parse("# Commandstats\r\ncmdstat_get:calls=3,usec=9\r\ncmdstat_info:calls=1,u=2\r\n");
        let after = parse(
            "cmdstat_get:calls=10,usec=9\r\ncmdstat_info:calls=2,u=2\r\ncmdstat_set:calls=4,usec=1\r\n",
        );
        let expected = [("get".to_owned(), 7.into()), ("set".to_owned(), 4.into())];
        assert_eq!(between(&before, &after), expected.into_iter().collect());
    }
}
