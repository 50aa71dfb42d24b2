//! Meeting the cluster for the first time, and looking at it for an operator.

use std::time::Duration;

use tokio::time::timeout;
use tooz_core::{Checkup, Error, ErrorKind, Result};

use crate::cluster::{Cluster, Lane};
use crate::endpoint::Line;
use crate::error;
use crate::layout::Layout;
use crate::proto::etcdserverpb::alarm_request::AlarmAction;
use crate::proto::etcdserverpb::{AlarmRequest, AlarmType, MemberListRequest, StatusRequest, StatusResponse};
use crate::request::one;

/// The oldest version that this driver speaks to, as major and minor.
const OLDEST: (u32, u32) = (3, 4);
/// etcd's own default, and what it advises not to exceed.
const QUOTA: i64 = 2 << 30;

/// Finds out that an etcd is there, that it is young enough, that it has a leader and lets this user read, and that the namespace is kept in this
/// driver's layout.
pub(crate) async fn meet(cluster: &Cluster, layout: &Layout, limit: Duration) -> Result<()> {
    let said = cluster.meet(limit).await.map_err(|error| error.context("ask etcd who it is"))?;
    cluster.log_in().await?;
    let status = if let Some(status) = said {
        status
    } else {
        // It answers nobody who has not logged in.
        let asking = |line: Line| async move { line.maintenance().status(StatusRequest {}).await };
        cluster.ask_within(limit, asking).await.map_err(|error| error.context("ask etcd who it is"))?.message
    };
    check_version(&status.version)?;
    let before = cluster.history.seen();
    let read = cluster.ask_within(limit, |line| async move { line.kv().range(one(layout.key())).await }).await;
    match read {
        Ok(reply) => {
            cluster.history.note(before, reply.message.header.as_ref());
            layout.learn(reply.message.kvs.first())
        }
        // Whoever may read nothing here is told so by what is asked.
        Err(error) if error.kind() == ErrorKind::Unauthorized && error.to_string().contains("permission denied") => {
            Ok(())
        }
        Err(error) => Err(error),
    }
}

fn check_version(text: &str) -> Result<()> {
    let mut parts = text.split('.').map_while(|part| part.parse::<u32>().ok());
    match (parts.next(), parts.next()) {
        (Some(major), Some(minor)) if (major, minor) >= OLDEST => Ok(()),
        (Some(_), Some(_)) => Err(Error::config(format!(
            "this is etcd {text}, but {}.{} or later is needed: upgrade the cluster",
            OLDEST.0, OLDEST.1
        ))),
        // A version of another make is no reason to refuse.
        _ => Ok(()),
    }
}

/// Looks at every endpoint of the URL and at what the cluster says of itself.
pub(crate) async fn look(cluster: &Cluster, layout: &Layout, session_timeout: Duration) -> Result<Checkup> {
    let mut answers = Vec::new();
    for endpoint in 0..cluster.len() {
        let mut line = cluster.line_to(endpoint);
        line.headers.require_leader = false;
        let asked = timeout(cluster.limit(), line.maintenance().status(StatusRequest {})).await;
        answers.push(match asked {
            Ok(Ok(status)) => Ok(status.into_inner()),
            Ok(Err(status)) => Err(line.judge(status).error.to_string()),
            Err(_) => Err(error::no_answer(cluster.address(endpoint), cluster.limit()).error.to_string()),
        });
    }
    let Some((first, status)) =
        answers.iter().enumerate().find_map(|(index, answer)| answer.as_ref().ok().map(|status| (index, status)))
    else {
        let words = answers.into_iter().find_map(Result::err).unwrap_or_default();
        return Err(Error::new(ErrorKind::Unavailable, words));
    };
    let mut checkup = Checkup::new(format!("etcd {} at {}", status.version, cluster.address(first)));
    for (index, answer) in answers.iter().enumerate() {
        checkup = endpoint(checkup, cluster.address(index), answer.as_ref());
    }
    checkup = match check_version(&status.version) {
        Ok(()) => checkup.good(format!("version {}", status.version)),
        Err(error) => checkup.wrong(error.to_string(), "upgrade the cluster"),
    };
    checkup = members(checkup, cluster).await;
    checkup = space(checkup, status);
    checkup = alarms(checkup, cluster).await;
    checkup = users(checkup, cluster).await;
    checkup = kept(checkup, cluster, layout).await;
    if session_timeout < Duration::from_secs(2) {
        checkup = checkup.warning(
            format!("session_timeout={session_timeout:?}, but etcd keeps a lease for whole seconds, and for two with its default election timeout"),
            "what a dead member held is free only after etcd's own timeout: nothing is gained by less than 2s",
        );
    }
    Ok(checkup)
}

