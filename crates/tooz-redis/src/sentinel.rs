//! Where the primary is: all Sentinels are asked at once, and the one that knows the latest fail-over is believed.

use std::time::Duration;

use tokio::task::JoinSet;
use tooz_core::{Error, ErrorKind, Result};

use crate::connection::{Connection, Dial};
use crate::error::strange;
use crate::login::{Login, Peer};
use crate::options::{Address, Encryption, Sentinels};
use crate::reply::map_of;
use crate::request::Argument;
use crate::wire::ServerAddress;

/// After the first answer the others have this long: a Sentinel that was cut off answers just as fast, and wrong.
const SECOND_OPINION: Duration = Duration::from_millis(150);

/// A primary, as the Sentinels know it.
#[derive(Debug)]
pub(crate) struct Primary {
    pub(crate) address: Address,
    pub(crate) replicas: u64,
    /// Grows with every fail-over.
    epoch: u64,
}

pub(crate) async fn find_primary(sentinels: &Sentinels, encryption: &Encryption, limit: Duration) -> Result<Primary> {
    let mut asking = JoinSet::new();
    for address in sentinels.addresses.clone() {
        let (sentinels, encryption) = (sentinels.clone(), encryption.clone());
        asking.spawn(async move { ask(&address, &sentinels, &encryption, limit).await });
    }
    let mut best: Option<Primary> = None;
    let mut error = None;
    let mut patience = limit;
    while let Ok(Some(answer)) = tokio::time::timeout(patience, asking.join_next()).await {
        match answer {
            Ok(Ok(primary)) => {
                patience = SECOND_OPINION;
                // Of one fail-over they know alike, but not all of them of each replica.
                match &mut best {
                    Some(best) if primary.epoch < best.epoch => {}
                    Some(best) if primary.epoch == best.epoch => best.replicas = best.replicas.max(primary.replicas),
                    _ => best = Some(primary),
                }
            }
            // What an operator has to mend is worth more than that one of them is dead.
            Ok(Err(new)) => {
                if error.as_ref().is_none_or(Error::is_retryable) {
                    error = Some(new);
                }
            }
            Err(_) => {}
        }
    }
    best.ok_or_else(|| {
        error.unwrap_or_else(|| Error::new(ErrorKind::TimedOut, format!("no Sentinel answered within {limit:?}")))
    })
}

async fn ask(address: &Address, sentinels: &Sentinels, encryption: &Encryption, limit: Duration) -> Result<Primary> {
    let dial = Dial {
        peer: Peer::Sentinel,
        place: ServerAddress::Host(address.clone()),
        login: Login::of_sentinels(sentinels).await?,
        database: 0,
        encryption,
        limit,
        connect_limit: limit,
    };
    let at = |error: Error| error.context(format!("Sentinel {address}"));
    let (connection, _incoming) = Connection::open(dial, 0).await.map_err(at)?;
    let question = [Argument::Word("MASTER"), sentinels.primary.as_str().into()];
    let answer = connection.ask("SENTINEL", &question).await;
    let known = answer.map_err(|error| match error.kind() {
        ErrorKind::Backend | ErrorKind::Config => Error::config(format!(
            "Sentinel {address} knows no primary {:?}, or is none; sentinel= names what it watches",
            sentinels.primary
        ))
        .with_source(error),
        // Who does not log in is refused only here.
        _ => at(error),
    })?;
    let known = map_of(known)?;
    let number = |name: &str| known.get(name).and_then(|text| text.parse::<u64>().ok());
    match (known.get("ip"), number("port").and_then(|port| u16::try_from(port).ok()), number("num-slaves")) {
        (Some(host), Some(port), Some(replicas)) => Ok(Primary {
            address: Address { host: host.clone(), port },
            replicas,
            epoch: number("config-epoch").unwrap_or(0),
        }),
        _ => Err(strange(known)),
    }
}
