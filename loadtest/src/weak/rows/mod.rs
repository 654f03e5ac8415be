//! The table of targets, row by row: what is measured for each, what it must reach, and whether it
//! does.

mod figure;
mod list;
mod plan;
mod table;

use super::{
    Mode,
    task::{Measured, Task},
};

pub use self::{
    list::all,
    plan::{Limits, Suite, duration, plan},
    table::{Verdict, judge, say},
};
use figure::Figure;

/// A row of the table.
#[derive(Debug)]
pub struct Row {
    pub number: u8,
    checks: Vec<Check>,
}

/// One figure of a row.
#[derive(Debug, Clone)]
struct Check {
    what: String,
    task: Task,
    figure: Figure,
    target: Target,
    /// How many samples the figure asks for; 0 where it is no quantile.
    samples: usize,
}

/// What a figure must reach.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Target {
    AtMost(f64),
    AtLeast(f64),
    /// It is there to compare with.
    Told,
}

/// Everything that was measured.
pub type Results = Vec<(Task, Measured)>;

impl Row {
    /// Only what concerns these profiles and transports; all where there are none.
    pub fn only(mut self, profiles: &[String], modes: &[Mode]) -> Self {
        self.checks.retain(|check| {
            let task = check.task;
            (profiles.is_empty() || profiles.iter().any(|one| one == task.profile))
                && (modes.is_empty() || modes.contains(&task.mode))
        });
        self
    }
}

impl Check {
    /// All that has to be measured for it.
    fn tasks(&self) -> impl Iterator<Item = Task> + '_ {
        let others = match &self.figure {
            Figure::Times { than, .. } => than.as_slice(),
            Figure::Bytes { without } => std::slice::from_ref(without),
            _ => &[],
        };
        std::iter::once(self.task).chain(others.iter().copied())
    }
}

#[cfg(test)]
mod tests;
