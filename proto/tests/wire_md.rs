//! WIRE.md and the code say the same.
//!
//! `UPDATE_WIRE=1 cargo test -p edgeway-proto --test wire_md` writes the examples of the page anew.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::{collections::BTreeMap, fmt::Write as _};

use bytes::{Bytes, BytesMut};
use common::{
    encoded, examples, hex, name,
    page::{self, Annotator, FrameTable},
};
use edgeway_proto::{
    Class, CloseCode, ErrorCode, Frame, Lane, Rest, Return, Seq, Text, frame,
    frame::{Hello, Join, Joined, LaneStart, LoggedIn, Login, Open, Opened, Send, Welcome, param},
    record, varint,
};

/// What the page calls a type of the code.
fn page_type(code: &str) -> &str {
    match code {
        "u64" => "int",
        "u64 as session" => "session",
        "Class" | "Class as low" => "class",
        "AckStatus" => "status",
        "Seq" => "position",
        "Text" => "text",
        "Text as name" => "name",
        "Bytes" => "bytes",
        "Rest" => "rest",
        "Vec<(u64, u64)>" => "list of (int, int)",
        "Vec<(Text, Text)>" => "list of (text, text)",
        "Vec<(Class, Seq)> as positions" => "list of (class, position)",
        "Vec<(Seq, u64)>" => "list of (position, int)",
        "Vec<Text> as names" => "list of name",
        other => panic!("WIRE.md has no name for the type `{other}`"),
    }
}

#[test]
fn every_frame_has_the_fields_that_the_page_says() {
    let page: Vec<_> = page::frames().into_iter().map(|t| (t.kind, t.name, t.fields)).collect();
    let owned = |(n, t): &(&str, &str)| ((*n).to_owned(), page_type(t).to_owned());
    let code: Vec<_> = Frame::LAYOUT
        .iter()
        .map(|(kind, name, fields)| {
            (*kind, (*name).to_owned(), fields.iter().map(owned).collect::<Vec<_>>())
        })
        .collect();
    assert_eq!(page, code);
}

const fn again(may_return: Return) -> &'static str {
    match may_return {
        Return::No => "no",
        Return::Now => "at once",
        Return::Backoff => "backoff",
    }
}

/// (number, name, again) of the table in the section that begins with `heading`.
fn codes(heading: &str) -> Vec<(u64, String, String)> {
    let section = page::TEXT.split_once(heading).unwrap().1.split_once("\n## ").unwrap().0;
    section
        .lines()
        .filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |"))
        .map(|row| row.split(" | ").collect::<Vec<_>>())
        .filter(|cells| cells[0] != "code")
        .map(|c| (c[0].parse().unwrap(), c[1].to_owned(), c[3].to_owned()))
        .collect()
}

#[test]
fn the_tables_of_codes_are_those_of_the_code() {
    let close: Vec<_> = CloseCode::ALL
        .iter()
        .map(|c| (c.code(), c.name().to_owned(), again(c.may_return()).to_owned()))
        .collect();
    assert_eq!(codes("## 14. Close codes"), close);
    let error: Vec<_> = ErrorCode::ALL
        .iter()
        .map(|c| (c.code(), c.name().to_owned(), again(c.may_return()).to_owned()))
        .collect();
    assert_eq!(codes("## 15. Error codes"), error);
    assert_eq!(again(CloseCode::Other(999).may_return()), "backoff");
}

/// Names and values of `pub const NAME: type = product;` in a source file.
fn constants(source: &str) -> Vec<(String, u64)> {
    source
        .lines()
        .filter_map(|line| line.trim().strip_prefix("pub const ")?.split_once(": "))
        .filter_map(|(name, rest)| {
            let value = rest.split_once("= ")?.1.strip_suffix(';')?;
            // FRAME_BODY_BYTES + 16, 64 * 1024, 62
            let sum = value.split(" + ").map(|term| {
                term.split(" * ")
                    .map(|factor| match factor {
                        "FRAME_BODY_BYTES" => edgeway_proto::limits::FRAME_BODY_BYTES as u64,
                        number => number.parse().unwrap(),
                    })
                    .product::<u64>()
            });
            Some((name.to_owned(), sum.sum()))
        })
        .collect()
}

#[test]
fn the_table_of_limits_is_that_of_the_code() {
    let code: BTreeMap<_, _> = constants(include_str!("../src/limits.rs")).into_iter().collect();
    assert_eq!(code["RECORD_BYTES"], edgeway_proto::limits::RECORD_BYTES as u64);
    let page: BTreeMap<_, _> = page::table("| limit | value | of what, and what happens above |")
        .into_iter()
        .map(|row| (row[0].clone(), row[1].parse().unwrap()))
        .collect();
    assert_eq!(page, code);
}

