//! The sink "file": JSON Lines, appended to, rotated by size and age, kept by number and bytes.
//!
//! What is written survives the death of the process at once, and the loss of power after the next sync. A line is
//! whole or not there: one that was torn is cut off, when the write fails or at the next start.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    path::PathBuf,
    time::{Duration, SystemTime},
};

use crate::home::{name, numbered, sync_dir};

const PREFIX: &str = "events-";
const SUFFIX: &str = ".jsonl";

/// When a file is closed, and how many are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileLimits {
    /// A file that would become larger than this is closed.
    pub file_bytes: u64,
    /// A file that is older than this is closed.
    pub file_age: Duration,
    /// Files that are kept, the one that is written included.
    pub keep_files: usize,
    /// Bytes of all files that are kept.
    pub keep_bytes: u64,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Lines {
    dir: PathBuf,
    limits: FileLimits,
    current: Option<Current>,
    /// Of the last file.
    number: u64,
    /// Files there are.
    count: usize,
    /// Bytes of all files but the current one.
    others: u64,
}

#[derive(Debug)]
struct Current {
    file: File,
    len: u64,
    since: SystemTime,
    unsynced: bool,
    /// The end of the file may be no end of a line.
    torn: bool,
}

impl Lines {
    /// Goes on with the last file there; what is torn at its end is cut off.
    pub(crate) fn open(dir: PathBuf, limits: FileLimits) -> io::Result<Self> {
        let mut files = numbered(&dir, PREFIX, SUFFIX)?;
        let count = files.len();
        let mut lines = Self { dir, limits, current: None, number: 0, count, others: 0 };
        if let Some((number, path)) = files.pop() {
            let file = OpenOptions::new().read(true).write(true).open(&path)?;
            let about = file.metadata()?;
            let since = about.created().or_else(|_| about.modified())?;
            let len = whole(&file, about.len())?;
            if len < about.len() {
                let bytes = about.len() - len;
                tracing::warn!(file = %path.display(), bytes, "cut off an event that was torn");
            }
            let mut current = Current { file, len, since, unsynced: false, torn: true };
            current.repair()?;
            (lines.number, lines.current) = (number, Some(current));
        }
        for (_, path) in files {
            lines.others += fs::metadata(path)?.len();
        }
        Ok(lines)
    }

    /// Appends whole lines: all of them, or none where that fails.
    pub(crate) fn append(&mut self, lines: &[u8], now: SystemTime) -> io::Result<()> {
        let is_full = |c: &Current, limits: &FileLimits| {
            let age = now.duration_since(c.since).unwrap_or_default();
            let is_over = c.len + lines.len() as u64 > limits.file_bytes || age >= limits.file_age;
            c.len > 0 && is_over
        };
        if self.current.as_ref().is_some_and(|current| is_full(current, &self.limits)) {
            self.sync()?;
            self.others += self.current.take().map_or(0, |current| current.len);
        }
        let current = match &mut self.current {
            Some(current) => current,
            None => {
                let number = self.number + 1;
                let path = self.dir.join(name(PREFIX, number, SUFFIX));
                // What is there is what an earlier try has left.
                let file = OpenOptions::new().write(true).create(true).truncate(true).open(path)?;
                sync_dir(&self.dir)?;
                self.number = number;
                self.count += 1;
                let fresh = Current { file, len: 0, since: now, unsynced: false, torn: false };
                self.current.insert(fresh)
            }
        };
        current.repair()?;
        // Until it is known to be whole.
        current.torn = true;
        current.unsynced = true;
        if let Err(error) = current.file.write_all(lines) {
            // Where that fails too it is tried again before the next line.
            let _ = current.repair();
            return Err(error);
        }
        current.torn = false;
        current.len += lines.len() as u64;
        self.prune()
    }

    /// Waits until the disk has what was written.
    pub(crate) fn sync(&mut self) -> io::Result<()> {
        if let Some(current) = self.current.as_mut().filter(|current| current.unsynced) {
            current.file.sync_data()?;
            current.unsynced = false;
        }
        Ok(())
    }

    /// Bytes of all files.
    pub(crate) fn bytes(&self) -> u64 {
        self.others + self.current.as_ref().map_or(0, |current| current.len)
    }

