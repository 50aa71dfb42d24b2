//! Groups: a node for each, and below it an ephemeral node for each member, so that no member outlives its session.
//!
//! Nodes below a group are its members and nothing else. What is changed is found first, and the change is bound to the version
//! of the mailbox of whose entry it is: a leave and a take-over both change that version, so neither can meet a later entry of
//! the same name, whose own version would look just like the old one's.

use tooz_core::driver::{Groups, JoinConflict, JoinRequest, PushStream, Roster, async_trait, push_channel};
use tooz_core::{Error, ErrorKind, GroupId, Outcome, Result};
use zookeeper_client::{CreateMode, Error as ZkError, MultiWriteError, MultiWriter, Stat};

use crate::batch;
use crate::connection::Connection;
use crate::error;
use crate::gates::RequestKind;
use crate::layout;
use crate::mailbox::Mail;
use crate::record::{self, GroupRecord, MemberRecord};
use crate::roster::{self, Member};
use crate::session::ZooKeeperSession;
use crate::watch::GroupWatch;

/// How often a group is read again that changes meanwhile.
const ROUNDS: usize = 4;

/// An entry of a group, as it was read.
struct GroupEntry {
    data: Vec<u8>,
    stat: Stat,
    /// The mail of the session whose entry it is; `None` where its mailbox is gone.
    mail: Option<Mail>,
}

impl GroupEntry {
    fn record(&self) -> Result<MemberRecord> {
        record::read("a member", &self.data)
    }
}

#[async_trait]
impl Groups for ZooKeeperSession {
    async fn create_group(&self, group: &GroupId) -> Result<()> {
        let _turn = self.gates.pass(RequestKind::Others).await;
        let path = self.layout.group(group);
        let data = record::write(&GroupRecord { group: group.as_str().to_owned() })?;
        let connection = self.client.connection().await?;
        // In another layout no member would find it.
        self.tree.settle_once(&connection).await?;
        let options = self.tree.made(CreateMode::Persistent);
        let creating = async || connection.zookeeper()?.create(&path, &data, &options).await;
        let mut created = connection.ask(creating()).await;
        if matches!(created, Err(ZkError::NoNode)) {
            // The namespace was deleted by hand, or this branch of it.
            self.tree.settle(&connection).await?;
            let making = async {
                self.tree.make(&connection.zookeeper()?, &self.layout.groups(), CreateMode::Persistent).await?;
                creating().await
            };
            created = connection.ask(making).await;
        }
        match created {
            Ok(_) => Ok(()),
            Err(ZkError::NodeExists) => Err(Error::group_exists(group)),
            Err(why) => {
                let error = self.client.failed(format_args!("create {path}"), why);
                Err(self.refused(&connection, error).await)
            }
        }
    }

    async fn delete_group(&self, group: &GroupId) -> Result<()> {
        let _turn = self.gates.pass(RequestKind::Others).await;
        self.tree.agree().await?;
        let path = self.layout.group(group);
        let connection = self.client.connection().await?;
        let deleting = async {
            let zookeeper = connection.zookeeper()?;
            match zookeeper.delete(&path, None).await {
                // What there is is for the message alone.
                Err(ZkError::NotEmpty) => {
                    let nodes = zookeeper.list_children(&path).await?;
                    let there = roster::read(&zookeeper, &path, &nodes).await?;
                    Ok(Some((nodes, there)))
                }
                deleted => deleted.map(|()| None),
            }
        };
        match connection.ask(deleting).await {
            Ok(None) => Ok(()),
            Ok(Some((nodes, there))) => {
                let members = there.iter().filter(|member| matches!(member, Member::Here(_))).count();
                let mut foreign = nodes.iter().zip(&there).filter(|(_, node)| matches!(node, Member::Foreign));
                match foreign.next() {
                    Some((node, _)) if members == 0 => Err(error::foreign_child(&format!("{path}/{node}"))),
                    _ => Err(Error::group_not_empty(group, members)),
                }
            }
            Err(ZkError::NoNode) => Err(Error::no_group(group)),
            Err(why) => {
                let error = self.client.failed(format_args!("delete {path}"), why);
                Err(self.refused(&connection, error).await)
            }
        }
    }

