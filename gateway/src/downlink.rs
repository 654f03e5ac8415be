//! What a backend sends on a link, done to the hub: one task for each stream of each link.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use edgeway_proto::{
    Class, CloseCode, Seq,
    frame::{FIRST_SESSION_KIND, Opened, measure},
    link::{self, Down, DownItem, Publish, down_item::Item},
};
use tonic::Streaming;

use crate::hub::Hub;

/// Deals with one stream until it ends; says how it ended.
pub async fn run(
    mut stream: Streaming<Down>,
    link: u64,
    kind: link::Stream,
    hub: Arc<Hub>,
) -> String {
    let classes = match kind {
        link::Stream::Control => &[Class::Signal][..],
        link::Stream::Bulk => &[Class::Binary, Class::Chat],
    };
    loop {
        match stream.message().await {
            Ok(Some(down)) => {
                if let Err(problem) = message(down, link, classes, &hub) {
                    return problem;
                }
            }
            Ok(None) => return "the backend ended the stream".into(),
            Err(status) => {
                return format!("{}: {}", status.code(), status.message());
            }
        }
        // A stream that never runs dry must leave room for others.
        tokio::task::consume_budget().await;
    }
}

/// Deals with all items of a message. What is published to the same group and class back to back
/// is delivered as one.
fn message(down: Down, link: u64, classes: &[Class], hub: &Hub) -> Result<(), String> {
    let mut items = down.items.into_iter().filter_map(|DownItem { item }| item).peekable();
    while let Some(it) = items.next() {
        let Item::Publish(first) = it else {
            item(it, link, classes, hub)?;
            continue;
        };
        let mut run = vec![first];
        while let Some(Item::Publish(next)) = items.next_if(
            |next| matches!((next, run.last()), (Item::Publish(n), Some(last)) if follows(last, n)),
        ) {
            run.push(next);
        }
        publish(&run, classes, hub)?;
    }
    Ok(())
}

/// Whether `next` continues `last` without a hole.
fn follows(last: &Publish, next: &Publish) -> bool {
    let (Some(a), Some(b)) = (last.first, next.first) else { return false };
    last.group == next.group
        && last.class == next.class
        && last.count > 0
        && next.count > 0
        && a.epoch == b.epoch
        && a.counter + u64::from(last.count) == b.counter
}

fn publish(run: &[Publish], classes: &[Class], hub: &Hub) -> Result<(), String> {
    let Some(first) = run.first() else { return Ok(()) };
    let class = class(first.class, classes)?;
    let position = first.first.map(Seq::from).unwrap_or_default();
    let mut count = 0;
    for p in run {
        let frames = check_frames(&p.frames)?;
        if p.count != 0 && p.count != frames {
            return Err(format!("a publication of {} positions with {frames} frames", p.count));
        }
        count += p.count;
    }
    let frames = match run {
        [one] => one.frames.clone(),
        many => {
            let mut all = BytesMut::with_capacity(many.iter().map(|p| p.frames.len()).sum());
            many.iter().for_each(|p| all.extend_from_slice(&p.frames));
            all.freeze()
        }
    };
    hub.publish(first.group, class, position, count, &frames);
    Ok(())
}

fn item(item: Item, link: u64, classes: &[Class], hub: &Hub) -> Result<(), String> {
    match item {
        Item::Welcome(_) | Item::Publish(_) => {}
        Item::Opened(opened) => {
            hub.opened(opened.session);
            if let Some(session) = hub.session(opened.session) {
                let frame = Opened { session: u64::from(session.number) }.to_bytes();
                session.outbox.push_reply(session.number, Class::Signal, frame);
            }
        }
        Item::Data(data) => {
            let owned = Class::from(data.owned());
            if data.group != 0 && hub.is_stale(data.group, owned, data.epoch) {
                return Ok(());
            }
            if let Some(session) = hub.session(data.session) {
                check_frames(&data.frames)?;
                let class = class(data.class, classes)?;
                session.outbox.push_reply(session.number, class, data.frames);
            }
        }
        Item::Close(close) => {
            if let Some(session) = hub.session(close.session) {
                let code = CloseCode::from_code(u64::from(close.code));
                session.close(code, &close.reason, u64::from(close.retry_after_ms));
            }
        }
        Item::Subscribe(s) => {
            let class = class(s.class, classes)?;
            let head = s.head.map(Seq::from).unwrap_or_default();
            let have = s.have.map(Seq::from);
            if s.elsewhere {
                hub.subscribe_elsewhere(s.session, s.group, class, have.unwrap_or(head));
            } else {
                hub.subscribe(link, s.session, s.group, class, head, have);
            }
        }
        Item::Announce(a) => {
            let head = a.head.map(Seq::from).unwrap_or_default();
            hub.announce(link, a.group, class(a.class, classes)?, head);
        }
        Item::Retract(r) => hub.retract(link, r.group, class(r.class, classes)?),
        Item::Unsubscribe(u) => hub.unsubscribe(link, u.session, u.group, classes),
    }
    Ok(())
}

/// The class of an item, which must be one that travels on the stream (`classes`): order holds on a
/// stream only, and what overtakes its subscription on the other is lost without a trace.
fn class(n: i32, classes: &[Class]) -> Result<Class, String> {
    let class = link::Class::try_from(n)
        .map(Class::from)
        .map_err(|_| format!("class {n}; there are 0, 1 and 2"))?;
    if classes.contains(&class) {
        return Ok(class);
    }
    Err(format!("class {class} on the wrong stream: signals travel on CONTROL, the others on BULK"))
}

/// Counts frames. A backend that sends half a frame, or one of the gateway's own, would break
/// every connection that it is written to.
fn check_frames(frames: &Bytes) -> Result<u32, String> {
    let (mut rest, mut count) = (&frames[..], 0);
    while let Some(kind) = rest.first() {
        if *kind < FIRST_SESSION_KIND {
            return Err(format!("a frame of kind 0x{kind:02x}; those of backends begin at 0x40"));
        }
        match measure(rest) {
            Ok(Some((header, body))) if rest.len() >= header + body => {
                rest = &rest[header + body..]
            }
            Ok(_) => return Err("frames that end inside a frame".into()),
            Err(e) => return Err(e.to_string()),
        }
        count += 1;
    }
    Ok(count)
}
