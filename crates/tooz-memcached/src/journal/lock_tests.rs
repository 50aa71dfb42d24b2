//! What a journal of a lock means, by examples and against a model.

use proptest::prelude::*;

use super::*;
use crate::journal::dead;

fn ask(request: u128, session: u64, mode: LockMode) -> String {
    asked_at(request, session, mode, 10)
}

fn asked_at(request: u128, session: u64, mode: LockMode, token: u64) -> String {
    let (request, session, member) = (RequestId(request), SessionId(session), "a member".parse().unwrap());
    QueuedRequest { request, session, mode, token, member }.entry()
}

fn read(text: &str) -> LockJournal {
    LockJournal::read(text.as_bytes()).unwrap()
}

fn line(text: &str) -> Vec<u128> {
    read(text).line.iter().map(|place| place.request.0).collect()
}

const X: LockMode = LockMode::Exclusive;
const S: LockMode = LockMode::Shared;

#[test]
fn who_came_first_has_it() {
    let text = ask(1, 1, X) + &ask(2, 2, X) + &ask(3, 3, S);
    let journal = read(&text);
    assert_eq!(journal.holders().len(), 1);
    assert_eq!(journal.waiters().len(), 2);
    assert_eq!(journal.line.iter().map(|place| place.token).collect::<Vec<_>>(), [10, 11, 12]);
    assert_eq!(line(&(text + &release(RequestId(1)))), [2, 3]);
}

#[test]
fn readers_stand_together_and_no_writer_starves() {
    let text = ask(1, 1, S) + &ask(2, 2, S) + &ask(3, 3, X) + &ask(4, 4, S) + &ask(5, 5, S);
    let journal = read(&text);
    assert_eq!(journal.holders().len(), 2);
    let in_the_way = |request| journal.in_the_way(RequestId(request)).unwrap().len();
    assert_eq!([1, 2, 3, 4, 5].map(in_the_way), [0, 0, 2, 3, 3]);
    assert_eq!(journal.in_the_way(RequestId(9)), None);
}

#[test]
fn a_repetition_has_no_second_place() {
    assert_eq!(line(&(ask(1, 1, X) + &ask(2, 2, X) + &ask(1, 1, X))), [1, 2]);
    // Nor has one that comes after the request is over.
    assert_eq!(line(&(ask(1, 1, X) + &release(RequestId(1)) + &ask(1, 1, X))), [0; 0]);
}

#[test]
fn a_withdrawal_voids_what_comes_before_and_behind_it_also_when_the_journal_was_written_anew() {
    let late = withdraw(RequestId(1), SessionId(1)) + &ask(1, 1, X);
    assert_eq!(line(&late), [0; 0]);
    let compacted = read(&(ask(1, 1, X) + &withdraw(RequestId(1), SessionId(1)))).compacted(&BTreeSet::new());
    assert_eq!(line(&(compacted.clone() + &ask(1, 1, X))), [0; 0]);
    let forgotten = read(&compacted).compacted(&[SessionId(1)].into());
    assert_eq!(forgotten, free(10));
}

/// What replaces the record of a holder without another place means what its release would have made of it.
#[test]
fn what_is_freed_at_once_remembers_what_is_in_doubt() {
    let text = ask(1, 1, X) + &withdraw(RequestId(1), SessionId(1)) + &ask(2, 2, X);
    let freed = read(&text).remembered(&BTreeSet::new()) + &free(read(&text).last_token);
    assert_eq!(freed, read(&(text + &release(RequestId(2)))).compacted(&BTreeSet::new()));
    assert_eq!(line(&(freed.clone() + &ask(1, 1, X) + &ask(3, 3, X))), [3]);
    assert_eq!(kept_for(&freed), KEPT);
}

#[test]
fn only_a_holder_is_broken_and_only_once() {
    let text = ask(1, 1, X) + &ask(2, 2, X) + &break_off(RequestId(2));
    assert_eq!(line(&text), [1, 2]);
    let text = text + &break_off(RequestId(1)) + &release(RequestId(1));
    assert_eq!((line(&text), read(&text).end_of(RequestId(1))), (vec![2], Some(End::Taken)));
    let text = ask(1, 1, X) + &release(RequestId(1)) + &break_off(RequestId(1));
    assert_eq!(read(&text).end_of(RequestId(1)), Some(End::Given), "the release has won");
}

#[test]
fn the_dead_have_no_place_also_where_their_entries_come_late() {
    let text = ask(1, 1, X) + &ask(2, 2, X) + &ask(3, 1, X) + &dead(SessionId(1)) + &ask(4, 1, X);
    let journal = read(&text);
    assert_eq!(line(&text), [2]);
    assert_eq!([1, 3, 4].map(|request| journal.end_of(RequestId(request))), [Some(End::Died); 3]);
}

#[test]
fn tokens_grow_over_what_is_written_anew() {
    // The second reader has had its token and has gone: no later one may have it again.
    let text = ask(1, 1, S) + &ask(2, 2, S) + &release(RequestId(2));
    let compacted = read(&text).compacted(&BTreeSet::new());
    let journal = read(&(compacted + &ask(3, 3, S)));
    assert_eq!(journal.line.iter().map(|place| place.token).collect::<Vec<_>>(), [10, 12]);
    assert_eq!(read(&(free(50) + &ask(1, 1, X))).line[0].token, 51);
    assert_eq!(read(&(free(50) + &asked_at(1, 1, X, 70))).line[0].token, 70);
}

