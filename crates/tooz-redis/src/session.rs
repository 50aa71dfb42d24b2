//! The session: a key at the server that lives as long as its heartbeats, and what is asked of it.

use std::sync::Arc;
use std::time::Duration;

use fred::types::Value;
use tooz_core::driver::{
    ConnectArgs, ConnectFuture, Granted, Groups, JoinRequest, LockKey, LockRequest, Locks, Owned, PushStream,
    RequestId, Roster, Session, Space, Wanted, async_trait,
};
use tooz_core::{Checkup, FencingToken, GroupId, Holder, MemberId, Probe, Result, Terms};

use crate::connection::Connection;
use crate::layout::LAYOUT;
use crate::link::number;
use crate::script::Script;
use crate::{group, lock, owned, watch};

struct RedisSession {
    connection: Connection,
    member: MemberId,
    timeout: Duration,
}

pub(crate) fn connect(args: ConnectArgs) -> ConnectFuture {
    Box::pin(async move {
        let connection = Connection::open(&args).await?;
        Ok(Arc::new(RedisSession { connection, member: args.member, timeout: args.session_timeout })
            as Arc<dyn Session>)
    })
}

impl RedisSession {
    /// Rounded up: the server must not end the session before our own deadline does.
    fn milliseconds(&self) -> Value {
        number(u64::try_from(self.timeout.as_micros().div_ceil(1000)).unwrap_or(u64::MAX))
    }
}

#[async_trait]
impl Session for RedisSession {
    fn terms(&self) -> Terms {
        Terms::new(Some(self.timeout), self.connection.characteristics())
    }

    async fn open(&self) -> Result<()> {
        let link = self.connection.link().await?;
        link.subscribe(vec![self.connection.session_channel()]).await?;
        self.connection.set_open();
        let arguments = vec![self.milliseconds(), self.member.as_str().into(), Value::from_static_str(LAYOUT)];
        let reply = self.connection.run_surely(Script::Open, arguments).await?;
        self.connection.look_in(reply.number(0)?);
        if reply.leaves_over(1) {
            self.connection.go_on();
        }
        Ok(())
    }

    async fn beat(&self) -> Result<Vec<RequestId>> {
        let shared = self.connection.shared();
        let looked_after = self.connection.feed().look_after(self.timeout / 3);
        let mut arguments = vec![self.milliseconds()];
        arguments.extend(shared.named(&looked_after));
        let reply = self.connection.run_surely(Script::Beat, arguments).await?;
        self.connection.look_in(reply.number(0)?);
        shared.attend(&reply, &looked_after)?;
        Ok(Vec::new())
    }

    async fn owned(&self) -> Result<Owned> {
        owned::owned(&self.connection).await
    }

    async fn probe(&self, _probe: Probe) -> Result<()> {
        // A write costs the server no more than a question.
        self.connection.link().await?.ask("PING", Vec::new()).await.map(drop)
    }

    async fn check_up(&self) -> Result<Checkup> {
        self.connection.check_up().await
    }

    async fn close(&self) -> Result<()> {
        // Whoever waits here must not keep the close waiting.
        self.connection.feed().end();
        if self.connection.is_open() {
            let mut left_over = loop {
                let reply = self.connection.run(Script::Close, Vec::new()).await?;
                if !reply.is("more") {
                    break reply.leaves_over(0);
                }
            };
            // What was freed and is not handed over yet would have to wait for somebody's beat.
            while left_over {
                left_over = self.connection.run(Script::SweepUp, Vec::new()).await?.leaves_over(1);
            }
        }
        self.connection.end();
        Ok(())
    }
}

#[async_trait]
impl Locks for RedisSession {
    async fn try_lock(&self, request: &LockRequest) -> Result<Option<Granted>> {
        lock::try_lock(&self.connection, request).await
    }

    async fn lock(&self, request: &LockRequest, wanted: &Wanted) -> Result<Option<Granted>> {
        lock::lock(&self.connection, request, wanted).await
    }

    async fn release(&self, request: &LockRequest) -> Result<()> {
        lock::release(&self.connection, request).await
    }

    async fn holders(&self, key: &LockKey) -> Result<Vec<Holder>> {
        lock::holders(&self.connection, key).await
    }

    async fn break_lock(&self, key: &LockKey, token: FencingToken) -> Result<()> {
        lock::break_lock(&self.connection, key, token).await
    }

    async fn watch_lock(&self, key: &LockKey) -> Result<Option<PushStream>> {
        match key.space {
            Space::Election => watch::watch_lock(&self.connection, key).await.map(Some),
            // Who waits for a user's lock is told alone, so nobody tells the rest.
            Space::Lock => Ok(None),
        }
    }
}

#[async_trait]
impl Groups for RedisSession {
    async fn create_group(&self, group: &GroupId) -> Result<()> {
        group::create(&self.connection, group).await
    }

    async fn delete_group(&self, group: &GroupId) -> Result<()> {
        group::delete(&self.connection, group).await
    }

    async fn groups(&self) -> Result<Vec<GroupId>> {
        group::groups(&self.connection).await
    }

    async fn join(&self, request: &JoinRequest) -> Result<()> {
        group::join(&self.connection, request).await
    }

    async fn update(&self, request: &JoinRequest) -> Result<()> {
        group::update(&self.connection, request).await
    }

    async fn leave(&self, request: &JoinRequest) -> Result<()> {
        group::leave(&self.connection, request).await
    }

    async fn members(&self, group: &GroupId) -> Result<Roster> {
        group::members(&self.connection, group).await
    }

    async fn watch_group(&self, group: &GroupId) -> Result<Option<PushStream>> {
        watch::watch_group(&self.connection, group).await.map(Some)
    }
}
