//! A session between core and the driver's own, which counts what is asked: each request once, with its outcome and how long it took.

use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;

use crate::base::clock::Clock;
use crate::base::error::Result;
use crate::base::id::{GroupId, RequestId};
use crate::driver::checkup::{Checkup, Probe};
use crate::driver::group::{Groups, JoinRequest};
use crate::driver::lock::{FencingToken, Granted, Holder, LockKey, LockRequest, Locks, Waiter};
use crate::driver::push::PushStream;
use crate::driver::roster::Roster;
use crate::driver::session::Session;
use crate::driver::terms::{Owned, Terms};
use crate::driver::wanted::Wanted;
use crate::engine::telemetry::Telemetry;

pub(super) struct Metered {
    session: Arc<dyn Session>,
    telemetry: Arc<Telemetry>,
}

impl Metered {
    #[allow(clippy::new_ret_no_self, reason = "it stands for the session that it is given")]
    pub(super) fn new(session: Arc<dyn Session>, telemetry: Arc<Telemetry>) -> Arc<dyn Session> {
        Arc::new(Metered { session, telemetry })
    }

    async fn count<T>(&self, operation: &'static str, asked: impl Future<Output = Result<T>> + Send) -> Result<T> {
        let begun = Instant::now();
        let answer = asked.await;
        self.telemetry.requested(operation, begun, &answer);
        answer
    }
}

#[async_trait]
impl Session for Metered {
    fn terms(&self) -> Terms {
        self.session.terms()
    }

    fn clock(&self) -> Clock {
        self.session.clock()
    }

    async fn open(&self) -> Result<()> {
        self.count("open", self.session.open()).await
    }

    async fn beat(&self) -> Result<Vec<RequestId>> {
        self.count("beat", self.session.beat()).await
    }

    async fn owned(&self) -> Result<Owned> {
        self.count("owned", self.session.owned()).await
    }

    #[cfg(unix)]
    fn descriptors(&self) -> Vec<std::os::fd::OwnedFd> {
        self.session.descriptors()
    }

    async fn probe(&self, probe: Probe) -> Result<()> {
        self.count("probe", self.session.probe(probe)).await
    }

    async fn check_up(&self) -> Result<Checkup> {
        self.count("check_up", self.session.check_up()).await
    }

    async fn close(&self) -> Result<()> {
        self.count("close", self.session.close()).await
    }
}

#[async_trait]
impl Locks for Metered {
    async fn try_lock(&self, request: &LockRequest) -> Result<Option<Granted>> {
        self.count("try_lock", self.session.try_lock(request)).await
    }

    async fn lock(&self, request: &LockRequest, wanted: &Wanted) -> Result<Option<Granted>> {
        self.count("lock", self.session.lock(request, wanted)).await
    }

    async fn release(&self, request: &LockRequest) -> Result<()> {
        self.count("release", self.session.release(request)).await
    }

    fn holds(&self, request: &LockRequest) -> bool {
        self.session.holds(request)
    }

    async fn holders(&self, key: &LockKey) -> Result<Vec<Holder>> {
        self.count("holders", self.session.holders(key)).await
    }

    async fn break_lock(&self, key: &LockKey, token: FencingToken) -> Result<()> {
        self.count("break_lock", self.session.break_lock(key, token)).await
    }

    async fn watch_lock(&self, key: &LockKey) -> Result<Option<PushStream>> {
        self.count("watch_lock", self.session.watch_lock(key)).await
    }

    async fn locks(&self) -> Result<Vec<LockKey>> {
        self.count("locks", self.session.locks()).await
    }

    async fn waiters(&self, key: &LockKey) -> Result<Vec<Waiter>> {
        self.count("waiters", self.session.waiters(key)).await
    }
}

#[async_trait]
impl Groups for Metered {
    async fn create_group(&self, group: &GroupId) -> Result<()> {
        self.count("create_group", self.session.create_group(group)).await
    }

    async fn delete_group(&self, group: &GroupId) -> Result<()> {
        self.count("delete_group", self.session.delete_group(group)).await
    }

    async fn groups(&self) -> Result<Vec<GroupId>> {
        self.count("groups", self.session.groups()).await
    }

    async fn join(&self, request: &JoinRequest) -> Result<()> {
        self.count("join", self.session.join(request)).await
    }

    async fn update(&self, request: &JoinRequest) -> Result<()> {
        self.count("update", self.session.update(request)).await
    }

    async fn leave(&self, request: &JoinRequest) -> Result<()> {
        self.count("leave", self.session.leave(request)).await
    }

    async fn members(&self, group: &GroupId) -> Result<Roster> {
        self.count("members", self.session.members(group)).await
    }

    async fn watch_group(&self, group: &GroupId) -> Result<Option<PushStream>> {
        self.count("watch_group", self.session.watch_group(group)).await
    }
}
