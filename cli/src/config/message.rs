//! Errors of the parser in words that help: what is wrong, and what would be right.

use toml::de::DeValue;

/// Names further apart than this are not a slip of the fingers.
const ALIKE: f64 = 0.7;

/// A line that is no TOML. `value` is what stands behind its `=`.
pub fn syntax(parser_says: &str, value: Option<&str>) -> String {
    match value {
        Some("") => "has no value behind the `=`".to_owned(),
        Some(value) if is_bare_text(value) => {
            format!("text must stand in quotes: \"{}\"", without_comment(value))
        }
        _ => parser_says.to_owned(),
    }
}

fn without_comment(value: &str) -> &str {
    value.split('#').next().unwrap_or_default().trim()
}

/// Whether a value looks like text without its quotes: an address, a path, a name.
fn is_bare_text(value: &str) -> bool {
    let value = without_comment(value);
    let is_part = |c: char| c.is_alphanumeric() || "-_.:/".contains(c);
    value.chars().all(is_part) && DeValue::parse(value).is_err()
}

/// A value that does not fit its key at `path`.
pub fn data(serde_says: &str, path: &[String]) -> String {
    if let Some(known) = known_keys(serde_says) {
        return unknown_key(path, &known);
    }
    if let Some((found, wanted)) = wrong_type(serde_says) {
        return format!("must be {wanted}, and is {found}");
    }
    serde_says.to_owned()
}

/// The names that serde lists where it refuses a key.
pub fn known_keys(serde_says: &str) -> Option<Vec<String>> {
    let listed = serde_says.strip_prefix("unknown field `")?.split_once("`, ")?.1;
    Some(listed.split('`').skip(1).step_by(2).map(str::to_owned).collect())
}

fn unknown_key(path: &[String], known: &[String]) -> String {
    let (section, name) = match path.split_last() {
        Some((name, [])) => (String::new(), name.as_str()),
        Some((name, section)) => (section.join("."), name.as_str()),
        None => (String::new(), ""),
    };
    let mut text = "unknown key".to_owned();
    if let Some(alike) = most_alike(name, known) {
        text += &format!("; did you mean `{alike}`?");
    }
    let place = if section.is_empty() {
        "the file may have".to_owned()
    } else {
        format!("[{section}] has")
    };
    text + &format!(" ({place}: {})", known.join(", "))
}

fn most_alike<'a>(name: &str, known: &'a [String]) -> Option<&'a str> {
    known
        .iter()
        .map(|candidate| (strsim::normalized_damerau_levenshtein(name, candidate), candidate))
        .filter(|(likeness, _)| *likeness >= ALIKE)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate.as_str())
}

/// What was found and what was wanted, from serde's `invalid type: FOUND, expected WANTED`.
fn wrong_type(serde_says: &str) -> Option<(String, &'static str)> {
    let rest = serde_says
        .strip_prefix("invalid type: ")
        .or_else(|| serde_says.strip_prefix("invalid value: "))?;
    let (found, wanted) = rest.rsplit_once(", expected ")?;
    let wanted = match wanted {
        "i64" | "i32" => "a whole number",
        "u64" | "u32" | "u16" | "u8" | "usize" => "a whole number, 0 or more",
        "f64" => "a number",
        "a string" | "str" | "string" => "text in quotes",
        "a boolean" => "true or false",
        "a sequence" => "a list: [\"...\", \"...\"]",
        "a map" => "a section",
        w if w.starts_with("struct ") => "a section",
        _ => return None,
    };
    let found = match found.split_once(' ') {
        // A URL in the wrong place, which may hold a password.
        Some(("string", text)) if text.contains("://") => "text".to_owned(),
        Some(("string", text)) => format!("the text {text}"),
        Some(("integer", number)) => format!("the number {}", number.trim_matches('`')),
        Some(("floating", number)) => {
            format!("the number {}", number.trim_start_matches("point ").trim_matches('`'))
        }
        Some(("boolean", value)) => value.trim_matches('`').to_owned(),
        _ if found == "sequence" => "a list".to_owned(),
        _ if found == "map" => "a section".to_owned(),
        _ => found.to_owned(),
    };
    Some((found, wanted))
}
