//! Groups: rows that count as long as the named lock of their session is held by their session's connection.
//!
//! What changes them is one packet each, from the beginning of the transaction to its end: so a client that hangs never holds a row.

use std::sync::Arc;

use tooz_core::driver::{Groups, JoinRequest, Replace, Roster, async_trait};
use tooz_core::{Error, ErrorKind, GroupId, Outcome, Result};

use crate::answer::{number, text};
use crate::client::Repeat;
use crate::connection::Connection;
use crate::error;
use crate::holdings::Holdings;
use crate::layout::{is_group, news};
use crate::packet;
use crate::record::{NOW, bytes, entry};
use crate::session::MySqlSession;

/// The longest capabilities of one member, in bytes: a reader of a group has those of all its members in one answer.
const MOST_CAPABILITIES: usize = 256 << 10;

#[async_trait]
impl Groups for MySqlSession {
    /// Its version begins with the time, so that it grows also over a deletion.
    async fn create_group(&self, group: &GroupId) -> Result<()> {
        const DOING: &str = "create a group";
        let (groups, namespace, name) =
            (self.layout.table("groups"), packet::name(self.layout.namespace()), packet::name(group.as_str()));
        // A row that is there is no error, and nothing else is hidden by that.
        let create = format!(
            "SET @tooz_was = (SELECT 1 FROM {groups} WHERE {is}); START TRANSACTION; \
             INSERT INTO {groups} (namespace, name, version) SELECT {namespace}, {name}, {NOW} FROM DUAL WHERE @tooz_was IS NULL; \
             COMMIT; SELECT @tooz_was",
            is = is_group(&self.layout, group)
        );
        // Once more where the tables have gone since they were looked for.
        for _ in 0..2 {
            self.client.ensure_tables().await?;
            match self.client.transact(DOING, create.clone()).await {
                Ok(None) => {}
                Ok(Some(answer)) if answer.is(4, 0).map_err(|error| error::of(error, DOING))? => {
                    return Err(Error::group_exists(group));
                }
                Ok(Some(_)) => return Ok(()),
                // Another has made it in the same moment.
                Err(error) if error.kind() == ErrorKind::AlreadyExists => return Err(Error::group_exists(group)),
                Err(error) => return Err(error),
            }
        }
        Err(Error::new(ErrorKind::Backend, format!("{DOING}: the tables were there a moment ago and are not any more")))
    }

    async fn delete_group(&self, group: &GroupId) -> Result<()> {
        const DOING: &str = "delete a group";
        let (groups, members, is) =
            (self.layout.table("groups"), self.layout.table("members"), is_group(&self.layout, group));
        let delete = format!(
            "SET @tooz_there = NULL; START TRANSACTION; SELECT 1 INTO @tooz_there FROM {groups} WHERE {is} FOR UPDATE; \
             SET @tooz_living = (SELECT COUNT(*) FROM {members} WHERE {is} AND IS_USED_LOCK(session) = conn); \
             DELETE FROM {members} WHERE {is} AND @tooz_living = 0; \
             DELETE FROM {groups} WHERE {is} AND @tooz_living = 0; COMMIT; SELECT @tooz_there, @tooz_living"
        );
        let Some(answer) = self.client.transact(DOING, delete).await? else { return Err(Error::no_group(group)) };
        let number = |column| answer.number(7, column).map_err(|error| error::of(error, DOING));
        match (number(0)?, number(1)?) {
            (None, _) => Err(Error::no_group(group)),
            (Some(_), Some(0)) => Ok(()),
            (Some(_), living) => {
                Err(Error::group_not_empty(group, usize::try_from(living.unwrap_or(1)).unwrap_or(usize::MAX)))
            }
        }
    }

    async fn groups(&self) -> Result<Vec<GroupId>> {
        const DOING: &str = "list the groups";
        let (groups, namespace) = (self.layout.table("groups"), packet::name(self.layout.namespace()));
        let list = format!("SELECT name FROM {groups} WHERE namespace = {namespace} ORDER BY name");
        let Some(answer) = self.client.consult(DOING, Repeat::Allowed, list).await? else { return Ok(Vec::new()) };
        let names: Result<Vec<_>, _> = answer.rows(0).iter().map(|row| text(row, 0)).collect();
        // What can't be read is left out: another program has written it.
        Ok(names.map_err(|error| error::of(error, DOING))?.into_iter().flatten().flat_map(GroupId::new).collect())
    }

