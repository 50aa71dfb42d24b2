//! What the doctor looks at: settings of the server that lose locks.

use tooz_core::Checkup;

use crate::options::Settings;
use crate::server::Server;

impl Server {
    /// What an operator should know.
    pub(crate) fn check_up(&self, settings: &Settings) -> Checkup {
        let mut found = Checkup::new(format!("{} at {}", self.product(), settings.target));
        found = match (self.may_evict(), self.number("evictions")) {
            (false, _) => found.good("evictions are off (-M): a full server refuses, and drops nothing that is held"),
            (true, 0) => found.warning(
                "the server evicts when it is full (it has not yet): a lock or a session that is held may be dropped, and its holder hears of \
                 it a third of the session timeout later",
                "start memcached with -M, and with no cache beside the locks",
            ),
            (true, evicted) => found.wrong(
                format!("the server has dropped {evicted} values because it was full: locks that are held may be among them"),
                "start memcached with -M, and with no cache beside the locks",
            ),
        };
        let (used, most) = (self.number("bytes"), self.number("limit_maxbytes"));
        if most > 0 && used > most / 10 * 9 {
            found = found.warning(
                format!(
                    "{used} of {most} bytes of memory are in use: a full server refuses new locks, or drops old ones"
                ),
                "raise its memory (-m)",
            );
        }
        let (now, limit) = (self.number("curr_connections"), self.number("max_connections"));
        if limit > 0 && now > limit / 10 * 9 {
            found = found.warning(
                format!("{now} of {limit} connections are in use: each coordinator has two"),
                "raise the number of connections (-c)",
            );
        }
        found.warning(
            "nothing outlives a restart of the server: it ends every session, and with it every lock",
            "use another backend where that must not be; a fencing token guards what the lock is for",
        )
    }
}
