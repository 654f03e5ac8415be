//! What is told of a config that is wrong.

use std::{fmt, path::PathBuf};

use super::{EXAMPLE, File, Misfit, Problem, document};

/// Why a config is not used.
#[derive(Debug, thiserror::Error)]
pub enum BadConfig {
    /// There is no file, or it may not be read.
    #[error("cannot read {}: {source}; {EXAMPLE} is one to start from", .path.display())]
    Unreadable { path: PathBuf, source: std::io::Error },
    /// It can be read and is wrong.
    #[error("{0}")]
    Wrong(Report),
}

/// Everything that is wrong, in the order of the file; then what is not in the file.
#[derive(Debug)]
pub struct Report {
    lines: Vec<(Option<usize>, String)>,
}

impl Report {
    /// How many problems there are.
    pub fn len(&self) -> usize {
        self.lines.len()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (_, line)) in self.lines.iter().enumerate() {
            let end = if i + 1 < self.lines.len() { "\n" } else { "" };
            write!(f, "{line}{end}")?;
        }
        Ok(())
    }
}

impl File {
    pub(super) fn report(&self, problems: &[Problem]) -> Report {
        let misfits = self.misfits.iter().map(|m| {
            let key = if m.key.is_empty() { String::new() } else { format!("{}: ", m.key) };
            (Some(m.line), format!("{}:{}: {key}{}", self.name(), m.line, m.problem))
        });
        let judged = problems.iter().filter(|p| !self.is_misfit(&p.key));
        let problems = judged.map(|p| self.line(p));
        let mut lines: Vec<_> = misfits.chain(problems).collect();
        lines.sort_by_key(|(line, _)| line.unwrap_or(usize::MAX));
        Report { lines }
    }

    /// Whether it is told already that this key, or the list it is an item of, does not fit: what
    /// was left of it is not judged.
    fn is_misfit(&self, key: &str) -> bool {
        let list = key.rsplit_once('.').filter(|(_, index)| index.parse::<usize>().is_ok());
        let is_it = |m: &Misfit| m.key == key || list.is_some_and(|(list, _)| m.key == list);
        self.misfits.iter().any(is_it)
    }

    /// A problem with where it comes from: a flag, a line, or a default.
    fn line(&self, p: &Problem) -> (Option<usize>, String) {
        let Problem { key, problem } = p;
        if let Some(flag) = self.flags.get(key.as_str()) {
            return (None, format!("{flag}: {problem}"));
        }
        match (document::line_of(&self.text, key), &self.path) {
            (Some(line), _) => (Some(line), format!("{}:{line}: {key}: {problem}", self.name())),
            (None, Some(_)) => (None, format!("{}: {key}: {problem}", self.name())),
            (None, None) => (None, format!("{key}: {problem}")),
        }
    }

    fn name(&self) -> String {
        self.path.as_ref().map_or_else(String::new, |path| path.display().to_string())
    }
}
