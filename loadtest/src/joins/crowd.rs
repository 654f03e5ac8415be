//! Members who stay.

use std::time::Duration;

use anyhow::{Result, bail};
use tokio::time::timeout;

use super::door::{Door, Said, join, open};
use crate::drive::bar;

/// Joins under way: enough to keep a server busy, few enough that none waits for long.
const UNDER_WAY: u64 = 2000;
/// For so long nothing comes when all is told of who came: rooms tell once a second.
const QUIET: Duration = Duration::from_millis(1500);

/// The number of the first Session of those who stay.
const FIRST: u64 = 1 << 32;

/// Brings members, each a user with a Session of its own who joins all the rooms, and waits until
/// nothing more is told of them.
pub async fn gather(door: &mut Door, members: u32, rooms: &[String]) -> Result<()> {
    let total = u64::from(members) * rooms.len() as u64;
    let of_one = |n| rooms.iter().zip(1..).map(move |room| (n, room));
    let mut joins = (0..u64::from(members)).flat_map(of_one);
    let bar = bar(total, "members");
    let (mut asked, mut joined) = (0, 0);
    while joined < total {
        let mut items = Vec::new();
        while asked - joined < UNDER_WAY
            && let Some((n, (room, request))) = joins.next()
        {
            if request == 1 {
                items.push(open(FIRST + n, format!("member-{n:05}")));
            }
            items.push(join(FIRST + n, request, room));
            asked += 1;
        }
        door.send(items)?;
        for said in door.next().await? {
            match said {
                Said::Joined { .. } => joined += 1,
                Said::Refused { why, .. } => bail!("a member was refused: {why}"),
                Said::Left { .. } | Said::Presence { .. } => {}
            }
        }
        bar.set_position(joined);
    }
    bar.finish_and_clear();
    quiet(door).await
}

/// Waits until nothing comes any more.
pub async fn quiet(door: &mut Door) -> Result<()> {
    while let Ok(said) = timeout(QUIET, door.next()).await {
        said?;
    }
    Ok(())
}
