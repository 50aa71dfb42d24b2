//! The nodes that a namespace stands on: who makes them, for whom, and the record of the layout in which all that lies below is kept.
//!
//! Members that look for a lock in different places would both hold it. So the node of the namespace says how it is kept, and whoever is to
//! own something there makes its mailbox in one transaction with a look at that. Layout 1 was kept by versions that wrote down nothing and
//! look at nothing; they begin with a node below `sessions`, and there they meet a node below which nobody may make any.

use std::sync::atomic::Ordering;

use serde::{Deserialize, Serialize};
use tooz_core::{Error, Result};
use zookeeper_client::{Acl, Acls, AuthId, Client, CreateMode, Error as Zk, MultiWriteError, Permission};

use crate::connection::Connection;
use crate::error;
use crate::layout::LAYOUT;
use crate::options::Access;
use crate::record;
use crate::session::Inner;

/// How often a node is looked at again that others change meanwhile.
const ATTEMPTS: usize = 20;

/// What stands in the stop sign, for whoever looks at it.
const STOP: &[u8] = b"this namespace is kept in a layout that older versions of tooz do not speak";

/// In the node of a namespace.
#[derive(Serialize, Deserialize)]
struct NamespaceRecord {
    layout: u32,
}

impl Inner {
    /// Sees that the namespace is there and kept in the layout that is spoken here; answers the version of its node. Who makes the first
    /// node in it binds that to this version.
    pub(crate) async fn settle(&self, connection: &Connection) -> Result<i32> {
        let root = self.layout.root();
        for _ in 0..ATTEMPTS {
            let reading = async { connection.client()?.get_data(root).await };
            let found = match connection.ask(reading).await {
                Ok((data, stat)) => Some((data, stat.version)),
                Err(Zk::NoNode) => None,
                Err(why) => return Err(self.failed(format_args!("read {root}"), why)),
            };
            match found {
                None => self.found(connection).await?,
                Some((data, version)) => match layout_of(&data) {
                    Some(LAYOUT) => {
                        self.is_settled.store(true, Ordering::Relaxed);
                        return Ok(version);
                    }
                    Some(1) => self.take_over_first_layout(connection, version).await?,
                    Some(other) => return Err(Error::foreign_layout(&self.namespace, other, LAYOUT)),
                    None => return Err(error::foreign_node(root)),
                },
            }
        }
        Err(self.failed(format_args!("make {root}"), Zk::BadVersion))
    }

    /// Makes the namespace with all its branches in one transaction. It fails where another is faster, which is as good.
    async fn found(&self, connection: &Connection) -> Result<()> {
        let root = self.layout.root();
        let founding = async {
            let client = connection.client()?;
            if let Some((above, _)) = root.rsplit_once('/').filter(|(above, _)| !above.is_empty()) {
                self.make_chroot(&client, above).await?;
            }
            let options = self.made(CreateMode::Persistent);
            let acls = self.settings.access.root_acls();
            let mut transaction = client.new_multi_writer();
            transaction.add_create(root, &own_record(), &CreateMode::Persistent.with_acls(Acls::from(&acls[..])))?;
            for branch in self.branches() {
                transaction.add_create(&branch, b"", &options)?;
            }
            let stop_sign = CreateMode::Persistent.with_acls(Acls::anyone_read());
            transaction.add_create(&self.layout.stop_sign(), STOP, &stop_sign)?;
            Ok(transaction.commit().await)
        };
        let failed = |why| self.failed(format_args!("create {root}"), why);
        match connection.ask_to_change(founding).await.map_err(failed)? {
            Ok(_) | Err(MultiWriteError::OperationFailed { source: Zk::NodeExists | Zk::NoNode, .. }) => Ok(()),
            Err(why) => Err(failed(why.into())),
        }
    }

