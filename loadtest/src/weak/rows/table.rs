//! The table, as it came out.

use serde::Serialize;

use super::{Check, Results, Row, Target, figure::Value};

/// What came of one figure.
#[derive(Debug, Clone, Serialize)]
pub struct Verdict {
    pub row: u8,
    pub what: String,
    pub target: String,
    /// None where it was not measured, or has no end.
    pub figure: Option<f64>,
    /// As it is said.
    pub said: String,
    pub samples: usize,
    /// How many were asked for.
    pub samples_asked: usize,
    /// None where there is no target.
    pub held: Option<bool>,
}

/// Judges every figure of these rows.
pub fn judge(rows: &[Row], results: &Results) -> Vec<Verdict> {
    let each = rows.iter().flat_map(|row| row.checks.iter().map(|check| (row.number, check)));
    each.map(|(number, check)| check.judge(number, check.figure.of(check.task, results))).collect()
}

impl Check {
    pub(super) fn judge(&self, row: u8, value: Option<Value>) -> Verdict {
        let unit = self.figure.unit();
        // What was not measured is missed.
        let holds = |of: fn(&f64, &f64) -> bool, target: f64| {
            Some(value.is_some_and(|value| of(&value.number, &target)))
        };
        let (target, held) = match self.target {
            Target::AtMost(most) => (format!("<= {}{unit}", digits(most)), holds(f64::le, most)),
            Target::AtLeast(least) => {
                (format!(">= {}{unit}", digits(least)), holds(f64::ge, least))
            }
            Target::Told => (String::new(), None),
        };
        let said = match value {
            None => "not measured".to_owned(),
            Some(value) if value.number.is_infinite() => "never".to_owned(),
            Some(value) => format!("{}{unit}", digits(value.number)),
        };
        Verdict {
            row,
            what: self.what.clone(),
            target,
            figure: value.map(|value| value.number).filter(|number| number.is_finite()),
            said,
            samples: value.map_or(0, |value| value.samples),
            samples_asked: self.samples,
            held,
        }
    }
}

/// As many as mean something.
fn digits(number: f64) -> String {
    match number {
        whole if whole.fract() == 0.0 => format!("{whole:.0}"),
        small if small < 10.0 => format!("{small:.2}"),
        large => format!("{large:.1}"),
    }
}

impl Verdict {
    /// The row of a table.
    pub fn cells(&self) -> [String; 6] {
        let samples = match self.samples_asked {
            0 => self.samples.to_string(),
            asked => format!("{} of {asked}", self.samples),
        };
        let few = if self.samples < self.samples_asked { ", few samples" } else { "" };
        let held = match self.held {
            Some(true) => format!("held{few}"),
            Some(false) => format!("MISSED{few}"),
            None => String::new(),
        };
        let row = self.row.to_string();
        [row, self.what.clone(), self.target.clone(), self.said.clone(), samples, held]
    }
}

/// Prints the table.
pub fn say(verdicts: &[Verdict]) {
    let width = verdicts.iter().map(|verdict| verdict.what.len()).max().unwrap_or(0);
    let line = |[row, what, target, said, samples, held]: [String; 6]| {
        println!("{row:>3}  {what:<width$}  {target:>18}  {said:>17}  {samples:>14}  {held}");
    };
    println!();
    line(["row", "what", "must be", "is", "samples", ""].map(str::to_owned));
    verdicts.iter().for_each(|verdict| line(verdict.cells()));
    let judged = verdicts.iter().filter(|verdict| verdict.held.is_some()).count();
    let missed = verdicts.iter().filter(|verdict| verdict.held == Some(false)).count();
    println!("{missed} of {judged} missed");
}
