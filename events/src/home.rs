//! The directory of the events: one process has it at a time, and it says who that is.

use std::{
    fs::{self, File, TryLockError},
    io::{self, Write},
    path::{Path, PathBuf},
};

/// What is in the directory beside the files of the sinks.
const LOCK: &str = "lock";
const INSTANCE: &str = "instance";

/// A directory that this process has.
#[derive(Debug)]
pub(crate) struct Home {
    dir: PathBuf,
    /// Of the directory, for ever.
    instance: String,
    /// Of this run: each start has one more.
    epoch: u64,
    /// Held while it is open.
    _lock: File,
}

/// Processes that may share a directory.
const SHARING: usize = 64;

impl Home {
    /// The directory, or where other processes have it, the first of `DIR-2`, `DIR-3` and so on that none has.
    pub(crate) fn open(dir: &Path) -> io::Result<Self> {
        for n in 1..=SHARING {
            let mut name = dir.as_os_str().to_owned();
            if n > 1 {
                name.push(format!("-{n}"));
            }
            let dir = PathBuf::from(name);
            fs::create_dir_all(&dir)?;
            let lock = File::create(dir.join(LOCK))?;
            match lock.try_lock() {
                Ok(()) => return Self::locked(dir, lock),
                Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(e)) => return Err(e),
            }
        }
        let why = format!("it and {} beside it are in use by other processes", SHARING - 1);
        Err(io::Error::new(io::ErrorKind::ResourceBusy, why))
    }

    fn locked(dir: PathBuf, lock: File) -> io::Result<Self> {
        let path = dir.join(INSTANCE);
        let (instance, epoch) = match fs::read_to_string(&path) {
            Ok(text) => parse(&text).ok_or_else(|| {
                let why = format!("{} is none of Edgeway's; move it away", path.display());
                io::Error::new(io::ErrorKind::InvalidData, why)
            })?,
            Err(e) if e.kind() == io::ErrorKind::NotFound => (random()?, 0),
            Err(e) => return Err(e),
        };
        let epoch = epoch + 1;
        replace(&dir, INSTANCE, format!("{instance} {epoch}\n").as_bytes())?;
        Ok(Self { dir, instance, epoch, _lock: lock })
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// The id of an event: no other one has it.
    pub(crate) fn id(&self, number: u64) -> String {
        format!("{}-{}-{number}", self.instance, self.epoch)
    }
}

fn parse(text: &str) -> Option<(String, u64)> {
    let (instance, epoch) = text.trim_end().split_once(' ')?;
    let is_one = instance.len() == 16 && instance.chars().all(|c| c.is_ascii_hexdigit());
    Some((is_one.then(|| instance.to_owned())?, epoch.parse().ok()?))
}

fn random() -> io::Result<String> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map_err(io::Error::other)?;
    Ok(format!("{:016x}", u64::from_le_bytes(bytes)))
}

/// Writes a file so that it is there as a whole or as it was, also after a loss of power.
fn replace(dir: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let new = dir.join(format!("{name}.new"));
    let mut file = File::create(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&new, dir.join(name))?;
    sync_dir(dir)
}

/// What was made or renamed in a directory is there after a loss of power.
pub(crate) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// The files of a directory that are named by a number: `PREFIX`, 20 digits, `SUFFIX`; in their order.
pub(crate) fn numbered(dir: &Path, prefix: &str, suffix: &str) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let digits = name.to_str().and_then(|n| n.strip_prefix(prefix)?.strip_suffix(suffix));
        let number = digits.filter(|d| d.len() == 20).and_then(|d| d.parse().ok());
        found.extend(number.map(|number| (number, entry.path())));
    }
    found.sort_unstable();
    Ok(found)
}

/// The name of such a file.
pub(crate) fn name(prefix: &str, number: u64, suffix: &str) -> String {
    format!("{prefix}{number:020}{suffix}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_run_has_an_epoch_of_its_own_and_the_directory_its_instance() {
        let dir = tempfile::tempdir().unwrap();
        let first = Home::open(dir.path()).unwrap().id(7);
        let second = Home::open(dir.path()).unwrap().id(7);
        let (instance, _) = first.split_once('-').unwrap();
        assert_eq!(first, format!("{instance}-1-7"));
        assert_eq!(second, format!("{instance}-2-7"));
    }

    #[test]
    fn processes_that_share_it_have_one_each_and_the_next_start_takes_what_was_left() {
        let all = tempfile::tempdir().unwrap();
        let dir = all.path().join("events");
        let first = Home::open(&dir).unwrap();
        let second = Home::open(&dir).unwrap();
        let _third = Home::open(&dir).unwrap();
        assert_eq!(second.dir(), all.path().join("events-2"));
        let id = second.id(1);
        drop(second);
        let again = Home::open(&dir).unwrap();
        assert_eq!(again.id(1), id.replace("-1-1", "-2-1"));
        assert_ne!(first.instance, again.instance);
    }

    #[test]
    fn a_file_that_says_nothing_is_told_and_not_written_over() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(INSTANCE), "what?").unwrap();
        assert!(Home::open(dir.path()).is_err());
        assert_eq!(fs::read(dir.path().join(INSTANCE)).unwrap(), b"what?");
    }
}
