//! The middle of some figures.

/// The middle one; of an even number the mean of both.
pub fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let upper = *values.get(values.len() / 2)?;
    let lower = *values.get((values.len() - 1) / 2)?;
    Some(f64::midpoint(lower, upper))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_slow_run_does_not_move_the_median() {
        assert_eq!(median(vec![2.0, 90.0, 1.0]), Some(2.0));
        assert_eq!(median(vec![2.0, 4.0]), Some(3.0));
        assert_eq!(median(vec![]), None);
    }
}
