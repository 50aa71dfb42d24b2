//! What a case stands on: a server or a cluster of its own, coordinators, proxies, and waits that never wait for ever.

use std::panic::Location;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use libtest_mimic::Failed;
use tokio::time::{sleep, timeout};
use tooz::{ConnectOptions, Coordinator, Group, Lock, LockGuard};
use tooz_conformance::turn::{self, Beside};
use tooz_testbed::{Cluster, Proxy, Server};

use crate::backend::{Backend, Sessions};

/// The timeout of a session that a case lets end: as short as etcd takes it.
pub(crate) const SHORT: Duration = Duration::from_secs(2);
/// The timeout of a session that a case wants to keep: longer than any server takes to start again.
pub(crate) const LONG: Duration = Duration::from_secs(6);
/// How long one request may take.
pub(crate) const OPERATION: Duration = Duration::from_secs(2);
/// For what must happen, but has promised no time.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
/// By how much a promise in time may be late, because all of this and more runs on two processors at once.
pub(crate) const LATE: Duration = Duration::from_secs(1);
/// For showing that something does *not* happen: many round trips.
pub(crate) const MOMENT: Duration = Duration::from_millis(150);

/// One case. Its name is `module::sentence`.
#[derive(Clone, Copy)]
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) needs: Needs,
    /// Whether it needs the machine for itself, because it counts turns or judges many processes.
    pub(crate) alone: bool,
    pub(crate) run: for<'a> fn(&'a Stage) -> Pin<Box<dyn Future<Output = ()> + 'a>>,
}

/// What a case breaks.
#[derive(Clone, Copy)]
pub(crate) enum Needs {
    Server,
    Cluster,
}

/// Makes a module's list: the name of each function is the name of its case.
macro_rules! cases {
    ($module:literal, $needs:ident, alone: $alone:literal; $($name:ident),* $(,)?) => {
        pub(crate) const CASES: &[$crate::stage::Case] = &[$(
            $crate::stage::Case {
                name: concat!($module, "::", stringify!($name)),
                needs: $crate::stage::Needs::$needs,
                alone: $alone,
                run: |stage| Box::pin($name(stage)),
            },
        )*];
    };
}
pub(crate) use cases;

/// Runs a case on a runtime and a ground of its own, within a limit.
pub(crate) fn perform(backend: &'static Backend, case: Case, name: &str) -> Result<(), Failed> {
    let _turn = turn::take(name, if case.alone { Beside::Nobody } else { Beside::Others });
    let ground = match case.needs {
        Needs::Server => Ground::Server(Box::new(Server::start(backend.kind).map_err(|error| format!("{error:#}"))?)),
        Needs::Cluster => Ground::Cluster(Cluster::start(backend.kind).map_err(|error| format!("{error:#}"))?),
    };
    let stage = Stage { backend, name: name.to_owned(), ground, open: Mutex::default() };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        // Each wait has its own limit; this one catches what loops.
        timeout(Duration::from_mins(3), (case.run)(&stage)).await.expect("the case did not end within 3 minutes");
        stage.close_all().await;
    });
    // A task that hangs must not hang the trials.
    runtime.shutdown_background();
    Ok(())
}

enum Ground {
    Server(Box<Server>),
    Cluster(Cluster),
}

pub(crate) struct Stage {
    pub(crate) backend: &'static Backend,
    name: String,
    ground: Ground,
    open: Mutex<Vec<Coordinator>>,
}

impl Stage {
    pub(crate) fn server(&self) -> &Server {
        match &self.ground {
            Ground::Server(server) => server,
            Ground::Cluster(_) => panic!("this case stands on a cluster"),
        }
    }

    pub(crate) fn cluster(&self) -> &Cluster {
        match &self.ground {
            Ground::Cluster(cluster) => cluster,
            Ground::Server(_) => panic!("this case stands on one server"),
        }
    }

    /// The server's or the cluster's own URL.
    pub(crate) fn url(&self) -> String {
        let url = match &self.ground {
            Ground::Server(server) => server.url(),
            Ground::Cluster(cluster) => cluster.url(),
        };
        url + self.backend.options
    }

