//! Locks: one round trip to acquire, and for those who wait a push with the grant.

use std::collections::BTreeMap;
use std::time::{Duration, UNIX_EPOCH};

use fred::types::Value;
use tooz_core::driver::{Granted, LockKey, LockRequest, Space, Wanted, decode_name, encode_name};
use tooz_core::{Error, ErrorKind, FencingToken, Holder, LockMode, MemberId, Result};

use crate::connection::Connection;
use crate::error::{lost, strange};
use crate::feed::News;
use crate::reply::FROM_THE_FIRST;
use crate::script::Script;

/// How long to wait before a request that failed is repeated, at first and at most; a link that comes back is waited for besides.
const PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// A lock as it stands in keys: `l:NAME`, or `e:NAME` for an election. Long enough that no name is cut.
pub(crate) fn lock_id(key: &LockKey) -> String {
    let space = match key.space {
        Space::Lock => 'l',
        Space::Election => 'e',
    };
    format!("{space}:{}", encode_name(&key.name, 765))
}

pub(crate) fn key_of(lock: &str) -> Option<LockKey> {
    let (space, name) = lock.split_once(':')?;
    let name = decode_name(name)?;
    match space {
        "l" => Some(LockKey::lock(&name.parse().ok()?)),
        "e" => Some(LockKey::election(&name.parse().ok()?)),
        _ => None,
    }
}

const fn letter(mode: LockMode) -> &'static str {
    match mode {
        LockMode::Exclusive => "X",
        LockMode::Shared => "S",
    }
}

/// What becomes of one who can't have the lock at once.
#[derive(Clone, Copy)]
enum Else<'a> {
    Refused,
    Queued(&'a Wanted),
}

async fn acquire(connection: &Connection, request: &LockRequest, or: Else<'_>) -> Result<Option<Granted>> {
    let arguments = vec![
        lock_id(&request.key).into(),
        request.id.to_string().into(),
        Value::from_static_str(letter(request.mode)),
        Value::from_static_str(if matches!(or, Else::Queued(_)) { "wait" } else { "try" }),
    ];
    let reply = loop {
        let arguments = arguments.clone();
        let reply = match or {
            Else::Refused => connection.run_surely(Script::Acquire, arguments).await?,
            Else::Queued(wanted) => match connection.run_patiently(Script::Acquire, arguments, wanted).await? {
                Some(reply) => reply,
                None => return Ok(None),
            },
        };
        // So many of its holders are dead that it takes more than one script to find out whether all are.
        if !reply.is("again") {
            break reply;
        }
    };
    if reply.leaves_over(1) {
        connection.go_on();
    }
    match reply.word.as_str() {
        "granted" => {
            let granted = Granted::new(FencingToken(reply.token(0)?));
            connection.feed().hold(request.id, lock_id(&request.key));
            Ok(Some(granted))
        }
        "busy" => {
            if matches!(or, Else::Queued(_)) {
                connection.look_in(reply.number(0)?);
            }
            Ok(None)
        }
        _ => reply.strange(),
    }
}

pub(crate) async fn try_lock(connection: &Connection, request: &LockRequest) -> Result<Option<Granted>> {
    acquire(connection, request, Else::Refused).await
}

pub(crate) async fn lock(connection: &Connection, request: &LockRequest, wanted: &Wanted) -> Result<Option<Granted>> {
    let lock = lock_id(&request.key);
    let mut pause = PAUSE;
    while wanted.is_wanted() {
        // Listening begins before anybody could speak.
        let mut expected = connection.feed().expect(request.id, &lock);
        let failed = match acquire(connection, request, Else::Queued(wanted)).await {
            Ok(Some(granted)) => return Ok(Some(granted)),
            Ok(None) => {
                wanted.queued();
                pause = PAUSE;
                None
            }
            // The place in the queue is kept as long as the session lives: the same request finds it again.
            Err(error) if matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::TimedOut) => {
                wanted.trouble(&error);
                Some(error)
            }
            Err(error) => return Err(error),
        };
        let news = tokio::select! {
            biased;
            news = expected.hear() => match news {
                Some(news) => news,
                None => return Err(failed.unwrap_or_else(lost)),
            },
            () = wanted.unwanted() => expected.heard().unwrap_or(News::AskAgain),
            () = tokio::time::sleep(pause.mul_f64(0.5 + fastrand::f64())), if failed.is_some() => {
                pause = (pause * 2).min(LONGEST_PAUSE);
                News::AskAgain
            }
        };
        // A grant that a fail-over has taken back leaves the place in the queue, which is asked for again.
        if let News::Granted(granted) = news
            && let Some(granted) = confirm(connection, request, granted).await?
        {
            return Ok(Some(granted));
        }
    }
    release(connection, request).await.map(|()| None)
}

/// A pushed grant counts at once, except where replicas have to have it: then it is asked for again, and waited for.
async fn confirm(connection: &Connection, request: &LockRequest, granted: Granted) -> Result<Option<Granted>> {
    if connection.confirms() {
        return acquire(connection, request, Else::Refused).await;
    }
    connection.feed().hold(request.id, lock_id(&request.key));
    Ok(Some(granted))
}

pub(crate) async fn release(connection: &Connection, request: &LockRequest) -> Result<()> {
    connection.feed().forget(request.id);
    let arguments = vec![lock_id(&request.key).into(), request.id.to_string().into()];
    if connection.run(Script::Release, arguments).await?.leaves_over(0) {
        connection.go_on();
    }
    Ok(())
}

pub(crate) async fn holders(connection: &Connection, key: &LockKey) -> Result<Vec<Holder>> {
    // By their tokens, since a part may tell again what an earlier one has told.
    let mut all = BTreeMap::new();
    let mut place = FROM_THE_FIRST.to_owned();
    loop {
        let reply = connection.run(Script::Holders, vec![lock_id(key).into(), place.as_str().into()]).await?;
        let texts = reply.texts(0)?;
        let (next, holders) = texts.split_first().ok_or_else(|| strange(&reply))?;
        for told in holders.chunks_exact(4) {
            let holder = holder(told).ok_or_else(|| strange(&reply))?;
            all.insert(holder.token, holder);
        }
        if next == FROM_THE_FIRST {
            return Ok(all.into_values().collect());
        }
        place.clone_from(next);
    }
}

fn holder(told: &[String]) -> Option<Holder> {
    let [member, mode, token, since] = told else { return None };
    let mode = if mode == "X" { LockMode::Exclusive } else { LockMode::Shared };
    let since = UNIX_EPOCH + Duration::from_millis(since.parse().ok()?);
    Some(Holder::new(MemberId::new(member).ok()?, mode, FencingToken(token.parse().ok()?)).since(since))
}

pub(crate) async fn break_lock(connection: &Connection, key: &LockKey, token: FencingToken) -> Result<()> {
    let mut place = FROM_THE_FIRST.to_owned();
    loop {
        let arguments = vec![lock_id(key).into(), token.to_string().into(), place.as_str().into()];
        let reply = connection.run(Script::Break, arguments).await?;
        match reply.word.as_str() {
            "ok" => {
                if reply.leaves_over(0) {
                    connection.go_on();
                }
                return Ok(());
            }
            "more" => place = reply.texts(0)?.concat(),
            "missing" => {
                return Err(Error::new(ErrorKind::NotFound, format!("nobody holds it with token {token} any more")));
            }
            _ => return reply.strange(),
        }
    }
}