#[test]
fn what_can_not_be_read_is_an_error() {
    for text in ["?\n", "A\tx\n", "A\n", "F\t-1\n", "W\t1\n", "\n", "A\t1\t1\tz\t1\tm\n"] {
        assert!(LockJournal::read(text.as_bytes()).is_err(), "{text:?}");
    }
    assert!(LockJournal::read(b"\xff").is_err());
}

/// What happens to a lock. Requests are told apart by whether any of their answers was lost: only then may an entry come late.
#[derive(Clone, Debug)]
enum Step {
    Ask { request: u8, shared: bool, time: u8 },
    Release { request: u8 },
    Break { request: u8 },
    Bury { session: u8 },
    Compact,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..12_u8, any::<bool>(), any::<u8>()).prop_map(|(request, shared, time)| Step::Ask { request, shared, time }),
        4 => (0..12_u8).prop_map(|request| Step::Release { request }),
        2 => (0..12_u8).prop_map(|request| Step::Break { request }),
        1 => (0..4_u8).prop_map(|session| Step::Bury { session }),
        2 => Just(Step::Compact),
    ]
}

/// What must be so, kept in the plainest way.
#[derive(Default)]
struct Model {
    line: Vec<(u8, LockMode, u64)>,
    over: BTreeSet<u8>,
    buried: BTreeSet<u8>,
    tokens: Vec<u64>,
}

/// Those whose answers get lost: what they ask may come at any time and as often as it likes, so they give back in doubt.
fn is_in_doubt(request: u8) -> bool {
    request.is_multiple_of(2)
}

fn session_of(request: u8) -> u8 {
    request % 4
}

impl Model {
    /// Whether the driver would write that, and what it makes of the line.
    fn take(&mut self, step: &Step) -> bool {
        match *step {
            Step::Ask { request, .. } => {
                // What was answered is not asked again; and the buried write late at most.
                is_in_doubt(request) || !(self.over.contains(&request) || self.stands(request))
            }
            Step::Release { request } => {
                self.line.retain(|place| place.0 != request);
                self.over.insert(request);
                true
            }
            Step::Break { request } => {
                let holders = self.holders();
                if holders.contains(&request) {
                    self.line.retain(|place| place.0 != request);
                    self.over.insert(request);
                }
                // One that is broken and was in doubt is given back by its guard's drop.
                true
            }
            Step::Bury { session } => {
                self.buried.insert(session);
                self.line.retain(|place| session_of(place.0) != session);
                true
            }
            Step::Compact => true,
        }
    }

    fn stands(&self, request: u8) -> bool {
        self.line.iter().any(|place| place.0 == request)
    }

    fn holders(&self) -> Vec<u8> {
        let shared = self.line.iter().take_while(|place| place.1 == S).count();
        self.line.iter().take(shared.max(1)).map(|place| place.0).collect()
    }
}

proptest! {
    /// Whatever comes in whatever order, and however often the text is written anew: the line is the model's, tokens grow, and a request
    /// that is over never stands again.
    #[test]
    fn the_line_is_what_the_model_says(steps in proptest::collection::vec(step(), 0..60)) {
        let (mut text, mut model) = (String::new(), Model::default());
        for step in steps {
            if !model.take(&step) {
                continue;
            }
            match step {
                Step::Ask { request, shared, time } => {
                    let (mode, session) = (if shared { S } else { X }, session_of(request));
                    text += &asked_at(request.into(), session.into(), mode, time.into());
                    if model.buried.contains(&session) {
                        // Once the text has forgotten the burial, the next client that looks sees that the session is gone.
                        text += &dead(SessionId(session.into()));
                    } else if !model.over.contains(&request) && !model.stands(request) {
                        let token = read(&text).last_token;
                        prop_assert!(model.tokens.last().is_none_or(|last| *last < token));
                        model.tokens.push(token);
                        model.line.push((request, mode, token));
                    }
                }
                Step::Release { request } if is_in_doubt(request) => {
                    text += &withdraw(RequestId(request.into()), SessionId(session_of(request).into()));
                }
                Step::Release { request } => text += &release(RequestId(request.into())),
                Step::Break { request } => {
                    text += &break_off(RequestId(request.into()));
                    if model.over.contains(&request) && is_in_doubt(request) {
                        text += &withdraw(RequestId(request.into()), SessionId(session_of(request).into()));
                    }
                }
                Step::Bury { session } => text += &dead(SessionId(session.into())),
                Step::Compact => {
                    let gone = model.buried.iter().map(|session| SessionId((*session).into())).collect();
                    text = read(&text).compacted(&gone);
                }
            }
            let journal = read(&text);
            let line: Vec<_> = journal.line.iter().map(|place| (place.request.0, place.mode, place.token)).collect();
            let wanted: Vec<_> = model.line.iter().map(|place| (u128::from(place.0), place.1, place.2)).collect();
            prop_assert_eq!(line, wanted);
            let again = read(&journal.compacted(&BTreeSet::new()));
            prop_assert_eq!((again.line, again.last_token), (journal.line.clone(), journal.last_token));
            let exclusive = journal.holders().iter().any(|place| place.mode == X);
            prop_assert!(!exclusive || journal.holders().len() == 1);
        }
    }

    #[test]
    fn any_text_is_read_or_refused(text in "([ARWBXF]\t[0-9a-f]{1,3}(\t[0-9a-fxs]{1,3}){0,4}\n|\\PC{0,9}){0,6}") {
        let _ = LockJournal::read(text.as_bytes());
    }
}
