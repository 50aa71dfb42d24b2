//! How to join a group.

use crate::driver::roster::Capabilities;

/// How to join a group: [`Group::join_with`](crate::Group::join_with) takes it.
///
/// ```
/// use tooz_core::{Capabilities, JoinOptions};
/// # use tooz_memory as _;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> tooz_core::Result<()> {
/// # let coordinator = tooz_core::connect("memory://join-options", "worker-1").await?;
/// let options = JoinOptions::new().capabilities(Capabilities::new(&["gpu"])?).create().wait();
/// let membership = coordinator.group("workers")?.join_with(options).await?;
/// # membership.leave().await?;
/// # coordinator.close().await
/// # }
/// ```
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct JoinOptions {
    pub(crate) capabilities: Capabilities,
    pub(crate) take_over: bool,
    pub(crate) create: bool,
    pub(crate) wait: bool,
}

impl JoinOptions {
    /// Without capabilities, into a group that exists, in the place of no other member.
    pub fn new() -> Self {
        Self::default()
    }

    /// What the member says of itself.
    pub fn capabilities(mut self, capabilities: Capabilities) -> Self {
        self.capabilities = capabilities;
        self
    }

    /// Takes the place of a living member of the same id, in one step. The old membership reports its loss; its session and
    /// its locks live on to their own end.
    pub fn take_over(mut self) -> Self {
        self.take_over = true;
        self
    }

    /// Waits for the end of a living member of the same id, such as this service before its crash: at most as long as the backend says at
    /// first ([`Error::retry_after`](crate::Error::retry_after), at most the session timeout, or what its driver's page says where the backend
    /// keeps the dead for longer). One that lives on after that is `AlreadyExists`.
    pub fn wait(mut self) -> Self {
        self.wait = true;
        self
    }

    /// Creates the group if it is missing, also when the membership comes back after a lost session: the backend may have forgotten the group too.
    pub fn create(mut self) -> Self {
        self.create = true;
        self
    }
}
