//! Groups: a node for each, and below it an ephemeral node for each member, so that nobody outlives its session.
//!
//! Nodes below a group are its members and nothing else. What is changed is found first, and the change is bound to the version
//! of the mailbox of whose entry it is: a leave and a take-over both change that version, so neither can meet a later entry of
//! the same name, whose own version would look just like the old one's.

use std::sync::atomic::Ordering;

use tooz_core::driver::{JoinConflict, JoinRequest, Roster};
use tooz_core::{Error, ErrorKind, GroupId, Result, RosterEntry};
use zookeeper_client::{Client, CreateMode, Error as Zk, MultiWriteError, Stat};

use crate::bulk;
use crate::connection::Connection;
use crate::error;
use crate::layout;
use crate::mailbox::Mailbox;
use crate::record::{self, GroupRecord, MemberRecord};
use crate::session::Inner;

/// How often a change is tried again that met another one.
const ATTEMPTS: usize = 20;

/// An entry of a group, as it was read.
struct Found {
    data: Vec<u8>,
    stat: Stat,
}

impl Found {
    fn record(&self) -> Result<MemberRecord> {
        record::read("a member", &self.data)
    }
}

impl Inner {
    pub(crate) async fn create_group(&self, group: &GroupId) -> Result<()> {
        let path = self.layout.group(group);
        let data = record::write(&GroupRecord { group: group.as_str().to_owned() })?;
        let connection = self.link.up_within(self.limit).await?;
        if !self.is_settled.load(Ordering::Relaxed) {
            // In another layout nobody would find it.
            self.settle(&connection).await?;
        }
        let options = self.made(CreateMode::Persistent);
        let creating = async || connection.client()?.create(&path, &data, &options).await;
        let mut created = connection.ask(creating()).await;
        if matches!(created, Err(Zk::NoNode)) {
            // Somebody deleted the namespace by hand, or this branch of it.
            self.settle(&connection).await?;
            let making = async {
                self.make(&connection.client()?, &self.layout.groups(), CreateMode::Persistent).await?;
                creating().await
            };
            created = connection.ask(making).await;
        }
        match created {
            Ok(_) => Ok(()),
            Err(Zk::NodeExists) => Err(Error::group_exists(group)),
            Err(why) => Err(self.failed(format_args!("create {path}"), why)),
        }
    }

    pub(crate) async fn delete_group(&self, group: &GroupId) -> Result<()> {
        let path = self.layout.group(group);
        let connection = self.link.up_within(self.limit).await?;
        let deleting = async {
            let client = connection.client()?;
            match client.delete(&path, None).await {
                // How many there are is for the message alone.
                Err(Zk::NotEmpty) => client.list_children(&path).await.map(|members| Some(members.len())),
                deleted => deleted.map(|()| None),
            }
        };
        match connection.ask(deleting).await {
            Ok(None) => Ok(()),
            Ok(Some(members)) => Err(Error::group_not_empty(group, members)),
            Err(Zk::NoNode) => Err(Error::no_group(group)),
            Err(why) => Err(self.failed(format_args!("delete {path}"), why)),
        }
    }

    pub(crate) async fn groups(&self) -> Result<Vec<GroupId>> {
        let branch = &self.layout.groups();
        let listing = self.look("list the groups", |client| async move {
            let (synced, listed) = (client.sync(branch), client.list_children(branch));
            synced.await?;
            let nodes = match listed.await {
                Err(Zk::NoNode) => return Ok(Vec::new()),
                nodes => nodes?,
            };
            // A name that is too long for the node stands in it.
            let (mut names, mut long) = (Vec::new(), Vec::new());
            for node in nodes {
                match layout::name_at(&node) {
                    Some(name) => names.push(name),
                    None => long.push(node),
                }
            }
            for (data, _) in bulk::read(&client, branch, &long).await?.into_iter().flatten() {
                names.extend(record::read::<GroupRecord>("a group", &data).ok().map(|record| record.group));
            }
            Ok(names.into_iter().filter_map(|name| GroupId::new(name).ok()).collect())
        });
        listing.await
    }

    pub(crate) async fn members(&self, group: &GroupId) -> Result<Roster> {
        let path = &self.layout.group(group);
        let listing = self.look("list the members", |client| async move {
            let (synced, listed) = (client.sync(path), client.get_children(path));
            synced.await?;
            let (nodes, stat) = match listed.await {
                Err(Zk::NoNode) => return Ok(None),
                listed => listed?,
            };
            let entries = read_entries(&client, path, &nodes).await?;
            Ok(Some((entries, version(&stat))))
        });
        let Some((found, version)) = listing.await? else { return Err(Error::no_group(group)) };
        // Who left between the listing and the reading is not among them, and nobody can say who a node of somebody else's is.
        Ok(Roster::new(found.into_iter().flatten().flatten().collect(), version))
    }

