//! The school's own systems: they know HTTP, and have a key.

use std::process::Output;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    process::Command,
};

pub struct School<'a> {
    pub http: &'a str,
    pub key: &'a str,
}

pub struct Told {
    /// As one would type it.
    pub command: String,
    pub answer: String,
}

impl School<'_> {
    /// By `curl`, where there is one; else the same request without it.
    pub async fn curl(&self, method: &str, path: &str, body: Option<&str>) -> Result<Told> {
        let url = format!("http://{}{path}", self.http);
        let mut command = format!("curl -X {method} '{url}' -H \"Authorization: Bearer $KEY\"");
        let mut args = vec!["-sS", "--fail-with-body", "-X", method, &url, "-H"];
        let key = format!("Authorization: Bearer {}", self.key);
        args.push(&key);
        if let Some(body) = body {
            args.extend(["-H", "Content-Type: application/json", "-d", body]);
            command += &format!(" -H 'Content-Type: application/json' -d '{body}'");
        }
        let answer = match Command::new("curl").args(&args).output().await {
            Ok(Output { status, stdout, stderr }) => {
                let said = String::from_utf8_lossy(&stdout).into_owned();
                ensure!(status.success(), "{command}: {said}{}", String::from_utf8_lossy(&stderr));
                said
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let (status, said) = self.ask(method, path, body).await?;
                ensure!((200..300).contains(&status), "{command}: {status} {said}");
                said
            }
            Err(error) => return Err(error).context("cannot run curl"),
        };
        Ok(Told { command, answer: answer.trim().to_owned() })
    }

    /// A request without curl: status and body.
    async fn ask(&self, method: &str, path: &str, body: Option<&str>) -> Result<(u16, String)> {
        let (mut stream, body) = (TcpStream::connect(self.http).await?, body.unwrap_or_default());
        let (key, length) = (self.key, body.len());
        let request = format!(
            "{method} {path} HTTP/1.0\r\nAuthorization: Bearer {key}\r\nContent-Type: application/json\r\n\
             Content-Length: {length}\r\n\r\n{body}"
        );
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        let (head, body) = answer.split_once("\r\n\r\n").context("no answer")?;
        let status = head.split(' ').nth(1).context("no status")?.parse()?;
        Ok((status, body.to_owned()))
    }

    /// Asks until the answer is good: what is known elsewhere of who is where comes a moment later.
    async fn until<T>(&self, path: &str, good: impl Fn(&Value) -> Option<T>) -> Result<T> {
        for _ in 0..1_200 {
            let (status, body) = self.ask("GET", path, None).await?;
            if status == 200
                && let Some(found) = good(&serde_json::from_str(&body)?)
            {
                return Ok(found);
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        anyhow::bail!("{path} does not come to say what it should")
    }

    /// The access points for a user.
    pub async fn dispatch(&self, user: &str) -> Result<String> {
        let given = |answer: &Value| {
            let endpoint = answer["endpoints"].get(0)?;
            Some(format!("quic {}, tcp {}", endpoint["quic"].as_str()?, endpoint["tcp"].as_str()?))
        };
        self.until(&format!("/dispatch?user={user}"), given).await
    }

    /// Names of so many members of a room.
    pub async fn members(&self, room: &str, count: usize) -> Result<String> {
        let names = |answer: &Value| {
            let members = answer["members"].as_array()?;
            let names: Vec<_> = members.iter().filter_map(|one| one["user"].as_str()).collect();
            (names.len() == count).then(|| names.join(", "))
        };
        self.until(&format!("/v1/rooms/{room}/members"), names).await
    }

    /// What the process has to do.
    pub async fn load(&self) -> Result<String> {
        let told = |answer: &Value| {
            let load = &answer["report"]["load"];
            let (connections, rooms) = (load["connections"].as_u64()?, load["rooms"].as_u64()?);
            let memory = load["memory_bytes"].as_u64()? / (1 << 20);
            Some(format!(
                "GET /stat  ->  {connections} connections, {rooms} rooms and inboxes, {memory} MiB"
            ))
        };
        self.until("/stat", told).await
    }
}
