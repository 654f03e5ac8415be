//! The document of all HTTP endpoints, the page to browse it, and what schemathesis finds against it.

#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "../support/mod.rs"]
mod support;

use std::{
    collections::BTreeSet,
    io::Write,
    path::{Path, PathBuf},
    process::Command,
};

use support::{
    Process, Up,
    api::{Key, System, call},
    get, write,
};

/// `up` with an API key that may do everything, as often as it likes.
fn with_system(dir: &Path) -> (Up, System) {
    let scopes = ["--scope", "send", "--scope", "moderate", "--scope", "read"];
    let more = [&scopes[..], &["--per-second", "1000000"]].concat();
    let Key { key, lines } = Key::make(dir, "school", &more);
    write(dir, "edgeway.toml", &lines);
    let any = "127.0.0.1:0";
    let args = ["up", "--config", "edgeway.toml", "--quic", any, "--tcp", any, "--http", any];
    let up = Up::ready(Process::spawn(dir, &args));
    let http = up.http.clone();
    (up, System { http, key })
}

#[test]
fn every_endpoint_is_in_the_document_and_the_page_needs_no_internet() {
    let dir = tempfile::tempdir().unwrap();
    let (up, system) = with_system(dir.path());
    let document = system.get("/openapi.json");
    assert_eq!(document.header("content-type"), Some("application/json"));
    let document = document.body;
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"), "{}", document["openapi"]);
    let mut all = BTreeSet::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let what = format!("{} {path}", method.to_uppercase());
            assert!(operation["summary"].is_string(), "{what} has no summary");
            let is_secured = operation["security"].is_array();
            assert_eq!(is_secured, path.starts_with("/v1/"), "{what}");
            // It is there: nothing of it is unknown here, or not for this method.
            let real = path.replace("{room}", "r").replace("{user}", "u").replace("{key}", "k");
            let answer = system.ask(&method.to_uppercase(), &real.replace("{name}", "n"), &[], "");
            let unknown = matches!(answer.status, 404 | 405)
                && answer.body["type"] != "urn:edgeway:problem:no_such_room";
            assert!(!unknown, "{what}: {answer:?}");
            if path.starts_with("/v1/") {
                let bare = call(&up.http, &method.to_uppercase(), &real, &[], b"");
                assert_eq!((bare.status, bare.problem()), (401, "no_api_key"), "{what}");
            }
            all.insert(what);
        }
    }
    // Those of docs; the router has no others, since it is made of the same list.
    for what in [
        "GET /metrics",
        "GET /healthz",
        "GET /readyz",
        "POST /reload",
        "GET /stat",
        "GET /stat/all",
        "GET /dispatch",
        "POST /dispatch",
        "GET /rooms/{name}/members",
        "GET /rooms/{name}/route",
        "GET /users/{name}",
        "GET /openapi.json",
        "POST /v1/messages",
        "POST /v1/rooms/{room}/messages",
        "POST /v1/users/{user}/messages",
        "PUT /v1/rooms/{room}/state/{key}",
        "DELETE /v1/rooms/{room}/state/{key}",
        "GET /v1/rooms/{room}/history",
        "PUT /v1/blocks/{user}",
        "POST /v1/rooms/{room}/members/{user}/kick",
    ] {
        assert!(all.contains(what), "{what} is not in {all:?}");
    }

    let page = get(&up.http, "/docs/");
    assert!(page.starts_with("HTTP/1.0 200") && page.contains("swagger-ui"), "{page}");
    let body = page.split_once("\r\n\r\n").unwrap().1;
    let mut loaded = 0;
    for part in body.split(['"', '\'']) {
        assert!(!part.starts_with("http") && !part.starts_with("//"), "the page loads {part}");
        if let Some(file) = part.strip_prefix("./") {
            let file = call(&up.http, "GET", &format!("/docs/{file}"), &[], b"");
            assert_eq!(file.status, 200, "{part}");
            loaded += 1;
        }
    }
    assert!(loaded >= 3, "{body}");
    assert!(get(&up.http, "/docs/swagger-initializer.js").contains("/openapi.json"));
}

/// Not by a macro of the standard library: the harness would hide it.
fn tell(text: &str) {
    std::io::stderr().write_all(format!("{text}\n").as_bytes()).unwrap();
}

/// The program, in an environment of its own within the build directory; none where this machine cannot have it.
fn schemathesis() -> Option<PathBuf> {
    let python = std::env::var("PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let wanted = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/openapi/requirements.txt");
    let venv = Path::new(env!("CARGO_TARGET_TMPDIR")).join("schemathesis");
    let program = venv.join("bin/schemathesis");
    let installed = venv.join("installed.txt");
    let read = |path: &Path| std::fs::read(path).ok();
    if read(&installed).is_some() && read(&installed) == read(&wanted) {
        return Some(program);
    }
    let run = |program: &Path, args: &[&str]| match Command::new(program).args(args).output() {
        Ok(done) if done.status.success() => Ok(()),
        Ok(done) => {
            Err(String::from_utf8_lossy(&done.stderr).lines().last().unwrap_or_default().to_owned())
        }
        Err(error) => Err(format!("{}: {error}", program.display())),
    };
    let old = "import sys; sys.exit('Python is too old' if sys.version_info < (3, 10) else 0)";
    let (pip, at) = (venv.join("bin/python"), venv.display().to_string());
    let list = wanted.display().to_string();
    let made = run(Path::new(&python), &["-c", old])
        .and_then(|()| run(Path::new(&python), &["-m", "venv", "--clear", &at]))
        .and_then(|()| {
            let flags = [
                "-m",
                "pip",
                "install",
                "--quiet",
                "--disable-pip-version-check",
                "--retries",
                "1",
                "-r",
            ];
            run(&pip, &[&flags[..], &[&list]].concat())
        });
    match made {
        Ok(()) => {
            std::fs::copy(&wanted, &installed).unwrap();
            Some(program)
        }
        Err(why) => {
            tell(&format!("SKIPPED schemathesis: {why}"));
            None
        }
    }
}

#[test]
fn schemathesis_finds_no_server_error_and_no_answer_that_is_not_in_the_document() {
    let Some(program) = schemathesis() else { return };
    let dir = tempfile::tempdir().unwrap();
    let (up, system) = with_system(dir.path());
    let document = format!("http://{}/openapi.json", up.http);
    let header = format!("Authorization: Bearer {}", system.key);
    let checks = "not_a_server_error,status_code_conformance,content_type_conformance,\
                  response_headers_conformance,response_schema_conformance";
    let done = Command::new(program)
        .current_dir(dir.path())
        .args(["run", &document, "--header", &header, "--checks", checks])
        .args([
            "--max-examples",
            "25",
            "--seed",
            "7",
            "--no-color",
            "--phases",
            "examples,coverage,fuzzing",
        ])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&done.stdout);
    assert!(done.status.success(), "{said}\n{}", String::from_utf8_lossy(&done.stderr));
    let summary: Vec<_> = said.lines().rev().take(40).collect();
    summary.iter().rev().for_each(|line| tell(line));
    assert!(get(&up.http, "/readyz").ends_with("ready\n"));
}
