//! The owner side of an uplink.

use std::{collections::HashMap, pin::Pin, sync::Arc, time::Duration};

use edgeway_proto::{
    ErrorCode,
    link::Stream as LinkStream,
    rooms::{
        AccessHello, FromOwner, FromOwnerItem, Refused, ToOwner, ToOwnerItem, from_owner_item,
        rooms_server::Rooms as Service, to_owner_item::Item,
    },
};
use parking_lot::{Mutex, RwLock};
use tokio_stream::{Stream, StreamExt};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{Request, Response, Status, Streaming};

use super::TO_ACCESS_BYTES;
use crate::{
    queue::{Drain, Meters, Queue},
    roles::Role,
    shard::{AccessLink, Owner, Replies, Reply},
};

/// How long a stream may take for its hello, and an uplink for its second stream.
const HELLO: Duration = Duration::from_secs(10);

/// What access tells a client whose gateway has no link with this process.
#[allow(clippy::cast_possible_truncation)] // 7
const UNAVAILABLE: u32 = ErrorCode::Unavailable.code() as u32;

/// The service `edgeway.rooms.v1.Rooms`.
#[derive(Clone)]
pub(crate) struct UplinkService(Arc<Inner>);

struct Inner {
    /// By role; none after the stop.
    owners: RwLock<HashMap<&'static str, Owner>>,
    uplinks: Mutex<HashMap<Key, Arc<Uplink>>>,
    meters: Meters,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// Run of access, its link, and the role.
type Key = (u64, u64, String);

struct Uplink {
    key: Key,
    name: String,
    owner: AccessLink,
    control: Arc<Queue<FromOwnerItem>>,
    /// Nothing is sent on it: its end is what counts.
    bulk: Arc<Queue<FromOwnerItem>>,
    streams: Mutex<[bool; 2]>,
    ended: CancellationToken,
}

impl Uplink {
    fn queue(&self, stream: LinkStream) -> &Arc<Queue<FromOwnerItem>> {
        match stream {
            LinkStream::Control => &self.control,
            LinkStream::Bulk => &self.bulk,
        }
    }

    fn cut(&self, status: &Status) {
        self.control.cut(status.clone());
        self.bulk.cut(status.clone());
        self.ended.cancel();
    }
}

impl UplinkService {
    pub(crate) fn new(
        owners: impl Iterator<Item = (Role, Owner)>,
        tasks: TaskTracker,
        stop: CancellationToken,
    ) -> Self {
        Self(Arc::new(Inner {
            owners: RwLock::new(owners.map(|(role, owner)| (role.name(), owner)).collect()),
            uplinks: Mutex::default(),
            meters: Meters::new("uplink_answers"),
            tasks,
            stop,
        }))
    }

    /// Ends every uplink once what is queued for it is out, and forgets the owners.
    pub(crate) fn finish(&self) {
        self.0.owners.write().clear();
        for uplink in self.0.uplinks.lock().values() {
            uplink.control.finish();
            uplink.bulk.finish();
        }
    }

    fn attach(&self, hello: &AccessHello) -> Result<Arc<Uplink>, Status> {
        let owners = self.0.owners.read();
        let Some(owner) = owners.get(hello.role.as_str()) else {
            return Err(match Role::find(&hello.role) {
                Some(Role::Room | Role::Binary | Role::Peer) => Status::unimplemented(format!(
                    "this process does not have the role {}",
                    hello.role
                )),
                Some(Role::Access | Role::Push) | None => {
                    Status::invalid_argument("hello.role must be room, binary or peer")
                }
            });
        };
        let stream = LinkStream::try_from(hello.stream)
            .map_err(|_| Status::invalid_argument("hello.stream must be CONTROL or BULK"))?;
        let key = (hello.access, hello.link, hello.role.clone());
        let mut uplinks = self.0.uplinks.lock();
        let uplink = uplinks.entry(key).or_insert_with_key(|key| self.begin(key, hello, owner));
        if std::mem::replace(&mut uplink.streams.lock()[stream as usize], true) {
            return Err(Status::already_exists("this stream of the uplink is open already"));
        }
        Ok(Arc::clone(uplink))
    }

    fn begin(&self, key: &Key, hello: &AccessHello, owner: &Owner) -> Arc<Uplink> {
        let control = Queue::new(TO_ACCESS_BYTES, self.0.meters.clone());
        let bulk = Queue::new(TO_ACCESS_BYTES, self.0.meters.clone());
        let replies = Arc::new(ToUplink(Arc::clone(&control)));
        tracing::info!(access = %hello.name, role = %hello.role, "access has dialled");
        Arc::new(Uplink {
            key: key.clone(),
            name: hello.name.clone(),
            owner: owner.attach(hello.access, replies),
            control,
            bulk,
            streams: Mutex::default(),
            ended: CancellationToken::new(),
        })
    }

