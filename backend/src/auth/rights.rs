//! What a login may do, on its way from whoever says it to whoever holds the user to it.

use edgeway_proto::{limits, link};

/// Items of a list: patterns say more than that many names would.
const ITEMS_MAX: usize = 64;

/// All lists together: they go along in each session token and to each Session's backend.
const BYTES_MAX: usize = 4 * 1024;

/// Whether lists are within bounds.
///
/// # Errors
/// What is wrong with them.
pub(super) fn check(lists: [&Option<Vec<String>>; 3]) -> Result<(), &'static str> {
    let mut bytes = 0;
    for list in lists.into_iter().flatten() {
        if list.len() > ITEMS_MAX {
            return Err("rooms, speak and rights may have 64 items each; use patterns with *");
        }
        for item in list {
            if item.is_empty() || item.len() > limits::NAME_BYTES {
                return Err("an item of rooms, speak or rights must have 1 to 128 bytes");
            }
            bytes += item.len();
        }
    }
    if bytes > BYTES_MAX {
        return Err("rooms, speak and rights may have 4 KiB together; use patterns with *");
    }
    Ok(())
}

/// As backends are told it; `None` where nothing is bounded.
pub(super) fn of_lists(
    rooms: Option<Vec<String>>,
    speak: Option<Vec<String>>,
    rights: Option<Vec<String>>,
) -> Option<link::Rights> {
    let names = |list: Option<Vec<String>>| list.map(|names| link::Names { names });
    let rights = link::Rights { rooms: names(rooms), speak: names(speak), rights: names(rights) };
    (rights != link::Rights::default()).then_some(rights)
}
