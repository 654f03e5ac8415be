//! `[filter]`: what users may say, and who may say it.

use std::{sync::Arc, time::Duration};

use edgeway_filter::{Action, RULES_MAX, WordOptions, Words};
use edgeway_proto::Class;
use serde::Deserialize;

use super::{Listed, check::Check};
use crate::auth::check_user;

/// Above a day a room is not slow, but muted.
const SLOW_MAX_S: i64 = 86_400;

/// `[filter]`: what users may say, and who may say it.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RawFilter {
    /// File with the list of words; empty for none.
    pub words_file: Option<String>,
    /// `mask`, `reject` or `silent`.
    pub action: Option<String>,
    /// Whether words are found only as whole words, where a script writes them apart.
    pub whole_words: Option<bool>,
    /// `chat`, `signal`, or both.
    pub classes: Option<Listed>,
    /// Users who may send nothing.
    pub blocked: Vec<String>,
    /// Seconds from one message of a user in a room to the next; 0 for none.
    pub slow_mode_s: Option<i64>,
    /// Of a process that has no rooms: the file may be on another machine.
    #[serde(skip)]
    pub is_elsewhere: bool,
}

/// What users may say, and who may say it.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// The list.
    pub words: Arc<Words>,
    /// Classes whose messages are looked at, by their number.
    pub classes: [bool; 3],
    /// Users who may send nothing.
    pub blocked: Vec<String>,
    /// From one message of a user in a room to the next.
    pub pause: Duration,
}

impl Check<'_> {
    pub(super) fn filter(&mut self, raw: RawFilter) -> Filter {
        let action = match raw.action.as_deref() {
            None => Action::Mask,
            Some(name) => Action::parse(name).unwrap_or_else(|| {
                let problem = format!("`{name}` is unknown; there are {}", Action::NAMES);
                self.problem("filter.action", problem);
                Action::Mask
            }),
        };
        let options = WordOptions { action, whole_words: raw.whole_words.unwrap_or(true) };
        let file = raw.words_file.filter(|file| !file.is_empty());
        let text = file.and_then(|f| self.read("filter.words_file", &f, raw.is_elsewhere));
        let text = text.map(|text| String::from_utf8_lossy(&text).into_owned());
        let words = Words::parse(&text.unwrap_or_default(), options).unwrap_or_else(|problem| {
            self.problem("filter.words_file", problem.to_string());
            Words::default()
        });
        let mut classes = [false; 3];
        for name in raw.classes.as_ref().map_or(&["chat".to_owned()][..], Listed::all) {
            match name.as_str() {
                "chat" => classes[Class::Chat.index()] = true,
                "signal" => classes[Class::Signal.index()] = true,
                other => {
                    let problem =
                        format!("`{other}` is unknown; there are \"chat\" and \"signal\"");
                    self.problem("filter.classes", problem);
                }
            }
        }
        if raw.blocked.len() > RULES_MAX {
            self.problem("filter.blocked", format!("at most {RULES_MAX} users"));
        }
        for (at, user) in raw.blocked.iter().enumerate() {
            if let Err(problem) = check_user(user) {
                self.problem(format!("filter.blocked.{at}"), format!("the user's name {problem}"));
            }
        }
        let pause = self.number("filter.slow_mode_s", raw.slow_mode_s, 0, 0..=SLOW_MAX_S);
        Filter {
            words: Arc::new(words),
            classes,
            blocked: raw.blocked,
            pause: Duration::from_secs(pause.unsigned_abs()),
        }
    }
}
