//! The session: a key at the server that lives as long as its heartbeats, and what it owns there.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::AbortHandle;
use tooz_core::driver::{ConnectArgs, ConnectFuture, Owned, RequestId, Session, async_trait};
use tooz_core::{Checkup, MemberId, Probe, Result, Terms};

use crate::client::Client;
use crate::error::{refusal, strange};
use crate::layout::{VERSION, group_named, lock_at};
use crate::reconnection;
use crate::record::{entry, request_id};
use crate::reply::FROM_THE_FIRST;
use crate::request::{Argument, number};
use crate::script::Script;
use crate::server::Server;

pub(crate) struct RedisSession {
    pub(crate) client: Arc<Client>,
    /// The task that makes new connections.
    reconnection: AbortHandle,
    member: MemberId,
    timeout: Duration,
}

pub(crate) fn connect(args: ConnectArgs) -> ConnectFuture {
    Box::pin(async move {
        let (client, reconnection) = reconnection::start(&args).await?;
        Ok(Arc::new(RedisSession { client, reconnection, member: args.member, timeout: args.session_timeout })
            as Arc<dyn Session>)
    })
}

impl RedisSession {
    /// Rounded up: the server must not end the session before our own deadline does.
    fn milliseconds(&self) -> Argument {
        number(u64::try_from(self.timeout.as_micros().div_ceil(1000)).unwrap_or(u64::MAX))
    }

    /// Closes the connection for good.
    fn end(&self) {
        self.reconnection.abort();
        self.client.end();
    }
}

#[async_trait]
impl Session for RedisSession {
    fn terms(&self) -> Terms {
        Terms::new(Some(self.timeout), self.client.characteristics())
    }

    async fn open(&self) -> Result<()> {
        let connection = self.client.connection().await?;
        connection.subscribe(&[self.client.layout.session_channel()]).await?;
        self.client.set_open();
        let arguments = vec![self.milliseconds(), self.member.as_str().into(), Argument::Word(VERSION)];
        let reply = self.client.run_surely(Script::Open, arguments).await?;
        self.client.sweep_in(reply.number(0)?);
        if reply.leaves_over(1) {
            self.client.go_on();
        }
        Ok(())
    }

    async fn beat(&self) -> Result<Vec<RequestId>> {
        let looked_after = self.client.holdings.look_after(self.timeout / 3);
        let mut arguments = vec![self.milliseconds()];
        arguments.extend(self.client.asked_about(&looked_after));
        let beating = self.client.run_surely(Script::Beat, arguments);
        let reply = tokio::select! {
            biased;
            reply = beating => reply.map_err(|error| refusal(&error).unwrap_or(error))?,
            // There is no connection, and waiting alone may not bring one: core tells why, and asks again.
            error = self.client.refused() => return Err(error),
        };
        self.client.sweep_in(reply.number(0)?);
        self.client.attend(&reply, &looked_after)?;
        Ok(Vec::new())
    }

    /// After a fail-over that may be less than the session was given, or more than it has given back. Also finds every grant that the server
    /// does not know of any more, where the beats look after a few each time.
    async fn owned(&self) -> Result<Owned> {
        let believed = self.client.holdings.held();
        let (mut locks, mut members, mut held) = (BTreeMap::new(), BTreeMap::new(), BTreeSet::new());
        let mut place = FROM_THE_FIRST.to_owned();
        loop {
            let reply = self.client.run(Script::Owned, vec![place.as_str().into()]).await?;
            let texts = reply.texts(0)?;
            let (next, owned) = texts.split_first().ok_or_else(|| strange(&reply))?;
            // A part may tell again what an earlier one has told.
            for owned in owned.chunks_exact(4) {
                let [request, what, how, capabilities] = owned else { return reply.strange() };
                // What another program has written there is not ours.
                let Ok(id) = request_id(request) else { continue };
                if let Some(group) = what.strip_prefix("g:") {
                    let ours = group_named(group).zip(entry(how, request, capabilities).ok());
                    members.extend(ours.map(|ours| (id, ours)));
                    continue;
                }
                if how == "held" {
                    held.insert(id);
                }
                locks.extend(lock_at(what).map(|key| (id, key)));
            }
            if next == FROM_THE_FIRST {
                break;
            }
            place.clone_from(next);
        }
        for grant in believed.iter().filter(|grant| !held.contains(&grant.request)) {
            self.client.holdings.miss(grant, 0);
        }
        let locks = locks.into_iter().map(|(id, key)| (key, id)).collect();
        Ok(Owned::new(locks).with_members(members.into_values().collect()))
    }

    async fn probe(&self, _probe: Probe) -> Result<()> {
        // A write costs the server no more than a question.
        self.client.connection().await?.ask("PING", &[]).await.map(drop)
    }

    async fn check_up(&self) -> Result<Checkup> {
        let connection = self.client.connection().await?;
        let mut server = Server::read(&connection).await?;
        server.read_settings(&connection).await;
        self.client.replicas().saw(server.seen());
        Ok(server.check_up(&self.client.settings, self.client.needed_replicas()))
    }

    async fn close(&self) -> Result<()> {
        // A wait must not keep the close waiting.
        self.client.end_waits();
        if self.client.is_open() {
            let mut left_over = loop {
                let reply = self.client.run(Script::Close, Vec::new()).await?;
                if !reply.is("more") {
                    break reply.leaves_over(0);
                }
            };
            // What was freed and is not handed over yet would have to wait for another session's beat.
            while left_over {
                left_over = self.client.run(Script::SweepUp, Vec::new()).await?.leaves_over(1);
            }
        }
        self.end();
        Ok(())
    }
}

impl Drop for RedisSession {
    fn drop(&mut self) {
        self.end();
    }
}
