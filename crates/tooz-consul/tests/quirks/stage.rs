//! Where a quirk plays: a server, coordinators on it, and a limit to every wait.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tooz_core::{ConnectOptions, Coordinator};
use tooz_testbed::Server;

use crate::ask;

/// How long a test waits for what must happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(15);

/// Runs a test on a runtime of its own.
pub(crate) fn play(test: impl Future<Output = Result<()>>) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let result = runtime.block_on(async { tokio::time::timeout(PATIENCE * 8, test).await });
    runtime.shutdown_background();
    result.context("the test did not end")?
}

/// A coordinator with a session timeout of 2 s, unless the URL says otherwise.
pub(crate) async fn connect(url: &str, member: &str) -> Result<Coordinator> {
    let url = if url.contains("session_timeout") { url.to_owned() } else { with(url, "session_timeout=2s") };
    Ok(within("connecting", ConnectOptions::new(&url)?.member(member)?.connect()).await??)
}

/// The URL with one more option.
pub(crate) fn with(url: &str, option: &str) -> String {
    let mark = if url.contains('?') { '&' } else { '?' };
    format!("{url}{mark}{option}")
}

/// Waits, but not for ever.
pub(crate) async fn within<T>(what: &str, future: impl Future<Output = T>) -> Result<T> {
    tokio::time::timeout(PATIENCE, future).await.with_context(|| format!("{what} took longer than {PATIENCE:?}"))
}

/// Waits for what has promised to come within a second.
pub(crate) async fn at_once<T>(what: &str, future: impl Future<Output = T>) -> Result<T> {
    let limit = Duration::from_secs(1);
    tokio::time::timeout(limit, future).await.with_context(|| format!("{what} took longer than {limit:?}"))
}

/// Asks again until the answer is yes.
pub(crate) async fn eventually(what: &str, mut ask: impl AsyncFnMut() -> Result<bool>) -> Result<()> {
    let asking = async {
        while !ask().await? {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        anyhow::Ok(())
    };
    within(what, asking).await?
}

/// Lets other tasks run for a moment in which nothing is to happen.
pub(crate) async fn moment() {
    tokio::time::sleep(Duration::from_millis(300)).await;
}

/// All keys of this driver with what stands there, but for the record of the layout, which stays.
pub(crate) fn keys(server: &Server) -> Vec<(String, String)> {
    let mut keys = ask::entries(server.address(), "tooz/");
    keys.retain(|(key, _)| !key.ends_with("/layout"));
    keys
}

/// The keys of a lock.
pub(crate) fn places(server: &Server, lock: &str) -> Vec<String> {
    let folder = format!("/locks/{lock}/");
    keys(server).into_iter().map(|(key, _)| key).filter(|key| key.contains(&folder)).collect()
}

/// The id of the one session of that member.
pub(crate) fn session_of(server: &Server, member: &str) -> Result<String> {
    let is_its = |(key, value): &(String, String)| {
        key.contains("/sessions/") && value.contains(&format!("\"member\":{member:?}"))
    };
    let keys = keys(server);
    let found: Vec<_> = keys.iter().filter(|pair| is_its(pair)).collect();
    let [(key, _)] = found.as_slice() else { bail!("the sessions of {member}: {found:?}") };
    Ok(key.trim_end_matches('/').rsplit('/').next().unwrap_or_default().to_owned())
}

/// How many requests the server has counted.
pub(crate) fn requests(server: &Server) -> Result<u64> {
    server.requests()?.context("Consul counts its requests")
}
