//! The session at the servers: how it is made, kept alive and ended, and its own key.
//!
//! A session of Consul belongs to a node of the catalogue and ends with it. By default that is the node of the agent that was asked, whose
//! upgrade would end every session of its host. So these belong to a node of their own, which no agent is, and which nothing takes away.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hyper::Method;
use hyper::body::Bytes;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use tooz_core::{Error, ErrorKind, MemberId, Outcome, Result};

use crate::client::{Client, Lane, Reply, Scope, Turn};
use crate::error;
use crate::history::{self, History};
use crate::layout::Layout;
use crate::record::{SessionRecord, write};
use crate::releases::Releases;
use crate::request::{Op, TxnResult, lock};
use crate::withdrawals::Withdrawals;

/// How often a heartbeat is repeated where a new leader does not know the session yet, and a change whose stamp is not as it was known.
const PATIENT: usize = 5;
/// How long such a leader is left alone.
const MOMENT: Duration = Duration::from_millis(30);

/// What an open session has at the servers.
pub(crate) struct ServerSession {
    pub(crate) id: String,
    /// The session's own key, which lives as long as the session.
    pub(crate) key: String,
    member: MemberId,
    /// The index at which the key was last written: see `withdrawal.rs` for what that guards against.
    index: AtomicU64,
    /// How often it was written.
    written: AtomicU64,
    pub(crate) history: History,
    pub(crate) releases: Releases,
    pub(crate) withdrawals: Withdrawals,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Create<'a> {
    node: &'a str,
    name: String,
    #[serde(rename = "TTL")]
    ttl: String,
    behavior: &'a str,
    /// By default a key whose session ended can't be locked for 15 s, which would bar a member that joins again.
    lock_delay: &'a str,
    node_checks: [&'a str; 0],
    service_checks: [&'a str; 0],
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Register<'a> {
    node: &'a str,
    address: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    datacenter: Option<&'a str>,
}

impl ServerSession {
    /// Makes one. If the answer gets lost, what was made ends by its own timeout, and holds nothing until then.
    pub(crate) async fn create(client: &Client, layout: &Layout, member: &MemberId, timeout: Duration) -> Result<Self> {
        let create = || Self::ask_to_create(client, member, timeout);
        let id = match create().await {
            Err(error) if error::is_without_node(&error.to_string()) => {
                register(client).await?;
                create().await?
            }
            created => created?,
        };
        let (index, written) = (AtomicU64::new(0), AtomicU64::new(0));
        let (key, history) = (layout.session(&id), History::new(layout.stamps(&id), id.clone()));
        let (releases, withdrawals) = (Releases::default(), Withdrawals::default());
        Ok(ServerSession { key, id, member: member.clone(), index, written, history, releases, withdrawals })
    }

    async fn ask_to_create(client: &Client, member: &MemberId, timeout: Duration) -> Result<String> {
        #[derive(Deserialize)]
        struct CreateResponse {
            #[serde(rename = "ID")]
            id: String,
        }
        let create = Create {
            node: &client.settings.node,
            name: format!("tooz {member}"),
            ttl: format!("{}ms", timeout.as_millis()),
            behavior: "delete",
            lock_delay: "0s",
            node_checks: [],
            service_checks: [],
        };
        let question = client.question(Method::PUT, "session/create", &[], write(&create)?);
        let asked = client.ask(Lane::Duty, question).await.map_err(|error| error.context("make a session"))?;
        let created: CreateResponse =
            serde_json::from_slice(&asked.message.body).map_err(|_| error::strange("that of a session"))?;
        let is_id = created.id.len() <= 64 && created.id.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
        if is_id { Ok(created.id) } else { Err(error::strange("the id of a session")) }
    }

    /// Makes the session's key, in a namespace that is kept in this driver's layout.
    pub(crate) async fn move_in(&self, client: &Client, layout: &Layout) -> Result<()> {
        // Another session that moves in at the same time writes the version once; it is not written a third time.
        for _ in 0..3 {
            let mut ops = vec![lock(&self.key, &self.record()?, &self.id)];
            ops.extend(layout.version_unchanged());
            // By the heartbeat's own connection, which is made before anything depends on it: an agent may take no more of this address later.
            match client.transact(Lane::Beat, &ops).await?.message {
                TxnResult::Done(entries) => {
                    let own = entries.iter().find(|entry| entry.key == self.key);
                    self.raise(own.ok_or_else(|| error::strange("a session's key that is not there"))?.modified);
                    return Ok(());
                }
                verdict if verdict.fails(0) => return Err(error::session_is_gone()),
                TxnResult::Refused(_) => {
                    let found = client.read(Lane::Duty, layout.version_key(), Scope::One).await?;
                    layout.learn(found.entries.first())?;
                }
            }
        }
        Err(error::strange("the record of the layout changes all the time"))
    }

    /// A transaction that makes or deletes keys of the session, if its turn comes by `latest`. It writes a stamp too.
    pub(crate) async fn change(
        &self,
        client: &Client,
        lane: Lane,
        ops: Vec<Op>,
        latest: Option<Instant>,
    ) -> Result<Reply<TxnResult>> {
        let (count, mut was_repeated) = (ops.len(), false);
        let doubt =
            |error: Error, was_repeated| if was_repeated { error.with_outcome(Outcome::Unknown) } else { error };
        let turn = client.turn(lane, latest).await?;
        for _ in 0..PATIENT {
            let asked = self.change_once(client, &turn, &ops).await;
            let (reply, is_known) = asked.map_err(|error| doubt(error, was_repeated))?;
            was_repeated |= reply.was_repeated;
            let TxnResult::Refused(mut failed) = reply.message else { return Ok(Reply { was_repeated, ..reply }) };
            let is_stale = is_known && failed.contains(&(count + history::OPS - 1));
            // What refuses it may be what an earlier sending has done, whose answer was lost: that is known from now on.
            if is_stale || self.history.is_unsure() {
                self.history.look_in(client, &turn).await.map_err(|error| doubt(error, true))?;
            }
            if is_stale {
                failed.retain(|op| *op < count);
            }
            if !failed.is_empty() || !is_stale {
                return Ok(Reply { message: TxnResult::Refused(failed), was_repeated });
            }
        }
        let error =
            Error::new(ErrorKind::Unavailable, "a stamp of the session is not what was written there: try again");
        Err(doubt(error.with_outcome(Outcome::NotApplied), was_repeated))
    }

    /// The same once, and whether its stamp was to stand on a known one.
    async fn change_once(&self, client: &Client, turn: &Turn<'_>, ops: &[Op]) -> Result<(Reply<TxnResult>, bool)> {
        // Not before its turn: what is answered meanwhile counts.
        let stamp = self.history.take();
        let (ops, is_known) = ([ops, &stamp.ops()].concat(), stamp.is_known());
        let mut reply = client.transact_in(turn, &ops).await?;
        match &mut reply.message {
            TxnResult::Done(entries) => {
                if stamp.done(entries) {
                    client.set_back();
                }
            }
            // An earlier sending may have been done.
            TxnResult::Refused(_) if reply.was_repeated => {}
            TxnResult::Refused(_) => stamp.refused(),
        }
        Ok((reply, is_known))
    }

    /// What is to stand at the session's key, never the same twice.
    pub(crate) fn record(&self) -> Result<Vec<u8>> {
        let withdrawals = self.written.fetch_add(1, Ordering::Relaxed);
        write(&SessionRecord { member: &self.member, withdrawals })
    }

    /// The index at which the session's key was last written, as far as is known.
    pub(crate) fn index(&self) -> u64 {
        self.index.load(Ordering::Acquire)
    }

    pub(crate) fn raise(&self, index: u64) {
        self.index.fetch_max(index, Ordering::AcqRel);
    }

    /// The renewal of a heartbeat, which is passed on to the leader.
    ///
    /// A leader that was deposed and does not know it may answer once more: the heartbeat goes on with a question that it can't answer. Should
    /// another have been elected in between, whose clock of this session began to run a little before: Consul ends a session
    /// after twice its timeout, and holders stop after once. A leader that was just elected knows nothing of a session until it has read its own log, and
    /// says so as if the session had ended; a leader that has proved to be one is asked before that is believed.
    pub(crate) async fn beat(&self, client: &Client) -> Result<()> {
        let renew = || client.question(Method::PUT, &format!("session/renew/{}", self.id), &[], Bytes::new());
        for _ in 0..PATIENT {
            if client.ask(Lane::Beat, renew()).await?.message.status == 200 {
                return Ok(());
            }
            if !self.lives(client, Lane::Beat).await? {
                return Err(error::lost("the session has ended at the server"));
            }
            tokio::time::sleep(MOMENT).await;
        }
        Err(Error::new(ErrorKind::Unavailable, "the leader does not know this session yet")
            .with_outcome(Outcome::NotApplied))
    }

    /// Whether it is there, by the word of a leader that has proved to be one.
    pub(crate) async fn lives(&self, client: &Client, lane: Lane) -> Result<bool> {
        let question =
            client.question(Method::GET, &format!("session/info/{}", self.id), &["consistent"], Bytes::new());
        let answer = client.ask(lane, question).await?.message;
        let found: Option<Vec<serde::de::IgnoredAny>> =
            serde_json::from_slice(&answer.body).map_err(|_| error::strange("that of a session"))?;
        Ok(found.is_some_and(|found| !found.is_empty()))
    }

    /// That it is there, or `Lost`.
    pub(crate) async fn require(&self, client: &Client) -> Result<()> {
        if self.lives(client, Lane::Duty).await? { Ok(()) } else { Err(error::session_is_gone()) }
    }

    /// Ends it: Consul deletes all its keys in one step.
    pub(crate) async fn destroy(&self, client: &Client) -> Result<()> {
        let question = client.question(Method::PUT, &format!("session/destroy/{}", self.id), &[], Bytes::new());
        client.ask(Lane::Duty, question).await.map(drop).map_err(|error| error.context("end the session"))
    }
}

/// The timeout of another session, where a driver of this kind has made it.
pub(crate) async fn timeout_of(client: &Client, session: &str) -> Result<Option<Duration>> {
    #[derive(Deserialize)]
    struct Info {
        #[serde(rename = "TTL")]
        ttl: String,
    }
    let question = client.question(Method::GET, &format!("session/info/{session}"), &[], Bytes::new());
    let answer = client.ask(Lane::Wish, question).await?.message;
    let found: Option<Vec<Info>> =
        serde_json::from_slice(&answer.body).map_err(|_| error::strange("that of a session"))?;
    let ttl = found.and_then(|found| found.into_iter().next()).map(|info| info.ttl);
    Ok(ttl.and_then(|ttl| ttl.strip_suffix("ms")?.parse().ok()).map(Duration::from_millis))
}

/// Makes the node of the sessions. Where it stands already as it should be, that takes no rights.
async fn register(client: &Client) -> Result<()> {
    let settings = &client.settings;
    let body =
        write(&Register { node: &settings.node, address: "127.0.0.1", datacenter: settings.datacenter.as_deref() })?;
    let question = client.question(Method::PUT, "catalog/register", &[], body);
    let asked = client.ask(Lane::Duty, question).await;
    asked.map(drop).map_err(|error| error.context(format!("register the node {:?} of the sessions", settings.node)))
}
