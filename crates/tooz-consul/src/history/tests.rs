//! The rule by itself: servers of which a map is all there is, and transactions that arrive and are answered in any order, or never.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// What stands at the stamps' keys: number and index.
type Keys = BTreeMap<String, (u64, u64)>;

/// As much of a server as a stamp needs.
#[derive(Default)]
struct Server {
    keys: Keys,
    index: u64,
}

/// What a transaction has for its stamp.
#[derive(Clone)]
struct Write {
    key: String,
    number: u64,
    /// The index that it is written over, if a certain one.
    over: Option<u64>,
}

impl Server {
    fn read(&self) -> Vec<KeyEntry> {
        let entry = |(key, (number, index)): (&String, &(u64, u64))| KeyEntry {
            key: key.clone(),
            value: number.to_string().into(),
            session: None,
            created: 1,
            modified: *index,
        };
        self.keys.iter().map(entry).collect()
    }

    /// What it answers, unless it refuses.
    fn write(&mut self, write: &Write) -> Option<Vec<KeyEntry>> {
        self.index += 1;
        let there = self.keys.get(&write.key).map(|(_, index)| *index);
        if write.over.is_some() && write.over != there {
            return None;
        }
        let mut answer = self.read();
        self.keys.insert(write.key.clone(), (write.number, self.index));
        let modified = self.index;
        answer.push(KeyEntry { key: write.key.clone(), value: Vec::new(), session: None, created: 1, modified });
        Some(answer)
    }
}

fn write_of(stamp: &Stamp<'_>) -> Write {
    let over = stamp.is_known().then(|| stamp.before[stamp.place].index);
    Write { key: stamp.history.key(stamp.place), number: stamp.number, over }
}

fn history() -> History {
    History::new("stamps/s/".to_owned(), "s".to_owned())
}

/// Sends a change and hears the answer. Answers whether it was done.
fn change(history: &History, server: &mut Server) -> bool {
    let stamp = history.take();
    if let Some(mut answer) = server.write(&write_of(&stamp)) {
        stamp.done(&mut answer);
        assert!(answer.is_empty(), "a stamp is no part of the answer");
        true
    } else {
        stamp.refused();
        false
    }
}

/// Looks at all stamps, and answers whether there was a set-back.
fn look(history: &History, server: &Server) -> bool {
    history.judge(&history.seen(), &server.read());
    history.take_set_back()
}

#[test]
fn what_is_lost_after_a_set_back_does_not_hide_it() {
    let (history, mut server) = (history(), Server::default());
    assert!(change(&history, &mut server));
    let backup = server.keys.clone();
    assert!(change(&history, &mut server) && !look(&history, &server));
    server.keys = backup;
    let lost = history.take();
    assert!(server.write(&write_of(&lost)).is_none(), "it was done over an earlier state");
    drop(lost);
    assert!(history.is_unsure());
    assert!(!change(&history, &mut server), "so was the next");
    assert!(look(&history, &server) && change(&history, &mut server) && !look(&history, &server));
}

#[test]
fn what_was_sent_before_a_set_back_and_arrives_after_it_does_not_hide_it() {
    let (history, mut server) = (history(), Server::default());
    assert!(change(&history, &mut server));
    let backup = server.keys.clone();
    let late = write_of(&history.take());
    assert!(change(&history, &mut server));
    server.keys = backup;
    assert!(server.write(&late).is_some(), "it stands on what it knew");
    assert!(look(&history, &server), "its number is lower");
}

#[test]
fn what_is_lost_alone_is_no_set_back() {
    let (history, mut server) = (history(), Server::default());
    assert!(change(&history, &mut server));
    let lost = history.take();
    assert!(server.write(&write_of(&lost)).is_some());
    drop(lost);
    assert!(!change(&history, &mut server), "it is not known what stands there");
    assert!(!look(&history, &server) && change(&history, &mut server));
}

#[test]
fn one_that_wrote_only_after_the_backup_tells_of_it_too() {
    let (history, mut server) = (history(), Server::default());
    let (first, second) = (history.take(), history.take());
    let backup = server.keys.clone();
    for stamp in [second, first] {
        let mut answer = server.write(&write_of(&stamp)).unwrap();
        stamp.done(&mut answer);
    }
    assert_eq!(server.keys.len(), 2, "they were under way at once");
    server.keys = backup;
    assert!(look(&history, &server), "the stamps are gone");
}

/// What happens next.
#[derive(Clone, Debug)]
enum Event {
    Send,
    /// What was sent arrives, whether it is answered or not, and perhaps once more.
    Arrive {
        which: usize,
        is_answered: bool,
        is_kept: bool,
    },
    GiveUp(usize),
    Save,
    Restore,
    Look,
}

fn event() -> impl Strategy<Value = Event> {
    let arrive = |(which, is_answered, is_kept)| Event::Arrive { which, is_answered, is_kept };
    prop_oneof![
        4 => Just(Event::Send),
        6 => (0..8_usize, any::<bool>(), any::<bool>()).prop_map(arrive),
        1 => (0..8_usize).prop_map(Event::GiveUp),
        1 => Just(Event::Save),
        1 => Just(Event::Restore),
        1 => Just(Event::Look),
    ]
}

proptest! {
    #[test]
    fn no_answered_change_is_forgotten_unnoticed(events in prop::collection::vec(event(), 1..60)) {
        let (history, mut server) = (history(), Server::default());
        let mut backup = Keys::new();
        // The numbers of answered changes that are part of each state.
        let (mut there, mut saved) = (Vec::<u64>::new(), Vec::<u64>::new());
        let mut sent: Vec<(Option<Stamp<'_>>, Write)> = Vec::new();
        let mut answered = Vec::<u64>::new();
        for event in events {
            match event {
                Event::Send => {
                    let stamp = history.take();
                    let write = write_of(&stamp);
                    sent.push((Some(stamp), write));
                }
                Event::Arrive { which, is_answered, is_kept } if which < sent.len() => {
                    let (mut stamp, write) = sent.remove(which);
                    let answer = server.write(&write);
                    if answer.is_some() {
                        there.push(write.number);
                    }
                    let hearing = if is_answered { stamp.take() } else { None };
                    match (hearing, answer) {
                        (Some(stamp), Some(mut answer)) => {
                            answered.push(write.number);
                            stamp.done(&mut answer);
                        }
                        (Some(stamp), None) => stamp.refused(),
                        _ => {}
                    }
                    if is_kept {
                        sent.push((stamp, write));
                    }
                }
                Event::Arrive { .. } => {}
                Event::GiveUp(which) => {
                    if let Some((stamp, _)) = sent.get_mut(which) {
                        stamp.take();
                    }
                }
                Event::Save => (backup, saved) = (server.keys.clone(), there.clone()),
                Event::Restore => (server.keys, there) = (backup.clone(), saved.clone()),
                Event::Look => {
                    let is_noticed = look(&history, &server);
                    let is_forgotten = answered.iter().any(|number| !there.contains(number));
                    prop_assert!(is_noticed || !is_forgotten, "{answered:?} were answered, {there:?} are there");
                    // What is compared now counts as never answered.
                    answered.retain(|number| there.contains(number));
                }
            }
        }
        let is_forgotten = answered.iter().any(|number| !there.contains(number));
        prop_assert!(look(&history, &server) || !is_forgotten, "{answered:?} were answered, {there:?} are there");
    }
}
