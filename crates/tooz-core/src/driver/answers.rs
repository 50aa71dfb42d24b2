//! The answers that all drivers give in the same words.

use std::fmt;

use crate::base::error::{Error, ErrorKind};
use crate::base::id::{GroupId, Namespace};
use crate::driver::group::JoinRequest;

impl Error {
    /// A driver's answer where there is no such group.
    pub fn no_group(group: &GroupId) -> Self {
        Self::new(ErrorKind::NotFound, format!("there is no group {group:?}"))
    }

    /// A driver's answer to creating a group that is there.
    pub fn group_exists(group: &GroupId) -> Self {
        Self::new(ErrorKind::AlreadyExists, format!("there is a group {group:?} already"))
    }

    /// A driver's answer to deleting a group that has members.
    pub fn group_not_empty(group: &GroupId, members: usize) -> Self {
        let (members, they) =
            if members == 1 { ("a member".to_owned(), "it has") } else { (format!("{members} members"), "they have") };
        Self::new(ErrorKind::NotEmpty, format!("group {group:?} has {members}: {they} to leave first"))
    }

    /// A driver's answer to joining under the id of a living member.
    pub fn namesake(request: &JoinRequest) -> Self {
        let (group, member) = (&request.group, &request.member);
        Self::new(
            ErrorKind::AlreadyExists,
            format!("group {group:?} has a living member {member:?}: choose another id, or take it over"),
        )
    }

    /// A driver's answer to changing a membership that is over.
    pub fn not_member(request: &JoinRequest) -> Self {
        let (group, member) = (&request.group, &request.member);
        Self::new(ErrorKind::NotMember, format!("this membership of {member:?} in group {group:?} is over"))
    }

    /// A driver's answer to opening a session where the namespace is kept in another layout than its own. Members that do not look in the
    /// same places do not see each other's locks, so it owns nothing there.
    pub fn foreign_layout(namespace: &Namespace, found: impl fmt::Display, spoken: impl fmt::Display) -> Self {
        Self::config(format!(
            "namespace {:?} is kept in layout {found}, and this version of tooz speaks layout {spoken}: members of both would hold \
             the same lock at once. Stop all that use the old one and clear the namespace, or give the new ones another namespace",
            namespace.as_str()
        ))
    }
}
