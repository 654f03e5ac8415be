//! Asks the gateways of lists, each second, whether they live and what they have to do: `GET /stat` of their HTTP.

use std::{collections::HashMap, time::Duration};

use bytes::Bytes;
use edgeway_stat::Report;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::{Request, StatusCode, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::{
    net::TcpStream,
    task::JoinSet,
    time::{Instant, timeout},
};

use crate::{Dispatch, table::Source};

/// Between two questions.
const PACE: Duration = Duration::from_millis(500);
/// For an answer.
const ANSWER: Duration = Duration::from_millis(1_000);
/// So many in a row without an answer, and it is away. Together: out of answers within 2.5 s.
const MISSES: u32 = 2;
/// Of an answer.
const ANSWER_BYTES: usize = 64 * 1024;

/// As far as it matters of `GET /stat`.
#[derive(Deserialize)]
struct Stat {
    report: Report,
}

/// Asks for ever.
pub(crate) async fn run(dispatch: &Dispatch) {
    let mut misses: HashMap<String, u32> = HashMap::new();
    loop {
        let next = Instant::now() + PACE;
        let all = dispatch.probes();
        misses.retain(|http, _| all.contains(http));
        let mut asking = JoinSet::new();
        for http in all {
            asking.spawn(async move {
                let answer = timeout(ANSWER, ask(&http)).await;
                (http, answer.unwrap_or_else(|_| Err("no answer in time".to_owned())))
            });
        }
        while let Some(asked) = asking.join_next().await {
            let Ok((http, answer)) = asked else { continue };
            match answer {
                Ok(report) => {
                    if misses.insert(http.clone(), 0).is_some_and(|missed| missed >= MISSES) {
                        tracing::info!(http, "a gateway is back");
                    }
                    dispatch.learn(Source::Probe(http), vec![report], std::time::Instant::now());
                }
                Err(problem) => {
                    let missed = misses.entry(http.clone()).or_default();
                    *missed = missed.saturating_add(1);
                    if *missed == MISSES {
                        tracing::warn!(http, problem, "a gateway does not answer; it is left out");
                        dispatch.forget(&Source::Probe(http));
                    }
                }
            }
        }
        tokio::time::sleep_until(next).await;
    }
}

async fn ask(http: &str) -> Result<Report, String> {
    let stream = TcpStream::connect(http).await.map_err(|e| e.to_string())?;
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|e| e.to_string())?;
    let request = Request::get("/stat?recent=0")
        .header(header::HOST, http)
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|e| e.to_string())?;
    let asking = async {
        let response = sender.send_request(request).await.map_err(|e| e.to_string())?;
        if response.status() != StatusCode::OK {
            return Err(format!("it answers {}", response.status()));
        }
        let body = Limited::new(response.into_body(), ANSWER_BYTES).collect().await;
        let body = body.map_err(|e| e.to_string())?.to_bytes();
        let stat: Stat = serde_json::from_slice(&body).map_err(|e| e.to_string())?;
        // Read again with the care that what comes from outside needs.
        let text = stat.report.text().ok_or("its report is too long")?;
        Report::read(&text).ok_or_else(|| "its report is none".to_owned())
    };
    tokio::pin!(asking);
    tokio::pin!(connection);
    tokio::select! {
        report = &mut asking => report,
        _ = &mut connection => asking.await,
    }
}
