//! The users file: a line for each user, `NAME:HASH`, with the hash in PHC form. Lines that are empty or begin with
//! `#` say nothing.

use std::collections::BTreeMap;

use super::{PasswordHash, check_user};

/// Users of a file at most: reading them again takes a moment, and all are in memory.
pub const USERS_MAX: usize = 1_000_000;

/// What is wrong with a users file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {problem}")]
pub struct UsersProblem {
    /// From 1.
    pub line: usize,
    /// What is wrong, and what would be right.
    pub problem: String,
}

/// Reads a users file.
///
/// # Errors
/// The first line that is none.
pub fn parse_users(text: &str) -> Result<BTreeMap<String, PasswordHash>, UsersProblem> {
    let mut users = BTreeMap::new();
    for (at, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let wrong = |problem: String| UsersProblem { line: at + 1, problem };
        // The line itself is not told: it may hold what is secret.
        let (user, hash) = line
            .split_once(':')
            .ok_or_else(|| wrong("is not NAME:HASH, such as ada:$argon2id$v=19$...".to_owned()))?;
        check_user(user).map_err(|problem| wrong(format!("the user's name {problem}")))?;
        let hash = PasswordHash::parse(hash).map_err(|e| wrong(e.to_string()))?;
        if users.insert(user.to_owned(), hash).is_some() {
            return Err(wrong(format!("`{user}` is there twice")));
        }
        if users.len() > USERS_MAX {
            return Err(wrong(format!("at most {USERS_MAX} users")));
        }
    }
    Ok(users)
}

/// The line of a user.
///
/// # Errors
/// The name is none.
pub fn user_line(user: &str, hash: &PasswordHash) -> Result<String, String> {
    check_user(user).map_err(|problem| format!("the user's name {problem}"))?;
    if user.contains(':') || user.starts_with('#') || user.trim() != user {
        return Err(
            "in a users file the name must not have a colon, begin with #, nor begin or end \
                    with a space"
                .to_owned(),
        );
    }
    Ok(format!("{user}:{hash}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_what_is_wrong_is_told_by_line_without_secrets() {
        let hash = PasswordHash::new(b"secret").unwrap();
        let text = format!("# users\n\n{}\n", user_line("ada", &hash).unwrap());
        let users = parse_users(&text).unwrap();
        assert!(users["ada"].verify(b"secret") && users.len() == 1);
        let twice = format!("{text}ada:{hash}");
        for (bad, line, says) in [
            ("hunter2", 1, "NAME:HASH"),
            ("\n@me:hunter2", 2, "must not begin with @"),
            ("ada:hunter2", 1, "argon2id"),
            (&twice, 4, "twice"),
        ] {
            let problem = parse_users(bad).unwrap_err();
            assert!(problem.line == line && problem.problem.contains(says), "{problem}");
            assert!(!problem.to_string().contains("hunter2"));
        }
        for bad in ["a:b", "#a", " a", "a/b", ""] {
            assert!(user_line(bad, &hash).is_err(), "{bad:?}");
        }
    }
}
