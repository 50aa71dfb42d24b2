//! A session that does nothing but live by a movable clock, for core's own tests.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Notify;

use crate::base::characteristic::Characteristics;
use crate::base::clock::Clock;
use crate::base::error::Result;
use crate::base::id::MemberId;
use crate::driver::group::Groups;
use crate::driver::lock::Locks;
use crate::driver::lock::{Granted, Holder, LockKey, LockRequest};
use crate::driver::session::Session;
use crate::driver::terms::Terms;
use crate::engine::live_session::LiveSession;
use crate::engine::meter::MeterOptions;
use crate::engine::telemetry::Telemetry;

pub(crate) struct Fake {
    clock: Clock,
    timeout: Duration,
}

impl Fake {
    /// A session that is attached and counts from now.
    pub(crate) fn live(timeout: Duration) -> (Arc<LiveSession>, Clock) {
        let clock = Clock::movable();
        let member = MemberId::new("fake").expect("it is a name");
        let telemetry = Arc::new(Telemetry::new("fake", member, "tooz", &MeterOptions::default()));
        let live = LiveSession::new(telemetry, Arc::new(Notify::new()));
        live.attach(Arc::new(Fake { clock: clock.clone(), timeout })).expect("its clock does not panic");
        (live, clock)
    }
}

#[async_trait]
impl Session for Fake {
    fn terms(&self) -> Terms {
        Terms::new(Some(self.timeout), Characteristics::NONE)
    }

    fn clock(&self) -> Clock {
        self.clock.clone()
    }

    async fn close(&self) -> Result<()> {
        Ok(())
    }
}

#[async_trait]
impl Locks for Fake {
    async fn try_lock(&self, _request: &LockRequest) -> Result<Option<Granted>> {
        Ok(None)
    }

    async fn release(&self, _request: &LockRequest) -> Result<()> {
        Ok(())
    }

    async fn holders(&self, _key: &LockKey) -> Result<Vec<Holder>> {
        Ok(Vec::new())
    }
}

#[async_trait]
impl Groups for Fake {}
