//! Groups as core asks for them. What a group is in the table, `roster` knows.

use async_trait::async_trait;
use tooz_core::driver::{Groups, JoinRequest, PushStream, Roster};
use tooz_core::{Capabilities, Error, GroupId, MemberId, Result, RosterEntry};

use crate::error;
use crate::layout::BlockKind;
use crate::lock::watching;
use crate::roster::{DeleteEnd, JoinEnd, Newcomer};
use crate::session::IpcSession;

/// The longest capabilities, as JSON: they are copied while the table is ours.
const LONGEST: usize = 64 * 1024;
/// How many chains of records are looked at before others have their turn.
const STEP: usize = 1024;

#[async_trait]
impl Groups for IpcSession {
    async fn create_group(&self, group: &GroupId) -> Result<()> {
        let living = self.changing().await?;
        let made = living.with(|table| table.create_group(group.as_str())).await?;
        if made { Ok(()) } else { Err(Error::group_exists(group)) }
    }

    async fn delete_group(&self, group: &GroupId) -> Result<()> {
        let Some(living) = self.looking().await? else { return Err(Error::no_group(group)) };
        match living.with(|table| table.delete_group(group.as_str())).await? {
            DeleteEnd::Done => Ok(()),
            DeleteEnd::NoGroup => Err(Error::no_group(group)),
            DeleteEnd::Inhabited(members) => Err(Error::group_not_empty(group, members)),
        }
    }

    async fn groups(&self) -> Result<Vec<GroupId>> {
        let mut groups = Vec::new();
        let Some(living) = self.looking().await? else { return Ok(groups) };
        let mut from = Some(0);
        while let Some(bucket) = from {
            let (names, rest) = living
                .with(|table| {
                    let (records, rest) = table.records(bucket, STEP)?;
                    let mut names = Vec::new();
                    for record in records {
                        if table.kind(record)? == Some(BlockKind::Group) {
                            names.push(table.name(record)?);
                        }
                    }
                    Ok((names, rest))
                })
                .await?;
            groups.extend(names.into_iter().filter_map(|name| GroupId::new(name).ok()));
            from = rest;
        }
        Ok(groups)
    }

    async fn join(&self, request: &JoinRequest) -> Result<()> {
        let newcomer = Newcomer {
            group: request.group.as_str(),
            member: request.member.as_str(),
            id: request.id,
            capabilities: within_limits(&request.capabilities)?,
        };
        let living = self.owning()?;
        match living.with(|table| table.join(&newcomer, |there| request.meets(there))).await? {
            JoinEnd::Done(membership) => {
                living.dispatch.holdings.enter(request.id, &request.group, membership);
                Ok(())
            }
            JoinEnd::NoGroup => Err(Error::no_group(&request.group)),
            JoinEnd::Refused => Err(Error::namesake(request).with_retry_after(self.session_timeout)),
        }
    }

    async fn update(&self, request: &JoinRequest) -> Result<()> {
        let capabilities = within_limits(&request.capabilities)?;
        let living = self.owning()?;
        let gone = || Error::not_member(request);
        let membership = living.dispatch.holdings.membership(request.id).ok_or_else(gone)?;
        let updated = living.with(|table| table.update(membership, request.id, capabilities)).await?;
        if updated { Ok(()) } else { Err(gone()) }
    }

    async fn leave(&self, request: &JoinRequest) -> Result<()> {
        let living = self.owning()?;
        let Some(membership) = living.dispatch.holdings.membership(request.id) else { return Ok(()) };
        living
            .with(
                |table| {
                    if table.is_membership(membership, request.id)? { table.end_membership(membership) } else { Ok(()) }
                },
            )
            .await?;
        living.dispatch.holdings.forget_membership(request.id);
        Ok(())
    }

    async fn members(&self, group: &GroupId) -> Result<Roster> {
        let Some(living) = self.looking().await? else { return Err(Error::no_group(group)) };
        let listed = living.list_living(|table| table.members(group.as_str()), |one| one.owner).await?;
        let Some(listed) = listed else { return Err(Error::no_group(group)) };
        let entries = listed.into_iter().map(|one| {
            let capabilities = Capabilities::from_json(one.capabilities)?;
            Ok(RosterEntry::new(MemberId::new(one.member)?, one.id, capabilities))
        });
        // Changes are told without what they are, so there is no version to compare.
        Ok(Roster::new(entries.collect::<Result<_>>()?, 0))
    }

    async fn watch_group(&self, group: &GroupId) -> Result<Option<PushStream>> {
        let Some(living) = self.looking().await? else { return Err(Error::no_group(group)) };
        living.listen()?;
        let found = living
            .with(|table| {
                let Some(record) = table.find(BlockKind::Group, group.as_str().as_bytes())? else { return Ok(None) };
                watching(&living, table, record).map(Some)
            })
            .await?;
        let stream = found.ok_or_else(|| Error::no_group(group))?;
        living.mind_deaths();
        Ok(Some(stream))
    }
}

fn within_limits(capabilities: &Capabilities) -> Result<&str> {
    let json = capabilities.as_json();
    if json.len() > LONGEST { Err(error::too_long(json.len(), LONGEST)) } else { Ok(json) }
}