    fn prune(&mut self) -> io::Result<()> {
        let is_within = |lines: &Self| {
            lines.bytes() <= lines.limits.keep_bytes && lines.count <= lines.limits.keep_files
        };
        if is_within(self) || self.count == 1 {
            return Ok(());
        }
        let mut files = numbered(&self.dir, PREFIX, SUFFIX)?;
        // The one that is written stays.
        files.pop();
        for (_, path) in files {
            if is_within(self) {
                break;
            }
            let len = fs::metadata(&path)?.len();
            fs::remove_file(&path)?;
            self.others = self.others.saturating_sub(len);
            self.count -= 1;
        }
        Ok(())
    }
}

impl Current {
    fn repair(&mut self) -> io::Result<()> {
        if self.torn {
            self.file.set_len(self.len)?;
            self.file.seek(SeekFrom::Start(self.len))?;
            self.torn = false;
        }
        Ok(())
    }
}

/// Up to where the lines of a file are whole.
fn whole(mut file: &File, len: u64) -> io::Result<u64> {
    const BLOCK: u64 = 64 << 10;
    let (mut end, mut block) = (len, Vec::new());
    while end > 0 {
        let start = end.saturating_sub(BLOCK);
        block.clear();
        file.seek(SeekFrom::Start(start))?;
        file.take(end - start).read_to_end(&mut block)?;
        if let Some(at) = block.iter().rposition(|byte| *byte == b'\n') {
            return Ok(start + at as u64 + 1);
        }
        end = start;
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const LIMITS: FileLimits = FileLimits {
        file_bytes: 10,
        file_age: Duration::from_secs(60),
        keep_files: 3,
        keep_bytes: 100,
    };

    fn open(dir: &Path) -> Lines {
        Lines::open(dir.to_owned(), LIMITS).unwrap()
    }

    fn contents(dir: &Path) -> Vec<String> {
        let files = numbered(dir, PREFIX, SUFFIX).unwrap();
        files.iter().map(|(_, path)| fs::read_to_string(path).unwrap()).collect()
    }

    #[test]
    fn a_file_is_closed_by_size_and_by_age_and_the_oldest_go() {
        let dir = tempfile::tempdir().unwrap();
        let mut lines = open(dir.path());
        let now = SystemTime::now();
        for line in ["1111\n", "2222\n", "3333\n"] {
            lines.append(line.as_bytes(), now).unwrap();
        }
        assert_eq!(contents(dir.path()), ["1111\n2222\n", "3333\n"]);
        lines.append(b"4444\n", now + LIMITS.file_age).unwrap();
        assert_eq!(contents(dir.path()), ["1111\n2222\n", "3333\n", "4444\n"]);
        lines.append(b"55555555\n", now + LIMITS.file_age).unwrap();
        assert_eq!(contents(dir.path()), ["3333\n", "4444\n", "55555555\n"]);
        assert_eq!(lines.bytes(), 19);
    }

    #[test]
    fn bytes_are_bounded_too_but_the_file_that_is_written_stays() {
        let dir = tempfile::tempdir().unwrap();
        let mut lines =
            Lines::open(dir.path().to_owned(), FileLimits { keep_bytes: 12, ..LIMITS }).unwrap();
        for line in ["11111111\n", "22222222\n", "3333333333333333333\n"] {
            lines.append(line.as_bytes(), SystemTime::now()).unwrap();
        }
        assert_eq!(contents(dir.path()), ["3333333333333333333\n"]);
    }

    #[test]
    fn the_next_start_goes_on_where_the_last_ended_and_cuts_off_what_is_torn() {
        let dir = tempfile::tempdir().unwrap();
        open(dir.path()).append(b"1111\n", SystemTime::now()).unwrap();
        let (_, path) = numbered(dir.path(), PREFIX, SUFFIX).unwrap().pop().unwrap();
        OpenOptions::new().append(true).open(&path).unwrap().write_all(b"{\"v\":1,\"id").unwrap();
        let mut lines = open(dir.path());
        assert_eq!(contents(dir.path()), ["1111\n"]);
        lines.append(b"2222\n", SystemTime::now()).unwrap();
        assert_eq!(contents(dir.path()), ["1111\n2222\n"]);
        fs::write(&path, "no line at all").unwrap();
        assert_eq!(open(dir.path()).bytes(), 0);
        assert_eq!(contents(dir.path()), [""]);
    }

    #[test]
    fn a_long_torn_line_is_found_across_blocks() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name(PREFIX, 4, SUFFIX));
        fs::write(&path, format!("whole\n{}", "x".repeat(200_000))).unwrap();
        assert_eq!(open(dir.path()).bytes(), 6);
        assert_eq!(contents(dir.path()), ["whole\n"]);
    }
}
