//! What a process serves of the API.

use std::{
    sync::{Arc, OnceLock},
    time::Instant,
};

use axum::{
    http::{HeaderValue, Method, StatusCode, header},
    response::{IntoResponse, Response},
};
use edgeway_backend::{directory::Lookup, push::WeakPusher};
use parking_lot::RwLock;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    config::Config,
    export,
    keys::{InUse, Keys},
    moderate,
    problem::Problem,
    read,
    repeats::{Answer, Repeats},
    send, set, topic,
};

/// Bytes of a body: a payload of the largest size with all of its characters escaped, and a thousand names.
pub const BODY_BYTES: usize = 512 * 1024;
/// What all bodies that are worked on may take together.
const BODIES_BYTES: usize = 64 << 20;
/// Bodies are counted in pieces of so many bytes.
const PIECE_BYTES: usize = 1024;
/// Exports of history that go on at a time, each with a page of each class in memory: who lives goes before who reads
/// what was.
const EXPORTS: usize = 8;

/// The header that names a request which may come again.
pub const IDEMPOTENCY_KEY: &str = "idempotency-key";
/// Tells that it has.
const REPLAYED: &str = "idempotent-replayed";

/// A handle on the API of a process; clones are the same one.
#[derive(Clone)]
pub struct Api(Arc<Inner>);

struct Inner {
    keys: RwLock<Arc<Keys>>,
    /// Set once all parts of the process are there; none without the role push.
    started: OnceLock<Option<(WeakPusher, Lookup)>>,
    repeats: Repeats,
    bodies: Arc<Semaphore>,
    exports: Arc<Semaphore>,
}

impl Api {
    /// With these keys.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        let api = Self(Arc::new(Inner {
            keys: RwLock::default(),
            started: OnceLock::new(),
            repeats: Repeats::default(),
            bodies: Arc::new(Semaphore::new(BODIES_BYTES / PIECE_BYTES)),
            exports: Arc::new(Semaphore::new(EXPORTS)),
        }));
        api.change(config);
        api
    }

    /// Uses other keys from now on.
    pub fn change(&self, config: &Config) {
        let mut keys = self.0.keys.write();
        let new = Keys::new(&config.keys, &keys, Instant::now());
        *keys = Arc::new(new);
    }

    /// All parts of the process are there; with the role push this is how it reaches the owners, and
    /// learns who is where.
    pub fn started(&self, parts: Option<(WeakPusher, Lookup)>) {
        // Once for each process.
        let _ = self.0.started.set(parts);
    }

    /// What is served, with the document of it.
    #[must_use]
    pub fn routes(&self) -> OpenApiRouter {
        let mut router = OpenApiRouter::<Self>::default()
            .routes(routes!(send::to_room))
            .routes(routes!(send::to_rooms))
            .routes(routes!(send::to_user))
            .routes(routes!(topic::to_topic))
            .routes(routes!(topic::to_everyone))
            .routes(routes!(set::set, set::remove))
            .routes(routes!(read::state))
            .routes(routes!(read::history))
            .routes(routes!(export::export))
            .routes(routes!(read::members))
            .routes(routes!(read::user))
            .routes(routes!(moderate::kick))
            .routes(routes!(moderate::open))
            .routes(routes!(moderate::close))
            .routes(routes!(moderate::mute, moderate::unmute))
            .routes(routes!(moderate::mute_room, moderate::unmute_room))
            .routes(routes!(moderate::block, moderate::unblock))
            .routes(routes!(moderate::mute_everywhere, moderate::unmute_everywhere))
            .routes(routes!(moderate::block_everywhere, moderate::unblock_everywhere));
        let document = router.get_openapi_mut();
        let components = document.components.get_or_insert_default();
        let bearer = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
        components.add_security_scheme("api_key", bearer);
        let problem = <Problem as utoipa::PartialSchema>::schema();
        components.schemas.insert("Problem".to_owned(), problem);
        router.with_state(self.clone())
    }

    pub(crate) fn pusher(&self) -> Result<&WeakPusher, Problem> {
        self.parts().map(|(pusher, _)| pusher)
    }

    pub(crate) fn lookup(&self) -> Result<&Lookup, Problem> {
        self.parts().map(|(_, lookup)| lookup)
    }

    fn parts(&self) -> Result<&(WeakPusher, Lookup), Problem> {
        match self.0.started.get() {
            Some(Some(parts)) => Ok(parts),
            Some(None) => Err(Problem::not_found(
                "this process has not the role push; processes that have it, and `edgeway up`, answer",
            )),
            None => {
                Err(Problem::unavailable("the process starts; /readyz tells what it waits for"))
            }
        }
    }

    pub(crate) fn repeats(&self) -> &Repeats {
        &self.0.repeats
    }

    pub(crate) fn has_keys(&self) -> bool {
        !self.0.keys.read().is_empty()
    }

    pub(crate) fn find_key(&self, key: &str) -> Option<Arc<InUse>> {
        let keys = Arc::clone(&self.0.keys.read());
        keys.find(key)
    }

    /// Takes a turn to export.
    pub(crate) fn export_turn(&self) -> Result<OwnedSemaphorePermit, Problem> {
        Arc::clone(&self.0.exports).try_acquire_owned().map_err(|_| {
            metrics::counter!("edgeway_push_exports_full_total").increment(1);
            Problem::unavailable(format!("{EXPORTS} exports go on; there may be no more"))
        })
    }

    /// Takes room for a body.
    pub(crate) fn hold(&self, bytes: usize) -> Result<OwnedSemaphorePermit, Problem> {
        let pieces = u32::try_from(bytes.div_ceil(PIECE_BYTES)).unwrap_or(u32::MAX);
        Arc::clone(&self.0.bodies).try_acquire_many_owned(pieces).map_err(|_| {
            metrics::counter!("edgeway_push_bodies_full_total").increment(1);
            Problem::unavailable("too many requests are worked on")
        })
    }
}

/// Nothing is at this path.
pub async fn no_path() -> Problem {
    Problem::not_found("there is nothing at this path; /openapi.json says what there is")
}

/// Something is, but not with this method.
pub async fn no_method(method: Method) -> Problem {
    Problem::method(method.as_str())
}

/// An answer, and whether it is that of a request that came before.
pub(crate) struct Answered(pub(crate) Answer, pub(crate) bool);

impl IntoResponse for Answered {
    fn into_response(self) -> Response {
        let Self(Answer { status, body }, repeat) = self;
        let mut response = (status, body).into_response();
        let headers = response.headers_mut();
        if status != StatusCode::NO_CONTENT {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if repeat {
            headers.insert(REPLAYED, HeaderValue::from_static("true"));
        }
        response
    }
}