    /// Goes over to the present layout, if nobody lives in the old one and no group is left there: the server refuses to delete a branch
    /// with something below it, so that nobody can come in between.
    async fn take_over_first_layout(&self, connection: &Connection, version: i32) -> Result<()> {
        let root = self.layout.root();
        let (sessions, groups) = (self.layout.stop_sign(), self.layout.groups());
        let taking_over = async {
            let client = connection.client()?;
            let mut missing = Vec::new();
            for branch in self.branches() {
                if branch == groups || client.check_stat(&branch).await?.is_none() {
                    missing.push(branch);
                }
            }
            let there = [client.check_stat(&sessions).await?.is_some(), client.check_stat(&groups).await?.is_some()];
            let mut transaction = client.new_multi_writer();
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
        let failed = |why| self.failed(format_args!("take over {root}"), why);
        match connection.ask_to_change(taking_over).await.map_err(failed)? {
            Err(MultiWriteError::OperationFailed { source: Zk::NotEmpty, .. }) => {
                Err(Error::foreign_layout(&self.namespace, 1, LAYOUT))
            }
            // Others are at it too.
            Ok(_)
            | Err(MultiWriteError::OperationFailed { source: Zk::NodeExists | Zk::NoNode | Zk::BadVersion, .. }) => {
                Ok(())
            }
            Err(why) => Err(failed(why.into())),
        }
    }

    /// The error of whoever may not make anything in the namespace, with the name of whose it is.
    pub(crate) async fn not_ours(&self, connection: &Connection, why: Error) -> Error {
        let root = self.layout.root();
        let asking = async { connection.client()?.get_acl(root).await };
        let Ok((acls, _)) = connection.ask(asking).await else { return why };
        let users = acls.iter().filter(|acl| acl.scheme() == "digest");
        let users: Vec<&str> = users.filter_map(|acl| acl.id().split(':').next()).collect();
        if users.is_empty() {
            return why;
        }
        why.context(format!(
            "{root} is kept by user {}, with a password of that user's: whoever first used the namespace said it, right or wrong",
            users.join(", ")
        ))
    }

    fn branches(&self) -> [String; 4] {
        use tooz_core::driver::Space::{Election, Lock};
        [self.layout.space(Lock), self.layout.space(Election), self.layout.groups(), self.layout.mail()]
    }

    /// Makes the nodes of the chroot that are missing. They are not this user's alone: others have their own below them. So each is for
    /// whom the node is that it stands in.
    async fn make_chroot(&self, client: &Client, chroot: &str) -> Result<(), Zk> {
        let mut missing = Vec::new();
        let mut there = chroot;
        while !there.is_empty() && client.check_stat(there).await?.is_none() {
            missing.push(there);
            there = there.rsplit_once('/').map_or("", |(above, _)| above);
        }
        if missing.is_empty() {
            return Ok(());
        }
        let above = if there.is_empty() { "/" } else { there };
        let acls = match client.get_acl(above).await {
            Ok((acls, _)) => acls,
            Err(Zk::NoAuth) => Vec::new(),
            Err(why) => return Err(why),
        };
        let own = self.settings.access.acls();
        let acls = if acls.is_empty() || acls.iter().any(is_veiled) { own } else { Acls::from(&acls[..]) };
        let options = CreateMode::Persistent.with_acls(acls);
        for path in missing.into_iter().rev() {
            match client.create(path, b"", &options).await {
                Ok(_) | Err(Zk::NodeExists) => {}
                Err(why) => return Err(why),
            }
        }
        Ok(())
    }
}

/// Servers show a user without his password to whoever may not change who may do what; that can't be copied.
fn is_veiled(acl: &Acl) -> bool {
    acl.scheme() == "digest" && acl.id().ends_with(":x")
}

fn own_record() -> Vec<u8> {
    record::write(&NamespaceRecord { layout: LAYOUT }).unwrap_or_default()
}

/// The layout that stands there. Before it was written down, nothing stood there. `None`: somebody else's words.
fn layout_of(data: &[u8]) -> Option<u32> {
    if data.is_empty() {
        return Some(1);
    }
    record::read::<NamespaceRecord>("the namespace", data).ok().map(|record| record.layout)
}

impl Access {
    /// For a node that this session makes.
    pub(crate) fn acls(self) -> Acls<'static> {
        match self {
            Access::Open => Acls::anyone_all(),
            Access::Creator => Acls::creator_all(),
        }
    }

    /// For the node of the namespace: everybody may see which layout it says, and whose it is.
    fn root_acls(self) -> Vec<Acl> {
        match self {
            Access::Open => self.acls().to_vec(),
            Access::Creator => vec![self.acls()[0].clone(), Acl::new(Permission::READ, AuthId::anyone())],
        }
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
        assert_eq!(layout_of(b"somebody's own"), None);
    }
}
