//! Where a case plays: fresh names, its own coordinators (closed afterwards), and a limit to every wait.

// Long because every short word of the cases is made here once.

use std::fmt;
use std::future::poll_fn;
use std::panic::Location;
use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tooz_core::driver::Mutex;
use tooz_core::{ConnectOptions, Coordinator, Error, ErrorKind, Group, GroupId, Lock, LockGuard, Membership};

use crate::rig::Rig;

/// What a case answers.
pub(crate) type CaseResult<T = ()> = Result<T, CaseFailure>;

/// Why a case failed, and where.
#[derive(Debug)]
pub(crate) struct CaseFailure(pub(crate) String);

impl CaseFailure {
    #[track_caller]
    pub(crate) fn new(why: impl fmt::Display) -> Self {
        Self::at(Location::caller(), why)
    }

    pub(crate) fn at(place: &Location<'_>, why: impl fmt::Display) -> Self {
        CaseFailure(format!("{why} ({}:{})", place.file(), place.line()))
    }
}

impl From<Error> for CaseFailure {
    #[track_caller]
    fn from(error: Error) -> Self {
        CaseFailure::new(format_args!("unexpected error {}: {error}", error.kind()))
    }
}

impl From<tokio::task::JoinError> for CaseFailure {
    #[track_caller]
    fn from(error: tokio::task::JoinError) -> Self {
        CaseFailure::new(error)
    }
}

impl fmt::Display for CaseFailure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// Fails the case unless the condition holds.
macro_rules! ensure {
    ($condition:expr, $($why:tt)+) => {
        if !$condition {
            return Err($crate::stage::CaseFailure::new(format!($($why)+)));
        }
    };
}
pub(crate) use ensure;

/// Fails the case unless two values are equal, and shows both.
macro_rules! ensure_eq {
    ($left:expr, $right:expr, $($why:tt)+) => {
        match (&$left, &$right) {
            (left, right) => {
                if left != right {
                    let why = format!($($why)+);
                    return Err($crate::stage::CaseFailure::new(format!("{why}: {left:?} is not {right:?}")));
                }
            }
        }
    };
}
pub(crate) use ensure_eq;

/// Where a case plays.
#[derive(Clone, Copy, Default)]
pub(crate) struct Venue {
    /// The case has a server for itself.
    pub(crate) has_own_server: bool,
    /// Members are reached by ways that can be cut.
    pub(crate) is_cuttable: bool,
}

/// What a case has in its hands.
#[derive(Clone)]
pub(crate) struct Stage(Arc<StageInner>);

struct StageInner {
    rig: Rig,
    url: String,
    /// Whether members are reached by ways that can be cut.
    cuttable: bool,
    open: Mutex<Vec<Coordinator>>,
}

