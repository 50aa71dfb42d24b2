//! How many replicas there are, and with that how many must have what counts: judged at each request, since one that has just joined may
//! be the primary a moment later.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

/// What the Sentinels say, and what the primary was seen with.
#[derive(Debug, Default)]
pub(crate) struct Replicas {
    /// Those that the Sentinels knew when they were asked last, dead ones too.
    known: u64,
    /// The most that followed the primary at once, and when it were as many for the last time.
    most: Option<(u64, Instant)>,
    /// How often a replica has begun to follow this primary and has its copy, as of the first look of the present connection.
    syncs: Option<u64>,
}

/// What a primary says of its replicas at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ReplicaCounts {
    /// Those that follow it now.
    pub(crate) online: u64,
    /// Those that are being sent their copy of the data, or wait for it.
    pub(crate) loading: u64,
    /// How often one has begun to; `None`: it was not asked.
    pub(crate) syncs: Option<u64>,
}

impl Replicas {
    /// The Sentinels were asked, and a new connection begins. What was seen within that time before still counts: they hear of a new
    /// replica late.
    pub(crate) fn asked(&mut self, known: u64, recently: Duration) {
        self.known = known;
        self.syncs = None;
        self.most = self.most.filter(|(_, last)| last.elapsed() < recently);
    }

    /// What the primary says. Fewer than before count for nothing as long as the connection lives: those that are missing may follow
    /// another primary.
    pub(crate) fn saw(&mut self, seen: ReplicaCounts) {
        let mut online = seen.online;
        if let Some(syncs) = seen.syncs {
            // A replica may have come and gone between two looks. Those that have only begun don't follow yet.
            let ready = syncs.saturating_sub(seen.loading);
            if ready > *self.syncs.get_or_insert(ready) {
                online = online.max(1);
            }
        }
        if self.most.is_none_or(|(most, _)| online >= most) {
            self.most = Some((online, Instant::now()));
        }
    }

    /// All that there are or may be.
    pub(crate) fn count(&self) -> u64 {
        self.known.max(self.most.map_or(0, |(most, _)| most))
    }

    /// How many must have it, so that a majority of all instances does.
    pub(crate) fn needed(&self) -> u64 {
        self.count().div_ceil(2)
    }
}

impl ReplicaCounts {
    /// Reads the lines of `INFO`, of one section or of several.
    pub(crate) fn read(lines: &HashMap<String, String>) -> Self {
        let number = |name: &str| lines.get(name).and_then(|text| text.parse::<u64>().ok());
        let is_replica = |name: &str| name.strip_prefix("slave").is_some_and(|rest| rest.parse::<u64>().is_ok());
        let states = lines.iter().filter(|(name, _)| is_replica(name)).map(|(_, value)| value.contains("state=online"));
        let (online, loading): (Vec<_>, Vec<_>) = states.partition(|is_online| *is_online);
        let count = |some: Vec<bool>| u64::try_from(some.len()).unwrap_or(u64::MAX);
        let syncs = number("sync_full").map(|full| full.saturating_add(number("sync_partial_ok").unwrap_or(0)));
        ReplicaCounts { online: count(online), loading: count(loading), syncs }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECENTLY: Duration = Duration::from_secs(10);

    fn seen(online: u64, syncs: u64) -> ReplicaCounts {
        ReplicaCounts { online, loading: 0, syncs: Some(syncs) }
    }

    proptest::proptest! {
        #[test]
        fn whatever_a_server_says_of_its_replicas_is_read(text in "((slave[0-9a-z]{0,3}|sync_full|sync_partial_ok):[0-9a-z=]{0,21}\n){0,5}") {
            ReplicaCounts::read(&crate::reply::lines_of(&text));
        }
    }

    #[test]
    fn a_majority_of_all_instances_is_asked_for() {
        let needed = [0, 1, 2, 3, 4].map(|known| {
            let mut replicas = Replicas::default();
            replicas.asked(known, RECENTLY);
            replicas.needed()
        });
        assert_eq!(needed, [0, 1, 1, 2, 2]);
    }

    #[test]
    fn who_joined_counts_until_the_sentinels_say_otherwise_a_while_later() {
        let mut replicas = Replicas::default();
        replicas.asked(0, RECENTLY);
        replicas.saw(seen(0, 0));
        assert_eq!(replicas.needed(), 0);
        replicas.saw(seen(3, 3));
        replicas.saw(seen(0, 3));
        assert_eq!(replicas.needed(), 2, "the connection is the same");
        replicas.asked(1, Duration::ZERO);
        assert_eq!(replicas.needed(), 1);
    }

    #[test]
    fn what_was_seen_just_now_outweighs_sentinels_that_have_not_heard_of_it() {
        let mut replicas = Replicas::default();
        replicas.asked(0, RECENTLY);
        replicas.saw(seen(2, 2));
        replicas.asked(0, RECENTLY);
        assert_eq!(replicas.needed(), 1);
    }

    #[test]
    fn one_that_came_and_went_between_two_looks_counts() {
        let mut replicas = Replicas::default();
        replicas.asked(0, RECENTLY);
        replicas.saw(seen(0, 5));
        assert_eq!(replicas.needed(), 0);
        replicas.saw(seen(0, 6));
        assert_eq!(replicas.needed(), 1);
    }

    #[test]
    fn one_that_is_sent_its_first_copy_does_not_count_until_it_has_it() {
        let mut replicas = Replicas::default();
        replicas.asked(0, RECENTLY);
        replicas.saw(seen(0, 0));
        // A copy counts when it begins, and takes long.
        replicas.saw(ReplicaCounts { online: 0, loading: 1, syncs: Some(1) });
        assert_eq!(replicas.needed(), 0);
        // It had its copy, and is gone.
        replicas.saw(seen(0, 1));
        assert_eq!(replicas.needed(), 1);
        // So it is too where the connection is made while the copy goes on.
        replicas.asked(0, Duration::ZERO);
        replicas.saw(ReplicaCounts { online: 0, loading: 1, syncs: Some(2) });
        assert_eq!(replicas.needed(), 0);
        replicas.saw(seen(0, 2));
        assert_eq!(replicas.needed(), 1);
    }

    #[test]
    fn replicas_that_are_still_loading_do_not_count() {
        let text = "role:master\r\nconnected_slaves:2\r\nslave0:ip=1.2.3.4,port=1,state=online,offset=1,lag=0\r\n\
                    slave1:ip=1.2.3.4,port=2,state=wait_bgsave,offset=0,lag=0\r\nslave_read_only:1\r\n";
        assert_eq!(
            ReplicaCounts::read(&crate::reply::lines_of(text)),
            ReplicaCounts { online: 1, loading: 1, syncs: None }
        );
    }
}
