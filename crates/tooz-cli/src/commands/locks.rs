//! `tooz holders` and `tooz break`.

use serde_json::{Value, json};
use tooz::Holder;

use super::with_coordinator;
use crate::args::{BreakArguments, Global};
use crate::exit::{self, CommandFailure};
use crate::output;

pub(super) async fn holders(global: &Global, lock: &str) -> Result<u8, CommandFailure> {
    let holders = with_coordinator(global, async |coordinator| Ok(coordinator.lock(lock)?.holders().await?)).await?;
    if global.json {
        output::json(&holders.iter().map(as_json).collect::<Vec<_>>().into())?;
    } else {
        let rows = holders.iter().map(|holder| {
            vec![
                holder.member.to_string(),
                holder.mode.name().to_owned(),
                holder.token.to_string(),
                since(holder).unwrap_or_else(|| "-".to_owned()),
                holder.pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string()),
            ]
        });
        output::rows(&["member", "mode", "token", "since", "pid"], rows.collect())?;
    }
    Ok(exit::SUCCESS)
}

pub(super) async fn break_lock(global: &Global, arguments: &BreakArguments) -> Result<u8, CommandFailure> {
    let name = arguments.lock.name();
    let broken = with_coordinator(global, async |coordinator| {
        let lock = coordinator.lock(name)?;
        let mut holders = lock.holders().await?;
        if holders.is_empty() {
            return Err(CommandFailure::error(format!("nobody holds lock {name:?}, so there is nothing to break")));
        }
        if let Some(token) = arguments.token {
            holders.retain(|holder| holder.token.0 == token);
            if holders.is_empty() {
                return Err(CommandFailure::error(format!("nobody holds lock {name:?} with token {token} (any more)")));
            }
        }
        for holder in &holders {
            lock.break_lock(holder).await?;
        }
        Ok(holders)
    })
    .await?;
    if global.json {
        output::json(&broken.iter().map(as_json).collect::<Vec<_>>().into())?;
    } else {
        for holder in broken {
            output::line(format_args!("taken from {} (token {})", holder.member, holder.token))?;
        }
    }
    Ok(exit::SUCCESS)
}

fn as_json(holder: &Holder) -> Value {
    json!({
        "member": holder.member.as_str(),
        "mode": holder.mode.name(),
        "token": holder.token.0,
        "since": since(holder),
        "pid": holder.pid,
    })
}

fn since(holder: &Holder) -> Option<String> {
    holder.since.map(|time| humantime::format_rfc3339_millis(time).to_string())
}
