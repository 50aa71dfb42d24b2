//! What the server tells by itself, on the connection of those who look, to all watches of a coordinator.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use serde::Deserialize;
use sqlx::postgres::PgNotification;
use tooz_core::{Change, MemberId, PushStream, Pushed, Pusher, RequestId, Result, push_channel};

use crate::group::read_entry;
use crate::holdings::Holdings;
use crate::link::Link;
use crate::look::{Look, Seat};
use crate::options::Settings;
use crate::{error, holders, key};

/// Who hears what is told to a connection.
#[derive(Default)]
pub(crate) struct Audience {
    /// Who listens to which channel.
    channels: Mutex<HashMap<String, Vec<Listener>>>,
    /// Set when the connection has become a session's: then all that is told is that somebody took a membership over, or asks what is held.
    owner: OnceLock<Arc<Holdings>>,
}

struct Listener {
    pusher: Pusher,
    /// Whether it was told that from here on nothing is missed.
    is_ready: bool,
}

impl Audience {
    fn channels(&self) -> MutexGuard<'_, HashMap<String, Vec<Listener>>> {
        self.channels.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on it is the session's, for good.
    pub(crate) fn belongs_to(&self, holdings: &Arc<Holdings>) {
        let _ = self.owner.set(Arc::clone(holdings));
    }

    pub(crate) fn tell(&self, notification: &PgNotification) {
        if let Some(owner) = self.owner.get() {
            match notification.payload() {
                holders::ASKED => owner.be_attentive(holders::PATIENCE),
                payload => {
                    if let Ok(id) = payload.parse::<RequestId>() {
                        owner.robbed(id);
                    }
                }
            }
            return;
        }
        let mut channels = self.channels();
        if let Some(listeners) = channels.get_mut(notification.channel()) {
            let pushed = read(notification.payload());
            listeners.iter().filter(|one| one.is_ready).for_each(|one| one.pusher.push(pushed.clone()));
        }
    }

    /// Enters a listener, and answers the channels to which nobody listens any more.
    fn enter(&self, channel: &str, pusher: Pusher) -> Vec<String> {
        let mut channels = self.channels();
        channels.values_mut().for_each(|listeners| listeners.retain(|one| !one.pusher.is_closed()));
        channels.entry(channel.to_owned()).or_default().push(Listener { pusher, is_ready: false });
        channels.extract_if(|_, listeners| listeners.is_empty()).map(|(channel, _)| channel).collect()
    }

    /// Tells those who are new on a channel that it is listened to.
    fn greet(&self, channel: &str) {
        for one in self.channels().get_mut(channel).into_iter().flatten().filter(|one| !one.is_ready) {
            one.is_ready = true;
            one.pusher.push(Pushed::Ready);
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.channels().values().flatten().all(|one| one.pusher.is_closed())
    }

    /// Ends all watches: dropping its pusher ends one, and core watches anew.
    pub(crate) fn dismiss(&self) {
        self.channels().clear();
    }
}

impl Look {
    /// Watches what is told of this key. The stream ends with the connection.
    pub(crate) async fn watch(&self, key: i64) -> Result<PushStream> {
        const DOING: &str = "watch";
        let channel = key::channel(key);
        let Seat { link, audience } = self.seat().await?;
        let (pusher, stream) = push_channel();
        link.run(self.settings.statement_timeout, DOING, move |connection| {
            Box::pin(async move {
                // Entered before listening: what is told from then on is heard.
                let silent = audience.enter(&channel, pusher);
                for silent in silent {
                    connection.unlisten(&silent).await.map_err(|error| error::of(error, DOING))?;
                }
                connection.listen(&channel).await.map_err(|error| error::of(error, DOING))?;
                audience.greet(&channel);
                Ok(())
            })
        })
        .await
        .map_err(error::outside)?;
        Ok(stream)
    }
}

/// The longest time for which the death of a session goes unnoticed by those who watch.
const TICK: Duration = Duration::from_secs(1);

/// As long as anybody watches: looks from time to time who has died, since nothing is told by the dead, and takes away and tells what
/// they left. Sees to it that the watches end with the connection, also when that is cut without a word. Ends with the link.
pub(crate) async fn attend(link: Weak<Link>, audience: Arc<Audience>, settings: Settings, namespace: String) {
    const DOING: &str = "look who has died";
    // The session timeout is how long a death may take anyway.
    let period = TICK.min(settings.session_timeout / 4);
    // No hold is kept of the link while this waits: it ends when those who use it let go.
    while let Some(died) = link.upgrade().map(|link| link.died()) {
        // Not in step with all others who watch.
        if tokio::time::timeout(period.mul_f64(0.75 + 0.25 * fastrand::f64()), died).await.is_ok() {
            break;
        }
        if audience.owner.get().is_some() {
            return;
        }
        let Some(link) = link.upgrade().filter(|_| !audience.is_empty()) else { continue };
        let namespace = namespace.clone();
        let asking = link.run(settings.statement_timeout, DOING, move |connection| {
            Box::pin(async move {
                let asked = sqlx::query("SELECT sweep(0, $1)").bind(namespace).execute(connection).await;
                match asked {
                    // Who may not take away what the dead left hears of it from those who may.
                    Err(error) if error::is_dead(&error) => Err(error::of(error, DOING)),
                    _ => Ok(()),
                }
            })
        });
        if asking.await.is_err() {
            link.cut();
            break;
        }
    }
    audience.dismiss();
}

/// A change of a group as `schema.sql` tells it.
#[derive(Deserialize)]
struct Told {
    version: u64,
    kind: String,
    member: String,
    request: String,
    capabilities: String,
}

fn read(payload: &str) -> Pushed {
    match payload {
        "" => Pushed::Dirty,
        "gone" => Pushed::Gone,
        // What can't be read is a reason to look.
        payload => serde_json::from_str(payload).ok().and_then(|told| delta(&told)).unwrap_or(Pushed::Dirty),
    }
}

fn delta(told: &Told) -> Option<Pushed> {
    let entry = || read_entry(&told.member, told.request.parse::<RequestId>().ok(), &told.capabilities).ok();
    let change = match told.kind.as_str() {
        "joined" => Change::Joined(entry()?),
        "updated" => Change::Updated(entry()?),
        "left" => Change::Left(MemberId::new(&told.member).ok()?),
        _ => return None,
    };
    Some(Pushed::Delta { after: told.version.checked_sub(1), version: told.version, change })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_read_and_what_is_no_change_is_a_reason_to_look() {
        let told = r#"{"version":8,"kind":"joined","member":"a","request":"000000000000000000000000000000ff","capabilities":"[1]"}"#;
        let Pushed::Delta { after: Some(7), version: 8, change: Change::Joined(entry) } = read(told) else {
            panic!("{:?}", read(told))
        };
        assert_eq!((entry.member.as_str(), entry.id, entry.capabilities.as_json()), ("a", RequestId(255), "[1]"));
        let left = told.replace("joined", "left");
        assert!(matches!(read(&left), Pushed::Delta { change: Change::Left(member), .. } if member.as_str() == "a"));
        assert!(matches!(read("gone"), Pushed::Gone));
        for other in ["", "x", "{}", &told.replace("joined", "danced"), &told.replace("[1]", "[")] {
            assert!(matches!(read(other), Pushed::Dirty), "{other}");
        }
    }
}
