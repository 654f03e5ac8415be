//! All words of the list in one pass over a message.

use aho_corasick::{AhoCorasick, MatchKind};

use super::{
    letters::{Gap, Letters},
    list::{Action, Line, ListProblem, WORDS_MAX, WordOptions, lines},
};

/// Letters of a word at most.
const LETTERS_MAX: usize = 256;

/// A list that is ready.
#[derive(Debug, Default)]
pub struct Words {
    /// None of an empty list.
    automaton: Option<AhoCorasick>,
    /// By number of the pattern.
    words: Vec<Word>,
    len: usize,
}

#[derive(Debug, Clone, Copy)]
struct Word {
    action: Action,
    /// Whether a letter may stand before and after it.
    open: (bool, bool),
}

/// Words that a message has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    action: Action,
    /// The letters of those that are to be covered, by place in the original.
    places: Vec<(u32, u32)>,
}

impl Words {
    /// Of a list, one word a line (`docs/FILTER.md`).
    ///
    /// # Errors
    /// The first line that is wrong.
    pub fn parse(text: &str, options: WordOptions) -> Result<Self, ListProblem> {
        let (mut patterns, mut words) = (Vec::new(), Vec::new());
        for Line { number, word, action, open } in lines(text, options) {
            let wrong = |problem: String| ListProblem { line: number, problem };
            let letters = Letters::of(word.as_bytes());
            if letters.letters.is_empty() {
                return Err(wrong(format!(
                    "`{word}` has no letters or digits, which is all that is looked at"
                )));
            }
            if letters.letters.len() > LETTERS_MAX {
                return Err(wrong(format!("a word may have {LETTERS_MAX} letters")));
            }
            if words.len() >= WORDS_MAX {
                return Err(wrong(format!("a list may have {WORDS_MAX} words")));
            }
            patterns.push(letters.text);
            words.push(Word { action, open });
        }
        if patterns.is_empty() {
            return Ok(Self::default());
        }
        let automaton = AhoCorasick::builder()
            // A word that is no whole one must not hide another that is.
            .match_kind(MatchKind::Standard)
            .build(&patterns)
            .map_err(|e| ListProblem { line: 0, problem: e.to_string() })?;
        let len = words.len();
        Ok(Self { automaton: Some(automaton), words, len })
    }

    /// How many words there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The words that a message has; `None` where it has none.
    #[must_use]
    pub fn find(&self, payload: &[u8]) -> Option<Found> {
        let automaton = self.automaton.as_ref()?;
        let letters = Letters::of(payload);
        let mut found: Option<Found> = None;
        for hit in automaton.find_overlapping_iter(&letters.text) {
            let word = self.words[hit.pattern().as_usize()];
            let first = letters.of_byte[hit.start()] as usize;
            // In UTF-8 a word ends where a letter ends.
            let last = letters.of_byte[hit.end() - 1] as usize;
            let text = &letters.text[hit.start()..hit.end()];
            if !is_word(&letters, first, last, word.open)
                || is_contraction(&letters, first, last, text)
            {
                continue;
            }
            let found = found.get_or_insert(Found { action: word.action, places: Vec::new() });
            found.action = found.action.max(word.action);
            if found.action == Action::Reject {
                // Nothing is stronger.
                break;
            }
            let places = letters.letters[first..=last].iter();
            found.places.extend(places.map(|letter| (letter.start, letter.end)));
        }
        found
    }
}

/// Whether letters that are a word of the list stand there as one.
fn is_word(letters: &Letters, first: usize, last: usize, open: (bool, bool)) -> bool {
    let all = &letters.letters;
    let is_joined = |left: usize, right: usize| {
        all[right].gap == Gap::None && all[left].spaced && all[right].spaced
    };
    // Half of a letter is none: ﬁ has an i, and ß an s.
    let splits = |left: usize, right: usize| all[left].start == all[right].start;
    if first > 0 && (splits(first - 1, first) || (!open.0 && is_joined(first - 1, first))) {
        return false;
    }
    if last + 1 < all.len() && (splits(last, last + 1) || (!open.1 && is_joined(last, last + 1))) {
        return false;
    }
    is_one_word(&all[first..=last])
}

/// Whether letters end with what an apostrophe joins to a word: he'll is no hell.
fn is_contraction(letters: &Letters, first: usize, last: usize, text: &[u8]) -> bool {
    const ENDS: [&[u8]; 7] = [b"ll", b"re", b"ve", b"s", b"d", b"m", b"t"];
    let gap = (first + 1..=last).rev().find(|at| letters.letters[*at].gap != Gap::None);
    gap.is_some_and(|at| {
        let end = text.len().saturating_sub(last + 1 - at);
        letters.letters[at].gap == Gap::Apostrophe && ENDS.contains(&&text[end..])
    })
}

/// Where words are written apart, a space ends one; but single letters apart from each other are a word that is
/// spelled out: of two parts one of another word may be the end of, of more none has more than two letters.
fn is_one_word(word: &[super::letters::Letter]) -> bool {
    let (mut parts, mut longest, mut len) = (1, 0, 1);
    for letter in &word[1..] {
        if letter.gap == Gap::Space && letter.spaced {
            longest = longest.max(len);
            (parts, len) = (parts + 1, 1);
        } else {
            len += 1;
        }
    }
    longest = longest.max(len);
    match parts {
        1 => true,
        2 => longest == 1,
        _ => longest <= 2,
    }
}

impl Found {
    /// The strongest of what their words ask for.
    #[must_use]
    pub const fn action(&self) -> Action {
        self.action
    }

    /// The message with each letter of its words covered; what stands between them stays.
    #[must_use]
    pub fn mask(mut self, payload: &[u8]) -> Vec<u8> {
        self.places.sort_unstable();
        self.places.dedup();
        let mut masked = Vec::with_capacity(payload.len());
        let mut at = 0;
        for (start, end) in self.places {
            let (start, end) = (start as usize, end as usize);
            masked.extend_from_slice(&payload[at..start]);
            masked.push(b'*');
            at = end;
        }
        masked.extend_from_slice(&payload[at..]);
        masked
    }
}
