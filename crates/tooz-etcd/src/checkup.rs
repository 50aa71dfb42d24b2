//! What the doctor looks at: each endpoint, the members, space, alarms, users and the layout.

use std::time::Duration;

use tokio::time::timeout;
use tooz_core::{Checkup, Error, ErrorKind, Result};

use crate::client::Client;
use crate::error;
use crate::lanes::Lane;
use crate::layout::Layout;
use crate::proto::etcdserverpb::alarm_request::AlarmAction;
use crate::proto::etcdserverpb::{AlarmRequest, AlarmType, MemberListRequest, StatusRequest, StatusResponse};
use crate::request::one;

/// The oldest version that this driver speaks to, as major and minor.
const OLDEST: (u32, u32) = (3, 4);
/// etcd's own default, and what it advises not to exceed.
const QUOTA: i64 = 2 << 30;

/// Refuses an etcd that is too old.
pub(crate) fn check_version(text: &str) -> Result<()> {
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
pub(crate) async fn check_up(client: &Client, layout: &Layout, session_timeout: Duration) -> Result<Checkup> {
    let mut answers = Vec::new();
    for endpoint in 0..client.endpoints.len() {
        let mut connection = client.endpoints.connection_to(endpoint);
        connection.headers.require_leader = false;
        let asked = timeout(client.limit(), connection.maintenance().status(StatusRequest {})).await;
        answers.push(match asked {
            Ok(Ok(status)) => Ok(status.into_inner()),
            Ok(Err(status)) => Err(connection.judge(status).error.to_string()),
            Err(_) => Err(error::no_answer(client.endpoints.address(endpoint), client.limit()).error.to_string()),
        });
    }
    let Some((first, status)) =
        answers.iter().enumerate().find_map(|(index, answer)| answer.as_ref().ok().map(|status| (index, status)))
    else {
        let words = answers.into_iter().find_map(Result::err).unwrap_or_default();
        return Err(Error::new(ErrorKind::Unavailable, words));
    };
    let mut checkup = Checkup::new(format!("etcd {} at {}", status.version, client.endpoints.address(first)));
    for (index, answer) in answers.iter().enumerate() {
        checkup = endpoint(checkup, client.endpoints.address(index), answer.as_ref());
    }
    checkup = match check_version(&status.version) {
        Ok(()) => checkup.good(format!("version {}", status.version)),
        Err(error) => checkup.wrong(error.to_string(), "upgrade the cluster"),
    };
    checkup = members(checkup, client).await;
    checkup = space(checkup, status);
    checkup = alarms(checkup, client).await;
    checkup = users(checkup, client).await;
    checkup = kept(checkup, client, layout).await;
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

async fn members(checkup: Checkup, client: &Client) -> Checkup {
    let asked = client
        .ask(Lane::First, |connection| async move {
            connection.cluster().member_list(MemberListRequest { linearizable: true }).await
        })
        .await;
    let members = match asked {
        Ok(reply) => reply.message.members,
        Err(error) => return checkup.warning(format!("the members can't be listed: {error}"), "see the line before"),
    };
    let voting = members.iter().filter(|member| !member.is_learner).count();
    match voting {
        1 => checkup.warning(
            "the cluster has one member: while it is down, no lock can be had",
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

/// Which users may come in, and how the password is sent.
async fn users(checkup: Checkup, client: &Client) -> Checkup {
    match client.endpoints.login.user().await {
        Ok(None) => checkup,
        Ok(Some(_)) if client.endpoints.login.are_users_off() => checkup.warning(
            "a user is named, but this etcd has no authentication: it lets every client in",
            "switch it on with `etcdctl auth enable`, or restrict the network",
        ),
        Ok(Some(_)) if !client.endpoints.are_by_tls() => checkup.warning(
            "the password is sent in the clear at each log-in",
            "use etcd+https://, or a network on which no other listens",
        ),
        Ok(Some(_)) => checkup.good("the user logs in, by TLS"),
        Err(error) => {
            checkup.wrong(format!("the credentials can't be read: {error}"), "see to the file or the function")
        }
    }
}

/// Whether the namespace is kept as this driver keeps it.
async fn kept(checkup: Checkup, client: &Client, layout: &Layout) -> Checkup {
    let asked = client
        .ask(Lane::First, |connection| async move { connection.kv().range(one(layout.version_key())).await })
        .await;
    match asked.and_then(|reply| layout.learn(reply.message.kvs.first())) {
        Ok(()) => checkup.good("the namespace is kept in this driver's layout, or is new"),
        Err(error) => checkup.wrong(format!("{error}"), "see to the role of the user and to the namespace"),
    }
}

async fn alarms(checkup: Checkup, client: &Client) -> Checkup {
    let request = AlarmRequest { action: AlarmAction::Get.into(), ..AlarmRequest::default() };
    let asked =
        client.ask(Lane::First, |connection| async move { connection.maintenance().alarm(request).await }).await;
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_version_panics(text: String, numbers in "[0-9.]{0,30}") {
            let _ = (check_version(&text), check_version(&numbers));
        }
    }

    #[test]
    fn only_a_version_that_is_known_to_be_older_is_refused() {
        for (version, is_fine) in
            [("3.4.0", true), ("3.6.1", true), ("10.0", true), ("3.3.27", false), ("2.4", false), ("mine", true)]
        {
            assert_eq!(check_version(version).is_ok(), is_fine, "{version}");
        }
    }
}
