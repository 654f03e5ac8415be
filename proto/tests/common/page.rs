//! WIRE.md, read: its tables and examples; and a reader of frames that knows nothing but them.

use std::{collections::BTreeMap, fmt::Write as _};

use edgeway_proto::varint;

use super::hex;

/// The page as it is in the repository.
pub const TEXT: &str = include_str!("../../WIRE.md");

/// The fields of a frame: names and types, in order.
pub struct FrameTable {
    pub kind: u8,
    pub name: String,
    pub fields: Vec<(String, String)>,
}

/// Every section `### Name 0xkind` with its table of fields.
pub fn frames() -> Vec<FrameTable> {
    let mut frames: Vec<FrameTable> = Vec::new();
    for line in TEXT.lines() {
        if let Some((name, kind)) = line.strip_prefix("### ").and_then(|h| h.split_once(" 0x")) {
            let kind = u8::from_str_radix(kind, 16).expect("a kind in hex");
            frames.push(FrameTable { kind, name: name.into(), fields: Vec::new() });
        } else if line.starts_with("## ") && !frames.is_empty() {
            break;
        } else if let (Some(frame), Some(cells)) = (frames.last_mut(), cells(line))
            && cells[0] != "field"
        {
            frame.fields.push((cells[0].clone(), cells[1].clone()));
        }
    }
    frames
}

/// The rows of the table whose header is `header`.
pub fn table(header: &str) -> Vec<Vec<String>> {
    let mut lines = TEXT.lines().skip_while(|line| *line != header);
    assert!(lines.next().is_some(), "WIRE.md has a table {header}");
    lines.skip(1).map_while(cells).collect()
}

/// The cells of a row; none for a line that is no row, or is the rule below the header.
fn cells(line: &str) -> Option<Vec<String>> {
    let row = line.strip_prefix("| ")?.strip_suffix(" |")?;
    Some(row.split(" | ").map(str::to_owned).collect())
}

/// The page with the content of each block ```` ```hex name ```` put in anew.
pub fn with_examples(examples: &BTreeMap<String, String>) -> String {
    let mut out = String::new();
    let mut seen = Vec::new();
    let mut lines = TEXT.lines();
    while let Some(line) = lines.next() {
        let _ = writeln!(out, "{line}");
        if let Some(name) = line.strip_prefix("```hex ") {
            out.push_str(examples.get(name).unwrap_or_else(|| panic!("no example `{name}`")));
            seen.push(name.to_owned());
            lines.by_ref().find(|line| *line == "```").expect("a block ends");
            out.push_str("```\n");
        }
    }
    for name in examples.keys() {
        assert!(seen.contains(name), "WIRE.md shows the example `{name}`");
    }
    out
}

/// Writes bytes out, part by part, as the tables of the page say.
pub struct Annotator<'a> {
    tables: &'a [FrameTable],
    input: &'a [u8],
    pub out: String,
    indent: usize,
}

impl<'a> Annotator<'a> {
    pub fn new(tables: &'a [FrameTable], input: &'a [u8]) -> Self {
        Self { tables, input, out: String::new(), indent: 0 }
    }

    /// All records of the input.
    pub fn records(&mut self) {
        while !self.input.is_empty() {
            let lane = self.take(1);
            let (session, class) =
                (lane[0] >> 2, ["signal", "binary", "chat"][usize::from(lane[0] & 3)]);
            let what = match session {
                0 => "control lane".into(),
                n => format!("Session {n}, {class}"),
            };
            self.line(lane, &format!("record: {what}"));
            let (len, bytes) = self.int();
            self.line(bytes, &format!("length {len}"));
            let rest = self.split(len);
            self.indent += 2;
            self.frames();
            self.indent -= 2;
            self.input = rest;
        }
    }

    /// All frames of the input.
    pub fn frames(&mut self) {
        while !self.input.is_empty() {
            let kind = self.take(1);
            let table = self.tables.iter().find(|t| t.kind == kind[0]).expect("a kind of the page");
            self.line(kind, &table.name);
            let (len, bytes) = self.int();
            self.line(bytes, &format!("length {len}"));
            let rest = self.split(len);
            self.indent += 2;
            for (name, of_type) in &table.fields {
                self.field(name, of_type);
            }
            self.indent -= 2;
            assert!(self.input.is_empty(), "the table of {} has all fields", table.name);
            self.input = rest;
        }
    }

    fn field(&mut self, name: &str, of_type: &str) {
        if of_type == "rest" {
            return self.rest(name);
        }
        let Some(item) = of_type.strip_prefix("list of ") else {
            let (value, bytes) = self.value(of_type);
            return self.line(bytes, &format!("{name}: {value}"));
        };
        let (count, bytes) = self.int();
        self.line(bytes, &format!("{name}: {count} items"));
        self.indent += 2;
        for _ in 0..count {
            let (value, bytes) = self.value(item);
            self.line(bytes, &value);
        }
        self.indent -= 2;
    }

    fn rest(&mut self, name: &str) {
        if matches!(name, "state" | "messages") {
            self.line(&[], &format!("{name}: frames"));
            self.indent += 2;
            self.frames();
            self.indent -= 2;
        } else {
            let bytes = self.take(self.input.len());
            self.line(bytes, &format!("{name}: {:?}", String::from_utf8_lossy(bytes)));
        }
    }

    fn value(&mut self, of_type: &str) -> (String, &'a [u8]) {
        let start = self.input;
        let value = match of_type {
            "int" | "session" => self.int().0.to_string(),
            "class" => ["signal", "binary", "chat"][usize::from(self.take(1)[0])].into(),
            "status" => self.take(1)[0].to_string(),
            "position" => format!("{}-{}", self.int().0, self.int().0),
            "text" | "name" | "bytes" => {
                let (len, _) = self.int();
                let bytes = self.take(usize::try_from(len).expect("a length"));
                format!("{:?}", std::str::from_utf8(bytes).expect("UTF-8"))
            }
            pair => {
                let (a, b) = pair
                    .strip_prefix('(')
                    .and_then(|p| p.strip_suffix(')')?.split_once(", "))
                    .unwrap_or_else(|| panic!("a type of the page, not `{pair}`"));
                format!("({}, {})", self.value(a).0, self.value(b).0)
            }
        };
        (value, &start[..start.len() - self.input.len()])
    }

    fn int(&mut self) -> (u64, &'a [u8]) {
        let (value, len) = varint::get(self.input).expect("a number");
        (value, self.take(len))
    }

    fn take(&mut self, len: usize) -> &'a [u8] {
        let (taken, rest) = self.input.split_at(len);
        self.input = rest;
        taken
    }

    /// Leaves `len` bytes to read; what comes after them is given back.
    fn split(&mut self, len: u64) -> &'a [u8] {
        let (taken, rest) = self.input.split_at(usize::try_from(len).expect("a length"));
        self.input = taken;
        rest
    }

    fn line(&mut self, bytes: &[u8], text: &str) {
        let mut text = text;
        for part in bytes.chunks(10).chain(bytes.is_empty().then_some(&[][..])) {
            let line = format!("{:indent$}{:30}  {text}", "", hex(part), indent = self.indent);
            let _ = writeln!(self.out, "{}", line.trim_end());
            text = "";
        }
    }
}
