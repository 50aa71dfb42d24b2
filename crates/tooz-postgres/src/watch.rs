//! What the server tells by itself, on the connection of those who look, to all watches of a coordinator.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use serde::Deserialize;
use sqlx::Acquire as _;
use sqlx::postgres::{PgListener, PgNotification};
use tooz_core::driver::{Change, Mutex, MutexGuard, PushStream, Pushed, Pusher, RequestId, push_channel};
use tooz_core::{MemberId, Result};

use crate::group::read_entry;
use crate::holdings::Holdings;
use crate::layout::Found;
use crate::link::Link;
use crate::look::{Look, Seat};
use crate::options::Settings;
use crate::sweep::{Step, next_look};
use crate::{error, holders, key, sweep};

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
        self.channels.lock()
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
/// they left. However many watch, few of them look; the others see to it from time to time that somebody does. Sees to it that the watches end
/// with the connection, also when that is cut without a word. Ends with the link.
pub(crate) async fn attend(link: Weak<Link>, audience: Arc<Audience>, settings: Settings) {
    // The session timeout is how long a death may take anyway.
    let period = TICK.min(settings.session_timeout / 4);
    let rest = settings.session_timeout / 2;
    let mut pause = period;
    let mut may_look = false;
    // No hold is kept of the link while this waits: it ends when those who use it let go.
    while let Some(died) = link.upgrade().map(|link| link.died()) {
        // Not in step with all others who watch.
        if tokio::time::timeout(pause.mul_f64(0.75 + 0.25 * fastrand::f64()), died).await.is_ok() {
            break;
        }
        if audience.owner.get().is_some() {
            return;
        }
        let Some(link) = link.upgrade().filter(|_| !audience.is_empty()) else { continue };
        let (theirs, knows) = (settings.clone(), may_look);
        let looking = link.run(settings.statement_timeout, sweep::DOING, move |connection| {
            Box::pin(async move { look_for_the_dead(connection, &theirs, knows, period).await })
        });
        match looking.await {
            Ok(Some(step)) => {
                may_look = true;
                pause = next_look(step, pause, period, rest);
            }
            Ok(None) => {
                may_look = false;
                pause = settings.session_timeout;
            }
            Err(_) => {
                link.cut();
                break;
            }
        }
    }
    audience.dismiss();
}

/// `None`: this user may not, or not yet; it hears of the dead from those who may. That is found out without an error in the server's log.
async fn look_for_the_dead(
    connection: &mut PgListener,
    settings: &Settings,
    may_look: bool,
    period: Duration,
) -> Result<Option<Step>> {
    if !may_look {
        let plain = connection.acquire().await.map_err(|error| error::of(error, sweep::DOING))?;
        if !Found::look(plain, settings).await?.can_clear_up() {
            return Ok(None);
        }
    }
    // Short of the period, so that who looks in every period finds that it is over.
    match sweep::step(connection, 0, period.mul_f64(0.7)).await {
        Ok(step) => Ok(Some(step)),
        Err(error) if error::is_dead(&error) => Err(error::of(error, sweep::DOING)),
        // The server has no time for it now.
        Err(error) if error::is_cancelled(&error) || error::is_end_of_slice(&error) => Ok(Some(Step::Done)),
        Err(_) => Ok(None),
    }
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
