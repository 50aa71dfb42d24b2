//! What `tooz doctor` is told about the server.

use tooz_core::{Checkup, ErrorKind, Result};

use crate::client::Client;
use crate::layout::{LAYOUT, REVISION};
use crate::options::Settings;
use crate::packet::Packets;
use crate::schema::{self, SchemaState};
use crate::server::{Server, is_on};
use crate::setup::{self, Role};

/// Looks at the server and at those of its settings on which the driver depends.
pub(crate) async fn check_up(client: &Client) -> Result<Checkup> {
    let settings = &client.settings;
    // By a connection of its own: a user who may make no more of them is told so.
    let (mut packets, begun) = setup::connect(settings, Role::Client).await?;
    let server = begun.server;
    let mut checkup = Checkup::new(format!("{} at {}", server.name(), settings.place()))
        .good("it is no replica and no node of a cluster that locks at each node alone: nothing says so");
    let database = &settings.database;
    checkup = match schema::look(&mut packets, settings).await {
        Ok(SchemaState::Tables) => {
            let found = format!("the tables are in database {database:?} (layout {LAYOUT}, revision {REVISION})");
            privileges(checkup.good(found), &mut packets, settings).await
        }
        Ok(SchemaState::Missing) => checkup.good(format!(
            "the tables are not all in database {database:?} yet; the first member that may creates them"
        )),
        Err(error) if error.kind() == ErrorKind::Config => {
            checkup.wrong(error.to_string(), "name another database in the URL")
        }
        Err(error) => checkup.wrong(error.to_string(), schema::printed(settings)),
    };
    checkup = connections(checkup, &mut packets, &server, settings.waiters).await;
    if server.value("log_bin").is_some_and(is_on)
        && server.value("binlog_format").is_some_and(|format| format.eq_ignore_ascii_case("STATEMENT"))
    {
        checkup = checkup.wrong(
            "binlog_format is STATEMENT, with which the server refuses what members write",
            "set binlog_format to ROW or MIXED",
        );
    }
    checkup = packets_of(threads(checkup, &server), &server);
    Ok(checkup.good(format!(
        "a session that is silent for {:?} is ended by the server (wait_timeout)",
        settings.session_timeout
    )))
}

/// Whether this user may write what members write.
async fn privileges(checkup: Checkup, packets: &mut Packets, settings: &Settings) -> Checkup {
    let lacking = schema::lacking(packets, &settings.database).await;
    if lacking.is_empty() {
        return checkup.good("this user has all privileges that a member needs there");
    }
    let found = format!("this user lacks privileges in database {:?}: {}", settings.database, lacking.join(", "));
    checkup.wrong(found, format!("let an administrator run {}", schema::printed(settings)))
}

/// Whether those that wait can keep the server from doing anything else: in a pool of threads each wait for a named lock blocks one of them.
fn threads(checkup: Checkup, server: &Server) -> Checkup {
    if !server.value("thread_handling").is_some_and(|handling| handling.contains("pool")) {
        return checkup;
    }
    let checkup = checkup.good(
        "connections share a pool of threads: what a member that hangs in the middle of a packet holds is free after the session timeout (net_read_timeout)",
    );
    match (server.number("thread_pool_max_threads"), server.number("max_connections")) {
        (Some(threads), Some(connections)) if threads < connections => checkup.warning(
            format!(
                "the pool has {threads} threads at most, and each member blocks one for as long as it lives, each wait for a lock one more: when all \
                 are blocked no heartbeat is served, and all members lose what they hold"
            ),
            format!("raise thread_pool_max_threads to max_connections ({connections}) at least"),
        ),
        _ => checkup,
    }
}

/// Whether the server takes packets in which there is room for much at once.
fn packets_of(checkup: Checkup, server: &Server) -> Checkup {
    const ENOUGH: u64 = 64 << 10;
    match server.number("max_allowed_packet") {
        Some(longest) if longest < ENOUGH => checkup.warning(
            format!(
                "the server takes packets of {longest} bytes at most: capabilities of about half of that are refused, and what is done for many at once \
                 takes many packets"
            ),
            format!("raise max_allowed_packet to {ENOUGH} at least; the server's own default is far above"),
        ),
        _ => checkup,
    }
}

/// How many connections there is room for.
async fn connections(checkup: Checkup, packets: &mut Packets, server: &Server, waiters: usize) -> Checkup {
    let ours = u64::try_from(waiters).unwrap_or(u64::MAX).saturating_add(3);
    let used = match packets.ask("SHOW GLOBAL STATUS LIKE 'Threads_connected'").await {
        Ok(answer) => answer.number(0, 1).ok().flatten(),
        Err(_) => None,
    };
    let (Some(used), Some(most)) = (used.and_then(|used| u64::try_from(used).ok()), server.number("max_connections"))
    else {
        return checkup;
    };
    let found = format!("{used} of {most} connections are in use, and a member takes up to {ours}");
    if most.saturating_sub(used) < ours {
        checkup.warning(found, "raise max_connections, or lower the option waiters")
    } else {
        checkup.good(found)
    }
}
