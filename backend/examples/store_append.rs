//! How long appends to an embedded store take: `store_append DIR PER_SECOND SECONDS [disk]` appends
//! records of 200 bytes to 100 logs at a steady rate and prints milliseconds as JSON.
#![allow(clippy::print_stdout)] // what it is for
#![allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)] // statistics

use std::{path::PathBuf, sync::Arc, time::Duration};

use edgeway_backend::store::{
    Append, Durability, Embedded, EmbeddedOptions, LogId, Origin, Record, Store,
};
use edgeway_proto::{Class, Seq};
use tokio::time::Instant;

const LOGS: u64 = 100;
const FRAME_BYTES: usize = 200;

// One thread, so that the appends of a log keep their order.
#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let mut next = |what| args.next().ok_or(format!("{what} is missing"));
    let dir = PathBuf::from(next("the directory")?);
    let rate: u32 = next("appends a second")?.parse()?;
    let seconds: u32 = next("seconds")?.parse()?;
    let durability = match args.next().as_deref() {
        None => Durability::Process,
        Some("disk") => Durability::Disk,
        Some(other) => return Err(format!("{other}: it may be \"disk\" or nothing").into()),
    };
    let options = EmbeddedOptions { durability, ..EmbeddedOptions::default() };
    let store = Arc::new(Embedded::open(&dir, options)?);
    // Each run goes on behind the last one.
    let epoch = store.head(log(0)).await?.last.epoch + 1;
    let begin = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    let mut taken = Vec::new();
    for number in 0..u64::from(rate) * u64::from(seconds) {
        let due = begin + Duration::from_secs_f64(number as f64 / f64::from(rate));
        tokio::time::sleep_until(due).await;
        let store = Arc::clone(&store);
        tasks.spawn(async move {
            let done = store.append(vec![append(number, epoch)]).await;
            done.map(|()| due.elapsed())
        });
        while let Some(done) = tasks.try_join_next() {
            taken.push(done??);
        }
    }
    while let Some(done) = tasks.join_next().await {
        taken.push(done??);
    }
    taken.sort_unstable();
    let ms = |part: f64| {
        let at = ((taken.len() as f64 * part) as usize).min(taken.len().saturating_sub(1));
        taken.get(at).map_or(0.0, |took| took.as_secs_f64() * 1000.0)
    };
    let above = taken.iter().filter(|took| **took > Duration::from_millis(10)).count();
    println!(
        "{{\"appends\": {}, \"p50_ms\": {:.2}, \"p99_ms\": {:.2}, \"p99_9_ms\": {:.2}, \
         \"max_ms\": {:.2}, \"above_10_ms\": {above}}}",
        taken.len(),
        ms(0.5),
        ms(0.99),
        ms(0.999),
        ms(1.0),
    );
    Ok(())
}

const fn log(number: u64) -> LogId {
    LogId { group: number % LOGS, class: Class::Signal }
}

fn append(number: u64, epoch: u64) -> Append {
    let record = Record {
        seq: Seq { epoch, counter: number / LOGS + 1 },
        origin: Origin { device: "ann/phone".to_owned(), id: number },
        time_ms: 1,
        expires_ms: 0,
        key: String::new(),
        frame: vec![7; FRAME_BYTES].into(),
    };
    Append { log: log(number), record }
}
