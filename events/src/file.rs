//! The sink "file": JSON Lines, appended to, rotated by size and age, kept by number and bytes.
//!
//! What is written survives the death of the process at once, and the loss of power after the next sync. A line is
//! whole or not there: one that was torn is cut off, when the write fails or at the next start.

use std::{
    collections::VecDeque,
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
    /// The others, the oldest first, with their bytes.
    files: VecDeque<(PathBuf, u64)>,
    /// Bytes of all those.
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
        let mut lines =
            Self { dir, limits, current: None, number: 0, files: VecDeque::new(), others: 0 };
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
        lines.take_stock(lines.number)?;
        Ok(lines)
    }

    /// Appends whole lines, as many as go into one file: all of those, or none where that fails. Gives their bytes;
    /// the rest is for the next one.
    pub(crate) fn append(&mut self, lines: &[u8], now: SystemTime) -> io::Result<usize> {
        let limits = &self.limits;
        let is_full = |c: &Current| {
            let age = now.duration_since(c.since).unwrap_or_default();
            fitting(lines, limits.file_bytes.saturating_sub(c.len)) == 0 || age >= limits.file_age
        };
        if self.current.as_ref().is_some_and(|current| current.len > 0 && is_full(current)) {
            self.sync()?;
            self.current = None;
        }
        let current = match &mut self.current {
            Some(current) => current,
            None => {
                let number = self.number + 1;
                let path = self.dir.join(name(PREFIX, number, SUFFIX));
                // What is there is what an earlier try has left.
                let file = OpenOptions::new().write(true).create(true).truncate(true).open(path)?;
                sync_dir(&self.dir)?;
                self.take_stock(number)?;
                self.number = number;
                let fresh = Current { file, len: 0, since: now, unsynced: false, torn: false };
                self.current.insert(fresh)
            }
        };
        current.repair()?;
        let lines = match fitting(lines, self.limits.file_bytes.saturating_sub(current.len)) {
            // Larger than a file may be: it has one of its own.
            0 => &lines[..line(lines)],
            fits => &lines[..fits],
        };
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
        Ok(lines.len())
    }

    /// Waits until the disk has what was written.
    pub(crate) fn sync(&mut self) -> io::Result<()> {
        if let Some(current) = self.current.as_mut().filter(|current| current.unsynced) {
            current.file.sync_data()?;
            current.unsynced = false;
        }
        Ok(())
    }

    /// The disk has what was written.
    pub(crate) fn is_synced(&self) -> bool {
        self.current.as_ref().is_none_or(|current| !current.unsynced)
    }

    /// Bytes of all files.
    pub(crate) fn bytes(&self) -> u64 {
        self.others + self.current.as_ref().map_or(0, |current| current.len)
    }

    /// Removes the oldest files above the limits; the one that is written stays.
    pub(crate) fn prune(&mut self) -> io::Result<()> {
        if self.is_within() || self.files.is_empty() {
            return Ok(());
        }
        // Readers may have taken files away: what is there counts, and not what was.
        self.take_stock(self.number)?;
        while !self.is_within()
            && let Some((path, len)) = self.files.pop_front()
        {
            if let Err(error) = gone(fs::remove_file(&path)) {
                self.files.push_front((path, len));
                return Err(error);
            }
            self.others = self.others.saturating_sub(len);
        }
        Ok(())
    }

    fn is_within(&self) -> bool {
        let count = self.files.len() + usize::from(self.current.is_some());
        self.bytes() <= self.limits.keep_bytes && count <= self.limits.keep_files
    }

    /// Looks which files there are beside the current one.
    fn take_stock(&mut self, current: u64) -> io::Result<()> {
        self.files.clear();
        self.others = 0;
        for (number, path) in numbered(&self.dir, PREFIX, SUFFIX)? {
            if number != current
                && let Some(about) = gone(fs::metadata(&path))?
            {
                self.others += about.len();
                self.files.push_back((path, about.len()));
            }
        }
        Ok(())
    }
}