    async fn groups(&self) -> Result<Vec<GroupId>> {
        let _turn = self.gates.pass(RequestKind::Others).await;
        self.tree.agree().await?;
        let branch = &self.layout.groups();
        let listing = self.client.ask("list the groups", |zookeeper| async move {
            let (synced, listed) = (zookeeper.sync(branch), zookeeper.list_children(branch));
            synced.await?;
            let nodes = match listed.await {
                Err(ZkError::NoNode) => return Ok(Vec::new()),
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
            for (data, _) in batch::read(&zookeeper, branch, &long).await?.into_iter().flatten() {
                names.extend(record::read::<GroupRecord>("a group", &data).ok().map(|record| record.group));
            }
            Ok(names.into_iter().filter_map(|name| GroupId::new(name).ok()).collect())
        });
        listing.await
    }

    async fn members(&self, group: &GroupId) -> Result<Roster> {
        let _turn = self.gates.pass(RequestKind::Others).await;
        self.tree.agree().await?;
        let path = &self.layout.group(group);
        let listing = self.client.ask("list the members", |zookeeper| async move {
            let (synced, mut listed) = (zookeeper.sync(path), zookeeper.get_children(path));
            synced.await?;
            let mut rounds = 0..ROUNDS;
            loop {
                let (nodes, stat) = match listed.await {
                    Err(ZkError::NoNode) => return Ok(None),
                    listed => listed?,
                };
                // Both are asked before either is answered.
                let reading =
                    tokio::try_join!(biased; roster::read(&zookeeper, path, &nodes), zookeeper.check_stat(path));
                let (members, after) = reading?;
                let counted = roster::version(&stat);
                // Entries that are newer than the count would be followed by changes that are older than they are.
                if after.as_ref().map(roster::version) == Some(counted) || rounds.next().is_none() {
                    return Ok(Some((members, counted)));
                }
                listed = zookeeper.get_children(path);
            }
        });
        let Some((found, version)) = listing.await? else { return Err(Error::no_group(group)) };
        // A member that left between the listing and the reading is not among them, nor is a node of another program.
        Ok(Roster::new(found.into_iter().filter_map(Member::entry).collect(), version))
    }

    async fn join(&self, request: &JoinRequest) -> Result<()> {
        let _turn = self.gates.pass(RequestKind::Others).await;
        let path = self.layout.member(&request.group, &request.member);
        let data = self.member_data(request)?;
        // Known before it is made, so that a take-over right after it is understood.
        self.holdings.join(request.id, &request.group, &path)?;
        let joined = self.enter_group(request, &path, &data).await;
        match &joined {
            Ok(()) => self.holdings.joined(request.id),
            Err(error) if error.outcome() == Outcome::NotApplied => {
                _ = self.holdings.forget_join(request.id);
            }
            Err(_) => {}
        }
        joined
    }

    async fn update(&self, request: &JoinRequest) -> Result<()> {
        let _turn = self.gates.pass(RequestKind::Others).await;
        let path = self.layout.member(&request.group, &request.member);
        let data = self.member_data(request)?;
        let group = self.layout.group(&request.group);
        let unchanged = record::write(&GroupRecord { group: request.group.as_str().to_owned() })?;
        self.change(request, &path, |entry, mail, transaction| {
            transaction.add_check_version(&mail.path, mail.version)?;
            transaction.add_set_data(&path, &data, Some(entry.version))?;
            // By the group's version it is seen that a member's capabilities are new.
            transaction.add_set_data(&group, &unchanged, None)
        })
        .await
        .and_then(|changed| if changed { Ok(()) } else { Err(Error::not_member(request)) })
    }

    async fn leave(&self, request: &JoinRequest) -> Result<()> {
        let _turn = self.gates.pass(RequestKind::LeaveGroup).await;
        let path = self.layout.member(&request.group, &request.member);
        self.holdings.leave_group(request.id);
        let left = self.change(request, &path, |entry, mail, transaction| {
            let unchanged = mail.unchanged().unwrap_or_default();
            transaction.add_set_data(&mail.path, &unchanged, Some(mail.version))?;
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

    async fn watch_group(&self, group: &GroupId) -> Result<Option<PushStream>> {
        self.tree.agree().await?;
        let path = &self.layout.group(group);
        let looking = self.client.ask("watch the group", |zookeeper| async move { zookeeper.check_stat(path).await });
        if looking.await?.is_none() {
            return Err(Error::no_group(group));
        }
        let (pusher, stream) = push_channel();
        self.spawn(GroupWatch::new(&self.client, path.clone(), pusher).run());
        Ok(Some(stream))
    }
}

impl ZooKeeperSession {
    /// The error of what changes no session's own, with the name of whose the namespace is where that is why.
    async fn refused(&self, connection: &Connection, error: Error) -> Error {
        if error.kind() == ErrorKind::Unauthorized { self.tree.not_ours(connection, error).await } else { error }
    }

    async fn enter_group(&self, request: &JoinRequest, path: &str, data: &[u8]) -> Result<()> {
        let failed = |why| self.client.failed(format_args!("create {path}"), why);
        let (mut tries, mut turn) = (self.client.tries(), None);
        while tries.next().await {
            let connection = self.client.connection().await?;
            let options = self.tree.made(CreateMode::Ephemeral);
            let creating = async { connection.zookeeper()?.create(path, data, &options).await };
            match connection.ask(creating).await {
                Ok(_) => return Ok(()),
                Err(ZkError::NoNode) => return Err(Error::no_group(&request.group)),
                Err(ZkError::NodeExists) => {}
                Err(why) => return Err(failed(why)),
            }
            let Some(found) = self.find_entry(&connection, path).await.map_err(failed)? else { continue };
            let there = found.record().map_err(|_| error::foreign_node(path))?.join();
            match there.map_or(JoinConflict::Refused, |there| request.meets(there)) {
                JoinConflict::Itself if found.stat.ephemeral_owner == self.client.session_id() => return Ok(()),
                JoinConflict::Itself | JoinConflict::Refused => {
                    return Err(Error::namesake(request).with_retry_after(self.client.session_timeout()));
                }
                JoinConflict::Replaces => {}
            }
            let letter = match (found.mail, there) {
                (Some(mail), Some(there)) => Some((mail.path.clone(), mail.version, mail.with_membership(there)?)),
                _ => None,
            };
            let replacing = async {
                let zookeeper = connection.zookeeper()?;
                let mut transaction = zookeeper.new_multi_writer();
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
            if turn.is_none() {
                turn = tries.wait_for(self.gates.pass_to_mailbox(found.stat.ephemeral_owner)).await.flatten();
            }
        }
        Err(failed(ZkError::BadVersion))
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
        change: impl Fn(&Stat, &Mail, &mut MultiWriter<'_>) -> Result<(), ZkError>,
    ) -> Result<bool> {
        let failed = |why| self.client.failed(format_args!("change {path}"), why);
        let (mut tries, mut turn) = (self.client.tries(), None);
        while tries.next().await {
            let connection = self.client.connection().await?;
            let Some(found) = self.find_own_entry(&connection, path).await.map_err(failed)? else {
                return Ok(false);
            };
            let own = found.stat.ephemeral_owner == self.client.session_id();
            if !own || found.record().ok().and_then(|record| record.join()) != Some(request.id) {
                return Ok(false);
            }
            let Some(mail) = &found.mail else {
                // The mailbox was deleted by hand.
                self.mailbox.open().await?;
                continue;
            };
            let changing = async {
                let zookeeper = connection.zookeeper()?;
                let mut transaction = zookeeper.new_multi_writer();
                change(&found.stat, mail, &mut transaction)?;
                Ok(transaction.commit().await)
            };
            match connection.ask_to_change(changing).await.map_err(failed)? {
                Ok(_) => return Ok(true),
                Err(why) => met_another_change(why).map_err(failed)?,
            }
            if turn.is_none() {
                turn = tries.wait_for(self.gates.pass_to_mailbox(self.client.session_id())).await.flatten();
            }
        }
        Err(failed(ZkError::BadVersion))
    }

    /// An entry of any session, and that session's mail. The mail is read before the entry, so that all that
    /// happens to the entry afterwards changes the mailbox's version.
    async fn find_entry(&self, connection: &Connection, path: &str) -> Result<Option<GroupEntry>, ZkError> {
        let finding = async {
            let zookeeper = connection.zookeeper()?;
            loop {
                let Some(before) = zookeeper.check_stat(path).await? else { return Ok(None) };
                let mail = Mail::read(&zookeeper, self.layout.mailbox(before.ephemeral_owner)).await?;
                let (data, stat) = match zookeeper.get_data(path).await {
                    Err(ZkError::NoNode) => return Ok(None),
                    read => read?,
                };
                if stat.czxid == before.czxid {
                    return Ok(Some(GroupEntry { data, stat, mail }));
                }
            }
        };
        connection.ask(finding).await
    }

    /// An entry of this session, and its mail. The mailbox is known beforehand: one round trip.
    async fn find_own_entry(&self, connection: &Connection, path: &str) -> Result<Option<GroupEntry>, ZkError> {
        let finding = async {
            let zookeeper = connection.zookeeper()?;
            // Asked in this order, they are read in this order.
            let mail = Mail::read(&zookeeper, self.layout.mailbox(self.client.session_id()));
            let entry = zookeeper.get_data(path);
            let mail = mail.await?;
            match entry.await {
                Ok((data, stat)) => Ok(Some(GroupEntry { data, stat, mail })),
                Err(ZkError::NoNode) => Ok(None),
                Err(why) => Err(why),
            }
        };
        connection.ask(finding).await
    }
}

/// A transaction that was refused because something else had changed meanwhile may be tried again.
fn met_another_change(why: MultiWriteError) -> Result<(), ZkError> {
    match why {
        MultiWriteError::OperationFailed {
            source: ZkError::BadVersion | ZkError::NoNode | ZkError::NodeExists,
            ..
        } => Ok(()),
        why => Err(why.into()),
    }
}
