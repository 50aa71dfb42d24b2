//! Logging in: one attempt at a time, with the credentials of that moment, for all requests that wait for it.

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
    state: Mutex<LoginState>,
    /// One log-in at a time.
    turnstile: Semaphore,
}

#[derive(Clone, Default)]
struct LoginState {
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
pub(crate) enum LoginEnd {
    /// There is a token, or etcd wants none.
    Yes,
    /// The application names no user.
    WithoutUser,
}

/// What etcd answers to a user and a password that it takes.
pub(crate) enum Admission {
    /// Requests are to carry this.
    Token(MetadataValue<Ascii>),
    /// It has no users, and serves every client.
    WithoutUsers,
}

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

    /// Logs in by `authenticate`, unless that was done since the log-in with that count. A request that waits while another's attempt fails
    /// takes that answer: a hundred requests with one stale token are no reason to hash a hundred passwords.
    pub(crate) async fn after<F>(
        &self,
        count: u64,
        limit: Duration,
        authenticate: impl FnOnce(String, String) -> F,
    ) -> Result<LoginEnd>
    where
        F: Future<Output = Result<Admission>>,
    {
        let ended = self.state().ended;
        let attempt = async {
            let _one_at_a_time = self.turnstile.acquire().await;
            {
                let state = self.state();
                if state.token.count > count {
                    return Ok(LoginEnd::Yes);
                }
                if state.ended > ended
                    && let Some((kind, words)) = &state.failure
                {
                    return Err(Error::new(*kind, words.clone()));
                }
            }
            let answered = match self.user().await {
                Ok(None) => return Ok(LoginEnd::WithoutUser),
                Ok(Some((name, password))) => authenticate(name, password).await,
                Err(error) => Err(error),
            };
            self.take(answered)
        };
        let result = timeout(Login::limit(limit), attempt).await.unwrap_or_else(|_| {
            let words = "no answer came in time, from etcd or from the source of the credentials";
            Err(Error::new(ErrorKind::TimedOut, words))
        });
        // What was to be asked after the log-in was not.
        result.map_err(|error| error.with_outcome(Outcome::NotApplied).context("log in"))
    }

    /// The user and the password as they are now; `None`: the application names none.
    pub(crate) async fn user(&self) -> Result<Option<(String, String)>> {
        let read = {
            let mut reading = self.reading.lock().await;
            let source = self.source.clone();
            let handle = reading.get_or_insert_with(|| tokio::spawn(async move { source.read().await }));
            let read = handle.await;
            *reading = None;
            read
        };
        let gone = |_| Err(Error::new(ErrorKind::Backend, "the source of the credentials has panicked"));
        match read.unwrap_or_else(gone)? {
            Credentials { username: None, password: None, .. } => Ok(None),
            Credentials { username: Some(name), password: Some(password), .. } => Ok(Some((name, password))),
            _ => Err(Error::config(
                "etcd's authentication wants a user and a password: write etcd://user:password@host:2379, \
                 or etcd://user@host:2379?password_file=FILE",
            )),
        }
    }

    fn take(&self, answer: Result<Admission>) -> Result<LoginEnd> {
        let mut state = self.state();
        state.ended += 1;
        match answer {
            Ok(Admission::Token(value)) => {
                state.failure = None;
                state.are_users_off = false;
                state.token = Token { count: state.token.count + 1, value: Some(value) };
                Ok(LoginEnd::Yes)
            }
            // There is nothing that a later log-in could be newer than.
            Ok(Admission::WithoutUsers) => {
                state.failure = None;
                state.are_users_off = true;
                Ok(LoginEnd::Yes)
            }
            Err(error) => {
                state.failure = Some((error.kind(), error.to_string()));
                Err(error)
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, LoginState> {
        self.state.lock()
    }
}
