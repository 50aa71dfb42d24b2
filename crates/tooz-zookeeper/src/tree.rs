//! The nodes that a namespace stands on: how they are made, for whom, and the look at the layout in which all that lies below is kept.
//!
//! Members that look for a lock in different places would both hold it. So the node of the namespace says how it is kept, and a session that is to
//! own something there makes its mailbox in one transaction with a look at that. Layout 1 was kept by versions that wrote down nothing and
//! look at nothing; they begin with a node below `sessions`, and there they meet a node below which no session may make any.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tooz_core::driver::Mutex;
use tooz_core::driver::Space::{Election, Lock};
use tooz_core::{Error, Namespace, Result};
use zookeeper_client::{
    Acl, Acls, AuthId, Client as ZooKeeper, CreateMode, CreateOptions, Error as ZkError, MultiWriteError, Permission,
};

use crate::client::Client;
use crate::connection::Connection;
use crate::error;
use crate::layout::{LAYOUT, Layout};
use crate::options::Access;
use crate::record::{self, NamespaceRecord};

/// What stands in the stop sign, for its readers.
const STOP: &[u8] = b"this namespace is kept in a layout that older versions of tooz do not speak";

/// How long it is believed that a namespace is kept in the layout that was found there.
const AGREED_FOR: Duration = Duration::from_secs(10);

/// The namespace at the ensemble.
pub(crate) struct Tree {
    client: Arc<Client>,
    pub(crate) layout: Layout,
    namespace: Namespace,
    access: Access,
    /// When the namespace was last found to be kept in the layout that is spoken here.
    agreed: Mutex<Option<Instant>>,
}

impl Tree {
    pub(crate) fn new(client: Arc<Client>, layout: Layout, namespace: Namespace, access: Access) -> Self {
        Tree { client, layout, namespace, access, agreed: Mutex::default() }
    }

