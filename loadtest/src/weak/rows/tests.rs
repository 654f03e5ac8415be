use super::{figure::Value, list::numbers, *};
use crate::{weak::task::Size, weaknet::profile::Profiles};

#[test]
fn every_row_has_checks_and_every_check_a_profile() {
    let profiles = Profiles::load(None).unwrap();
    let rows = all();
    assert_eq!(
        rows.iter().map(|row| row.number).collect::<Vec<_>>(),
        numbers().collect::<Vec<_>>()
    );
    for row in rows {
        assert!(!row.checks.is_empty(), "row {}", row.number);
        for task in row.checks.iter().flat_map(Check::tasks) {
            assert!(profiles.get(task.profile).is_ok(), "{}", task.profile);
        }
    }
}

#[test]
fn a_full_suite_measures_each_thing_once_with_as_many_samples_as_are_asked_for() {
    let rows = all();
    let planned = plan(&rows, Suite::Full, &Limits::default());
    for (n, (task, size)) in planned.iter().enumerate() {
        assert!(planned[..n].iter().all(|(other, _)| other != task), "{task}");
        assert!(size.seeds.len() >= 3, "{task}");
    }
    let size = |profile: &str, row: u8, asked: usize| {
        let mut checks = rows[usize::from(row) - 1].checks.iter();
        let of = |check: &&Check| check.task.profile == profile && check.samples == asked;
        let task = checks.find(of).unwrap().task;
        planned.iter().find(|(one, _)| *one == task).unwrap().1.clone()
    };
    let all = |size: Size| 2 * size.clients as usize * size.seconds as usize * size.seeds.len();
    let samples = |profile: &str, row: u8| all(size(profile, row, 10_000));
    assert_eq!(size("lossy-5", 1, 50_000).clients, 200);
    assert!(all(size("lossy-5", 1, 50_000)) >= 50_000);
    assert!((10_000..20_000).contains(&samples("lossy-5", 1)));
    assert!((10_000..20_000).contains(&samples("lossy-1", 1)));
    assert!(samples("lossy-20", 3) >= 15_000); // two in three seconds
    assert!(samples("bufferbloat", 7) >= 10_000);
}

#[test]
fn bytes_are_compared_between_runs_of_one_length() {
    for suite in [Suite::Quick, Suite::Full] {
        let rows = all();
        let planned = plan(&rows, suite, &Limits::default());
        let size = |task: Task| &planned.iter().find(|(one, _)| *one == task).unwrap().1;
        for check in rows.iter().flat_map(|row| &row.checks) {
            if let Figure::Bytes { without } = check.figure {
                let (with, without) = (size(check.task), size(without));
                assert_eq!((with.clients, with.seconds), (without.clients, without.seconds));
            }
        }
    }
}

#[test]
fn a_row_alone_measures_no_more_than_it_asks_for() {
    let rows: Vec<_> = all().into_iter().filter(|row| row.number == 4).collect();
    let planned = plan(&rows, Suite::Full, &Limits::default());
    assert_eq!(planned.len(), 4);
    assert!(planned.iter().all(|(_, size)| size.seconds == 10 && size.seeds == [1, 2, 3]));
    let row = all().remove(1).only(&["lossy-20".to_owned()], &[]);
    assert!(row.checks.iter().all(|check| check.task.profile == "lossy-20"));
    assert_eq!(plan(&[row], Suite::Full, &Limits::default()).len(), 6);
}

#[test]
fn what_has_a_target_is_measured_first() {
    let rows = all();
    let planned = plan(&rows, Suite::Full, &Limits::default());
    let judged = |task: &Task| {
        let mut checks = rows.iter().flat_map(|row| &row.checks);
        checks.any(|check| check.target != Target::Told && check.tasks().any(|one| one == *task))
    };
    let first_told = planned.iter().position(|(task, _)| !judged(task)).unwrap();
    assert!(first_told > 30 && !planned[first_told..].iter().any(|(task, _)| judged(task)));
}

#[test]
fn limits_hold_for_every_run() {
    let limits = Limits { clients: Some(4), seeds: Some(vec![7]), ..Limits::default() };
    let planned = plan(&all(), Suite::Full, &limits);
    assert!(planned.iter().all(|(_, size)| size.clients == 4 && size.seeds == [7]));
}

#[test]
fn what_was_not_measured_or_never_came_is_missed() {
    let row = all().remove(0);
    let results = Results::new();
    let verdicts = judge(&[row], &results);
    let (told, judged): (Vec<_>, Vec<_>) =
        verdicts.iter().partition(|verdict| verdict.target.is_empty());
    assert!(told.len() == 2 && told.iter().all(|verdict| verdict.held.is_none()));
    assert!(judged.len() == 6 && judged.iter().all(|verdict| verdict.held == Some(false)));
    let check = &all().remove(0).checks[0];
    let of = |number| check.judge(1, Some(Value { number, samples: 20_000 }));
    assert_eq!(of(65.0).held, Some(true));
    assert_eq!(of(65.1).held, Some(false));
    assert_eq!((of(f64::INFINITY).held, of(f64::INFINITY).said.as_str()), (Some(false), "never"));
    assert!(of(50.0).cells().iter().all(|cell| !cell.contains("few")));
}
