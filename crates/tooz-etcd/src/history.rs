//! How far the cluster has come: its revision and its term, by which a cluster is known that was set back to an earlier state.
//!
//! A restored backup, or other servers at the same addresses, begin again at an earlier revision. Watches that wait for later ones would
//! be deaf until the new history has grown past the old one. A question that is asked in a linearizable way is answered with a revision that no
//! answer before the question has exceeded: if it is lower, the cluster was set back.

use tokio::sync::watch;
use tooz_core::driver::Mutex;

use crate::proto::etcdserverpb::ResponseHeader;

/// A point of a history.
#[derive(Clone, Copy, Default)]
pub(crate) struct Point {
    cluster: u64,
    term: u64,
    revision: i64,
}

/// What one session has seen of it.
pub(crate) struct History {
    seen: Mutex<Point>,
    set_back: watch::Sender<u64>,
}

impl History {
    pub(crate) fn new() -> Self {
        History { seen: Mutex::default(), set_back: watch::Sender::new(0) }
    }

    /// The furthest point so far: to be taken before a question is sent.
    pub(crate) fn seen(&self) -> Point {
        *self.seen.lock()
    }

    /// Notes the answer to a linearizable question that was sent when `before` was seen.
    pub(crate) fn note(&self, before: Point, header: Option<&ResponseHeader>) {
        let Some(header) = header else { return };
        let now = Point { cluster: header.cluster_id, term: header.raft_term, revision: header.revision };
        let was_set_back = before.revision > now.revision
            || before.term > now.term
            || (before.cluster != 0 && before.cluster != now.cluster);
        {
            let mut seen = self.seen.lock();
            if was_set_back {
                *seen = now;
            } else {
                seen.cluster = now.cluster;
                seen.term = seen.term.max(now.term);
                seen.revision = seen.revision.max(now.revision);
            }
        }
        if was_set_back {
            self.set_back.send_modify(|count| *count += 1);
        }
    }

    /// Notes that a watch has told of that revision.
    pub(crate) fn reach(&self, revision: i64) {
        let mut seen = self.seen.lock();
        seen.revision = seen.revision.max(revision);
    }

    /// How often the cluster was set back.
    pub(crate) fn set_backs(&self) -> watch::Receiver<u64> {
        self.set_back.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(cluster_id: u64, raft_term: u64, revision: i64) -> ResponseHeader {
        ResponseHeader { cluster_id, member_id: 1, revision, raft_term }
    }

    #[test]
    fn only_an_answer_older_than_the_question_tells_of_a_set_back() {
        let history = History::new();
        let count = history.set_backs();
        let early = history.seen();
        history.note(early, Some(&header(1, 2, 90)));
        let asked = history.seen();
        history.note(asked, Some(&header(1, 2, 100)));
        history.note(asked, Some(&header(1, 2, 95)));
        assert_eq!(*count.borrow(), 0, "an answer that was overtaken is none");
        history.note(history.seen(), Some(&header(1, 2, 95)));
        assert_eq!(*count.borrow(), 1, "an earlier revision");
        history.note(history.seen(), Some(&header(1, 1, 200)));
        assert_eq!(*count.borrow(), 2, "an earlier term");
        history.note(history.seen(), Some(&header(2, 1, 300)));
        assert_eq!(*count.borrow(), 3, "another cluster");
        history.note(history.seen(), Some(&header(2, 1, 300)));
        assert_eq!(*count.borrow(), 3);
    }
}
