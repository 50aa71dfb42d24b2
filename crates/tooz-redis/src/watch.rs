//! Watches: a channel for each group and each lock, on the session's own connection.

use tooz_core::Result;
use tooz_core::driver::{PushStream, Pushed, push_channel};

use crate::session::RedisSession;

impl RedisSession {
    /// Hears that channel from now on.
    pub(crate) async fn watch(&self, channel: String) -> Result<PushStream> {
        let connection = self.client.connection().await?;
        let (pusher, stream) = push_channel();
        // What is read behind the subscription on the same connection is not older than it.
        pusher.push(Pushed::Ready);
        self.client.dispatch.watch(&channel, pusher);
        connection.subscribe(&[channel]).await?;
        self.client.sweep_soon();
        Ok(stream)
    }
}
