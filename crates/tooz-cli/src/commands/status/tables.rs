//! A snapshot as lines of text: the same on the screen and on paper.

use std::time::SystemTime;

use comfy_table::Table;
use comfy_table::presets::NOTHING;

use super::changes::History;
use super::snapshot::{GroupStatus, LockStatus, Section, Snapshot};
use crate::speech::short;

pub(super) const NO_WAITERS: &str = "this backend does not tell who waits";
pub(super) const NO_AGE: &str =
    "no backend records when a member joined; the live screen counts from when it first saw it";

/// The title above what changed.
pub(super) const CHANGES: &str = "CHANGES";

/// One line, and what it is.
pub(super) struct TextLine {
    pub(super) text: String,
    pub(super) kind: LineKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LineKind {
    Title,
    Header,
    Row,
    /// What can't be told, and why.
    Note,
}

/// All there is to see; with a history also ages and changes.
pub(super) fn lines(snapshot: &Snapshot, history: Option<&History>) -> Vec<TextLine> {
    let mut lines = Vec::new();
    section(&mut lines, "GROUPS", &snapshot.groups, "no groups", |groups| of_groups(groups, history, snapshot.taken));
    section(&mut lines, "LOCKS", &snapshot.locks, "no lock is in use", |locks| of_locks(locks, snapshot.taken));
    if let Some(history) = history {
        push(&mut lines, LineKind::Title, CHANGES);
        for (moment, change) in history.changes() {
            push(&mut lines, LineKind::Row, format!(" {}  {change}", short(*moment, snapshot.taken)));
        }
    }
    lines
}

fn push(lines: &mut Vec<TextLine>, kind: LineKind, text: impl Into<String>) {
    lines.push(TextLine { text: text.into(), kind });
}

fn section<T>(
    lines: &mut Vec<TextLine>,
    title: &str,
    section: &Section<T>,
    nothing: &str,
    print: impl Fn(&[T]) -> Vec<TextLine>,
) {
    push(lines, LineKind::Title, title);
    match section {
        Section::Known(list) if list.is_empty() => push(lines, LineKind::Note, format!(" {nothing}")),
        Section::Known(list) => lines.extend(print(list)),
        Section::Untold { why, .. } => push(lines, LineKind::Note, format!(" not known: {why}")),
    }
}

fn of_groups(groups: &[GroupStatus], history: Option<&History>, now: SystemTime) -> Vec<TextLine> {
    let mut rows = Vec::new();
    for group in groups {
        let leads = |member: &str| match &group.leader {
            Some(leader) if leader.member.as_str() == member => format!("leader, epoch {}", leader.epoch),
            _ => "-".to_owned(),
        };
        for entry in &group.members {
            let since = history.and_then(|history| history.first_seen(group.name.as_str(), entry.member.as_str()));
            let age = since.and_then(|since| now.duration_since(since).ok());
            rows.push(vec![
                group.name.to_string(),
                entry.member.to_string(),
                leads(entry.member.as_str()),
                age.map_or_else(|| "?".to_owned(), |age| format!("≥ {} s", age.as_secs())),
                entry.capabilities.as_json().to_owned(),
            ]);
        }
        let listed = |leader: &tooz::Leader| group.members.iter().any(|entry| entry.member == leader.member);
        match &group.leader {
            // Until its session has ended a dead leader leads, also where it is listed no more.
            Some(leader) if !listed(leader) => rows.push(vec![
                group.name.to_string(),
                leader.member.to_string(),
                format!("leader, epoch {}", leader.epoch),
                "-".to_owned(),
                "no member any more".to_owned(),
            ]),
            _ if group.members.is_empty() => {
                rows.push([group.name.as_str(), "no members", "-", "-", "-"].map(str::to_owned).to_vec());
            }
            _ => {}
        }
    }
    let mut lines = aligned(&["GROUP", "MEMBER", "ROLE", "AGE", "CAPABILITIES"], rows);
    if history.is_none() {
        push(&mut lines, LineKind::Note, format!(" AGE: {NO_AGE}"));
    }
    lines
}

fn of_locks(locks: &[LockStatus], now: SystemTime) -> Vec<TextLine> {
    let since = |since: Option<SystemTime>| since.map_or_else(|| "?".to_owned(), |since| short(since, now));
    let mut rows = Vec::new();
    for lock in locks {
        for holder in &lock.queue.holders {
            let token = holder.token.to_string();
            let row =
                [lock.name.as_str(), "holds", holder.member.as_str(), holder.mode.name(), &token, &since(holder.since)];
            rows.push(row.map(str::to_owned).to_vec());
        }
        for (index, waiter) in lock.queue.waiters.iter().flatten().enumerate() {
            let place = format!("waits {}", index + 1);
            let row =
                [lock.name.as_str(), &place, waiter.member.as_str(), waiter.mode.name(), "-", &since(waiter.since)];
            rows.push(row.map(str::to_owned).to_vec());
        }
    }
    let mut lines = aligned(&["LOCK", "", "MEMBER", "MODE", "TOKEN", "SINCE"], rows);
    if locks.iter().any(|lock| lock.queue.waiters.is_none()) {
        push(&mut lines, LineKind::Note, format!(" {NO_WAITERS}"));
    }
    lines
}

/// In columns, the first line the header.
fn aligned(header: &[&str], rows: Vec<Vec<String>>) -> Vec<TextLine> {
    let mut table = Table::new();
    table.load_style(NOTHING).set_header(header.iter().copied());
    table.add_rows(rows);
    let text = table.trim_fmt();
    let kind = |index| if index == 0 { LineKind::Header } else { LineKind::Row };
    text.lines().enumerate().map(|(index, line)| TextLine { text: line.to_owned(), kind: kind(index) }).collect()
}