    /// The URL of one server of the cluster.
    pub(crate) fn url_of(&self, node: usize) -> String {
        self.cluster().url_of(node) + self.backend.options
    }

    /// A way to the server that can be broken.
    pub(crate) fn proxy(&self) -> Proxy {
        Proxy::start(self.server().address()).expect("a proxy can be started")
    }

    /// The URL of the server by way of the proxy.
    pub(crate) fn url_by(&self, proxy: &Proxy) -> String {
        self.url().replace(&self.server().address().to_string(), &proxy.address().to_string())
    }

    /// Connects with that session timeout; closed when the case is over.
    pub(crate) async fn connect(&self, member: &str, timeout: Duration) -> Coordinator {
        self.connect_to(&self.url(), member, timeout).await
    }

    pub(crate) async fn connect_to(&self, url: &str, member: &str, timeout: Duration) -> Coordinator {
        let options = options(url, member, timeout);
        let coordinator = soon("connecting", options.connect()).await.expect("connecting");
        self.open.lock().expect("no thread panics with it").push(coordinator.clone());
        coordinator
    }

    /// Kills, pauses, restarts: what blocks, without blocking the other tasks.
    pub(crate) fn break_it<T>(&self, deed: impl FnOnce(&Server) -> anyhow::Result<T>) -> T {
        blocking(|| deed(self.server()))
    }

    /// Shows how long something took to those who want to see it.
    pub(crate) fn note(&self, what: &str, took: Duration) {
        if std::env::var_os("TOOZ_FAULTS_NOTES").is_some() {
            eprintln!("{}: {what}: {took:.3?}", self.name);
        }
    }

    /// Everything that is stored at the server.
    pub(crate) fn stored(&self) -> Vec<String> {
        blocking(|| Ok((self.backend.stored)(self.server())))
    }

    /// How long after the end of a process another may have to wait for its locks, the timeout of its session being this.
    pub(crate) fn inherited_after(&self, timeout: Duration) -> Duration {
        match self.backend.sessions {
            Sessions::Timed | Sessions::Doubled => self.ended_after(timeout),
            Sessions::Connections => self.backend.slack,
        }
    }

    /// How long after its last heartbeat the server has ended a session with that timeout at the latest.
    pub(crate) fn ended_after(&self, timeout: Duration) -> Duration {
        let kept = if self.backend.sessions == Sessions::Doubled { timeout * 2 } else { timeout };
        kept + self.backend.slack
    }

    /// Closes everything, and shows that nothing but a few counters is left at the server.
    pub(crate) async fn nothing_is_left(&self) {
        self.close_all().await;
        let mut stored = Vec::new();
        let mut least = usize::MAX;
        let mut limit = Instant::now() + SHORT + LATE + self.backend.clearing;
        while Instant::now() < limit {
            stored = self.stored();
            if stored.len() <= self.backend.counters && !stored.iter().any(|line| line.starts_with("lease")) {
                return;
            }
            if stored.len() < least {
                // A server that clears away by itself may have much to do.
                least = stored.len();
                limit = limit.max(Instant::now() + self.backend.clearing);
            }
            sleep(Duration::from_millis(100)).await;
        }
        panic!("left at the server: {stored:#?}");
    }

    async fn close_all(&self) {
        let open = std::mem::take(&mut *self.open.lock().expect("no thread panics with it"));
        let closing: Vec<_> =
            open.into_iter().map(|one| tokio::spawn(async move { drop(one.close().await) })).collect();
        for one in closing {
            within(OPERATION + PATIENCE, "closing after the case", one).await.expect("closing does not panic");
        }
    }
}

/// How all connect.
pub(crate) fn options(url: &str, member: &str, timeout: Duration) -> ConnectOptions {
    let options = ConnectOptions::new(url).expect("the URL is one").member(member).expect("the name is one");
    options.session_timeout(timeout).operation_timeout(OPERATION)
}