    async fn join(&self, request: &JoinRequest) -> Result<()> {
        const DOING: &str = "join a group";
        request.refuse_more_than(MOST_CAPABILITIES)?;
        let open = self.opened()?;
        let statements = join(&open.holdings, request);
        refuse_too_long(&open.connection, &statements)?;
        let (holdings, theirs) = (Arc::clone(&open.holdings), request.clone());
        let joining = open.connection.run(open.limit, DOING, move |packets| {
            Box::pin(async move {
                let failed = |error| error::on_session(error, DOING);
                let answer = packets.transact(&statements).await.map_err(failed)?;
                let last = answer.count().saturating_sub(1);
                let word = answer.text(last, 0).map_err(failed)?.unwrap_or_default();
                let robbed = answer.text(last, 1).map_err(failed)?;
                if matches!(word.as_str(), "ok" | "enter" | "replace") {
                    holdings.enter(theirs.id, theirs.group);
                }
                if let Some(session) = robbed.filter(|_| word == "replace") {
                    // It hears of it with its next heartbeat, if it is of another user.
                    let _ = packets.ask(&format!("KILL QUERY IS_USED_LOCK({})", packet::name(&news(&session)))).await;
                }
                Ok(word)
            })
        });
        match joining.await?.as_str() {
            "ok" | "enter" | "replace" => Ok(()),
            "missing" => Err(Error::no_group(&request.group)),
            _ => Err(Error::namesake(request).with_retry_after(open.timeout)),
        }
    }

    async fn update(&self, request: &JoinRequest) -> Result<()> {
        const DOING: &str = "update a member";
        request.refuse_more_than(MOST_CAPABILITIES)?;
        let open = self.opened()?;
        let (groups, members) = (self.layout.table("groups"), self.layout.table("members"));
        let (is, member) = (is_group(&self.layout, &request.group), packet::name(request.member.as_str()));
        let mine = format!("{is} AND member = {member} AND request = {}", bytes(request.id));
        let update = format!(
            "{about}SET @tooz_mine = NULL; START TRANSACTION; SELECT 1 INTO @tooz_mine FROM {groups} WHERE {is} FOR UPDATE; \
             SET @tooz_mine = (SELECT 1 FROM {members} WHERE {mine}); \
             UPDATE {members} SET capabilities = {capabilities} WHERE {mine}; \
             UPDATE {groups} SET version = version + 1 WHERE {is} AND @tooz_mine = 1; COMMIT; SELECT @tooz_mine",
            capabilities = packet::text(request.capabilities.as_json()),
            about = packet::about("update", request.group.as_str()),
        );
        refuse_too_long(&open.connection, &update)?;
        let updating = open.connection.run(open.limit, DOING, move |packets| {
            Box::pin(async move {
                let failed = |error| error::on_session(error, DOING);
                packets.transact(&update).await.map_err(failed)?.is(7, 0).map_err(failed)
            })
        });
        if updating.await? { Ok(()) } else { Err(Error::not_member(request)) }
    }

    async fn leave(&self, request: &JoinRequest) -> Result<()> {
        const DOING: &str = "leave a group";
        let leaving = async {
            let open = self.opened()?;
            let (groups, members) = (self.layout.table("groups"), self.layout.table("members"));
            let (is, member) = (is_group(&self.layout, &request.group), packet::name(request.member.as_str()));
            let leave = format!(
                "{about}START TRANSACTION; UPDATE {groups} SET version = version + 1 WHERE {is}; \
                 DELETE FROM {members} WHERE {is} AND member = {member} AND request = {}; COMMIT",
                bytes(request.id),
                about = packet::about("leave", request.group.as_str()),
            );
            let (holdings, id) = (Arc::clone(&open.holdings), request.id);
            open.connection
                .run(open.limit, DOING, move |packets| {
                    Box::pin(async move {
                        packets.transact(&leave).await.map_err(|error| error::on_session(error, DOING))?;
                        holdings.leave(id);
                        Ok(())
                    })
                })
                .await
        };
        match leaving.await {
            // The entry counts no longer than the session: with it the membership has ended, which is what was asked for.
            Err(error) if error.kind() == ErrorKind::Lost => {
                self.reporter.session_lost(error);
                Ok(())
            }
            left => left,
        }
    }

