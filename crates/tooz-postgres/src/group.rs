//! Groups: rows that count as long as the advisory lock of their session is held.

use sqlx::Row as _;
use sqlx::postgres::PgRow;
use tooz_core::driver::{JoinRequest, Replace, RequestId, Roster};
use tooz_core::{Capabilities, Error, ErrorKind, GroupId, MemberId, Result, RosterEntry};

use crate::error;
use crate::key::Keys;
use crate::look::{Look, Repeat};
use crate::session::Own;

/// Makes a group. Its version begins with the time, so that it grows also over a deletion.
const CREATE: &str = "INSERT INTO groups (namespace, name, key, version) \
    VALUES ($1, $2, $3, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint) ON CONFLICT DO NOTHING RETURNING true";
const DELETE: &str = "SELECT delete_group($1, $2)";
const LIST: &str = "SELECT name FROM groups WHERE namespace = $1 ORDER BY name";
const JOIN: &str = "SELECT join_group($1, $2, $3, $4, $5, $6, $7, $8)";
const UPDATE: &str = "SELECT update_member($1, $2, $3, $4, $5)";
const LEAVE: &str = "SELECT leave_group($1, $2, $3, $4)";

pub(crate) async fn create(look: &Look, keys: &Keys, namespace: &str, group: &GroupId) -> Result<()> {
    let (key, namespace, name) = (keys.group(group), namespace.to_owned(), group.to_string());
    let question = || sqlx::query(CREATE).bind(namespace.clone()).bind(name.clone()).bind(key);
    // Once more where the tables have gone since they were looked for.
    for _ in 0..2 {
        look.ensure_tables().await?;
        match look.ask("create a group", Repeat::Forbidden, question).await? {
            Some(rows) if rows.is_empty() => return Err(Error::group_exists(group)),
            Some(_) => return Ok(()),
            None => {}
        }
    }
    Err(Error::new(ErrorKind::Backend, "create a group: the tables were there a moment ago and are not any more"))
}

pub(crate) async fn delete(look: &Look, namespace: &str, group: &GroupId) -> Result<()> {
    const DOING: &str = "delete a group";
    let (namespace, name) = (namespace.to_owned(), group.to_string());
    let question = || sqlx::query(DELETE).bind(namespace.clone()).bind(name.clone());
    let rows = look.ask(DOING, Repeat::Forbidden, question).await?.unwrap_or_default();
    let living = rows.first().and_then(|row| row.try_get::<Option<i64>, _>(0).transpose());
    match living.transpose().map_err(|error| error::of(error, DOING))? {
        None => Err(Error::no_group(group)),
        Some(0) => Ok(()),
        Some(living) => Err(Error::group_not_empty(group, usize::try_from(living).unwrap_or(usize::MAX))),
    }
}

pub(crate) async fn list(look: &Look, namespace: &str) -> Result<Vec<GroupId>> {
    const DOING: &str = "list the groups";
    let namespace = namespace.to_owned();
    let rows = look.ask(DOING, Repeat::Allowed, || sqlx::query(LIST).bind(namespace.clone())).await?;
    let rows = rows.unwrap_or_default();
    rows.iter().map(|row| GroupId::new(row.try_get::<&str, _>(0).map_err(|error| error::of(error, DOING))?)).collect()
}

/// The living members, and the version of the group in the same snapshot.
pub(crate) async fn members(look: &Look, namespace: &str, group: &GroupId) -> Result<Roster> {
    const DOING: &str = "list the members";
    let (namespace, name) = (namespace.to_owned(), group.to_string());
    let question = || sqlx::query(include_str!("sql/members.sql")).bind(namespace.clone()).bind(name.clone());
    let rows = look.ask(DOING, Repeat::Allowed, question).await?.unwrap_or_default();
    let Some(first) = rows.first() else { return Err(Error::no_group(group)) };
    let version: i64 = first.try_get("version").map_err(|error| error::of(error, DOING))?;
    let mut members = Vec::with_capacity(rows.len());
    for row in &rows {
        if let Some(entry) = entry(row).map_err(|error| error::of(error, DOING))? {
            members.push(entry?);
        }
    }
    Ok(Roster::new(members, version.cast_unsigned()))
}

fn entry(row: &PgRow) -> Result<Option<Result<RosterEntry>>, sqlx::Error> {
    let Some(member) = row.try_get::<Option<&str>, _>("member")? else { return Ok(None) };
    let (request, capabilities): (&[u8], &str) = (row.try_get("request")?, row.try_get("capabilities")?);
    Ok(Some(read_entry(member, request_id(request), capabilities)))
}

pub(crate) fn read_entry(member: &str, id: Option<RequestId>, capabilities: &str) -> Result<RosterEntry> {
    let strange =
        || Error::new(ErrorKind::Backend, format!("the entry of member {member:?} is not of this driver's making"));
    Ok(RosterEntry::new(MemberId::new(member)?, id.ok_or_else(strange)?, Capabilities::from_json(capabilities)?))
}

/// Reads an id as the tables have it.
pub(crate) fn request_id(bytes: &[u8]) -> Option<RequestId> {
    Some(RequestId(u128::from_be_bytes(bytes.try_into().ok()?)))
}

fn bytes(id: RequestId) -> Vec<u8> {
    id.0.to_be_bytes().to_vec()
}

impl Own {
    pub(crate) async fn join(&self, request: &JoinRequest) -> Result<()> {
        const DOING: &str = "join a group";
        let (holdings, theirs) = (self.holdings.clone(), request.clone());
        let answer = self
            .link
            .run(self.limit, DOING, move |connection| {
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
                        .fetch_one(connection)
                        .await
                        .map_err(|error| error::on_session(error, DOING))?;
                    if answer == "ok" {
                        holdings.enter(theirs.id, theirs.group);
                    }
                    Ok(answer)
                })
            })
            .await?;
        match answer.as_str() {
            "ok" => Ok(()),
            "missing" => Err(Error::no_group(&request.group)),
            _ => Err(Error::namesake(request).with_retry_after(self.timeout)),
        }
    }

    pub(crate) async fn update(&self, request: &JoinRequest) -> Result<()> {
        const DOING: &str = "update a member";
        let (holdings, theirs) = (self.holdings.clone(), request.clone());
        let found = self
            .link
            .run(self.limit, DOING, move |connection| {
                Box::pin(async move {
                    sqlx::query_scalar::<_, bool>(UPDATE)
                        .bind(holdings.namespace.clone())
                        .bind(theirs.group.to_string())
                        .bind(theirs.member.to_string())
                        .bind(bytes(theirs.id))
                        .bind(theirs.capabilities.as_json().to_owned())
                        .fetch_one(connection)
                        .await
                        .map_err(|error| error::on_session(error, DOING))
                })
            })
            .await?;
        if found { Ok(()) } else { Err(Error::not_member(request)) }
    }

    pub(crate) async fn leave(&self, request: &JoinRequest) -> Result<()> {
        const DOING: &str = "leave a group";
        let (holdings, theirs) = (self.holdings.clone(), request.clone());
        self.link
            .run(self.limit, DOING, move |connection| {
                Box::pin(async move {
                    sqlx::query(LEAVE)
                        .bind(holdings.namespace.clone())
                        .bind(theirs.group.to_string())
                        .bind(theirs.member.to_string())
                        .bind(bytes(theirs.id))
                        .execute(connection)
                        .await
                        .map_err(|error| error::on_session(error, DOING))?;
                    holdings.leave(theirs.id);
                    Ok(())
                })
            })
            .await
    }
}
