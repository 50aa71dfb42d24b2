//! Questions that are answered early, though there is nothing to tell, are asked ever more seldom.
//!
//! Of a prefix below which nothing stands Consul answers at each change of anything near it, and a server with a low `max_query_time` answers all
//! questions after that, with all that is asked for.

use std::time::Duration;

use tokio::time::Instant;
use tooz_core::driver::Backoff;

/// A question that waited for so long was not answered early.
const QUIET: Duration = Duration::from_secs(2);

/// The pauses of one that asks.
pub(crate) struct Idle(Backoff);

impl Idle {
    pub(crate) fn new() -> Self {
        Idle(Backoff::between(Duration::from_millis(20), Duration::from_millis(500)))
    }

    /// Pauses after the answer to what was asked at that moment.
    pub(crate) async fn pace(&mut self, has_told: bool, asked_at: Instant) {
        if has_told || asked_at.elapsed() >= QUIET {
            self.0.reset();
        } else {
            self.0.pause().await;
        }
    }
}
