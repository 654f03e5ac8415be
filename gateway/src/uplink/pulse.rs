//! Whether a backend still lives. Each connection of a link is asked for its health, once in a while; any answer
//! will do, also that there is no such call. HTTP/2's own pings would ask more cheaply, but gRPC servers take them
//! for an attack where they come more often than each 5 minutes, and cut the connection.

use std::time::Duration;

use edgeway_proto::health::{HealthCheckRequest, health_client::HealthClient};
use tonic::transport::Channel;

/// From one answer to the next question.
const REST: Duration = Duration::from_secs(5);

/// For an answer: more than what a process may be held up by a busy machine, or by its own garbage.
const PATIENCE: Duration = Duration::from_secs(10);

/// Asks again and again; says so once there is no answer.
pub(super) async fn silence(connection: Channel) -> String {
    let mut client = HealthClient::new(connection);
    loop {
        tokio::time::sleep(REST).await;
        let answer = client.check(HealthCheckRequest::default());
        // Where the connection broke, its stream says so.
        if tokio::time::timeout(PATIENCE, answer).await.is_err() {
            return format!("it has answered nothing for {PATIENCE:?}");
        }
    }
}
