//! The list of words: one a line.

/// Words of a list at most: about 100 MB of memory.
pub const WORDS_MAX: usize = 1_000_000;

/// What is done with a message that has a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Action {
    /// Its letters are covered.
    Mask,
    /// The sender believes that it was sent, and nobody gets it.
    Silent,
    /// The sender is told that it was not sent.
    Reject,
}

impl Action {
    /// All of them, in words.
    pub const NAMES: &str = "mask, reject and silent";

    /// By its name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "mask" => Some(Self::Mask),
            "silent" => Some(Self::Silent),
            "reject" => Some(Self::Reject),
            _ => None,
        }
    }
}

/// What holds for words of which their line does not say another thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WordOptions {
    /// What is done.
    pub action: Action,
    /// Whether words of scripts that write words apart are found only as whole words, so that Scunthorpe is a town.
    pub whole_words: bool,
}

impl Default for WordOptions {
    fn default() -> Self {
        Self { action: Action::Mask, whole_words: true }
    }
}

/// What is wrong with a list.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {problem}")]
pub struct ListProblem {
    /// From 1; 0 where it is of the whole.
    pub line: usize,
    /// What is wrong, and what would be right.
    pub problem: String,
}

/// A line of the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line<'a> {
    pub(crate) number: usize,
    pub(crate) word: &'a str,
    pub(crate) action: Action,
    /// Whether something may stand before or after it that belongs to the same word.
    pub(crate) open: (bool, bool),
}

/// The lines of a list. Empty ones, and those that begin with `#`, say nothing.
pub(crate) fn lines(text: &str, options: WordOptions) -> impl Iterator<Item = Line<'_>> {
    text.lines().enumerate().filter_map(move |(at, line)| {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            return None;
        }
        let (action, word) = match line.split_once(':') {
            Some((name, word)) => match Action::parse(name.trim()) {
                Some(action) => (action, word.trim()),
                None => (options.action, line),
            },
            None => (options.action, line),
        };
        let (before, word) = word.strip_prefix('*').map_or((false, word), |word| (true, word));
        let (after, word) = word.strip_suffix('*').map_or((false, word), |word| (true, word));
        let all = !options.whole_words;
        Some(Line { number: at + 1, word, action, open: (before || all, after || all) })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_may_say_what_is_done_and_which_ends_are_open() {
        let text = "# list\n\nbad\nreject: worse \n*ish*\nsilent:fu*\nno: such action\n";
        let lines: Vec<_> = lines(text, WordOptions::default())
            .map(|l| (l.number, l.word, l.action, l.open))
            .collect();
        let expected = [
            (3, "bad", Action::Mask, (false, false)),
            (4, "worse", Action::Reject, (false, false)),
            (5, "ish", Action::Mask, (true, true)),
            (6, "fu", Action::Silent, (false, true)),
            (7, "no: such action", Action::Mask, (false, false)),
        ];
        assert_eq!(lines, expected);
    }
}
