//! After the last fault all workers get on: that of which a history of what happened can't tell that it did not happen.

use std::collections::BTreeSet;

use crate::checker::timeline::member_of;
use crate::history::{History, Response};

/// Those of these members that got no lock between the two moments.
pub fn progress(history: &History, members: &[String], (from, until): (u64, u64)) -> Vec<String> {
    let granted = history.attempts.iter().filter_map(|attempt| match &attempt.answer {
        Response::Granted(grant) if (from..=until).contains(&grant.at) => Some(member_of(&attempt.worker)),
        _ => None,
    });
    let granted: BTreeSet<_> = granted.collect();
    members.iter().filter(|member| !granted.contains(member.as_str())).cloned().collect()
}
