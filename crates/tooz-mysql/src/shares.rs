//! Which named locks stand for the shares of a lock stands in a table. A row stays for a while after its share was given back, so that a lock that is read
//! again and again is written down once; then it is taken away.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;
use tooz_core::ErrorKind;

use crate::connection::Connection;
use crate::error;
use crate::holdings::Holdings;
use crate::layout;

/// For how long a row stays.
const WHILE: Duration = Duration::from_secs(1);
/// How many are taken away by one statement.
const BATCH: usize = 300;

/// Takes away what stands for shares that are not held any more, as long as the session lives.
pub(crate) async fn keep_few(connection: Arc<Connection>, holdings: Arc<Holdings>, limit: Duration) {
    const DOING: &str = "take away what stood for shares";
    loop {
        sleep(WHILE).await;
        if holdings.idle_shares(WHILE, 1).is_empty() {
            continue;
        }
        let theirs = Arc::clone(&holdings);
        let taking = connection.run(limit, DOING, move |wire| {
            Box::pin(async move {
                // Only now: one that was taken again in between stays.
                let idle = theirs.idle_shares(WHILE, BATCH);
                if idle.is_empty() {
                    return Ok(());
                }
                let shares: Vec<String> =
                    idle.iter().map(|lock| format!("('{lock}', '{}')", layout::share(&theirs.session, lock))).collect();
                let table = theirs.layout.table("sharers");
                // Forgotten first: if it is not known what became of the rows, they are written again.
                theirs.forget_shares(&idle);
                let statement = format!("DELETE FROM {table} WHERE (lk, name) IN ({})", shares.join(", "));
                wire.ask(&statement).await.map(drop).map_err(|error| error::on_session(error, DOING))
            })
        });
        if taking.await.is_err_and(|error| error.kind() == ErrorKind::Lost) {
            return;
        }
    }
}
