//! Sessions that are over at the backend before their first request: a test of how the next one is asked.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;

use crate::base::characteristic::Characteristics;
use crate::base::error::{Error, ErrorKind, Result};
use crate::base::id::GroupId;
use crate::driver::card::Driver;
use crate::driver::group::Groups;
use crate::driver::lock::FencingToken;
use crate::driver::lock::Locks;
use crate::driver::lock::{Granted, Holder, LockKey, LockRequest};
use crate::driver::session::Session;
use crate::driver::terms::Terms;
use crate::handles::connect::ConnectOptions;

/// So many of the next sessions are over at the backend before their first request.
static DEAD: AtomicUsize = AtomicUsize::new(0);
static DRIVER: Driver = Driver::new("mortal", &["mortal"], |_| {
    let dead = DEAD.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |dead| dead.checked_sub(1)).is_ok();
    Box::pin(async move { Ok(Arc::new(Mortal { dead }) as Arc<dyn Session>) })
});

struct Mortal {
    dead: bool,
}

impl Mortal {
    fn answer<T>(&self, answer: T) -> Result<T> {
        if self.dead { Err(Error::new(ErrorKind::Lost, "it is over")) } else { Ok(answer) }
    }
}

#[async_trait]
impl Session for Mortal {
    fn terms(&self) -> Terms {
        Terms::new(Some(Duration::from_secs(10)), Characteristics::NONE)
    }

    async fn open(&self) -> Result<()> {
        self.answer(())
    }

    async fn close(&self) -> Result<()> {
        Ok(())
    }
}

#[async_trait]
impl Locks for Mortal {
    async fn try_lock(&self, _request: &LockRequest) -> Result<Option<Granted>> {
        self.answer(Some(Granted::new(FencingToken(1))))
    }

    async fn release(&self, _request: &LockRequest) -> Result<()> {
        Ok(())
    }

    async fn holders(&self, _key: &LockKey) -> Result<Vec<Holder>> {
        self.answer(Vec::new())
    }
}

#[async_trait]
impl Groups for Mortal {
    async fn groups(&self) -> Result<Vec<GroupId>> {
        self.answer(Vec::new())
    }
}

/// In one test, because its parts share the count.
#[tokio::test]
async fn who_finds_a_session_dead_is_served_by_the_next() {
    for dead in 0..=2 {
        DEAD.store(dead, Ordering::SeqCst);
        let coordinator = ConnectOptions::new("mortal:").unwrap().driver(&DRIVER).member("m").unwrap();
        let coordinator = coordinator.connect().await.unwrap();
        let tried = coordinator.lock("l").unwrap().try_acquire().await;
        match tried {
            Ok(guard) => assert!(dead < 2 && guard.is_some_and(|guard| guard.is_held()), "{dead} were dead"),
            // A backend of which every session is dead is not asked for ever.
            Err(error) => assert!(dead == 2 && error.kind() == ErrorKind::Lost, "{dead} were dead: {error:?}"),
        }
        coordinator.close().await.unwrap();
    }
    for dead in 0..=2 {
        DEAD.store(dead, Ordering::SeqCst);
        let coordinator = ConnectOptions::new("mortal:").unwrap().driver(&DRIVER).member("m").unwrap();
        let coordinator = coordinator.connect().await.unwrap();
        assert_eq!(coordinator.groups().await.is_ok(), dead < 2, "{dead} were dead");
        coordinator.close().await.unwrap();
    }
}
