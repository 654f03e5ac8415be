//! Text to raw structs, with everything that is wrong rather than the first of it.
//!
//! serde stops at its first error. So the offending entry is noted, taken out of the parsed
//! document, and the rest is tried again, until it fits.

use std::ops::Range;

use serde::de::DeserializeOwned;
use toml::{
    Spanned,
    de::{DeTable, Deserializer},
};

use super::{
    document::{Lines, enclosing, remove},
    message,
};

/// Enough for anyone to mend in one go; a file of another format would fill the screen otherwise.
const MAX_PROBLEMS: usize = 100;

/// Something wrong at a place of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Misfit {
    /// Counted from 1.
    pub line: usize,
    /// Dotted; empty where the line has none.
    pub key: String,
    /// What is wrong and what would be right.
    pub problem: String,
}

/// What of `text` fits `T`, and what does not.
pub fn parse<T: DeserializeOwned + Default>(text: &str) -> (T, Vec<Misfit>) {
    let lines = Lines::new(text);
    let (mut document, errors) = DeTable::parse_recoverable(text);
    let mut misfits: Vec<Misfit> = Vec::new();
    for error in errors {
        let line = lines.of(error.span().map_or(0, |span| span.start));
        // One slip makes the parser stumble several times.
        if misfits.len() < MAX_PROBLEMS && misfits.last().is_none_or(|last| last.line != line) {
            let (key, value) = lines.statement(line);
            misfits.push(Misfit { line, key, problem: message::syntax(error.message(), value) });
        }
    }
    // Below a broken header, which keys are known is anyone's guess.
    if misfits.iter().any(|m| lines.is_header(m.line)) {
        return (T::default(), sorted(misfits));
    }
    let broken: Vec<usize> = misfits.iter().map(|m| m.line).collect();
    while misfits.len() < MAX_PROBLEMS {
        let error = match T::deserialize(Deserializer::from(document.clone())) {
            Ok(fits) => return (fits, sorted(misfits)),
            Err(error) => error,
        };
        let span = error.span().unwrap_or_default();
        let Some(found) = take_out(&mut document, &span) else {
            misfits.push(Misfit {
                line: lines.of(span.start),
                key: String::new(),
                problem: error.message().to_owned(),
            });
            break;
        };
        let line = lines.of(span.start);
        // What the parser made of a broken line is no second mistake.
        if !broken.contains(&line) {
            misfits.push(Misfit {
                line,
                problem: message::data(error.message(), &found),
                key: found.join("."),
            });
        }
    }
    (T::default(), sorted(misfits))
}

fn sorted(mut misfits: Vec<Misfit>) -> Vec<Misfit> {
    misfits.sort_by_key(|m| m.line);
    misfits.truncate(MAX_PROBLEMS);
    misfits
}

/// Removes the entry that `span` is of; gives its path.
fn take_out(document: &mut Spanned<DeTable<'_>>, span: &Range<usize>) -> Option<Vec<String>> {
    let path = enclosing(document.get_ref(), span)?;
    remove(document.get_mut(), &path);
    // The index in a list shifts as items are taken out: the line says which it was.
    Some(path.into_iter().filter(|part| part.parse::<usize>().is_err()).collect())
}
