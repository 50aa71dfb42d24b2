//! What the server says of itself: whether it will do, and what can be promised on it.

use std::collections::HashMap;
use std::time::Duration;

use tooz_core::{Characteristic, Characteristics, Error, Result};

use crate::reply::{Batch, Reply};

/// What one server that never evicts gives. Each is defended in the README.
pub(crate) const BEST: Characteristics = ALWAYS.and(Characteristics::LINEARIZABLE).and(Characteristics::SAME_VIEW);

/// What it gives also where it may evict what is held.
const ALWAYS: Characteristics = Characteristics::of(&[
    Characteristic::Groups,
    Characteristic::SharedLocks,
    Characteristic::BreakableLocks,
    Characteristic::FairLocks,
    Characteristic::Causal,
])
.and(Characteristics::MANY_HOSTS);

/// The first version that has the commands as they are written here.
const OLDEST: [u32; 3] = [1, 6, 10];

/// How much of the memory is given out in pages, each to values of one size. A page seldom comes back: values of another size have no room where all are
/// given out, however little is in use.
const GIVEN_OUT: &str = "total_malloced";

/// Lines of `stats`, with one of `stats slabs`, and of `stats settings`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Server {
    stats: HashMap<String, String>,
    settings: HashMap<String, String>,
}

impl Server {
    /// What is asked of a server to know it.
    pub(crate) fn questions() -> Batch {
        Batch::default().nothing().stats().settings().slabs()
    }

    /// Reads the answers to the questions.
    pub(crate) fn read(mut next: impl FnMut() -> Reply) -> Result<Self> {
        match (next(), next(), next(), next()) {
            (Reply::Nothing, Reply::Stats(stats), Reply::Stats(settings), Reply::Stats(slabs)) => {
                let pages = slabs.into_iter().filter(|(name, _)| name == GIVEN_OUT);
                Ok(Server { stats: stats.into_iter().chain(pages).collect(), settings: settings.into_iter().collect() })
            }
            _ => Err(Error::config(format!(
                "what answers there is no memcached of version {} or later, or a proxy stands before it: a lock and the session that \
                 vouches for it have to be at one server",
                OLDEST.map(|part| part.to_string()).join(".")
            ))),
        }
    }

    fn stat(&self, name: &str) -> &str {
        self.stats.get(name).map_or("", String::as_str)
    }

    pub(crate) fn number(&self, name: &str) -> u64 {
        self.stat(name).parse().unwrap_or(0)
    }

    pub(crate) fn setting(&self, name: &str) -> &str {
        self.settings.get(name).map_or("", String::as_str)
    }

    /// How long it has run.
    pub(crate) fn uptime(&self) -> Duration {
        Duration::from_secs(self.number("uptime"))
    }

    /// Its wall clock, in seconds, by its answer to `stats`.
    pub(crate) fn time_of(stats: Reply) -> Result<u64> {
        let Reply::Stats(lines) = stats else { return Err(stats.unexpected()) };
        let time = lines.iter().find(|(name, _)| name == "time");
        Ok(time.and_then(|(_, value)| value.parse().ok()).unwrap_or(0))
    }

    pub(crate) fn product(&self) -> String {
        format!("memcached {}", self.stat("version"))
    }

    /// Whether it drops what is held when it is full.
    pub(crate) fn may_evict(&self) -> bool {
        self.setting("evictions") != "off"
    }

    /// Whether it may have no room for what comes, and evicts nothing: more than half of its memory is in use or given out, or it has refused something.
    pub(crate) fn is_tight(&self) -> bool {
        let used = self.number("bytes").max(self.number(GIVEN_OUT));
        let is_half_full = used > self.number("limit_maxbytes") / 2;
        !self.may_evict() && (is_half_full || self.number("store_no_memory") > 0)
    }

    /// Whether it keeps values on a disk, to which nothing can be appended.
    fn has_extstore(&self) -> bool {
        self.stats.keys().any(|name| name.starts_with("extstore_"))
    }

    fn version(&self) -> [u32; 3] {
        let mut parts = self.stat("version").split(['.', '-', '_']).map_while(|part| part.parse().ok());
        std::array::from_fn(|_| parts.next().unwrap_or(0))
    }

    /// Refuses a server on which locks would not hold.
    pub(crate) fn judge(&self) -> Result<()> {
        if self.stat("pid").is_empty() || self.stat("uptime").is_empty() || self.stat("time").is_empty() {
            return Err(Error::config(
                "what answers there does not say how long it has run: a proxy stands before the server, which would spread keys over several; \
                 name the server itself",
            ));
        }
        if self.version() < OLDEST {
            let oldest = OLDEST.map(|part| part.to_string()).join(".");
            return Err(Error::config(format!("this is {}, and {oldest} is the oldest that will do", self.product())));
        }
        if self.setting("cas_enabled") == "no" {
            return Err(Error::config(
                "the server was started with -C: without versions of values no lock can be kept; leave it out",
            ));
        }
        if self.has_extstore() {
            return Err(Error::config(
                "the server keeps values on a disk (ext_path), to which nothing can be appended: use one without",
            ));
        }
        Ok(())
    }

    pub(crate) fn characteristics(&self) -> Characteristics {
        if self.may_evict() { ALWAYS } else { BEST }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Lines as a server may send them, some of them about what is looked at.
    fn lines() -> impl Strategy<Value = Vec<(String, String)>> {
        let name =
            "(pid|uptime|time|version|bytes|limit_maxbytes|evictions|cas_enabled|total_malloced|[a-z_:0-9]{0,12})";
        proptest::collection::vec((name, ".{0,24}"), 0..8)
    }

    proptest! {
        #[test]
        fn whatever_a_server_says_of_itself_is_judged(stats in lines(), settings in lines(), slabs in lines()) {
            let _ = Server::time_of(Reply::Stats(stats.clone()));
            let mut answers = [Reply::Nothing, Reply::Stats(stats), Reply::Stats(settings), Reply::Stats(slabs)].into_iter();
            let server = Server::read(|| answers.next().unwrap()).unwrap();
            let _ = (server.judge(), server.characteristics(), server.is_tight(), server.uptime(), server.product());
        }
    }

    #[test]
    fn a_server_that_leaves_out_an_answer_is_refused() {
        assert!(Server::read(|| Reply::Nothing).is_err());
    }
}
