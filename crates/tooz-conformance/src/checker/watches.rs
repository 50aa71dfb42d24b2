//! A watch tells what was so, in order, nothing twice, and without a gap.
//!
//! Each event must follow from those before: what comes was not there, what goes was. What a watch shows of a member must have a place in
//! the order of that member's changes, and never goes back. While nothing is broken it is not late.

use std::collections::BTreeMap;

use crate::checker::groups::could_be_so;
use crate::checker::law::Law;
use crate::checker::terms::Terms;
use crate::checker::timeline::{Timeline, is_disturbed, timelines};
use crate::checker::violation::Violation;
use crate::history::{History, Listed, Telling, Told, Watching};

pub(crate) fn judge(history: &History, terms: &Terms) -> Result<(), Violation> {
    let groups = timelines(history, terms);
    let none = BTreeMap::new();
    for watching in &history.watches {
        let members = groups.get(watching.group.as_str()).unwrap_or(&none);
        let view = View { watching, members, shown: BTreeMap::new(), begun: false };
        view.follow(history, terms)?;
    }
    Ok(())
}

/// What a watch shows of a member: its word, its place in the order, and since when.
#[derive(Clone, Copy)]
struct Shown {
    word: Option<u64>,
    place: usize,
    since: u64,
}

struct View<'a> {
    watching: &'a Watching,
    members: &'a BTreeMap<&'a str, Timeline>,
    shown: BTreeMap<&'a str, Shown>,
    begun: bool,
}

impl<'a> View<'a> {
    fn follow(mut self, history: &History, terms: &Terms) -> Result<(), Violation> {
        for told in &self.watching.told {
            let news = self.news(told, terms)?;
            for (member, word) in news {
                self.show(member, word, told.at, history, terms)?;
            }
        }
        let until = self.watching.until;
        let is_deleted = self.watching.told.last().is_some_and(|told| told.what == Telling::Deleted);
        for (member, shown) in self.shown.iter().filter(|_| !is_deleted) {
            self.in_time(member, *shown, until, history, terms)?;
        }
        Ok(())
    }

    /// What the event says is new, where it follows from those before.
    fn news(&mut self, told: &'a Told, terms: &Terms) -> Result<Vec<(&'a str, Option<u64>)>, Violation> {
        let is_first = !std::mem::replace(&mut self.begun, true);
        if is_first != matches!(told.what, Telling::Snapshot(_)) {
            return Err(self.wrong("a snapshot comes first, and once", told.at));
        }
        let listed = |member: &str| self.shown.get(member).and_then(|shown| shown.word);
        let error = match &told.what {
            Telling::Joined(one) if listed(&one.member).is_some() => Some("one came that was there"),
            Telling::Left(member) if listed(member).is_none() => Some("one went that was not there"),
            Telling::Updated(one) if listed(&one.member).is_none() => Some("one says something new that was not there"),
            Telling::Updated(one) if listed(&one.member) == Some(one.word) => Some("the same is told twice"),
            _ => None,
        };
        match error {
            Some(error) => Err(self.wrong(&format!("{error}: {:?}", told.what), told.at)),
            None => self.changed_by(told, terms),
        }
    }

    fn changed_by(&self, told: &'a Told, terms: &Terms) -> Result<Vec<(&'a str, Option<u64>)>, Violation> {
        Ok(match &told.what {
            Telling::Snapshot(listed) | Telling::Reset(listed) => {
                let from = if terms.linearizable { self.watching.asked } else { 0 };
                let window = (from, told.at);
                could_be_so(listed, self.members, window).map_err(|what| self.wrong(&what, told.at))?;
                let word = |member: &str| listed.iter().find(|one: &&Listed| one.member == member).map(|one| one.word);
                self.members.keys().map(|member| (*member, word(member))).collect()
            }
            Telling::Joined(one) | Telling::Updated(one) => vec![(one.member.as_str(), Some(one.word))],
            Telling::Left(member) => vec![(member.as_str(), None)],
            Telling::Deleted => self.shown.keys().map(|member| (*member, None)).collect(),
        })
    }

    fn show(
        &mut self,
        member: &'a str,
        word: Option<u64>,
        at: u64,
        history: &History,
        terms: &Terms,
    ) -> Result<(), Violation> {
        let Some(timeline) = self.members.get(member) else {
            return Err(self.wrong(&format!("{member} is told of, which never joined"), at));
        };
        let before = self.shown.get(member).copied();
        if before.is_some_and(|before| before.word == word) {
            return Ok(());
        }
        let least = before.map_or(0, |before| before.place);
        let Some(place) = timeline.place(word, least, (0, at)) else {
            let how = word.map_or("gone".to_owned(), |word| format!("there with the word {word}"));
            return Err(
                self.wrong(&format!("{member} is told to be {how}, which it was not then, or only earlier"), at)
            );
        };
        if let Some(before) = before {
            self.in_time(member, before, at, history, terms)?;
        }
        self.shown.insert(member, Shown { word, place, since: at });
        Ok(())
    }

    /// What was shown until now was so not too long ago.
    fn in_time(&self, member: &str, shown: Shown, now: u64, history: &History, terms: &Terms) -> Result<(), Violation> {
        let timeline = &self.members[member];
        // It may have been so once more since.
        let last = timeline.last(shown.word, shown.place, now).unwrap_or(now);
        let last = last.max(shown.since);
        let is_late = last.saturating_add(terms.lateness) < now;
        if is_late && !is_disturbed(history, terms, (last, now)) {
            let how = shown.word.map_or("gone".to_owned(), |word| format!("there with the word {word}"));
            let what = format!(
                "{member} was shown to be {how} {} ms after it was so for the last time",
                (now - last) / 1_000_000
            );
            return Err(self.wrong(&what, now));
        }
        Ok(())
    }

    fn wrong(&self, what: &str, at: u64) -> Violation {
        let Watching { worker, group, asked, told, .. } = self.watching;
        let before = told.iter().map(|told| told.at).take_while(|told| *told < at).last().unwrap_or(*asked);
        Violation::new(Law::Watches, format!("watches: {what}; told to {worker} of {group}"), (before, at))
    }
}