    /// How a node of this kind is made.
    pub(crate) fn made(&self, mode: CreateMode) -> CreateOptions<'static> {
        mode.with_acls(acls(self.access))
    }

    /// Makes a node and those above it in the namespace, where they are missing. Begins at the lowest: a user who may write below a node need not
    /// be allowed to make its neighbours. Without the namespace itself it is `NoNode`: see [`settle`](Self::settle).
    pub(crate) async fn make(&self, zookeeper: &ZooKeeper, path: &str, mode: CreateMode) -> Result<(), ZkError> {
        let mut missing = vec![path];
        while let Some(next) = missing.last() {
            let mode = if *next == path { mode } else { CreateMode::Persistent };
            match zookeeper.create(next, b"", &self.made(mode)).await {
                Ok(_) | Err(ZkError::NodeExists) => _ = missing.pop(),
                Err(ZkError::NoNode) => match next.rsplit_once('/') {
                    Some((above, _)) if above.len() > self.layout.root().len() => missing.push(above),
                    _ => return Err(ZkError::NoNode),
                },
                Err(why) => return Err(why),
            }
        }
        Ok(())
    }

    /// The paths of all nodes of this session in the namespace.
    pub(crate) async fn ephemerals(&self) -> Result<Vec<String>> {
        let root = self.layout.root();
        let listing = self
            .client
            .ask("list what this session owns", |zookeeper| async move { zookeeper.list_ephemerals(root).await });
        listing.await
    }

    /// Settles like [`settle`](Self::settle), but not where the namespace was found to be right a moment ago.
    pub(crate) async fn settle_once(&self, connection: &Connection) -> Result<()> {
        if !self.has_agreed() {
            self.settle(connection).await?;
        }
        Ok(())
    }

    /// Refuses to look at, or to change, what is kept in another layout: a lock that is held there would look free. It makes nothing, and where there is
    /// no namespace there is nothing to be mistaken for something else.
    pub(crate) async fn agree(&self) -> Result<()> {
        if self.has_agreed() {
            return Ok(());
        }
        let root = self.layout.root();
        let looking = self.client.ask("read the namespace's layout", |zookeeper| async move {
            match zookeeper.get_data(root).await {
                Err(ZkError::NoNode) => Ok(None),
                found => found.map(Some),
            }
        });
        let Some((data, stat)) = looking.await? else { return Ok(()) };
        match layout_of(&data) {
            Some(LAYOUT) => self.note_agreed(),
            // Nothing stands in a node that was made by hand either.
            Some(1) if stat.num_children == 0 => {}
            Some(other) => return Err(Error::foreign_layout(&self.namespace, other, LAYOUT)),
            None => return Err(error::foreign_node(root)),
        }
        Ok(())
    }

    fn has_agreed(&self) -> bool {
        self.agreed.lock().is_some_and(|agreed| agreed.elapsed() < AGREED_FOR)
    }

    fn note_agreed(&self) {
        *self.agreed.lock() = Some(Instant::now());
    }

    /// Sees that the namespace is there and kept in the layout that is spoken here; answers the version of its node. The first
    /// node that a session makes in it is bound to this version.
    pub(crate) async fn settle(&self, connection: &Connection) -> Result<i32> {
        let root = self.layout.root();
        let mut tries = self.client.tries();
        while tries.next().await {
            let reading = async { connection.zookeeper()?.get_data(root).await };
            let found = match connection.ask(reading).await {
                Ok((data, stat)) => Some((data, stat.version)),
                Err(ZkError::NoNode) => None,
                Err(why) => return Err(self.client.failed(format_args!("read {root}"), why)),
            };
            match found {
                None => self.found(connection).await?,
                Some((data, version)) => match layout_of(&data) {
                    Some(LAYOUT) => {
                        self.note_agreed();
                        return Ok(version);
                    }
                    Some(1) => self.take_over_first_layout(connection, version).await?,
                    Some(other) => return Err(Error::foreign_layout(&self.namespace, other, LAYOUT)),
                    None => return Err(error::foreign_node(root)),
                },
            }
        }
        Err(self.client.failed(format_args!("make {root}"), ZkError::BadVersion))
    }

    /// Makes the namespace with all its branches in one transaction. It fails where another is faster, which is as good.
    async fn found(&self, connection: &Connection) -> Result<()> {
        let root = self.layout.root();
        let founding = async {
            let zookeeper = connection.zookeeper()?;
            if let Some((above, _)) = root.rsplit_once('/').filter(|(above, _)| !above.is_empty()) {
                self.make_chroot(&zookeeper, above).await?;
            }
            let options = self.made(CreateMode::Persistent);
            let acls = root_acls(self.access);
            let mut transaction = zookeeper.new_multi_writer();
            transaction.add_create(root, &own_record(), &CreateMode::Persistent.with_acls(Acls::from(&acls[..])))?;
            for branch in self.branches() {
                transaction.add_create(&branch, b"", &options)?;
            }
            let stop_sign = CreateMode::Persistent.with_acls(Acls::anyone_read());
            transaction.add_create(&self.layout.stop_sign(), STOP, &stop_sign)?;
            Ok(transaction.commit().await)
        };
        let failed = |why| self.client.failed(format_args!("create {root}"), why);
        match connection.ask_to_change(founding).await.map_err(failed)? {
            Ok(_) | Err(MultiWriteError::OperationFailed { source: ZkError::NodeExists | ZkError::NoNode, .. }) => {
                Ok(())
            }
            Err(why) => Err(failed(why.into())),
        }
    }

    /// Goes over to the present layout, if no session lives in the old one and no group is left there: the server refuses to delete a branch
    /// with something below it, so that no session can come in between.
    async fn take_over_first_layout(&self, connection: &Connection, version: i32) -> Result<()> {
        let root = self.layout.root();
        let (sessions, groups) = (self.layout.stop_sign(), self.layout.groups());
        let taking_over = async {
            let zookeeper = connection.zookeeper()?;
            let mut missing = Vec::new();
            for branch in self.branches() {
                if branch == groups || zookeeper.check_stat(&branch).await?.is_none() {
                    missing.push(branch);
                }
            }
            let there =
                [zookeeper.check_stat(&sessions).await?.is_some(), zookeeper.check_stat(&groups).await?.is_some()];
            let mut transaction = zookeeper.new_multi_writer();
            transaction.add_set_data(root, &own_record(), Some(version))?;
            for (branch, _) in [&sessions, &groups].into_iter().zip(there).filter(|(_, there)| *there) {
                transaction.add_delete(branch, None)?;
            }
            for branch in missing {
                transaction.add_create(&branch, b"", &self.made(CreateMode::Persistent))?;
            }
            let stop_sign = CreateMode::Persistent.with_acls(Acls::anyone_read());
            transaction.add_create(&sessions, STOP, &stop_sign)?;
            Ok(transaction.commit().await)
        };
        let failed = |why| self.client.failed(format_args!("take over {root}"), why);
        match connection.ask_to_change(taking_over).await.map_err(failed)? {
            Err(MultiWriteError::OperationFailed { source: ZkError::NotEmpty, .. }) => {
                Err(Error::foreign_layout(&self.namespace, 1, LAYOUT))
            }
            // Others are at it too.
            Ok(_)
            | Err(MultiWriteError::OperationFailed {
                source: ZkError::NodeExists | ZkError::NoNode | ZkError::BadVersion,
                ..
            }) => Ok(()),
            Err(why) => Err(failed(why.into())),
        }
    }

    /// The error of a user who may not make anything in the namespace, with the name of whose it is.
    pub(crate) async fn not_ours(&self, connection: &Connection, why: Error) -> Error {
        let root = self.layout.root();
        let asking = async { connection.zookeeper()?.get_acl(root).await };
        let Ok((acls, _)) = connection.ask(asking).await else { return why };
        let users = acls.iter().filter(|acl| acl.scheme() == "digest");
        let users: Vec<&str> = users.filter_map(|acl| acl.id().split(':').next()).collect();
        if users.is_empty() {
            return why;
        }
        why.context(format!(
            "{root} is kept by user {}, with a password of that user's: the first user of the namespace said it, right or wrong",
            users.join(", ")
        ))
    }

    fn branches(&self) -> [String; 4] {
        [self.layout.space(Lock), self.layout.space(Election), self.layout.groups(), self.layout.mail()]
    }

    /// Makes the nodes of the chroot that are missing. They are not this user's alone: others have their own below them. So each is for
    /// whom the node is that it stands in.
    async fn make_chroot(&self, zookeeper: &ZooKeeper, chroot: &str) -> Result<(), ZkError> {
        let mut missing = Vec::new();
        let mut there = chroot;
        while !there.is_empty() && zookeeper.check_stat(there).await?.is_none() {
            missing.push(there);
            there = there.rsplit_once('/').map_or("", |(above, _)| above);
        }
        if missing.is_empty() {
            return Ok(());
        }
        let above = if there.is_empty() { "/" } else { there };
        let acls = match zookeeper.get_acl(above).await {
            Ok((acls, _)) => acls,
            Err(ZkError::NoAuth) => Vec::new(),
            Err(why) => return Err(why),
        };
        let own = self::acls(self.access);
        let acls = if acls.is_empty() || acls.iter().any(is_veiled) { own } else { Acls::from(&acls[..]) };
        let options = CreateMode::Persistent.with_acls(acls);
        for path in missing.into_iter().rev() {
            match zookeeper.create(path, b"", &options).await {
                Ok(_) | Err(ZkError::NodeExists) => {}
                Err(why) => return Err(why),
            }
        }
        Ok(())
    }
}