    pub(crate) async fn join(&self, request: &JoinRequest) -> Result<()> {
        let path = self.layout.member(&request.group, &request.member);
        let data = self.member_data(request)?;
        // Known before it is made, so that a take-over right after it is understood.
        self.holdings.join(request.id, &request.group, &path)?;
        let joined = self.enter_group(request, &path, &data).await;
        match &joined {
            Ok(()) => self.holdings.joined(request.id),
            Err(error) if error.outcome() == tooz_core::Outcome::NotApplied => {
                _ = self.holdings.forget_join(request.id);
            }
            Err(_) => {}
        }
        joined
    }

    async fn enter_group(&self, request: &JoinRequest, path: &str, data: &[u8]) -> Result<()> {
        let failed = |why| self.failed(format_args!("create {path}"), why);
        for _ in 0..ATTEMPTS {
            let connection = self.link.up_within(self.limit).await?;
            let options = self.made(CreateMode::Ephemeral);
            let creating = async { connection.client()?.create(path, data, &options).await };
            match connection.ask(creating).await {
                Ok(_) => return Ok(()),
                Err(Zk::NoNode) => return Err(Error::no_group(&request.group)),
                Err(Zk::NodeExists) => {}
                Err(why) => return Err(failed(why)),
            }
            let Some((found, mailbox)) = self.find_entry(&connection, path).await.map_err(failed)? else { continue };
            let there = found.record().map_err(|_| error::foreign_node(path))?.join();
            match there.map_or(JoinConflict::Refused, |there| request.meets(there)) {
                JoinConflict::Itself if found.stat.ephemeral_owner == self.link.session().id().0 => return Ok(()),
                JoinConflict::Itself | JoinConflict::Refused => {
                    return Err(Error::namesake(request).with_retry_after(self.link.session_timeout()));
                }
                JoinConflict::Replaces => {}
            }
            let letter = match (mailbox, there) {
                (Some(mailbox), Some(there)) => {
                    Some((mailbox.path.clone(), mailbox.version, mailbox.with_membership(there)?))
                }
                _ => None,
            };
            let replacing = async {
                let client = connection.client()?;
                let mut transaction = client.new_multi_writer();
                transaction.add_delete(path, Some(found.stat.version))?;
                transaction.add_create(path, data, &options)?;
                if let Some((path, version, mail)) = &letter {
                    transaction.add_set_data(path, mail, Some(*version))?;
                }
                Ok(transaction.commit().await)
            };
            match connection.ask_to_change(replacing).await.map_err(failed)? {
                Ok(_) => return Ok(()),
                Err(why) => met_another_change(why).map_err(failed)?,
            }
        }
        Err(failed(Zk::BadVersion))
    }

    pub(crate) async fn update(&self, request: &JoinRequest) -> Result<()> {
        let path = self.layout.member(&request.group, &request.member);
        let data = self.member_data(request)?;
        let group = self.layout.group(&request.group);
        let unchanged = record::write(&GroupRecord { group: request.group.as_str().to_owned() })?;
        self.change(request, &path, |entry, mailbox, transaction| {
            transaction.add_check_version(&mailbox.path, mailbox.version)?;
            transaction.add_set_data(&path, &data, Some(entry.version))?;
            // By the group's version it is seen that somebody's capabilities are new.
            transaction.add_set_data(&group, &unchanged, None)
        })
        .await
        .and_then(|changed| if changed { Ok(()) } else { Err(Error::not_member(request)) })
    }

    pub(crate) async fn leave(&self, request: &JoinRequest) -> Result<()> {
        let path = self.layout.member(&request.group, &request.member);
        self.holdings.leave_group(request.id);
        let left = self.change(request, &path, |entry, mailbox, transaction| {
            let mail = mailbox.unchanged().unwrap_or_default();
            transaction.add_set_data(&mailbox.path, &mail, Some(mailbox.version))?;
            transaction.add_delete(&path, Some(entry.version))
        });
        match left.await {
            // The session is over, and with it all its memberships.
            Err(error) if error.kind() == ErrorKind::Lost => {}
            left => _ = left?,
        }
        self.holdings.forget_join(request.id);
        Ok(())
    }

