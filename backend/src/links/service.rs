//! The gRPC side of links: what gateways dial.

use std::{pin::Pin, sync::Arc, time::Duration};

use edgeway_linktls::Paced;
use edgeway_proto::{
    CloseCode,
    link::{
        Class, Down, DownItem, Hello, Stream as LinkStream, Up, UpItem,
        backend_server::Backend as Service, up_item::Item,
    },
};
use tokio_stream::{Stream, StreamExt};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{Request, Response, Status, Streaming};

use super::{Link, Links};
use crate::queue::Drain;

/// How long a stream may take for its hello, and a link for its second stream.
const HELLO: Duration = Duration::from_secs(10);

/// The service `edgeway.link.v1.Backend`.
#[derive(Clone)]
pub(crate) struct LinkService {
    links: Links,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl LinkService {
    /// `stop` refuses new links; the others end with [`Links::finish`].
    pub(crate) fn new(links: Links, tasks: TaskTracker, stop: CancellationToken) -> Self {
        Self { links, tasks, stop }
    }
}

#[tonic::async_trait]
impl Service for LinkService {
    type LinkStream = Pin<Box<dyn Stream<Item = Result<Down, Status>> + Send>>;

    async fn link(
        &self,
        request: Request<Streaming<Up>>,
    ) -> Result<Response<Self::LinkStream>, Status> {
        if self.stop.is_cancelled() {
            return Err(Status::unavailable("the backend is stopping"));
        }
        let mut up = request.into_inner();
        let (hello, rest) = read_hello(&mut up).await?;
        let link = self.links.attach(&hello)?;
        let stream = hello.stream();
        let batches = Drain::new(Arc::clone(link.queue(stream)));
        let reader = Reader { links: self.links.clone(), link: Arc::clone(&link), stream };
        self.tasks.spawn(reader.run(rest, up));
        if stream == LinkStream::Control {
            tracing::info!(gateway = %link.name, link = link.number, "a gateway has dialled");
        }
        // Dropped with the response, so that the reader knows when the gateway stopped reading.
        let ended = link.ended().clone().drop_guard();
        let down = move |batch: Result<Vec<DownItem>, Status>| {
            let _ = &ended;
            batch.map(|items| Down { items })
        };
        Ok(Response::new(match stream {
            LinkStream::Control => Box::pin(batches.map(down)),
            LinkStream::Bulk => Box::pin(Paced::new(batches).map(down)),
        }))
    }
}

async fn read_hello(up: &mut Streaming<Up>) -> Result<(Hello, Vec<UpItem>), Status> {
    let first = tokio::time::timeout(HELLO, up.message())
        .await
        .map_err(|_| Status::deadline_exceeded("no hello"))??;
    let mut items = first.map(|up| up.items).unwrap_or_default();
    if items.is_empty() {
        return Err(Status::invalid_argument("the first item of a stream must be hello"));
    }
    match items.remove(0).item {
        Some(Item::Hello(hello)) => Ok((hello, items)),
        _ => Err(Status::invalid_argument("the first item of a stream must be hello")),
    }
}

/// Reads one stream of a link, in a task of its own, only as fast as it can pass on.
struct Reader {
    links: Links,
    link: Arc<Link>,
    stream: LinkStream,
}

impl Reader {
    async fn run(self, first: Vec<UpItem>, up: Streaming<Up>) {
        let status = match self.drive(first, up).await {
            Ok(()) => Status::aborted("the link's other stream has ended"),
            Err(status) => status,
        };
        let (gateway, number) = (&self.link.name, self.link.number);
        tracing::info!(%gateway, link = number, reason = status.message(), "a gateway's link has ended");
        self.links.end(&self.link, &status);
    }

    async fn drive(&self, first: Vec<UpItem>, mut up: Streaming<Up>) -> Result<(), Status> {
        self.items(first).await?;
        let second = tokio::time::sleep(HELLO);
        tokio::pin!(second);
        let mut complete = false;
        loop {
            tokio::select! {
                () = self.link.ended().cancelled() => return Ok(()),
                () = &mut second, if !complete => {
                    complete = self.link.complete();
                    if !complete {
                        return Err(Status::deadline_exceeded("the link's other stream did not come"));
                    }
                }
                sessions = self.link.resumed(self.stream) => {
                    if let Some(access) = self.links.access() {
                        access.resume(&self.link, self.stream, sessions).await;
                    }
                }
                message = up.message() => match message? {
                    Some(message) => self.items(message.items).await?,
                    None => return Ok(()),
                },
            }
        }
    }

    async fn items(&self, items: Vec<UpItem>) -> Result<(), Status> {
        for item in items {
            // An item of a later version is nothing that this one could answer.
            let Some(item) = item.item else { continue };
            self.item(item).await.inspect_err(|status| {
                metrics::counter!("edgeway_backend_links_cut_total", "reason" => "protocol").increment(1);
                tracing::warn!(gateway = %self.link.name, reason = status.message(), "a gateway breaks the protocol");
            })?;
        }
        Ok(())
    }

    async fn item(&self, item: Item) -> Result<(), Status> {
        let on_control = self.stream == LinkStream::Control;
        match item {
            Item::Hello(_) => Err(Status::invalid_argument("a second hello")),
            Item::Open(_) | Item::Close(_) | Item::Confirm(_) | Item::Renewed(_) if !on_control => {
                Err(Status::invalid_argument("Sessions open and close on CONTROL"))
            }
            Item::Data(data) if (data.class() == Class::Signal) != on_control => {
                Err(Status::invalid_argument("signal data travels on CONTROL, other on BULK"))
            }
            Item::Open(open) => {
                match self.links.access() {
                    Some(access) => access.open(&self.link, open).await,
                    None => self.link.close(
                        open.session,
                        CloseCode::NoRoute,
                        "this backend does not have the role access",
                    ),
                }
                Ok(())
            }
            Item::Close(close) => {
                if let Some(access) = self.links.access() {
                    access.close(&self.link, close).await;
                }
                Ok(())
            }
            Item::Confirm(confirm) => {
                if let Some(access) = self.links.access() {
                    access.confirm(&self.link, confirm.session).await;
                }
                Ok(())
            }
            Item::Renewed(renewed) => {
                if let Some(access) = self.links.access() {
                    access.renewed(self.link.gateway, renewed).await;
                }
                Ok(())
            }
            Item::Data(data) => {
                if let Some(access) = self.links.access() {
                    access.data(&self.link, self.stream, data).await;
                }
                Ok(())
            }
        }
    }
}
