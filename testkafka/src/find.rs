//! Where Kafka's program is.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::OnceLock,
};

/// Its parts, and the version: a change of it is fetched anew.
const POM: &str = include_str!("pom.xml");
/// What Kafka's server needs.
const JAVA: u32 = 17;

/// A Kafka that can be started.
#[derive(Debug)]
pub struct Program {
    /// Jars.
    lib: PathBuf,
}

impl Program {
    /// The one that was fetched into the build directory, now or by an earlier run.
    ///
    /// # Errors
    /// What is missing, and what to do.
    pub(crate) fn find() -> Result<&'static Self, &'static str> {
        static FOUND: OnceLock<Result<Program, String>> = OnceLock::new();
        FOUND.get_or_init(look).as_ref().map_err(String::as_str)
    }

    /// Java with a class of Kafka.
    pub(crate) fn java(&self, class: &str) -> Command {
        let mut java = Command::new("java");
        java.args(["-Xmx320m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp"]);
        java.arg(self.lib.join("*")).arg(class);
        java
    }
}

fn look() -> Result<Program, String> {
    let what_to_do = |e| {
        format!("Kafka needs `java` from {JAVA} and, to be fetched, `mvn` and its registry: {e}")
    };
    java().map_err(what_to_do)?;
    let lib = fetched().map_err(what_to_do)?;
    Ok(Program { lib })
}

fn java() -> Result<(), String> {
    let output = run(Command::new("java").arg("-version"))?;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let version = text.split('"').nth(1).unwrap_or_default();
    match version.split('.').next().and_then(|major| major.parse::<u32>().ok()) {
        Some(major) if major >= JAVA => Ok(()),
        _ => Err(format!("java is of version `{version}`")),
    }
}

fn fetched() -> Result<PathBuf, String> {
    let home = build_dir().join("testkafka");
    let (lib, mark) = (home.join("lib"), home.join("pom.xml"));
    let is_there = || fs::read_to_string(&mark).is_ok_and(|text| text == POM);
    let failed = |e: std::io::Error| format!("{}: {e}", home.display());
    fs::create_dir_all(&home).map_err(failed)?;
    // Others may be at it too.
    let lock = fs::File::create(home.join("lock")).map_err(failed)?;
    lock.lock().map_err(failed)?;
    if is_there() {
        return Ok(lib);
    }
    let dir = tempfile::tempdir_in(&home).map_err(failed)?;
    let (pom, new) = (dir.path().join("pom.xml"), dir.path().join("lib"));
    fs::write(&pom, POM).map_err(failed)?;
    let mut mvn = Command::new("mvn");
    mvn.args(["--quiet", "--batch-mode", "dependency:copy-dependencies", "-f"]).arg(&pom);
    run(mvn.arg(format!("-DoutputDirectory={}", new.display())))?;
    let _ = fs::remove_dir_all(&lib);
    fs::rename(&new, &lib).map_err(failed)?;
    fs::rename(&pom, &mark).map_err(failed)?;
    Ok(lib)
}

pub(crate) fn run(command: &mut Command) -> Result<Output, String> {
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
