//! What is tried next: the places of an answer, dispatch again, the fallback. Pure.

/// See the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Asks dispatch.
    Ask,
    /// Tries the places of the last answer.
    Try,
    /// Tries the address of the configuration.
    Fallback,
}

/// What is still to be done, for one try to connect.
#[derive(Debug)]
pub(super) struct Ways {
    next: Option<Step>,
    asked: bool,
    /// There is an answer, of now or of before.
    known: bool,
    /// It was tried.
    tried: bool,
    fallback: bool,
}

impl Ways {
    /// `fresh`: the last answer still holds; `known`: there is one; `fallback`: there is an address beside.
    pub(super) const fn new(fresh: bool, known: bool, fallback: bool) -> Self {
        let next = if fresh { Step::Try } else { Step::Ask };
        Self { next: Some(next), asked: false, known, tried: false, fallback }
    }

    /// The next step. After [`Step::Ask`], [`answered`](Self::answered) says what came of it.
    pub(super) fn next(&mut self) -> Option<Step> {
        let step = self.next.take()?;
        match step {
            Step::Ask => self.asked = true,
            Step::Try => {
                self.tried = true;
                self.next = match self.asked {
                    // None of an old answer's places is there: those of now may be others.
                    false => Some(Step::Ask),
                    true => self.fallback.then_some(Step::Fallback),
                };
            }
            Step::Fallback => {}
        }
        Some(step)
    }

    /// What came of asking.
    pub(super) fn answered(&mut self, answered: bool) {
        self.known |= answered;
        let is_new = answered || !self.tried;
        self.next = if self.known && is_new {
            Some(Step::Try)
        } else {
            self.fallback.then_some(Step::Fallback)
        };
    }
}

#[cfg(test)]
mod tests {
    use Step::{Ask, Fallback, Try};

    use super::*;

    /// All steps, where none leads to a connection.
    fn all(fresh: bool, known: bool, answers: bool, fallback: bool) -> Vec<Step> {
        let mut ways = Ways::new(fresh, known, fallback);
        let mut steps = Vec::new();
        while let Some(step) = ways.next() {
            steps.push(step);
            if step == Ask {
                ways.answered(answers);
            }
            assert!(steps.len() < 10, "{steps:?}");
        }
        steps
    }

    #[test]
    fn at_first_dispatch_is_asked() {
        assert_eq!(all(false, false, true, true), [Ask, Try, Fallback]);
        assert_eq!(all(false, false, false, true), [Ask, Fallback]);
        assert_eq!(all(false, false, false, false), [Ask]);
    }

    #[test]
    fn an_answer_that_holds_is_used_without_asking_and_asked_anew_once_none_of_it_is_there() {
        assert_eq!(all(true, true, true, true), [Try, Ask, Try, Fallback]);
        assert_eq!(all(true, true, false, true), [Try, Ask, Fallback]);
    }

    #[test]
    fn an_old_answer_is_used_where_dispatch_is_away() {
        assert_eq!(all(false, true, false, true), [Ask, Try, Fallback]);
        assert_eq!(all(false, true, false, false), [Ask, Try]);
        assert_eq!(all(false, true, true, false), [Ask, Try]);
    }
}