    /// The living members, and the version of the group in the same snapshot.
    async fn members(&self, group: &GroupId) -> Result<Roster> {
        const DOING: &str = "list the members";
        let failed = |error| error::of(error, DOING);
        let (groups, members) = (self.layout.table("groups"), self.layout.table("members"));
        let list = format!(
            "SELECT entered.version, living.member, living.request, living.capabilities FROM \
             (SELECT namespace, name, version FROM {groups} WHERE {is}) AS entered LEFT JOIN {members} AS living \
             ON living.namespace = entered.namespace AND living.name = entered.name AND IS_USED_LOCK(living.session) = living.conn",
            is = is_group(&self.layout, group)
        );
        let answer = self.client.consult(DOING, Repeat::Allowed, list).await?;
        let rows = answer.as_ref().map_or(&[][..], |answer| answer.rows(0));
        let Some(first) = rows.first() else { return Err(Error::no_group(group)) };
        let version = number(first, 0).map_err(failed)?.unwrap_or_default();
        let mut members = Vec::with_capacity(rows.len());
        for row in rows {
            // What can't be read is left out: another program has written it.
            if let Some(Ok(entry)) = entry(row).map_err(failed)? {
                members.push(entry);
            }
        }
        Ok(Roster::new(members, version.cast_unsigned()))
    }
}

/// Enters a member. The last answer is the verdict, and whose entry it was: `ok` it stands there already, `enter`, `replace`, `refused` another living
/// member has the name, `missing` no such group.
fn join(holdings: &Holdings, request: &JoinRequest) -> String {
    let layout = &holdings.layout;
    let (groups, members) = (layout.table("groups"), layout.table("members"));
    let (is, member) = (is_group(layout, &request.group), packet::name(request.member.as_str()));
    let (id, session, number) = (bytes(request.id), &holdings.session, holdings.number);
    // The first half of an id is the coordinator's, the second counts: only an earlier entry of the same coordinator is its own to replace.
    let replaces = match request.replace {
        Replace::Nobody => "FALSE".to_owned(),
        Replace::Own(own) => format!("LEFT(@tooz_old, 8) = LEFT({}, 8) AND @tooz_old < {id}", bytes(own)),
        Replace::Anybody => "TRUE".to_owned(),
    };
    format!(
        "{about}SET @tooz_there = NULL, @tooz_old = NULL, @tooz_of = NULL, @tooz_lives = NULL; START TRANSACTION; \
         SELECT 1 INTO @tooz_there FROM {groups} WHERE {is} FOR UPDATE; \
         SELECT request, session, IS_USED_LOCK(session) = conn INTO @tooz_old, @tooz_of, @tooz_lives FROM {members} WHERE {is} AND member = {member}; \
         SET @tooz_word = CASE WHEN @tooz_there IS NULL THEN 'missing' WHEN @tooz_old IS NULL THEN 'enter' WHEN @tooz_old = {id} THEN 'ok' \
             WHEN {replaces} THEN 'replace' WHEN @tooz_of = '{session}' OR @tooz_lives = 1 THEN 'refused' ELSE 'replace' END; \
         REPLACE INTO {members} (namespace, name, member, request, session, conn, capabilities) \
             SELECT {namespace}, {name}, {member}, {id}, '{session}', {number}, {capabilities} FROM DUAL WHERE @tooz_word IN ('enter', 'replace'); \
         UPDATE {groups} SET version = version + 1 WHERE {is} AND @tooz_word IN ('enter', 'replace'); COMMIT; \
         SELECT @tooz_word, IF(@tooz_lives = 1 AND @tooz_of <> '{session}', @tooz_of, NULL)",
        namespace = packet::name(layout.namespace()),
        name = packet::name(request.group.as_str()),
        capabilities = packet::text(request.capabilities.as_json()),
        about = packet::about("join", request.group.as_str()),
    )
}

/// The server ends a connection that sends a longer packet than it takes, and with it the session.
fn refuse_too_long(connection: &Connection, statements: &str) -> Result<()> {
    const HEAD: usize = 1024;
    if statements.len() + HEAD <= connection.longest_packet {
        return Ok(());
    }
    let (length, limit) = (statements.len(), connection.longest_packet);
    Err(Error::config(format!(
        "these capabilities are too long: they make a packet of {length} bytes, and the server takes {limit}; raise max_allowed_packet"
    ))
    .with_outcome(Outcome::NotApplied))
}
