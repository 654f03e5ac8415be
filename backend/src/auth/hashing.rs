//! The threads that check passwords, with the least priority that the system has: a check takes a core for tens of
//! milliseconds, and whatever passes messages on goes before it. So all cores may be at it.

use std::{
    io,
    sync::{
        Arc, OnceLock,
        mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    },
    thread,
    time::Duration,
};

use parking_lot::Mutex;
use thread_priority::ThreadPriority;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::{PasswordHash, password::Verifier};

/// How long a thread keeps its memory without a check.
const REST_AFTER: Duration = Duration::from_secs(10);

/// A password to check. Whoever asks holds one of as many turns as there are threads, so no more wait here.
struct Check {
    hash: PasswordHash,
    secret: Vec<u8>,
    right: oneshot::Sender<bool>,
    /// Given back when the check is done, also where nobody waits for it any more.
    _turn: OwnedSemaphorePermit,
}

/// The threads; started with the first check, ended when this is dropped.
#[derive(Debug)]
pub(super) struct Hashing {
    threads: usize,
    checks: OnceLock<Sender<Check>>,
}

impl Hashing {
    pub(super) const fn new(threads: usize) -> Self {
        Self { threads, checks: OnceLock::new() }
    }

    /// Whether it is the password.
    ///
    /// # Errors
    /// Where there are no threads to check it.
    pub(super) async fn verify(
        &self,
        hash: PasswordHash,
        secret: Vec<u8>,
        turn: OwnedSemaphorePermit,
    ) -> io::Result<bool> {
        let gone = || io::Error::other("the thread that checked it is gone");
        let (right, answer) = oneshot::channel();
        let check = Check { hash, secret, right, _turn: turn };
        self.checks()?.send(check).map_err(|_| gone())?;
        answer.await.map_err(|_| gone())
    }

    fn checks(&self) -> io::Result<&Sender<Check>> {
        if let Some(checks) = self.checks.get() {
            return Ok(checks);
        }
        // Of two that begin at once one is kept; the other's threads end at once.
        let checks = start(self.threads)?;
        Ok(self.checks.get_or_init(|| checks))
    }
}

fn start(threads: usize) -> io::Result<Sender<Check>> {
    let (sender, receiver) = channel();
    let receiver = Arc::new(Mutex::new(receiver));
    for n in 0..threads {
        let receiver = Arc::clone(&receiver);
        thread::Builder::new().name(format!("hashing-{n}")).spawn(move || work(&receiver))?;
    }
    Ok(sender)
}

/// Gives this thread only what the others leave. Where the system has a policy for that it is more than a low
/// priority: who wakes takes the core at once, and does not wait for the end of a slice of 3 ms.
fn go_behind() -> Result<(), thread_priority::Error> {
    #[cfg(target_os = "linux")]
    {
        use thread_priority::{
            NormalThreadSchedulePolicy, ThreadSchedulePolicy, set_thread_priority_and_policy,
            thread_native_id,
        };
        let idle = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Idle);
        set_thread_priority_and_policy(thread_native_id(), ThreadPriority::Min, idle)
    }
    #[cfg(not(target_os = "linux"))]
    thread_priority::set_current_thread_priority(ThreadPriority::Min)
}

fn work(checks: &Mutex<Receiver<Check>>) {
    if let Err(error) = go_behind() {
        tracing::warn!("passwords are checked with the priority of messages: {error}");
    }
    let mut verifier = Verifier::default();
    loop {
        // One thread waits for the next check, the others for the lock: each has its turn to wait, and to rest.
        let next = checks.lock().recv_timeout(REST_AFTER);
        match next {
            // Who asked may be gone.
            Ok(check) => drop(check.right.send(verifier.verify(&check.hash, &check.secret))),
            Err(RecvTimeoutError::Timeout) => verifier.rest(),
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::time::Duration;

    use tokio::sync::Semaphore;

    use super::*;

    /// sched(7).
    #[cfg(target_os = "linux")]
    const SCHED_IDLE: &str = "5";

    #[tokio::test]
    async fn passwords_are_checked_and_each_turn_comes_back() {
        let (hashing, turns) = (Hashing::new(2), Arc::new(Semaphore::new(2)));
        let hash = PasswordHash::new(b"right").unwrap();
        for (secret, right) in [("right", true), ("wrong", false), ("right", true)] {
            let turn = Arc::clone(&turns).acquire_owned().await.unwrap();
            let found = hashing.verify(hash.clone(), secret.into(), turn).await.unwrap();
            assert_eq!(found, right, "{secret}");
        }
        // Who does not wait for the answer leaves a turn that comes back all the same.
        let turn = Arc::clone(&turns).acquire_owned().await.unwrap();
        let asked = hashing.verify(hash, "right".into(), turn);
        tokio::time::timeout(Duration::from_micros(1), asked).await.ok();
        let _all = turns.acquire_many(2).await.unwrap();
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn threads_go_behind_all_others_and_end_with_their_owner() {
        let of_these = || {
            let tasks = std::fs::read_dir("/proc/self/task").unwrap();
            let stats = tasks
                .filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("stat")).ok());
            stats.filter(|stat| stat.contains("(hashing-77")).collect::<Vec<_>>()
        };
        let (sender, receiver) = channel();
        let receiver = Arc::new(Mutex::new(receiver));
        let thread =
            thread::Builder::new().name("hashing-77".to_owned()).spawn(move || work(&receiver));
        let hash = PasswordHash::new(b"right").unwrap();
        let (right, answer) = oneshot::channel();
        let turn = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
        sender.send(Check { hash, secret: b"right".to_vec(), right, _turn: turn }).unwrap();
        assert!(answer.blocking_recv().unwrap());
        let stat = of_these().pop().unwrap();
        // proc(5): behind the name in brackets, the policy is the 39th field of all 52.
        let policy = stat.rsplit(") ").next().unwrap().split(' ').nth(38).unwrap();
        assert_eq!(policy, SCHED_IDLE, "{stat}");
        drop(sender);
        thread.unwrap().join().unwrap();
    }
}