/// Servers hide a user's password from users who may not change who may do what; that can't be copied.
fn is_veiled(acl: &Acl) -> bool {
    acl.scheme() == "digest" && acl.id().ends_with(":x")
}

fn own_record() -> Vec<u8> {
    record::write(&NamespaceRecord { layout: LAYOUT }).unwrap_or_default()
}

/// The layout that stands there. Before it was written down, nothing stood there. `None`: another program's words.
fn layout_of(data: &[u8]) -> Option<u32> {
    if data.is_empty() {
        return Some(1);
    }
    record::read::<NamespaceRecord>("the namespace", data).ok().map(|record| record.layout)
}

/// For a node that this session makes.
fn acls(access: Access) -> Acls<'static> {
    match access {
        Access::Open => Acls::anyone_all(),
        Access::Creator => Acls::creator_all(),
    }
}

/// For the node of the namespace: all users may see which layout it says, and whose it is.
fn root_acls(access: Access) -> Vec<Acl> {
    match access {
        Access::Open => acls(access).to_vec(),
        Access::Creator => vec![acls(access)[0].clone(), Acl::new(Permission::READ, AuthId::anyone())],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_record_tells_the_layout() {
        assert_eq!(layout_of(b""), Some(1));
        assert_eq!(layout_of(&own_record()), Some(LAYOUT));
        assert_eq!(layout_of(br#"{"layout":3,"more":true}"#), Some(3));
        assert_eq!(layout_of(b"another program's"), None);
    }
}
