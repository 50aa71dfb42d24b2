//! What happens to a membership and to a leadership.

use tooz::{FencingToken, GroupId, Leader, LossReason, MemberId};

use super::event::Event;
use super::session::reason_name;

fn of(group: &GroupId, name: &'static str, sentence: String) -> Event {
    Event::new(name, sentence).with("group", group.as_str())
}

pub(crate) fn joined(group: &GroupId, member: &MemberId) -> Event {
    of(group, "joined", format!("joined group {group:?} as {member:?}")).with("member", member.as_str())
}

/// After a loss that the library mends by itself.
pub(crate) fn rejoined(group: &GroupId, member: &MemberId) -> Event {
    of(group, "rejoined", format!("joined group {group:?} again as {member:?}")).with("member", member.as_str())
}

/// Not the end, where it goes on.
pub(crate) fn membership_lost(group: &GroupId, reason: LossReason, goes_on: bool) -> Event {
    let again = if goes_on { "; joining again" } else { "" };
    let sentence = format!("the membership of group {group:?} was lost: {reason}{again}");
    of(group, "membership_lost", sentence).with("reason", reason_name(reason)).with("why", reason.to_string())
}

pub(crate) fn left(group: &GroupId) -> Event {
    of(group, "left", format!("left group {group:?}")).for_programs()
}

/// A namesake that may be dead is in the way.
pub(crate) fn waiting_for_namesake(group: &GroupId, member: &MemberId, at_most: &str) -> Event {
    // CMD has both in its environment.
    let is = |name: &str, value: &str| std::env::var(name).is_ok_and(|one| one == value);
    let about = if is("TOOZ_GROUP", group.as_str()) && is("TOOZ_MEMBER", member.as_str()) {
        ", the tooz that this command runs under (a --member of its own is what this one needs)"
    } else {
        ", alive or dead for less than its session timeout"
    };
    let sentence = format!(
        "group {group:?} has a member {member:?} already{about}: waiting for its end, at most {at_most}; --take-over takes its place at once"
    );
    of(group, "waiting", sentence).with("member", member.as_str()).with("at_most", at_most)
}

/// There is no such group yet.
pub(crate) fn waiting_for_group(group: &GroupId) -> Event {
    of(group, "waiting", format!("waiting for group {group:?} to be created"))
}

/// Another leads, or none does just now.
pub(crate) fn standing(group: &GroupId, leader: Option<&Leader>) -> Event {
    let led_by = match leader {
        Some(leader) => format!("led by {:?} (epoch {})", leader.member, leader.epoch),
        None => "which has no leader just now".to_owned(),
    };
    let event = of(group, "waiting", format!("waiting to lead group {group:?}, {led_by}"));
    event.with("leader", leader.map(|leader| leader.member.as_str())).with("epoch", leader.map(|leader| leader.epoch.0))
}

pub(crate) fn elected(group: &GroupId, epoch: FencingToken) -> Event {
    of(group, "elected", format!("elected leader of group {group:?} (epoch {epoch})")).with("epoch", epoch.0)
}

pub(crate) fn resigning(group: &GroupId) -> Event {
    of(group, "resigning", format!("resigning as leader of group {group:?}"))
}

/// Not the end: it is campaigned again.
pub(crate) fn leadership_lost(group: &GroupId, why: &str, goes_on: bool) -> Event {
    let event = of(group, "lost", format!("the leadership of group {group:?} was lost: {why}; campaigning again"));
    let event = event.with("why", why);
    // Else it is the reason of the command's end, which is told then.
    if goes_on { event } else { event.for_programs() }
}
