//! Files of the authority's directory: read where present, written whole or not at all.

use std::{
    fs::{self, File, OpenOptions},
    io::{ErrorKind, Write},
    path::{Path, PathBuf},
};

use crate::CertError;

/// Who may read a file.
#[derive(Debug, Clone, Copy)]
pub enum Access {
    /// Everybody: certificates.
    Public,
    /// The owner only: keys.
    Private,
}

/// Turns an error of the operating system into ours.
fn failed(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> CertError {
    move |source| CertError::Io { action, path: path.to_owned(), source }
}

/// Makes the directory, and keeps other processes out of it until the lock is dropped: two
/// servers that start at once must not each make an authority.
pub fn lock(dir: &Path) -> Result<File, CertError> {
    fs::create_dir_all(dir).map_err(failed("create", dir))?;
    let path = dir.join(".lock");
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(failed("create", &path))?;
    file.lock().map_err(failed("lock", &path))?;
    Ok(file)
}

/// The text of a file, or `None` where there is none.
pub fn read(path: &Path) -> Result<Option<String>, CertError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(failed("read", path)(e)),
    }
}

/// Replaces a file in one step, so that a crash leaves the old one or the new one.
pub fn write(path: &Path, text: &str, access: Access) -> Result<(), CertError> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    let temporary = PathBuf::from(temporary);
    // A file left by a crash keeps its mode when it is opened again: make it anew.
    match fs::remove_file(&temporary) {
        Err(e) if e.kind() != ErrorKind::NotFound => return Err(failed("replace", &temporary)(e)),
        _ => {}
    }
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    set_mode(&mut options, access);
    let mut file = options.open(&temporary).map_err(failed("write", &temporary))?;
    file.write_all(text.as_bytes()).map_err(failed("write", &temporary))?;
    file.sync_all().map_err(failed("write", &temporary))?;
    fs::rename(&temporary, path).map_err(failed("write", path))
}

#[cfg(unix)]
fn set_mode(options: &mut OpenOptions, access: Access) {
    use std::os::unix::fs::OpenOptionsExt;
    options.mode(match access {
        Access::Public => 0o644,
        Access::Private => 0o600,
    });
}

#[cfg(not(unix))]
fn set_mode(_: &mut OpenOptions, _: Access) {}
