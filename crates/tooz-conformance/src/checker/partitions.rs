//! All who see the same members agree on owners, and no key moves between two that stayed.
//!
//! Both are one law: where two members are there, one of them comes before the other for a key, and always the same one. A member that
//! owns any key is there. So if one of two owns a key while the other is there, the other never owns it while the first is there.

use std::collections::{BTreeSet, HashMap};

use crate::checker::law::Law;
use crate::checker::violation::Violation;
use crate::history::Share;

pub(crate) fn judge(shares: &[Share]) -> Result<(), Violation> {
    // Group, key, winner and loser, and by which share.
    let mut won: HashMap<(&str, usize, &str, &str), &Share> = HashMap::new();
    for share in shares {
        let present: BTreeSet<&str> = share.owners.iter().map(String::as_str).collect();
        for (key, owner) in share.owners.iter().enumerate() {
            for other in present.iter().filter(|other| **other != owner) {
                if let Some(earlier) = won.get(&(share.group.as_str(), key, *other, owner.as_str())) {
                    return Err(wrong(earlier, share, key));
                }
                won.entry((&share.group, key, owner, other)).or_insert(share);
            }
        }
    }
    Ok(())
}

fn wrong(one: &Share, other: &Share, key: usize) -> Violation {
    let (from, to) = (&one.owners[key], &other.owners[key]);
    let what = format!(
        "partitions: key {key} of {} is {from}'s to {} and {to}'s to {}, though both are there for both",
        one.group, one.worker, other.worker
    );
    Violation::new(Law::Partitions, what, (one.at.min(other.at), one.at.max(other.at)))
}