#[test]
fn the_table_of_parameters_is_that_of_the_code() {
    let source = include_str!("../src/frame.rs");
    let module = source.split_once("pub mod param {").unwrap().1.split_once("\n}").unwrap().0;
    let page: Vec<(String, u64)> = page::table("| number | name | sent by | value | when absent |")
        .into_iter()
        .map(|row| (row[1].clone(), row[0].parse().unwrap()))
        .collect();
    assert_eq!(page, constants(module));
    assert!(page::TEXT.contains(&format!("`{}`", std::str::from_utf8(frame::ALPN).unwrap())));
}

fn annotated_frames(tables: &[FrameTable], bytes: &[u8]) -> String {
    let mut annotator = Annotator::new(tables, bytes);
    annotator.frames();
    annotator.out
}

fn annotated_records(tables: &[FrameTable], records: &[(Lane, Bytes)]) -> String {
    let mut stream = BytesMut::new();
    for (lane, frames) in records {
        record::put_header(&mut stream, *lane, frames.len());
        stream.extend_from_slice(frames);
    }
    let mut annotator = Annotator::new(tables, &stream);
    annotator.records();
    annotator.out
}

fn frames(frames: &[Frame]) -> Bytes {
    frames.iter().flat_map(encoded).collect::<Vec<u8>>().into()
}

fn integers() -> String {
    let mut out = String::new();
    for value in [0, 37, 63, 64, 15_293, 16_384, 494_878_333, 151_288_809_941_952_652, varint::MAX]
    {
        let mut bytes = Vec::new();
        varint::put(&mut bytes, value);
        let _ = writeln!(out, "{:30}  {value}", hex(&bytes));
    }
    let _ = writeln!(out, "{:30}  37, not in its shortest form", hex(&[0x40, 0x25]));
    assert_eq!(varint::get(&[0x40, 0x25]), Some((37, 2)));
    out
}

fn first_flight() -> [Bytes; 2] {
    let text = Text::from_static;
    let hello =
        Hello { version_min: 1, version_max: 1, agent: text("demo/1.0"), ..Hello::default() };
    let login = Login { user: text("ada"), device: text("phone-1"), ..Login::default() };
    let open = Open { session: 1, kind: text("chat"), headers: Vec::new() };
    let join = Join { request: 1, room: text("maths"), ..Join::default() };
    [frames(&[hello.into(), login.into()]), frames(&[open.into(), join.into()])]
}

fn answer() -> [Bytes; 2] {
    let welcome = Welcome {
        version: 1,
        connection: 9001,
        time_ms: 1_760_000_000_000,
        params: vec![(param::IDLE_MS, 60_000), (param::SESSIONS, 8)],
    };
    let logged_in =
        LoggedIn { user: Text::from_static("ada"), generation: 1, ..LoggedIn::default() };
    let joined = Joined {
        request: 1,
        room: Text::from_static("maths"),
        group: 7,
        members: 1,
        presence_version: 1,
        classes: vec![(Seq::new(1, 0), 0); 3],
        state: Rest::default(),
    };
    [
        frames(&[welcome.into(), logged_in.into()]),
        frames(&[Opened { session: 1 }.into(), joined.into()]),
    ]
}

#[test]
fn wire_examples() {
    let tables = page::frames();
    let mut blocks = BTreeMap::from([("integers".to_owned(), integers())]);
    for frame in examples() {
        blocks.insert(name(&frame).to_owned(), annotated_frames(&tables, &encoded(&frame)));
    }
    let signal = Lane::new(1, Class::Signal);
    let on_tcp = |[control, session]: [Bytes; 2]| {
        annotated_records(&tables, &[(Lane::CONTROL, control), (signal, session)])
    };
    blocks.insert("first flight on TCP".into(), on_tcp(first_flight()));
    blocks.insert("answer on TCP".into(), on_tcp(answer()));
    let legacy = annotated_frames(&tables, &first_flight().concat());
    blocks.insert("first flight on legacy TCP".into(), legacy);
    let payload = Rest(Bytes::from_static(b"hello"));
    let send = Send { group: 7, class: Class::Chat, id: 1, payload, ..Send::default() };
    let records = [(Lane::new(1, Class::Chat), send.to_bytes())];
    blocks.insert("first chat message on TCP".into(), annotated_records(&tables, &records));
    let start = LaneStart { session: 1, class: Class::Chat };
    let stream = frames(&[start.into(), send.into()]);
    blocks.insert("first chat message on QUIC".into(), annotated_frames(&tables, &stream));

    let page = page::with_examples(&blocks);
    if std::env::var_os("UPDATE_WIRE").is_some() {
        std::fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/WIRE.md"), &page).unwrap();
    } else {
        assert!(page == page::TEXT, "WIRE.md's examples are old: set UPDATE_WIRE=1 and run again");
    }
}