    fn end(&self, uplink: &Arc<Uplink>, status: &Status) {
        uplink.cut(status);
        let mut uplinks = self.0.uplinks.lock();
        if uplinks.get(&uplink.key).is_some_and(|current| Arc::ptr_eq(current, uplink)) {
            uplinks.remove(&uplink.key);
        }
    }
}

/// What an owner answers into.
struct ToUplink(Arc<Queue<FromOwnerItem>>);

impl Replies for ToUplink {
    fn send(&self, reply: Reply) -> bool {
        let item = match reply {
            Reply::Item(item) => item,
            Reply::Unreachable(refused) => {
                from_owner_item::Item::Refused(Refused { code: UNAVAILABLE, ..refused })
            }
        };
        self.0.push(FromOwnerItem { item: Some(item) }).is_ok()
    }
}

#[tonic::async_trait]
impl Service for UplinkService {
    type UplinkStream = Pin<Box<dyn Stream<Item = Result<FromOwner, Status>> + Send>>;

    async fn uplink(
        &self,
        request: Request<Streaming<ToOwner>>,
    ) -> Result<Response<Self::UplinkStream>, Status> {
        if self.0.stop.is_cancelled() {
            return Err(Status::unavailable("the backend is stopping"));
        }
        let mut up = request.into_inner();
        let first = tokio::time::timeout(HELLO, up.message())
            .await
            .map_err(|_| Status::deadline_exceeded("no hello"))??;
        let mut items = first.map(|up| up.items).unwrap_or_default().into_iter();
        let Some(Item::Hello(hello)) = items.next().and_then(|item| item.item) else {
            return Err(Status::invalid_argument("the first item of a stream must be hello"));
        };
        let uplink = self.attach(&hello)?;
        let stream = hello.stream();
        let down = Drain::new(Arc::clone(uplink.queue(stream)));
        let ended = uplink.ended.clone().drop_guard();
        let reader = Reader { service: self.clone(), uplink, stream };
        self.0.tasks.spawn(reader.run(items.collect(), up));
        let down = down.map(move |batch| {
            let _ = &ended;
            batch.map(|items| FromOwner { items })
        });
        Ok(Response::new(Box::pin(down)))
    }
}

/// Reads one stream of an uplink, only as fast as the owner takes it.
struct Reader {
    service: UplinkService,
    uplink: Arc<Uplink>,
    stream: LinkStream,
}

impl Reader {
    async fn run(self, first: Vec<ToOwnerItem>, up: Streaming<ToOwner>) {
        let status = match self.drive(first, up).await {
            Ok(()) => Status::aborted("the uplink's other stream has ended"),
            Err(status) => status,
        };
        tracing::info!(access = %self.uplink.name, reason = status.message(), "an uplink has ended");
        self.service.end(&self.uplink, &status);
    }

    async fn drive(
        &self,
        first: Vec<ToOwnerItem>,
        mut up: Streaming<ToOwner>,
    ) -> Result<(), Status> {
        self.items(first).await?;
        let second = tokio::time::sleep(HELLO);
        tokio::pin!(second);
        let mut complete = false;
        loop {
            tokio::select! {
                () = self.uplink.ended.cancelled() => return Ok(()),
                () = self.uplink.owner.lost() => {
                    return Err(Status::resource_exhausted("access does not read the owner's answers"));
                }
                () = &mut second, if !complete => {
                    complete = *self.uplink.streams.lock() == [true; 2];
                    if !complete {
                        return Err(Status::deadline_exceeded("the uplink's other stream did not come"));
                    }
                }
                message = up.message() => match message? {
                    Some(message) => self.items(message.items).await?,
                    None => return Ok(()),
                },
            }
        }
    }

    async fn items(&self, items: Vec<ToOwnerItem>) -> Result<(), Status> {
        for item in items.into_iter().filter_map(|item| item.item) {
            let on_control = self.stream == LinkStream::Control;
            match item {
                Item::Hello(_) => return Err(Status::invalid_argument("a second hello")),
                Item::Join(_) | Item::Leave(_) | Item::Ask(_) | Item::Route(_) if !on_control => {
                    return Err(Status::invalid_argument(
                        "joins, leaves, questions and routes travel on CONTROL",
                    ));
                }
                item => self.uplink.owner.send(self.stream, item).await,
            }
        }
        Ok(())
    }
}
