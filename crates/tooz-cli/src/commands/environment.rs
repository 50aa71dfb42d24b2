//! What CMD finds in its environment.

use std::ffi::OsString;

use tooz::MemberId;

use super::password_file;
use crate::args::Global;
use crate::failure::CommandFailure;

/// Names and values.
pub(super) struct Environment(Vec<(&'static str, OsString)>);

impl Environment {
    /// What every CMD has: with that a `tooz` in it asks the same backend as the same member.
    pub(super) fn of(global: &Global, member: &MemberId) -> Result<Self, CommandFailure> {
        let environment = Environment(Vec::new()).with("TOOZ_URL", &global.url).with("TOOZ_MEMBER", member);
        Ok(match password_file(global)? {
            Some(path) => environment.with("TOOZ_PASSWORD_FILE", &path),
            None => environment,
        })
    }

    pub(super) fn with(mut self, name: &'static str, value: &dyn ToString) -> Self {
        self.0.push((name, value.to_string().into()));
        self
    }

    pub(super) fn list(self) -> Vec<(&'static str, OsString)> {
        self.0
    }
}
