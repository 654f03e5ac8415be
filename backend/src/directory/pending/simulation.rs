//! Random changes against a directory that loses requests, answers and data: whatever happens, it comes to
//! say what is true.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::directory::{Directory, Found, MemoryDirectory};

const START: Duration = Duration::from_secs(1);

fn line(n: usize) -> Bytes {
    Bytes::from(format!("line {n}"))
}

/// One step of a run.
#[derive(Debug, Clone)]
enum Step {
    /// A line of a listing comes, or goes where it is there.
    Toggle(usize, usize),
    Head(usize, u8),
    /// The listing is closed, and opened by the next term.
    Reopen(usize),
    /// Writes up to so many listings.
    Write(usize, Fate),
    /// The listing's writer answers, where it is asked.
    Answer,
    /// The directory loses a listing, or all.
    Lose(usize),
    LoseAll,
    /// Somebody writes a listing by a later term.
    Rival(usize),
    Pass(u64),
}

#[derive(Debug, Clone, Copy)]
enum Fate {
    Good,
    /// It does not arrive.
    Request,
    /// It arrives, and the answer does not.
    Answer,
}

const LISTINGS: usize = 3;

fn step() -> impl Strategy<Value = Step> {
    let fate =
        prop_oneof![3 => Just(Fate::Good), 1 => Just(Fate::Request), 1 => Just(Fate::Answer)];
    prop_oneof![
        12 => (0..LISTINGS, 0..6_usize).prop_map(|(at, n)| Step::Toggle(at, n)),
        2 => (0..LISTINGS, any::<u8>()).prop_map(|(at, head)| Step::Head(at, head)),
        1 => (0..LISTINGS).prop_map(Step::Reopen),
        6 => (1..4_usize, fate).prop_map(|(n, fate)| Step::Write(n, fate)),
        3 => Just(Step::Answer),
        1 => (0..LISTINGS).prop_map(Step::Lose),
        1 => Just(Step::LoseAll),
        1 => (0..LISTINGS).prop_map(Step::Rival),
        2 => (1..40_u64).prop_map(Step::Pass),
    ]
}

/// The truth, the core, and the directory.
struct Run {
    pending: Pending<u64>,
    directory: MemoryDirectory,
    truth: Vec<(u64, u64, u8, BTreeSet<Bytes>)>,
    asked: Vec<u64>,
    now: Duration,
}

fn head(n: u8) -> Bytes {
    Bytes::from(vec![n])
}

fn name(at: usize) -> Name {
    Name::session("ada", &at.to_string(), "chat")
}

impl Run {
    fn new(pending_bytes: usize) -> Self {
        let config = DirectoryConfig { pending_bytes, lines: 3, ..DirectoryConfig::default() };
        let (truth, asked, now) = (Vec::new(), Vec::new(), START);
        let (pending, directory) = (Pending::new(config), MemoryDirectory::default());
        let mut run = Self { pending, directory, truth, asked, now };
        for at in 0..LISTINGS {
            let id = run.open(at, 1);
            run.truth.push((id, 1, 0, BTreeSet::new()));
        }
        run
    }

    fn open(&mut self, at: usize, term: u64) -> u64 {
        let source = self.pending.next;
        self.pending.open(name(at), Term(term, 0), source, head(0))
    }

    async fn step(&mut self, step: Step) {
        match step {
            Step::Toggle(at, n) => {
                let (id, _, _, lines) = &mut self.truth[at];
                let comes = !lines.remove(&line(n));
                if comes {
                    lines.insert(line(n));
                }
                self.pending.line(*id, line(n), comes);
            }
            Step::Head(at, n) => {
                self.truth[at].2 = n;
                self.pending.head(self.truth[at].0, head(n));
            }
            Step::Reopen(at) => {
                let (id, term, ..) = self.truth[at];
                self.pending.close(id);
                let id = self.open(at, term + 1);
                self.truth[at] = (id, term + 1, 0, BTreeSet::new());
            }
            Step::Write(n, fate) => self.write(n, fate).await,
            Step::Answer => self.answer(),
            Step::Lose(at) => {
                self.directory.forget(&name(at));
            }
            Step::LoseAll => self.directory = MemoryDirectory::default(),
            Step::Rival(at) => self.rival(at).await,
            Step::Pass(seconds) => self.now += Duration::from_secs(seconds),
        }
    }

    async fn rival(&mut self, at: usize) {
        let write = Write {
            name: name(at),
            term: Term(self.truth[at].1, 1),
            action: Action::Anew,
            before: 0,
            after: 1,
            head: Some(head(255)),
            added: vec![line(100)],
            removed: Vec::new(),
            total: 1,
            lives: Duration::from_secs(3600),
        };
        self.directory.write(vec![Arc::new(write)]).await;
    }

    async fn write(&mut self, most: usize, fate: Fate) {
        let (mut ids, mut batch) = (Vec::new(), Vec::new());
        while batch.len() < most
            && let Some((id, write)) = self.pending.take(self.now)
        {
            ids.push(id);
            batch.push(write);
        }
        let outcomes = match fate {
            Fate::Request => Vec::new(),
            Fate::Good | Fate::Answer => self.directory.write(batch).await,
        };
        let mut outcomes = outcomes.into_iter();
        for id in ids {
            let outcome = outcomes.next().filter(|_| !matches!(fate, Fate::Answer));
            self.pending.answered(id, outcome.map(Result::unwrap), self.now);
        }
    }

    fn answer(&mut self) {
        while let Some(id) = self.pending.want() {
            self.asked.push(id);
        }
        for asked in self.asked.drain(..) {
            // Those that have been closed since are not there.
            if let Some((id, _, n, lines)) = self.truth.iter().find(|(id, ..)| *id == asked) {
                self.pending.anew(*id, head(*n), lines.iter().cloned().collect());
            }
        }
    }

    async fn check(&mut self) {
        // What rivals have left vanishes when its time is over.
        for at in 0..LISTINGS {
            let found = self.directory.read(name(at), Bytes::new(), 1).await.unwrap();
            if found.is_some_and(|found| found.term.1 == 1) {
                self.directory.forget(&name(at));
            }
        }
        // Two rounds, in which all is renewed and so compared.
        for _ in 0..200 {
            self.write(LISTINGS, Fate::Good).await;
            self.answer();
            self.now += Duration::from_secs(1);
        }
        for (at, (_, term, n, lines)) in self.truth.iter().enumerate() {
            let expected = Found {
                term: Term(*term, 0),
                head: head(*n),
                total: lines.len() as u64,
                lines: lines.iter().cloned().collect(),
                more: false,
            };
            let found = self.directory.read(name(at), Bytes::new(), 100).await.unwrap();
            assert_eq!(found, Some(expected), "listing {at}");
        }
        assert_eq!((self.pending.bytes(), self.pending.len()), (0, LISTINGS));
    }
}

proptest! {
    #[test]
    fn whatever_is_lost_the_directory_comes_to_say_what_is_true(
        steps in prop::collection::vec(step(), 0..200),
        pending_bytes in prop_oneof![Just(1_usize << 20), 600..3_000_usize],
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let mut run = Run::new(pending_bytes);
            for step in steps {
                run.step(step).await;
            }
            run.check().await;
        });
    }
}
