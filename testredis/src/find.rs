//! Where the server's program is.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::OnceLock,
};

/// Names the program, for those who have their own.
const VARIABLE: &str = "EDGEWAY_REDIS_SERVER";
const NAMES: [&str; 2] = ["redis-server", "valkey-server"];
/// What the store needs: trimming streams by id, and ranges without their ends.
const OLDEST: (u32, u32) = (6, 2);

/// The program: what the variable `EDGEWAY_REDIS_SERVER` names, else what is on the PATH, else one
/// that is fetched into the build directory, once.
///
/// # Panics
/// Where there is none and none can be had.
pub fn binary() -> &'static Path {
    match find() {
        Ok(path) => path,
        Err(told) => panic!("{told}"),
    }
}

/// The same, for those who can go on without.
///
/// # Errors
/// What was tried, and what to do.
pub fn find() -> Result<&'static Path, &'static str> {
    static BINARY: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    BINARY.get_or_init(look).as_deref().map_err(String::as_str)
}

fn look() -> Result<PathBuf, String> {
    if let Some(named) = env::var_os(VARIABLE) {
        let named = PathBuf::from(named);
        return match good(&named) {
            Ok(()) => Ok(named),
            Err(e) => Err(format!("{VARIABLE} names {}: {e}", named.display())),
        };
    }
    let mut told = Vec::new();
    let path = env::var_os("PATH").unwrap_or_default();
    for found in env::split_paths(&path).flat_map(|dir| NAMES.map(|name| dir.join(name))) {
        if found.is_file() {
            match good(&found) {
                Ok(()) => return Ok(found),
                Err(e) => told.push(format!("{}: {e}", found.display())),
            }
        }
    }
    fetched().map_err(|e| {
        told.extend(e);
        format!(
            "a Redis or Valkey server of version {}.{} or later is needed, and there is none.\n\
             Do one of these: install one (`apt-get install redis-server`, `brew install valkey`); \
             name one in {VARIABLE}; or let one be fetched, which takes `python3` with pip, or \
             `mvn`, and their package registries.\n\
             What was tried:\n  {}",
            OLDEST.0,
            OLDEST.1,
            told.join("\n  ")
        )
    })
}

/// Whether the program runs here and is not too old.
fn good(program: &Path) -> Result<(), String> {
    let output = run(Command::new(program).arg("--version"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let version = text.split_once("v=").map(|(_, rest)| rest).unwrap_or_default();
    let mut numbers = version.split('.').map_while(|part| part.parse::<u32>().ok());
    match (numbers.next(), numbers.next()) {
        (Some(major), Some(minor)) if (major, minor) >= OLDEST => Ok(()),
        (Some(major), Some(minor)) => {
            Err(format!("is version {major}.{minor}, before {}.{}", OLDEST.0, OLDEST.1))
        }
        _ => Err(format!("says no version: {text}")),
    }
}

/// The one that was fetched, now or by an earlier run.
fn fetched() -> Result<PathBuf, Vec<String>> {
    let home = build_dir().join("testredis");
    let program = home.join("server");
    if good(&program).is_ok() {
        return Ok(program);
    }
    let mut told = Vec::new();
    for (name, fetch) in [("pip", pip as fn(&Path) -> Result<(), String>), ("mvn", mvn)] {
        match take(&home, &program, fetch) {
            Ok(()) => return Ok(program),
            Err(e) => told.push(format!("{name}: {e}")),
        }
    }
    Err(told)
}

/// Fetches into a directory of its own, and puts the program in its place in one step: others may
/// be at it too.
fn take(
    home: &Path,
    program: &Path,
    fetch: impl Fn(&Path) -> Result<(), String>,
) -> Result<(), String> {
    let failed = |e: std::io::Error| format!("{}: {e}", home.display());
    fs::create_dir_all(home).map_err(failed)?;
    let dir = tempfile::tempdir_in(home).map_err(failed)?;
    fetch(dir.path())?;
    let mut last = "no server in what was fetched".to_owned();
    for found in programs(dir.path()) {
        executable(&found)?;
        match good(&found) {
            Ok(()) => return fs::rename(&found, program).map_err(failed),
            Err(e) => last = format!("{}: {e}", found.display()),
        }
    }
    Err(last)
}

/// Python wheels with a valkey-server in them.
fn pip(dir: &Path) -> Result<(), String> {
    let list = dir.join("requirements.txt");
    fs::write(&list, include_str!("requirements.txt")).map_err(|e| e.to_string())?;
    let target = dir.join("wheel");
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]);
    pip.args(["--no-cache-dir", "--only-binary", ":all:", "--require-hashes", "--target"]);
    run(pip.arg(target).arg("-r").arg(list)).map(|_| ())
}

/// A jar with a redis-server for each system, where there is Java and no Python.
fn mvn(dir: &Path) -> Result<(), String> {
    const ARTIFACT: &str = "com.github.codemonstur:embedded-redis:1.4.3";
    let mut mvn = Command::new("mvn");
    mvn.current_dir(dir).args(["--quiet", "--batch-mode", "dependency:unpack"]);
    mvn.arg(format!("-Dartifact={ARTIFACT}")).arg(format!("-DoutputDirectory={}", dir.display()));
    run(&mut mvn).map(|_| ())
}

/// The files below a directory whose names begin as those of servers do.
fn programs(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        if path.is_dir() {
            found.extend(programs(&path));
        } else if NAMES.iter().any(|server| name.to_string_lossy().starts_with(server)) {
            found.push(path);
        }
    }
    found
}

fn executable(program: &Path) -> Result<(), String> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(program, fs::Permissions::from_mode(0o755)).map_err(|e| e.to_string())
}

fn run(command: &mut Command) -> Result<Output, String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(|e| format!("{name}: {e}"))?;
    if output.status.success() {
        return Ok(output);
    }
    let told = [output.stderr, output.stdout].concat();
    let told = String::from_utf8_lossy(&told);
    let lines: Vec<_> = told.lines().filter(|line| !line.trim().is_empty()).take(5).collect();
    Err(format!("{name} failed ({}): {}", output.status, lines.join(" / ")))
}

/// The directory that cargo builds into: it marks it. A program that lies elsewhere uses that of
/// the system for what is temporary.
fn build_dir() -> PathBuf {
    let program = env::current_exe().unwrap_or_default();
    let marked = |dir: &&Path| dir.join("CACHEDIR.TAG").is_file();
    program.ancestors().find(marked).map_or_else(env::temp_dir, Path::to_owned)
}
