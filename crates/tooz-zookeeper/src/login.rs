//! As whom a session logs in: with the credentials as they are at each connection, and with those that it had before.

use tooz_core::driver::{CredentialSource, Mutex};
use tooz_core::{Credentials, Result};

use crate::options::wrong;

/// As so many users a session logs in, those whose passwords were the latest.
const MOST_IDENTITIES: usize = 16;

/// The identities of one session.
pub(crate) struct Login {
    credentials: CredentialSource,
    /// All `user:password` of this session, the latest last. What it made before its password was changed belongs to the earlier ones.
    identities: Mutex<Vec<String>>,
}

impl Login {
    pub(crate) fn new(credentials: CredentialSource) -> Self {
        Login { credentials, identities: Mutex::default() }
    }

    /// Reads the credentials as they are now. The answer is the latest of the [identities](Self::identities) from here on.
    pub(crate) async fn read(&self) -> Result<Option<String>> {
        let identity = identity(&self.credentials.read().await?)?;
        if let Some(identity) = &identity {
            let mut identities = self.identities.lock();
            identities.retain(|known| known != identity);
            identities.push(identity.clone());
            let surplus = identities.len().saturating_sub(MOST_IDENTITIES);
            identities.drain(..surplus);
        }
        Ok(identity)
    }

    /// Whether another identity than this one would log in by now.
    pub(crate) async fn has_changed_since(&self, identity: Option<&String>) -> bool {
        self.credentials.may_change() && self.read().await.is_ok_and(|now| now.as_ref() != identity)
    }

    /// All that a connection logs in with.
    pub(crate) fn identities(&self) -> Vec<String> {
        self.identities.lock().clone()
    }

    /// Whether there is a password at all.
    pub(crate) fn has_password(&self) -> bool {
        !self.identities.lock().is_empty()
    }
}

/// `user:password`, as the digest scheme takes it.
pub(crate) fn identity(credentials: &Credentials) -> Result<Option<String>> {
    match (&credentials.username, &credentials.password) {
        (None, None) => Ok(None),
        (Some(user), Some(_)) if user.contains(':') => {
            Err(wrong("a user of ZooKeeper's digest scheme has no colon in its name"))
        }
        (Some(user), Some(password)) => Ok(Some(format!("{user}:{password}"))),
        _ => Err(wrong("ZooKeeper's digest scheme takes a user and a password")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn credentials_come_in_pairs() {
        assert_eq!(identity(&Credentials::default()).unwrap(), None);
        assert_eq!(identity(&Credentials::new("u", "p:q")).unwrap(), Some("u:p:q".to_owned()));
        assert!(identity(&Credentials::password("p")).is_err());
        assert!(identity(&Credentials::new("u:v", "p")).is_err());
    }

    proptest! {
        #[test]
        fn a_user_is_read_back_from_an_identity(user: String, password: String) {
            if let Ok(Some(identity)) = identity(&Credentials::new(&user, &password)) {
                prop_assert_eq!(identity.split_once(':'), Some((&*user, &*password)));
            } else {
                prop_assert!(user.contains(':'));
            }
        }
    }
}
