//! A business system: an API key, and requests with it.

use std::{
    io::{Read, Write},
    net::TcpStream,
    path::Path,
};

use serde_json::Value;

use super::output;

/// An answer.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    /// In lower case, a line each.
    pub head: String,
    /// Null where there is none, or it is no JSON.
    pub body: Value,
    /// The same as it came.
    pub text: String,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")))
    }

    /// The end of a problem's type.
    pub fn problem(&self) -> &str {
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{self:?}");
        assert_eq!(self.body["status"], self.status, "{self:?}");
        assert!(self.body["title"].is_string() && self.body["detail"].is_string(), "{self:?}");
        let kind = self.body["type"].as_str().unwrap();
        kind.strip_prefix("urn:edgeway:problem:").unwrap()
    }
}

/// A key, and its lines for a config.
pub struct Key {
    pub key: String,
    pub lines: String,
}

impl Key {
    /// Made by `edgeway key`.
    pub fn make(dir: &Path, name: &str, more: &[&str]) -> Self {
        let made = output(dir, &[&["key", name], more].concat());
        let lines = String::from_utf8(made.stdout).unwrap();
        assert!(made.status.success(), "{lines}");
        let key = lines.lines().find_map(|line| line.split_once("alone: ")).unwrap().1;
        Self { key: key.to_owned(), lines: lines.clone() }
    }

    pub fn all(dir: &Path, name: &str) -> Self {
        Self::make(dir, name, &["--scope", "send", "--scope", "moderate", "--scope", "read"])
    }
}

/// Who asks with a key.
#[derive(Clone)]
pub struct System {
    pub http: String,
    pub key: String,
}

impl System {
    pub fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, &[], "")
    }

    pub fn post(&self, path: &str, body: &Value) -> Answer {
        self.ask("POST", path, &[], &body.to_string())
    }

    /// With an Idempotency-Key.
    pub fn post_once(&self, path: &str, id: &str, body: &Value) -> Answer {
        self.ask("POST", path, &[("Idempotency-Key", id)], &body.to_string())
    }

    pub fn ask(&self, method: &str, path: &str, more: &[(&str, &str)], body: &str) -> Answer {
        let bearer = format!("Bearer {}", self.key);
        let all = [&[("Authorization", bearer.as_str()), JSON], more].concat();
        call(&self.http, method, path, &all, body.as_bytes())
    }
}

pub const JSON: (&str, &str) = ("Content-Type", "application/json");

/// A request with these headers alone.
pub fn call(addr: &str, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    let mut stream = TcpStream::connect(addr).unwrap();
    let mut head = format!("{method} {path} HTTP/1.0\r\nContent-Length: {}\r\n", body.len());
    headers.iter().for_each(|(name, value)| head += &format!("{name}: {value}\r\n"));
    // Who refuses a body may not read all of it.
    let _ = stream.write_all(&[head.as_bytes(), b"\r\n", body].concat());
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{answer:?}"));
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let (first, rest) = head.split_once("\r\n").unwrap_or((head, ""));
    let head = format!("{first}\n{}", rest.replace("\r\n", "\n")).to_lowercase();
    let (body, text) = (serde_json::from_str(body).unwrap_or_default(), body.to_owned());
    Answer { status, head, body, text }
}
