//! The rules of `[events]`, which the crate of the events knows.

use std::path::Path;

use edgeway_events::config::{Config, RawEvents, validate};

use super::check::Check;

impl Check<'_> {
    pub(super) fn events(&mut self, raw: RawEvents, data_dir: &Path, name: &str) -> Config {
        validate(raw, data_dir, name, &mut |key, problem| self.problem(key, problem))
    }
}
