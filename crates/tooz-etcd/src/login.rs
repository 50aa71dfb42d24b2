//! Logging in: one at a time, with the credentials of that moment, and for all who wait for it at once.

use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tonic::metadata::{Ascii, MetadataValue};
use tooz_core::driver::{CredentialSource, Mutex, MutexGuard};
use tooz_core::{Credentials, Error, ErrorKind, Outcome, Result};

/// etcd hashes the password for some tenths of a second.
const LIMIT: Duration = Duration::from_secs(2);

/// The session's place in etcd's authentication.
pub(crate) struct Login {
    source: CredentialSource,
    /// The reading that is under way. A file or an application that hangs is not asked a second time before it has answered.
    reading: tokio::sync::Mutex<Option<JoinHandle<Result<Credentials>>>>,
    state: Mutex<State>,
    /// One log-in at a time.
    turnstile: Semaphore,
}

#[derive(Clone, Default)]
struct State {
    token: Token,
    /// How many attempts have ended.
    ended: u64,
    /// How the last of them failed.
    failure: Option<(ErrorKind, String)>,
    are_users_off: bool,
}

/// A token, and which log-in it is of; none before the first.
#[derive(Clone, Default)]
pub(crate) struct Token {
    pub(crate) count: u64,
    pub(crate) value: Option<MetadataValue<Ascii>>,
}

/// What became of a log-in.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum LoggedIn {
    /// There is a token, or etcd wants none.
    Yes,
    /// Nobody is named who could log in.
    Nobody,
}

/// What etcd answers to a user and a password; `None`: it takes everybody.
pub(crate) type Answer = Result<Option<MetadataValue<Ascii>>>;

impl Login {
    pub(crate) fn new(source: CredentialSource) -> Self {
        Login { source, reading: tokio::sync::Mutex::default(), state: Mutex::default(), turnstile: Semaphore::new(1) }
    }

    pub(crate) fn token(&self) -> Token {
        self.state().token.clone()
    }

    /// Whether etcd said at the last log-in that it has no users.
    pub(crate) fn are_users_off(&self) -> bool {
        self.state().are_users_off
    }

    /// How long one log-in may take, where a request may take `limit`.
    pub(crate) fn limit(limit: Duration) -> Duration {
        limit.max(LIMIT)
    }

    /// Logs in by `authenticate`, unless somebody did since the log-in with that count. Whoever waits while another's attempt fails
    /// takes that answer: a hundred requests with one stale token are no reason to hash a hundred passwords.
    pub(crate) async fn after<F>(
        &self,
        count: u64,
        limit: Duration,
        authenticate: impl FnOnce(String, String) -> F,
    ) -> Result<LoggedIn>
    where
        F: Future<Output = Answer>,
    {
        let ended = self.state().ended;
        let attempt = async {
            let _one_at_a_time = self.turnstile.acquire().await;
            {
                let state = self.state();
                if state.token.count > count {
                    return Ok(LoggedIn::Yes);
                }
                if state.ended > ended
                    && let Some((kind, words)) = &state.failure
                {
                    return Err(Error::new(*kind, words.clone()));
                }
            }
            let answered = match self.user().await {
                Ok(None) => return Ok(LoggedIn::Nobody),
                Ok(Some((name, password))) => authenticate(name, password).await,
                Err(error) => Err(error),
            };
            self.take(answered)
        };
        let result = timeout(Login::limit(limit), attempt).await.unwrap_or_else(|_| {
            let words = "nobody answered in time, etcd or whoever gives the credentials";
            Err(Error::new(ErrorKind::TimedOut, words))
        });
        // Whatever was to be asked after the log-in was not.
        result.map_err(|error| error.with_outcome(Outcome::NotApplied).context("log in"))
    }

    /// The user and the password as they are now; `None`: nobody logs in.
    pub(crate) async fn user(&self) -> Result<Option<(String, String)>> {
        let read = {
            let mut reading = self.reading.lock().await;
            let source = self.source.clone();
            let handle = reading.get_or_insert_with(|| tokio::spawn(async move { source.read().await }));
            let read = handle.await;
            *reading = None;
            read
        };
        let gone = |_| Err(Error::new(ErrorKind::Backend, "whoever gives the credentials has panicked"));
        match read.unwrap_or_else(gone)? {
            Credentials { username: None, password: None, .. } => Ok(None),
            Credentials { username: Some(name), password: Some(password), .. } => Ok(Some((name, password))),
            _ => Err(Error::config(
                "etcd's authentication wants a user and a password: write etcd://user:password@host:2379, \
                 or etcd://user@host:2379?password_file=FILE",
            )),
        }
    }

    fn take(&self, answer: Answer) -> Result<LoggedIn> {
        let mut state = self.state();
        state.ended += 1;
        match answer {
            Ok(value) => {
                state.failure = None;
                state.are_users_off = value.is_none();
                // Without users there is nothing that a later log-in could be newer than.
                if value.is_some() {
                    state.token = Token { count: state.token.count + 1, value };
                }
                Ok(LoggedIn::Yes)
            }
            Err(error) => {
                state.failure = Some((error.kind(), error.to_string()));
                Err(error)
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }
}