fn endpoint(checkup: Checkup, address: &str, answer: Result<&StatusResponse, &String>) -> Checkup {
    match answer {
        Err(why) => {
            checkup.warning(format!("{address} does not serve: {why}"), "start that member, or take it out of the URL")
        }
        Ok(status) if status.is_learner => checkup.warning(
            format!("{address} is a learner: it serves no linearizable reads and no writes"),
            "promote it, or take it out of the URL",
        ),
        Ok(status) if status.leader == 0 => checkup
            .wrong(format!("{address} sees no leader"), "a majority of the members must run and reach one another"),
        Ok(status) if !status.errors.is_empty() => {
            checkup.warning(format!("{address} complains: {}", status.errors.join(", ")), "see etcd's own log")
        }
        Ok(_) => checkup.good(format!("{address} serves and sees a leader")),
    }
}

async fn members(checkup: Checkup, cluster: &Cluster) -> Checkup {
    let asked = cluster
        .ask(
            Lane::First,
            |line| async move { line.cluster().member_list(MemberListRequest { linearizable: true }).await },
        )
        .await;
    let members = match asked {
        Ok(reply) => reply.message.members,
        Err(error) => return checkup.warning(format!("the members can't be listed: {error}"), "see the line before"),
    };
    let voting = members.iter().filter(|member| !member.is_learner).count();
    match voting {
        1 => checkup.warning(
            "the cluster has one member: while it is down, nobody gets a lock",
            "run three members where that matters",
        ),
        even if even % 2 == 0 => checkup.warning(
            format!("the cluster has {even} voting members, which stand no more failures than {}", even - 1),
            "run an odd number of members",
        ),
        odd => checkup.good(format!("{odd} voting members, which stand the loss of {}", odd / 2)),
    }
}

fn space(checkup: Checkup, status: &StatusResponse) -> Checkup {
    // Only 3.6 and later say what the quota is.
    let (quota, known) =
        if status.db_size_quota > 0 { (status.db_size_quota, "") } else { (QUOTA, ", if it is etcd's default") };
    let percent = status.db_size.saturating_mul(100) / quota;
    let words = format!("the database has {} MiB, {percent} % of its quota{known}", status.db_size >> 20);
    if percent >= 80 {
        checkup.warning(words, "compact and defragment it, set auto-compaction, or raise --quota-backend-bytes")
    } else {
        checkup.good(words)
    }
}

/// Who may come in, and what is sent to say so.
async fn users(checkup: Checkup, cluster: &Cluster) -> Checkup {
    match cluster.login().user().await {
        Ok(None) => checkup,
        Ok(Some(_)) if cluster.login().are_users_off() => checkup.warning(
            "a user is named, but this etcd has no authentication: it lets everybody in",
            "switch it on with `etcdctl auth enable`, or restrict the network",
        ),
        Ok(Some(_)) if !cluster.is_by_tls() => checkup.warning(
            "the password is sent in the clear at each log-in",
            "use etcd+https://, or a network that nobody else listens on",
        ),
        Ok(Some(_)) => checkup.good("the user logs in, by TLS"),
        Err(error) => {
            checkup.wrong(format!("the credentials can't be read: {error}"), "see to the file or the function")
        }
    }
}

/// Whether the namespace is kept as this driver keeps it.
async fn kept(checkup: Checkup, cluster: &Cluster, layout: &Layout) -> Checkup {
    let asked = cluster.ask(Lane::First, |line| async move { line.kv().range(one(layout.key())).await }).await;
    match asked.and_then(|reply| layout.learn(reply.message.kvs.first())) {
        Ok(()) => checkup.good("the namespace is kept in this driver's layout, or is new"),
        Err(error) => checkup.wrong(format!("{error}"), "see to the role of the user and to the namespace"),
    }
}

async fn alarms(checkup: Checkup, cluster: &Cluster) -> Checkup {
    let request = AlarmRequest { action: AlarmAction::Get.into(), ..AlarmRequest::default() };
    let asked = cluster.ask(Lane::First, |line| async move { line.maintenance().alarm(request).await }).await;
    match asked {
        Ok(reply) if reply.message.alarms.is_empty() => checkup.good("no alarm is raised"),
        Ok(reply) => reply.message.alarms.iter().fold(checkup, |checkup, alarm| match alarm.alarm() {
            AlarmType::Nospace => checkup.wrong(
                "the alarm NOSPACE is raised: etcd takes no writes",
                "compact and defragment it, or raise --quota-backend-bytes, then `etcdctl alarm disarm`",
            ),
            _ => checkup.wrong("the alarm CORRUPT is raised", "restore the damaged member from its peers"),
        }),
        // Only an administrator may ask.
        Err(error) if error.kind() == ErrorKind::Unauthorized => checkup,
        Err(error) => checkup.warning(format!("alarms can't be read: {error}"), "see the line before"),
    }
}
