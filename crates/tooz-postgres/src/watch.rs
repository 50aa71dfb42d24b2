//! Watching a group or an election: by a channel of notifications, on the connection of the client.

use std::sync::Arc;

use tooz_core::Result;
use tooz_core::driver::{PushStream, push_channel};

use crate::client::Client;
use crate::{error, layout};

impl Client {
    /// Watches what is told of this key. The stream ends with the connection.
    pub(crate) async fn watch(&self, key: i64) -> Result<PushStream> {
        const DOING: &str = "watch";
        let channel = layout::channel(key);
        self.refuse_foreign().await?;
        let connection = self.connection().await?;
        let dispatch = Arc::clone(&connection.dispatch);
        let (pusher, stream) = push_channel();
        connection
            .run(self.settings.statement_timeout, DOING, move |listener| {
                Box::pin(async move {
                    let failed = |error| error::of(error, DOING);
                    for unwatched in dispatch.take_unwatched() {
                        listener.unlisten(&unwatched).await.map_err(failed)?;
                    }
                    if !dispatch.knows(&channel) {
                        listener.listen(&channel).await.map_err(failed)?;
                    }
                    dispatch.enter(channel, pusher);
                    Ok(())
                })
            })
            .await
            .map_err(error::outside)?;
        Ok(stream)
    }
}