    /// The data of a member's node.
    fn member_data(&self, request: &JoinRequest) -> Result<Vec<u8>> {
        let (data, most) = (record::write(&MemberRecord::new(request)?)?, self.settings.largest_node());
        if data.len() > most {
            return Err(error::too_large(data.len(), most));
        }
        Ok(data)
    }

    /// Changes the entry that the request's join has made; false if there is none any more.
    async fn change(
        &self,
        request: &JoinRequest,
        path: &str,
        change: impl Fn(&Stat, &Mailbox, &mut zookeeper_client::MultiWriter<'_>) -> Result<(), Zk>,
    ) -> Result<bool> {
        let failed = |why| self.failed(format_args!("change {path}"), why);
        for _ in 0..ATTEMPTS {
            let connection = self.link.up_within(self.limit).await?;
            let Some((found, mailbox)) = self.find_own_entry(&connection, path).await.map_err(failed)? else {
                return Ok(false);
            };
            let own = found.stat.ephemeral_owner == self.link.session().id().0;
            if !own || found.record().ok().and_then(|record| record.join()) != Some(request.id) {
                return Ok(false);
            }
            let Some(mailbox) = mailbox else {
                // Somebody deleted it by hand.
                self.open_mailbox().await?;
                continue;
            };
            let changing = async {
                let client = connection.client()?;
                let mut transaction = client.new_multi_writer();
                change(&found.stat, &mailbox, &mut transaction)?;
                Ok(transaction.commit().await)
            };
            match connection.ask_to_change(changing).await.map_err(failed)? {
                Ok(_) => return Ok(true),
                Err(why) => met_another_change(why).map_err(failed)?,
            }
        }
        Err(failed(Zk::BadVersion))
    }

    /// An entry of whichever session, and that session's mailbox. The mailbox is read before the entry, so that whatever
    /// happens to the entry afterwards changes the mailbox's version.
    async fn find_entry(&self, connection: &Connection, path: &str) -> Result<Option<(Found, Option<Mailbox>)>, Zk> {
        let finding = async {
            let client = connection.client()?;
            loop {
                let Some(before) = client.check_stat(path).await? else { return Ok(None) };
                let mailbox = self.mailbox_of(&client, before.ephemeral_owner).await?;
                let (data, stat) = match client.get_data(path).await {
                    Err(Zk::NoNode) => return Ok(None),
                    read => read?,
                };
                if stat.czxid == before.czxid {
                    return Ok(Some((Found { data, stat }, mailbox)));
                }
            }
        };
        connection.ask(finding).await
    }

    /// The same for an entry of this session, whose mailbox is known beforehand: one round trip.
    async fn find_own_entry(
        &self,
        connection: &Connection,
        path: &str,
    ) -> Result<Option<(Found, Option<Mailbox>)>, Zk> {
        let finding = async {
            let client = connection.client()?;
            // Asked in this order, they are read in this order.
            let mailbox = self.mailbox_of(&client, self.link.session().id().0);
            let entry = client.get_data(path);
            let mailbox = mailbox.await?;
            match entry.await {
                Ok((data, stat)) => Ok(Some((Found { data, stat }, mailbox))),
                Err(Zk::NoNode) => Ok(None),
                Err(why) => Err(why),
            }
        };
        connection.ask(finding).await
    }
}

/// Reads entries of a group in one round trip; `None` for those that are gone.
pub(crate) async fn read_entries(
    client: &Client,
    group: &str,
    nodes: &[String],
) -> Result<Vec<Option<Result<RosterEntry>>>, Zk> {
    let entry = |(data, _): (Vec<u8>, Stat)| record::read::<MemberRecord>("a member", &data)?.entry();
    Ok(bulk::read(client, group, nodes).await?.into_iter().map(|content| content.map(entry)).collect())
}

/// The count of changes of a group: of those who came and went, and of updates. A group that was deleted and made again goes on
/// counting higher up, since no transaction changes a group more often than four times.
pub(crate) fn version(group: &Stat) -> u64 {
    let born = u64::try_from(group.czxid).unwrap_or(0) << 2;
    let changes = i64::from(group.cversion) + i64::from(group.version);
    born.wrapping_add_signed(changes)
}

/// A transaction that was refused because something else had changed meanwhile may be tried again.
fn met_another_change(why: MultiWriteError) -> Result<(), Zk> {
    match why {
        MultiWriteError::OperationFailed { source: Zk::BadVersion | Zk::NoNode | Zk::NodeExists, .. } => Ok(()),
        why => Err(why.into()),
    }
}
