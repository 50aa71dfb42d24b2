//! Groups: rows that count as long as the advisory lock of their session is held.

use std::sync::Arc;

use sqlx::Row as _;
use tooz_core::driver::{Groups, JoinRequest, PushStream, Replace, Roster, async_trait};
use tooz_core::{Error, ErrorKind, GroupId, Result};

use crate::client::Repeat;
use crate::error;
use crate::record::{bytes, entry};
use crate::session::PostgresSession;

/// Makes a group. Its version begins with the time, so that it grows also over a deletion.
const CREATE: &str = "INSERT INTO groups (namespace, name, key, version) \
    VALUES ($1, $2, $3, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint) ON CONFLICT DO NOTHING RETURNING true";
const DELETE: &str = "SELECT delete_group($1, $2)";
const LIST: &str = "SELECT name FROM groups WHERE namespace = $1 ORDER BY name";
const JOIN: &str = "SELECT join_group($1, $2, $3, $4, $5, $6, $7, $8)";
const UPDATE: &str = "SELECT update_member($1, $2, $3, $4, $5)";
const LEAVE: &str = "SELECT leave_group($1, $2, $3, $4)";

/// The longest capabilities of one member, in bytes: a reader of a group has those of all its members in one answer.
const MOST_CAPABILITIES: usize = 256 << 10;

#[async_trait]
impl Groups for PostgresSession {
    async fn create_group(&self, group: &GroupId) -> Result<()> {
        let (key, namespace, name) = (self.layout.group(group), self.namespace.clone(), group.to_string());
        let question = || sqlx::query(CREATE).bind(namespace.clone()).bind(name.clone()).bind(key);
        // Once more where the tables have gone since they were looked for.
        for _ in 0..2 {
            self.client.ensure_tables().await?;
            match self.client.consult("create a group", Repeat::Forbidden, question).await? {
                Some(rows) if rows.is_empty() => return Err(Error::group_exists(group)),
                Some(_) => return Ok(()),
                None => {}
            }
        }
        Err(Error::new(ErrorKind::Backend, "create a group: the tables were there a moment ago and are not any more"))
    }

    async fn delete_group(&self, group: &GroupId) -> Result<()> {
        const DOING: &str = "delete a group";
        let (namespace, name) = (self.namespace.clone(), group.to_string());
        let question = || sqlx::query(DELETE).bind(namespace.clone()).bind(name.clone());
        let rows = self.client.consult(DOING, Repeat::Forbidden, question).await?.unwrap_or_default();
        let living = rows.first().and_then(|row| row.try_get::<Option<i64>, _>(0).transpose());
        match living.transpose().map_err(|error| error::of(error, DOING))? {
            None => Err(Error::no_group(group)),
            Some(0) => Ok(()),
            Some(living) => Err(Error::group_not_empty(group, usize::try_from(living).unwrap_or(usize::MAX))),
        }
    }

    async fn groups(&self) -> Result<Vec<GroupId>> {
        const DOING: &str = "list the groups";
        let namespace = self.namespace.clone();
        let rows = self.client.consult(DOING, Repeat::Allowed, || sqlx::query(LIST).bind(namespace.clone())).await?;
        let rows = rows.unwrap_or_default();
        let names: Result<Vec<&str>, _> = rows.iter().map(|row| row.try_get(0)).collect();
        // What can't be read is left out: another program has written it.
        Ok(names.map_err(|error| error::of(error, DOING))?.into_iter().flat_map(GroupId::new).collect())
    }

    async fn join(&self, request: &JoinRequest) -> Result<()> {
        const DOING: &str = "join a group";
        request.refuse_more_than(MOST_CAPABILITIES)?;
        let open = self.opened()?;
        let (holdings, theirs) = (Arc::clone(&open.holdings), request.clone());
        let joining = open.connection.run(open.limit, DOING, move |listener| {
            Box::pin(async move {
                let own = if let Replace::Own(own) = theirs.replace { Some(bytes(own)) } else { None };
                let answer: String = sqlx::query_scalar(JOIN)
                    .bind(holdings.namespace.clone())
                    .bind(theirs.group.to_string())
                    .bind(theirs.member.to_string())
                    .bind(bytes(theirs.id))
                    .bind(holdings.session)
                    .bind(theirs.capabilities.as_json().to_owned())
                    .bind(own)
                    .bind(theirs.replace == Replace::Anybody)
                    .fetch_one(listener)
                    .await
                    .map_err(|error| error::on_session(error, DOING))?;
                if answer == "ok" {
                    holdings.enter(theirs.id, theirs.group);
                }
                Ok(answer)
            })
        });
        match joining.await?.as_str() {
            "ok" => Ok(()),
            "missing" => Err(Error::no_group(&request.group)),
            _ => Err(Error::namesake(request).with_retry_after(open.timeout)),
        }
    }

    async fn update(&self, request: &JoinRequest) -> Result<()> {
        const DOING: &str = "update a member";
        request.refuse_more_than(MOST_CAPABILITIES)?;
        let open = self.opened()?;
        let (namespace, theirs) = (self.namespace.clone(), request.clone());
        let updating = open.connection.run(open.limit, DOING, move |listener| {
            Box::pin(async move {
                sqlx::query_scalar::<_, bool>(UPDATE)
                    .bind(namespace)
                    .bind(theirs.group.to_string())
                    .bind(theirs.member.to_string())
                    .bind(bytes(theirs.id))
                    .bind(theirs.capabilities.as_json().to_owned())
                    .fetch_one(listener)
                    .await
                    .map_err(|error| error::on_session(error, DOING))
            })
        });
        if updating.await? { Ok(()) } else { Err(Error::not_member(request)) }
    }

    async fn leave(&self, request: &JoinRequest) -> Result<()> {
        const DOING: &str = "leave a group";
        let leaving = async {
            let open = self.opened()?;
            let (holdings, theirs) = (Arc::clone(&open.holdings), request.clone());
            open.connection
                .run(open.limit, DOING, move |listener| {
                    Box::pin(async move {
                        sqlx::query(LEAVE)
                            .bind(holdings.namespace.clone())
                            .bind(theirs.group.to_string())
                            .bind(theirs.member.to_string())
                            .bind(bytes(theirs.id))
                            .execute(listener)
                            .await
                            .map_err(|error| error::on_session(error, DOING))?;
                        holdings.leave(theirs.id);
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
        let (namespace, name) = (self.namespace.clone(), group.to_string());
        let question = || sqlx::query(include_str!("sql/members.sql")).bind(namespace.clone()).bind(name.clone());
        let rows = self.client.consult(DOING, Repeat::Allowed, question).await?.unwrap_or_default();
        let Some(first) = rows.first() else { return Err(Error::no_group(group)) };
        let version: i64 = first.try_get("version").map_err(failed)?;
        let mut members = Vec::with_capacity(rows.len());
        for row in &rows {
            // What can't be read is left out: another program has written it.
            if let Some(Ok(entry)) = entry(row).map_err(failed)? {
                members.push(entry);
            }
        }
        Ok(Roster::new(members, version.cast_unsigned()))
    }

    async fn watch_group(&self, group: &GroupId) -> Result<Option<PushStream>> {
        self.client.watch(self.layout.group(group)).await.map(Some)
    }
}
