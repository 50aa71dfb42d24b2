//! What there is at one moment, and what the backend can't say.

use std::time::SystemTime;

use tooz::{Coordinator, Error, ErrorKind, GroupId, Leader, LockName, RosterEntry};

use super::super::locks;
use crate::speech::locks::Queue;
use crate::speech::words::{in_words, on_one_line};

/// Everything there is to see.
#[derive(Clone)]
pub(super) struct Snapshot {
    pub(super) taken: SystemTime,
    pub(super) groups: Section<GroupStatus>,
    pub(super) locks: Section<LockStatus>,
}

/// One kind of things, or why it can't be told.
#[derive(Clone)]
pub(super) enum Section<T> {
    Known(Vec<T>),
    Untold { kind: ErrorKind, why: String },
}

#[derive(Clone)]
pub(super) struct GroupStatus {
    pub(super) name: GroupId,
    pub(super) members: Vec<RosterEntry>,
    pub(super) leader: Option<Leader>,
}

#[derive(Clone)]
pub(super) struct LockStatus {
    pub(super) name: LockName,
    pub(super) queue: Queue,
}

impl<T> Section<T> {
    fn of(result: tooz::Result<Vec<T>>) -> Self {
        match result {
            Ok(list) => Section::Known(list),
            Err(error) => Section::Untold { kind: error.kind(), why: on_one_line(&in_words(&error)) },
        }
    }

    pub(super) fn known(&self) -> Option<&[T]> {
        match self {
            Section::Known(list) => Some(list),
            Section::Untold { .. } => None,
        }
    }

    /// Why it is not known.
    pub(super) fn why(&self) -> Option<&str> {
        match self {
            Section::Known(_) => None,
            Section::Untold { why, .. } => Some(why),
        }
    }

    /// What keeps it from being known, where the backend could say it.
    fn trouble(&self) -> Option<Error> {
        match self {
            Section::Untold { kind, why } if *kind != ErrorKind::Unsupported => Some(Error::new(*kind, why)),
            _ => None,
        }
    }

    fn retain(self, keep: impl FnMut(&T) -> bool) -> Self {
        match self {
            Section::Known(list) => Section::Known(list.into_iter().filter(keep).collect()),
            untold @ Section::Untold { .. } => untold,
        }
    }
}

impl Snapshot {
    /// Asks for everything, one after the other: what comes later may be newer.
    pub(super) async fn take(coordinator: &Coordinator) -> Self {
        let groups = Section::of(groups(coordinator).await);
        let locks = locks::in_use(coordinator).await;
        let one = |(name, queue)| LockStatus { name, queue };
        let locks = Section::of(locks.map(|locks| locks.into_iter().map(one).collect()));
        Snapshot { taken: SystemTime::now(), groups, locks }
    }

    /// What keeps it from being whole.
    pub(super) fn trouble(&self) -> Option<Error> {
        self.groups.trouble().or_else(|| self.locks.trouble())
    }

    /// A copy through a filter.
    pub(super) fn seen_through(&self, text: &str) -> Self {
        self.clone().filtered(text)
    }

    /// Only that in whose names the text is, in any case. A group or a lock of that name is shown as a whole.
    pub(super) fn filtered(mut self, text: &str) -> Self {
        let text = text.to_lowercase();
        let has = |name: &str| name.to_lowercase().contains(&text);
        if let Section::Known(groups) = &mut self.groups {
            for group in groups.iter_mut().filter(|group| !has(group.name.as_str())) {
                group.members.retain(|entry| has(entry.member.as_str()));
            }
        }
        self.groups = self.groups.retain(|group| has(group.name.as_str()) || !group.members.is_empty());
        self.locks = self.locks.retain(|lock| {
            let queue = &lock.queue;
            let waits = queue.waiters.iter().flatten().any(|waiter| has(waiter.member.as_str()));
            has(lock.name.as_str()) || waits || queue.holders.iter().any(|holder| has(holder.member.as_str()))
        });
        self
    }
}

/// A group that is deleted while the list is read is none.
async fn groups(coordinator: &Coordinator) -> tooz::Result<Vec<GroupStatus>> {
    let mut groups = Vec::new();
    for name in coordinator.groups().await? {
        let group = coordinator.group(&name)?;
        let asked = async { Ok((group.members().await?, group.leader().await?)) };
        match asked.await {
            Ok((members, leader)) => groups.push(GroupStatus { name, members, leader }),
            Err(error) if Error::kind(&error) == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(groups)
}
