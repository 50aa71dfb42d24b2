//! A session that does nothing but live by a movable clock, for core's own tests.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Notify;

use crate::life::Live;
use crate::session::{Granted, Holder, LockKey, LockRequest, Session, Terms};
use crate::{Characteristics, Clock, Result};

pub(crate) struct Fake {
    clock: Clock,
    timeout: Duration,
}

impl Fake {
    /// A session that is attached and counts from now.
    pub(crate) fn live(timeout: Duration) -> (Arc<Live>, Clock) {
        let clock = Clock::movable();
        let live = Live::new("fake", Arc::new(Notify::new()));
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

    async fn try_lock(&self, _request: &LockRequest) -> Result<Option<Granted>> {
        Ok(None)
    }

    async fn release(&self, _request: &LockRequest) -> Result<()> {
        Ok(())
    }

    async fn holders(&self, _key: &LockKey) -> Result<Vec<Holder>> {
        Ok(Vec::new())
    }

    async fn close(&self) -> Result<()> {
        Ok(())
    }
}
