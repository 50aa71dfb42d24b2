//! What a session has as long as it is open: the connection whose life is the session's, and all that hangs on it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::AbortHandle;
use tooz_core::driver::{Mutex, Reporter};

use crate::connection::Connection;
use crate::holdings::Holdings;
use crate::options::Settings;
use crate::pool::Pool;
use crate::witness::Witness;

pub(crate) struct OpenSession {
    pub(crate) connection: Arc<Connection>,
    pub(crate) holdings: Arc<Holdings>,
    /// The connections that wait for locks.
    pub(crate) pool: Arc<Pool>,
    pub(crate) witness: Witness,
    /// The limit of one statement.
    pub(crate) limit: Duration,
    pub(crate) timeout: Duration,
    closing: Arc<watch::Sender<bool>>,
    tasks: Mutex<Vec<AbortHandle>>,
}

impl OpenSession {
    /// Of a connection on which that session lives. Core is told when it is dead.
    pub(crate) fn new(connection: Arc<Connection>, holdings: Arc<Holdings>, settings: &Settings) -> Self {
        let open = OpenSession {
            connection,
            pool: Arc::new(Pool::new(settings.clone(), holdings.layout.clone())),
            witness: Witness::new(settings.clone()),
            limit: settings.statement_timeout,
            timeout: settings.session_timeout,
            closing: Arc::new(watch::Sender::new(false)),
            tasks: Mutex::default(),
            holdings,
        };
        let (connection, closing) = (Arc::clone(&open.connection), Arc::clone(&open.closing));
        open.keep(watch_over(connection, open.holdings.reporter.clone(), closing));
        open
    }

    /// Runs a task until the session is closed.
    pub(crate) fn keep(&self, task: impl Future<Output = ()> + Send + 'static) {
        let handle = tokio::spawn(task).abort_handle();
        self.tasks.lock().push(handle);
    }

    /// Ends when the session is closed or its connection is dead.
    pub(crate) async fn closed(&self) {
        let mut closing = self.closing.subscribe();
        let _ = closing.wait_for(|closing| *closing).await;
    }

    /// Ends what runs and waits for the session; its connection stays.
    pub(crate) fn end_waits(&self) {
        self.closing.send_replace(true);
        for task in std::mem::take(&mut *self.tasks.lock()) {
            task.abort();
        }
        self.pool.close();
        self.witness.dismiss();
    }
}

impl Drop for OpenSession {
    fn drop(&mut self) {
        self.end_waits();
    }
}

/// Tells core when the connection is dead.
async fn watch_over(connection: Arc<Connection>, reporter: Reporter, closing: Arc<watch::Sender<bool>>) {
    connection.died().await;
    reporter.session_lost("the connection to the server has ended");
    closing.send_replace(true);
}
