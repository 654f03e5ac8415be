//! What names may be.

use edgeway_proto::limits;

/// Whether a name of a user, room, device or key is one.
///
/// # Errors
/// What is wrong with it, to follow "the name ...".
pub(crate) fn check_name(name: &str) -> Result<(), &'static str> {
    if name.is_empty() {
        return Err("must not be empty");
    }
    if name.len() > limits::NAME_BYTES {
        return Err("must have at most 128 bytes");
    }
    if name.chars().any(char::is_control) {
        return Err("must not have control characters");
    }
    Ok(())
}

/// Whether a name may be a user's: `@me` stands for whoever asks, and history knows a sender as
/// `user/device`.
///
/// # Errors
/// As [`check_name`].
pub(crate) fn check_user(user: &str) -> Result<(), &'static str> {
    check_name(user)?;
    if user.starts_with('@') {
        return Err("must not begin with @");
    }
    if user.contains('/') {
        return Err("must not have a /");
    }
    Ok(())
}
