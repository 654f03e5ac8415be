//! Messages as words are looked for in them: letters alone, in one form each, with the place that each has in the
//! original.

use unicode_normalization::char::{decompose_compatible, is_combining_mark};

/// What stands between a letter and the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Gap {
    /// Nothing that a reader sees.
    None,
    /// An apostrophe, as in he'll.
    Apostrophe,
    /// Signs, but no space.
    Signs,
    /// A space, and maybe signs.
    Space,
}

impl Gap {
    /// Of what is no letter.
    fn of(c: char) -> Self {
        match c {
            '\'' | '\u{2019}' => Self::Apostrophe,
            c if c.is_whitespace() => Self::Space,
            _ => Self::Signs,
        }
    }
}

/// A letter (or digit) of the text.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Letter {
    /// Where it is in the original, in bytes: a letter may come of one that is written as several.
    pub(crate) start: u32,
    pub(crate) end: u32,
    /// Before it.
    pub(crate) gap: Gap,
    /// Whether its script writes words apart.
    pub(crate) spaced: bool,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Letters {
    /// In UTF-8.
    pub(crate) text: Vec<u8>,
    pub(crate) letters: Vec<Letter>,
    /// For each byte of `text` its letter.
    pub(crate) of_byte: Vec<u32>,
}

impl Letters {
    /// Of bytes, of which those that are no UTF-8 are signs.
    pub(crate) fn of(payload: &[u8]) -> Self {
        let mut letters = Self {
            text: Vec::with_capacity(payload.len()),
            letters: Vec::with_capacity(payload.len()),
            of_byte: Vec::with_capacity(payload.len()),
        };
        let (mut at, mut gap) = (0u32, Gap::Space);
        for chunk in payload.utf8_chunks() {
            for c in chunk.valid().chars() {
                let end = at + u32::try_from(c.len_utf8()).unwrap_or(0);
                letters.take(c, at, end, &mut gap);
                at = end;
            }
            if !chunk.invalid().is_empty() {
                at += u32::try_from(chunk.invalid().len()).unwrap_or(0);
                gap = gap.max(Gap::Signs);
            }
        }
        letters
    }

    fn take(&mut self, c: char, start: u32, end: u32, gap: &mut Gap) {
        if c.is_ascii() {
            if c.is_ascii_alphanumeric() {
                self.put(c.to_ascii_lowercase(), start, end, gap);
            } else {
                *gap = (*gap).max(Gap::of(c));
            }
            return;
        }
        if ('\u{4e00}'..='\u{9fff}').contains(&c) {
            // Most of Chinese: has one form.
            return self.put(c, start, end, gap);
        }
        if is_invisible(c) {
            return;
        }
        decompose_compatible(c, |part| {
            if is_accent(part) {
                return;
            }
            for part in part.to_lowercase() {
                match part {
                    'ß' => {
                        self.put('s', start, end, gap);
                        self.put('s', start, end, gap);
                    }
                    'ς' => self.put('σ', start, end, gap),
                    // What lower case leaves of İ.
                    part if is_accent(part) => {}
                    part if part.is_alphanumeric() || is_combining_mark(part) => {
                        self.put(part, start, end, gap);
                    }
                    part => {
                        *gap = (*gap).max(Gap::of(part));
                    }
                }
            }
        });
    }

    fn put(&mut self, c: char, start: u32, end: u32, gap: &mut Gap) {
        let index = u32::try_from(self.letters.len()).unwrap_or(u32::MAX);
        let mut utf8 = [0; 4];
        let utf8 = c.encode_utf8(&mut utf8).as_bytes();
        self.text.extend_from_slice(utf8);
        self.of_byte.extend(utf8.iter().map(|_| index));
        let gap = std::mem::replace(gap, Gap::None);
        self.letters.push(Letter { start, end, gap, spaced: is_spaced(c) });
    }
}

/// Seen by nobody, and no border between letters: of no width, or a hint for how others look.
fn is_invisible(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
        | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}'
        | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}')
}

/// Accents and what is stacked upon letters of Latin, Greek and Cyrillic. Marks of other scripts are letters of them.
fn is_accent(c: char) -> bool {
    matches!(c,
        '\u{300}'..='\u{36f}' | '\u{483}'..='\u{489}' | '\u{1ab0}'..='\u{1aff}'
        | '\u{1dc0}'..='\u{1dff}' | '\u{20d0}'..='\u{20ff}' | '\u{fe20}'..='\u{fe2f}')
}

/// Whether a script writes its words apart. Korean does, but joins endings to them.
fn is_spaced(c: char) -> bool {
    !matches!(c,
        '\u{e00}'..='\u{eff}' | '\u{1000}'..='\u{109f}' | '\u{1780}'..='\u{17ff}'
        | '\u{1100}'..='\u{11ff}' | '\u{2e80}'..='\u{9fff}' | '\u{ac00}'..='\u{d7ff}'
        | '\u{f900}'..='\u{faff}' | '\u{20000}'..='\u{3ffff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(of: &str) -> String {
        String::from_utf8(Letters::of(of.as_bytes()).text).expect("UTF-8")
    }

    #[test]
    fn letters_have_one_form() {
        for (written, letters) in [
            ("Bad Word", "badword"),
            ("ＢＡＤ", "bad"),
            ("b\u{200b}a\u{feff}d", "bad"),
            ("b-a_d!!", "bad"),
            ("bäd", "bad"),
            ("ba\u{336}d\u{335}", "bad"),
            ("ⓑⓐⓓ 𝐛𝐚𝐝", "badbad"),
            ("ﬃ ½", "ffi12"),
            ("STRAẞE Straße", "strassestrasse"),
            ("ΣΊΣΥΦΟΣ", "σισυφοσ"),
            ("ﾊﾞｶ バカ", "ハ\u{3099}カハ\u{3099}カ"),
            ("傻■逼", "傻逼"),
            ("İI", "ii"),
            ("ｶﾞ", "カ\u{3099}"),
            ("…。！\u{3000}", ""),
        ] {
            assert_eq!(text(written), letters, "{written}");
        }
    }

    #[test]
    fn each_letter_knows_its_place() {
        let written = "é ﬃ\u{200b}！ｘ傻";
        let letters = Letters::of(written.as_bytes());
        let places: Vec<_> = letters
            .letters
            .iter()
            .map(|l| (&written[l.start as usize..l.end as usize], l.gap))
            .collect();
        let expected = [
            ("é", Gap::Space),
            ("ﬃ", Gap::Space),
            ("ﬃ", Gap::None),
            ("ﬃ", Gap::None),
            ("ｘ", Gap::Signs),
            ("傻", Gap::None),
        ];
        assert_eq!(places, expected);
        assert_eq!(letters.of_byte.len(), letters.text.len());
    }
}
