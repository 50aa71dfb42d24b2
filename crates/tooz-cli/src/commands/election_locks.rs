//! The elections of groups as locks that have a name: a session that wraps the driver's own, in which the lock of a group's name is the lock of
//! its election. It only looks and breaks; who leads is decided elsewhere.

use std::sync::Arc;

use tooz::driver::{
    Clock, ConnectArgs, ConnectFuture, Granted, Groups, LockKey, LockRequest, Locks, Session, async_trait,
};
use tooz::{Coordinator, Driver, Error, ErrorKind, FencingToken, GroupId, Holder, Result, Terms, Waiter};

use super::{options, run_and_close};
use crate::args::Global;
use crate::failure::CommandFailure;

/// Connects so that elections are locks, does one thing, and closes.
pub(super) async fn with_coordinator<T>(
    global: &Global,
    work: impl AsyncFnOnce(&Coordinator) -> std::result::Result<T, CommandFailure>,
) -> std::result::Result<T, CommandFailure> {
    let options = options(global)?;
    let scheme = global.url.split(':').next().unwrap_or_default();
    let Some(driver) = behind(scheme) else { return Err(CommandFailure::usage("the URL has no scheme")) };
    // For the life of the process, as the cards of all drivers.
    let card = Driver::new(driver.name(), driver.schemes(), connect)
        .options(driver.option_specs())
        .characteristics(driver.most_characteristics());
    let coordinator = options.driver(Box::leak(Box::new(card))).connect().await?;
    run_and_close(&coordinator, work).await
}

/// The driver that answers a scheme.
fn behind(scheme: &str) -> Option<&'static Driver> {
    tooz::drivers().into_iter().find(|driver| driver.schemes().contains(&scheme))
}

fn connect(args: ConnectArgs) -> ConnectFuture {
    Box::pin(async move {
        let Some(driver) = behind(args.url.scheme()) else {
            return Err(Error::new(ErrorKind::Config, "no driver answers this scheme"));
        };
        let session: Arc<dyn Session> = Arc::new(Elections(driver.connect(args).await?));
        Ok(session)
    })
}

struct Elections(Arc<dyn Session>);

impl Elections {
    fn key(lock: &LockKey) -> Result<LockKey> {
        Ok(LockKey::election(&GroupId::new(&*lock.name)?))
    }
}

#[async_trait]
impl Session for Elections {
    fn terms(&self) -> Terms {
        self.0.terms()
    }

    fn clock(&self) -> Clock {
        self.0.clock()
    }

    async fn close(&self) -> Result<()> {
        self.0.close().await
    }
}

#[async_trait]
impl Locks for Elections {
    async fn try_lock(&self, _request: &LockRequest) -> Result<Option<Granted>> {
        Err(Error::unsupported("leading a group without being its member"))
    }

    async fn release(&self, _request: &LockRequest) -> Result<()> {
        Ok(())
    }

    async fn holders(&self, key: &LockKey) -> Result<Vec<Holder>> {
        self.0.holders(&Self::key(key)?).await
    }

    async fn waiters(&self, key: &LockKey) -> Result<Vec<Waiter>> {
        self.0.waiters(&Self::key(key)?).await
    }

    async fn break_lock(&self, key: &LockKey, token: FencingToken) -> Result<()> {
        self.0.break_lock(&Self::key(key)?, token).await
    }
}

impl Groups for Elections {}
