//! Places in a parsed document: what stands at a byte, and at which line a key stands.

use std::ops::Range;

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

/// Line numbers of a text.
pub struct Lines<'a> {
    text: &'a str,
    starts: Vec<usize>,
}

impl<'a> Lines<'a> {
    pub fn new(text: &'a str) -> Self {
        let starts =
            std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Self { text, starts }
    }

    /// The line of a byte, counted from 1.
    pub fn of(&self, byte: usize) -> usize {
        // An error at the end of the file is one of its last line, not of the empty one behind.
        let last = self.text.trim_end().len().saturating_sub(1);
        self.starts.partition_point(|start| *start <= byte.min(last))
    }

    /// Whether a line begins a section, or tries to.
    pub fn is_header(&self, line: usize) -> bool {
        self.line(line).starts_with('[')
    }

    /// The dotted key of a line that cannot be parsed, and what stands behind its `=`.
    pub fn statement(&self, line: usize) -> (String, Option<&'a str>) {
        if self.is_header(line) {
            return (name(self.line(line)), None);
        }
        let (key, value) = match self.line(line).split_once('=') {
            Some((key, value)) => (name(key), Some(value.trim())),
            None => (String::new(), None),
        };
        match (1..line).rev().find(|above| self.is_header(*above)) {
            Some(header) if !key.is_empty() => {
                (format!("{}.{key}", name(self.line(header))), value)
            }
            _ => (key, value),
        }
    }

    fn line(&self, line: usize) -> &'a str {
        let start = self.starts.get(line.wrapping_sub(1));
        let rest = start.and_then(|start| self.text.get(*start..)).unwrap_or_default();
        rest.lines().next().unwrap_or_default().trim()
    }
}

fn name(key: &str) -> String {
    key.trim().trim_matches(['[', ']', '"']).to_owned()
}

/// Path of the innermost entry whose key or value stands at `span`; an index stands for an item
/// of a list.
pub fn enclosing(table: &DeTable<'_>, span: &Range<usize>) -> Option<Vec<String>> {
    table.iter().find_map(|(key, value)| {
        let mut path = vec![key.get_ref().to_string()];
        if let Some(deeper) = enclosing_value(value, span) {
            path.extend(deeper);
            return Some(path);
        }
        (holds(&key.span(), span) || holds(&value.span(), span)).then_some(path)
    })
}

fn enclosing_value(value: &Spanned<DeValue<'_>>, span: &Range<usize>) -> Option<Vec<String>> {
    match value.get_ref() {
        DeValue::Table(table) => enclosing(table, span),
        DeValue::Array(items) => items.iter().enumerate().find_map(|(i, item)| {
            let index = vec![i.to_string()];
            match enclosing_value(item, span) {
                Some(deeper) => Some([index, deeper].concat()),
                None => holds(&item.span(), span).then_some(index),
            }
        }),
        _ => None,
    }
}

fn holds(outer: &Range<usize>, inner: &Range<usize>) -> bool {
    outer.start <= inner.start && inner.end <= outer.end
}

/// Takes the entry at `path` out.
pub fn remove(table: &mut DeTable<'_>, path: &[String]) {
    let Some((first, rest)) = path.split_first() else { return };
    if rest.is_empty() {
        table.remove(first.as_str());
    } else if let Some((_, value)) = table.iter_mut().find(|(key, _)| key.get_ref() == first) {
        remove_in_value(value.get_mut(), rest);
    }
}

fn remove_in_value(value: &mut DeValue<'_>, path: &[String]) {
    match value {
        DeValue::Table(table) => remove(table, path),
        DeValue::Array(items) => {
            let Some((index, rest)) = path.split_first() else { return };
            let Ok(index) = index.parse::<usize>() else { return };
            if rest.is_empty() {
                let kept = items.iter().enumerate().filter(|(i, _)| *i != index);
                *items = kept.map(|(_, item)| item.clone()).collect();
            } else if let Some(item) = items.get_mut(index) {
                remove_in_value(item.get_mut(), rest);
            }
        }
        _ => {}
    }
}

/// The line of a dotted key; where it is not in the file, that of the section it would be in.
pub fn line_of(text: &str, key: &str) -> Option<usize> {
    let (document, _) = DeTable::parse_recoverable(text);
    let at = place(document.get_ref(), key)?;
    Some(Lines::new(text).of(at))
}

/// A key may hold dots itself (a user's name): the longest that fits is the one.
fn place(table: &DeTable<'_>, key: &str) -> Option<usize> {
    let fits = |name: &str| {
        let rest = key.strip_prefix(name)?;
        if rest.is_empty() { Some(rest) } else { rest.strip_prefix('.') }
    };
    let (name, value, rest) = table
        .iter()
        .filter_map(|(name, value)| Some((name, value, fits(name.get_ref())?)))
        .max_by_key(|(name, ..)| name.get_ref().len())?;
    let deeper = match value.get_ref() {
        DeValue::Table(table) => place(table, rest),
        DeValue::Array(items) => {
            rest.parse::<usize>().ok().and_then(|i| items.get(i)).map(|item| item.span().start)
        }
        _ => None,
    };
    deeper.or_else(|| (!rest.contains('.')).then_some(name.span().start))
}