impl Stage {
    pub(crate) fn new(rig: &Rig, venue: Venue) -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        // The time is in it so that a second run meets nothing of the first.
        let time = SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_micros());
        let tag = format!("t{:x}-{time:x}-{count}", process::id());
        let own_server = rig.own_server.as_ref().filter(|_| venue.has_own_server);
        let url = own_server.unwrap_or(&rig.url)(&tag);
        Stage(Arc::new(StageInner { rig: rig.clone(), url, cuttable: venue.is_cuttable, open: Mutex::default() }))
    }

    pub(crate) fn rig(&self) -> &Rig {
        &self.0.rig
    }

    /// The URL of this case's own store.
    pub(crate) fn url(&self) -> &str {
        &self.0.url
    }

    /// The URL with one more option.
    pub(crate) fn url_with(&self, option: &str) -> String {
        let mark = if self.0.url.contains('?') { '&' } else { '?' };
        format!("{}{mark}{option}", self.0.url)
    }

    pub(crate) fn patience(&self) -> Duration {
        self.0.rig.patience
    }

    pub(crate) fn moment(&self) -> Duration {
        self.0.rig.moment
    }

    pub(crate) fn session_timeout(&self) -> Duration {
        self.0.rig.session_timeout
    }

    /// A session timeout that is much longer than patience, for cases in which its end must not come to the rescue.
    pub(crate) fn long_session(&self) -> Duration {
        (self.patience() * 3).max(Duration::from_secs(30))
    }

    /// How long a crash may go unnoticed: the timeout (twice, which is Consul's own bound), and patience.
    pub(crate) fn after_a_crash(&self) -> Duration {
        self.session_timeout() * 2 + self.patience()
    }

    /// The options that every coordinator of the suite connects with.
    pub(crate) fn options(&self, member: &str) -> CaseResult<ConnectOptions> {
        match &self.rig().path {
            Some(path) if self.0.cuttable => self.options_for(&path(self.url(), member), member),
            _ => self.options_for(self.url(), member),
        }
    }

    /// The options to connect with, for a URL of the case's own making.
    pub(crate) fn options_for(&self, url: &str, member: &str) -> CaseResult<ConnectOptions> {
        let options = ConnectOptions::new(url)?.member(member)?.session_timeout(self.session_timeout());
        Ok(match self.rig().named_driver() {
            Some(driver) => options.driver(driver),
            None => options,
        })
    }

    /// A coordinator; it is closed when the case is over.
    pub(crate) async fn connect(&self, member: &str) -> CaseResult<Coordinator> {
        let options = self.options(member)?;
        self.connect_with(options).await
    }

    pub(crate) async fn connect_with(&self, options: ConnectOptions) -> CaseResult<Coordinator> {
        let coordinator = self.soon("connecting", options.connect()).await??;
        self.0.open.lock().push(coordinator.clone());
        Ok(coordinator)
    }

    /// `count` coordinators: `m0`, `m1` and so on.
    pub(crate) async fn connect_all(&self, count: usize) -> CaseResult<Vec<Coordinator>> {
        let mut all = Vec::new();
        for index in 0..count {
            all.push(self.connect(&format!("m{index}")).await?);
        }
        Ok(all)
    }

    /// Two coordinators, and a lock of the same name from each.
    pub(crate) async fn two_locks(&self) -> CaseResult<(Coordinator, Coordinator, Lock, Lock)> {
        let (a, b) = (self.connect("a").await?, self.connect("b").await?);
        let (lock_a, lock_b) = (a.lock("the lock")?, b.lock("the lock")?);
        Ok((a, b, lock_a, lock_b))
    }

    /// A coordinator with a group that it made.
    pub(crate) async fn with_group(&self, member: &str, group: &str) -> CaseResult<(Coordinator, Group)> {
        let coordinator = self.connect(member).await?;
        let handle = coordinator.group(group)?;
        self.soon("creating a group", handle.create()).await??;
        Ok((coordinator, handle))
    }

    /// Ends the wait with a failure when patience is over.
    #[track_caller]
    pub(crate) fn soon<T>(&self, what: &str, future: impl Future<Output = T>) -> impl Future<Output = CaseResult<T>> {
        self.within(self.patience(), what, future)
    }

    /// Ends the wait with a failure after `limit`. The failure tells the place of the call, which an `async fn` would not know.
    #[track_caller]
    #[allow(clippy::unused_self)]
    pub(crate) fn within<T>(
        &self,
        limit: Duration,
        what: &str,
        future: impl Future<Output = T>,
    ) -> impl Future<Output = CaseResult<T>> {
        let place = Location::caller();
        async move {
            timeout(limit, future)
                .await
                .map_err(|_| CaseFailure::at(place, format_args!("{what} took longer than {limit:?}")))
        }
    }

    /// Shows that the future does not end within a moment.
    #[track_caller]
    pub(crate) fn not_yet<T>(
        &self,
        what: &str,
        future: &mut (impl Future<Output = T> + Unpin),
    ) -> impl Future<Output = CaseResult> {
        let place = Location::caller();
        async move {
            match timeout(self.moment(), future).await {
                Ok(_) => Err(CaseFailure::at(place, format_args!("{what} came too early"))),
                Err(_) => Ok(()),
            }
        }
    }

    /// Asks again until the answer is yes, or `limit` is over.
    #[track_caller]
    #[allow(clippy::unused_self)]
    pub(crate) fn eventually(
        &self,
        limit: Duration,
        what: &str,
        mut ask: impl AsyncFnMut() -> CaseResult<bool>,
    ) -> impl Future<Output = CaseResult> {
        let place = Location::caller();
        let asking = async move {
            let mut pause = Duration::from_millis(5);
            while !ask().await? {
                sleep(pause).await;
                pause = (pause * 2).min(Duration::from_millis(100));
            }
            Ok(())
        };
        async move {
            match timeout(limit, asking).await {
                Ok(answer) => answer,
                Err(_) => Err(CaseFailure::at(place, format_args!("{what}: not so within {limit:?}"))),
            }
        }
    }

    /// Spawns it, and returns when it was polled once: a task that is spawned next asks after it, however busy the machine is.
    pub(crate) async fn begin<T: Send + 'static>(
        &self,
        future: impl Future<Output = T> + Send + 'static,
    ) -> CaseResult<JoinHandle<T>> {
        let (begun, has_begun) = oneshot::channel();
        let (mut begun, mut future) = (Some(begun), Box::pin(future));
        let task = tokio::spawn(poll_fn(move |context| {
            let poll = future.as_mut().poll(context);
            if let Some(begun) = begun.take() {
                let _ = begun.send(());
            }
            poll
        }));
        self.soon("the beginning of a task", has_begun).await?.map_err(CaseFailure::new)?;
        Ok(task)
    }

    /// Acquires, within patience.
    pub(crate) async fn hold(&self, lock: &Lock) -> CaseResult<LockGuard> {
        Ok(self.soon("acquiring", lock.acquire()).await??)
    }

    /// Tries, within patience.
    pub(crate) async fn attempt(&self, lock: &Lock) -> CaseResult<Option<LockGuard>> {
        Ok(self.soon("trying", lock.try_acquire()).await??)
    }

    /// Releases, within patience.
    pub(crate) async fn give(&self, guard: LockGuard) -> CaseResult {
        Ok(self.soon("releasing", guard.release()).await??)
    }

    /// Joins with `null`, within patience.
    pub(crate) async fn join(&self, group: &Group) -> CaseResult<Membership> {
        Ok(self.soon("joining", group.join(&())).await??)
    }

    /// The ids of the members, sorted.
    pub(crate) async fn member_names(&self, group: &Group) -> CaseResult<Vec<String>> {
        let members = self.soon("listing members", group.members()).await??;
        let mut names: Vec<_> = members.iter().map(|entry| entry.member.as_str().to_owned()).collect();
        names.sort();
        Ok(names)
    }

    /// The names of the groups, sorted.
    pub(crate) async fn group_names(&self, coordinator: &Coordinator) -> CaseResult<Vec<String>> {
        let groups = self.soon("listing groups", coordinator.groups()).await??;
        let mut names: Vec<_> = groups.iter().map(GroupId::as_str).map(str::to_owned).collect();
        names.sort();
        Ok(names)
    }

    /// Ends a member's session at the backend.
    pub(crate) async fn end_session(&self, member: &str) -> CaseResult {
        let deed = self.rig().end_session.clone().expect("the case needs it");
        self.deed(move |url, member| deed(url, member), member).await
    }

    pub(crate) async fn cut(&self, member: &str) -> CaseResult {
        let deed = self.rig().cut.clone().expect("the case needs it");
        self.deed(move |url, member| deed(url, member), member).await
    }

    pub(crate) async fn heal(&self, member: &str) -> CaseResult {
        let deed = self.rig().heal.clone().expect("the case needs it");
        self.deed(move |url, member| deed(url, member), member).await
    }

    pub(crate) async fn restart(&self) -> CaseResult {
        let deed = self.rig().restart.clone().expect("the case needs it");
        self.deed(move |url, _| deed(url), "").await
    }

    async fn deed(&self, deed: impl FnOnce(&str, &str) + Send + 'static, member: &str) -> CaseResult {
        let (url, member) = (self.url().to_owned(), member.to_owned());
        Ok(tokio::task::spawn_blocking(move || deed(&url, &member)).await?)
    }

    /// Moves the clock at once: on return it is moved, and no task has run in between.
    pub(crate) fn advance_clock(&self, by: Duration) {
        let deed = self.rig().advance_clock.clone().expect("the case needs it");
        deed(self.url(), by);
    }

    pub(crate) async fn close_all(&self) -> CaseResult {
        let open = std::mem::take(&mut *self.0.open.lock());
        let closing: Vec<_> =
            open.into_iter().map(|coordinator| tokio::spawn(async move { coordinator.close().await })).collect();
        for one in closing {
            // The answer of a close is judged by cases of its own; here it must only end.
            let _ = self.within(self.patience() + Duration::from_secs(5), "closing after the case", one).await??;
        }
        Ok(())
    }
}

/// The kind of the error, or a failure that says that there was none.
#[track_caller]
pub(crate) fn refused<T>(what: &str, result: Result<T, Error>, kind: ErrorKind) -> CaseResult<Error> {
    match result {
        Ok(_) => Err(CaseFailure::new(format_args!("{what} was not refused, though {kind} was due"))),
        Err(error) if error.kind() == kind => Ok(error),
        Err(error) => {
            Err(CaseFailure::new(format_args!("{what} answered {} ({error}) in place of {kind}", error.kind())))
        }
    }
}
