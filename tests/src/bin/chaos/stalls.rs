//! Noticing that the machine does not let this process run, or the backend: what is lost then is lost for that reason.

use std::time::{Duration, Instant};

use anyhow::Result;
use tokio::task::JoinSet;
use tooz::ConnectOptions;
use tooz_conformance::history::now;

use crate::backend::Backend;
use crate::crew::{Shared, lock};

/// How often is looked.
const LOOK: Duration = Duration::from_millis(50);

/// Looks until it is dropped. A quarter of the session timeout at once is a stall.
pub(crate) fn notice(backend: &Backend, url: &str, chronicle: &Shared) -> Result<JoinSet<()>> {
    let most = backend.session_timeout / 4;
    let options = ConnectOptions::new(url)?.member("looker")?.session_timeout(backend.session_timeout);
    let mut looking = JoinSet::new();
    looking.spawn(of_this_process(most, chronicle.clone()));
    looking.spawn(of_the_backend(most, options, chronicle.clone()));
    Ok(looking)
}

async fn of_this_process(most: Duration, chronicle: Shared) {
    loop {
        let (from, begun) = (now(), Instant::now());
        tokio::time::sleep(LOOK).await;
        if begun.elapsed() > most {
            lock(&chronicle).fault("the machine stood still".to_owned(), from, now());
        }
    }
}

/// By a way of its own, past what is broken of the ways of the workers. While the server is broken it is late as well, which is no news.
async fn of_the_backend(most: Duration, options: ConnectOptions, chronicle: Shared) {
    let Ok(coordinator) = options.connect().await else { return };
    let Ok(free) = coordinator.lock("looked-at") else { return };
    loop {
        tokio::time::sleep(LOOK).await;
        let (from, begun) = (now(), Instant::now());
        // Whatever the answer: it was one.
        let _ = free.holders().await;
        if begun.elapsed() > most {
            lock(&chronicle).fault("the backend was slow".to_owned(), from, now());
        }
    }
}