/// Nothing where somebody else has taken the file away.
fn gone<T>(done: io::Result<T>) -> io::Result<Option<T>> {
    match done {
        Ok(done) => Ok(Some(done)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Bytes of the first line.
fn line(lines: &[u8]) -> usize {
    lines.iter().position(|byte| *byte == b'\n').map_or(lines.len(), |at| at + 1)
}

/// Bytes of the first lines that go into so much room.
fn fitting(lines: &[u8], room: u64) -> usize {
    if lines.len() as u64 <= room {
        return lines.len();
    }
    // It is less than there is of lines.
    let room = usize::try_from(room).unwrap_or(lines.len());
    lines[..room].iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1)
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

    /// Appends all of it, and prunes.
    fn append(lines: &mut Lines, mut text: &str, now: SystemTime) {
        while !text.is_empty() {
            let taken = lines.append(text.as_bytes(), now).unwrap();
            text = &text[taken..];
        }
        lines.prune().unwrap();
    }

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
            append(&mut lines, line, now);
        }
        assert_eq!(contents(dir.path()), ["1111\n2222\n", "3333\n"]);
        append(&mut lines, "4444\n", now + LIMITS.file_age);
        assert_eq!(contents(dir.path()), ["1111\n2222\n", "3333\n", "4444\n"]);
        append(&mut lines, "55555555\n", now + LIMITS.file_age);
        assert_eq!(contents(dir.path()), ["3333\n", "4444\n", "55555555\n"]);
        assert_eq!(lines.bytes(), 19);
    }

    #[test]
    fn bytes_are_bounded_too_but_the_file_that_is_written_stays() {
        let dir = tempfile::tempdir().unwrap();
        let mut lines =
            Lines::open(dir.path().to_owned(), FileLimits { keep_bytes: 12, ..LIMITS }).unwrap();
        for line in ["11111111\n", "22222222\n", "3333333333333333333\n"] {
            append(&mut lines, line, SystemTime::now());
        }
        assert_eq!(contents(dir.path()), ["3333333333333333333\n"]);
    }

    #[test]
    fn what_is_written_at_once_is_cut_at_lines_so_that_no_file_is_too_large() {
        let dir = tempfile::tempdir().unwrap();
        let mut lines =
            Lines::open(dir.path().to_owned(), FileLimits { keep_files: 9, ..LIMITS }).unwrap();
        append(&mut lines, "1\n2\n3\n4\n5\n6\n7777777777777777\n8\n", SystemTime::now());
        let files = ["1\n2\n3\n4\n5\n", "6\n", "7777777777777777\n", "8\n"];
        assert_eq!(contents(dir.path()), files);
    }

    #[test]
    fn files_that_readers_take_away_make_room_for_others() {
        let dir = tempfile::tempdir().unwrap();
        let mut lines = open(dir.path());
        let now = SystemTime::now();
        append(&mut lines, "11111111\n22222222\n33333333\n", now);
        let first = |dir: &Path| numbered(dir, PREFIX, SUFFIX).unwrap().remove(0).1;
        (0..2).for_each(|_| fs::remove_file(first(dir.path())).unwrap());
        append(&mut lines, "44444444\n55555555\n", now);
        assert_eq!(contents(dir.path()), ["33333333\n", "44444444\n", "55555555\n"]);
        assert_eq!(lines.bytes(), 27);
    }

    #[test]
    fn a_file_that_cannot_be_removed_does_not_make_anything_come_twice() {
        let dir = tempfile::tempdir().unwrap();
        // A directory is none that can be removed as a file.
        let odd = dir.path().join(name(PREFIX, 1, SUFFIX));
        fs::create_dir(&odd).unwrap();
        fs::write(dir.path().join(name(PREFIX, 2, SUFFIX)), "1111\n").unwrap();
        let mut lines = open(dir.path());
        let now = SystemTime::now();
        let text = "22222222\n33333333\n";
        let taken = lines.append(text.as_bytes(), now).unwrap();
        lines.append(&text.as_bytes()[taken..], now).unwrap();
        assert!(lines.prune().is_err());
        fs::remove_dir(&odd).unwrap();
        lines.prune().unwrap();
        assert_eq!(contents(dir.path()), ["1111\n", "22222222\n", "33333333\n"]);
    }

    #[test]
    fn the_next_start_goes_on_where_the_last_ended_and_cuts_off_what_is_torn() {
        let dir = tempfile::tempdir().unwrap();
        append(&mut open(dir.path()), "1111\n", SystemTime::now());
        let (_, path) = numbered(dir.path(), PREFIX, SUFFIX).unwrap().pop().unwrap();
        OpenOptions::new().append(true).open(&path).unwrap().write_all(b"{\"v\":1,\"id").unwrap();
        let mut lines = open(dir.path());
        assert_eq!(contents(dir.path()), ["1111\n"]);
        append(&mut lines, "2222\n", SystemTime::now());
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