/// Runs what blocks and must work.
#[track_caller]
pub(crate) fn blocking<T>(deed: impl FnOnce() -> anyhow::Result<T>) -> T {
    match tokio::task::block_in_place(deed) {
        Ok(value) => value,
        Err(error) => panic!("{error:#}"),
    }
}

/// Fails the case when the future has not ended within the limit. The failure tells the place of the call.
#[track_caller]
pub(crate) fn within<T>(limit: Duration, what: &str, future: impl Future<Output = T>) -> impl Future<Output = T> {
    let place = Location::caller();
    async move {
        let ended = timeout(limit, future).await.ok();
        ended.unwrap_or_else(|| panic!("{what} took longer than {limit:?} ({place})"))
    }
}

#[track_caller]
pub(crate) fn soon<T>(what: &str, future: impl Future<Output = T>) -> impl Future<Output = T> {
    within(PATIENCE, what, future)
}

/// Asks again until the answer is yes.
#[track_caller]
pub(crate) fn eventually(limit: Duration, what: &str, mut ask: impl AsyncFnMut() -> bool) -> impl Future<Output = ()> {
    within(limit, what, async move {
        while !ask().await {
            sleep(Duration::from_millis(20)).await;
        }
    })
}

/// Acquires, and must get it soon.
#[track_caller]
pub(crate) fn hold(lock: &Lock) -> impl Future<Output = LockGuard> {
    let getting = soon("acquiring", lock.acquire());
    async { getting.await.expect("acquiring") }
}

/// Tries, within patience.
#[track_caller]
pub(crate) fn attempt(lock: &Lock) -> impl Future<Output = Option<LockGuard>> {
    let trying = soon("trying", lock.try_acquire());
    async { trying.await.expect("trying") }
}

/// Waits in the background; answers the grant and when it came.
pub(crate) fn wait_in_background(lock: &Lock) -> tokio::task::JoinHandle<(LockGuard, Instant)> {
    let lock = lock.clone();
    tokio::spawn(async move {
        let guard = lock.acquire().await.expect("waiting");
        (guard, Instant::now())
    })
}

/// The names of the members, as the backend lists them.
pub(crate) async fn names(group: &Group) -> Vec<String> {
    let members = soon("listing members", group.members()).await.expect("listing members");
    members.iter().map(|entry| entry.member.as_str().to_owned()).collect()
}

/// Looks without pause whether a grant is held, on a thread of its own, until it is not, or the answer is not wanted any more.
pub(crate) struct Belief {
    guard: Arc<LockGuard>,
    enough: Arc<AtomicBool>,
    looking: std::thread::JoinHandle<Instant>,
}

impl Belief {
    pub(crate) fn of(guard: LockGuard) -> Self {
        let (guard, enough) = (Arc::new(guard), Arc::new(AtomicBool::new(false)));
        let (looked, ended) = (Arc::clone(&guard), Arc::clone(&enough));
        let mut last = Instant::now();
        let looking = std::thread::spawn(move || {
            loop {
                // First the time, then the look, so that a belief is never written down too long.
                let now = Instant::now();
                if ended.load(Ordering::Acquire) || !looked.is_held() {
                    return last;
                }
                last = now;
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        Belief { guard, enough, looking }
    }

    pub(crate) fn guard(&self) -> &LockGuard {
        &self.guard
    }

    /// The last moment at which it was held, and the guard. Waits for the loss.
    pub(crate) async fn end(self) -> (Instant, LockGuard) {
        soon("the loss", self.guard.loss().wait()).await;
        self.join()
    }

    /// The last moment at which it was held, so far, and the guard.
    pub(crate) fn stop(self) -> (Instant, LockGuard) {
        self.enough.store(true, Ordering::Release);
        self.join()
    }

    fn join(self) -> (Instant, LockGuard) {
        let last = blocking(|| Ok(self.looking.join().expect("looking does not panic")));
        (last, Arc::into_inner(self.guard).expect("the only other one was the thread's"))
    }
}
