//! The server and the session: what they say of themselves.

use std::time::Duration;

use serde_json::{Value, json};
use tooz::driver::Verdict;
use tooz::{Coordinator, ErrorKind, Terms};

use super::report::Report;

/// Enters what the driver finds at its server; answers what the server calls itself.
pub(super) async fn look(coordinator: &Coordinator, report: &mut Report) -> String {
    match coordinator.check_up().await {
        Ok(checkup) => {
            let none = format!("none: the driver {} needs no server", coordinator.driver().name());
            report.good("server", if checkup.server.is_empty() { none } else { checkup.server.clone() });
            report.findings("setting", &checkup);
            checkup.server
        }
        // The trials will tell whether it works; only its settings remain unknown.
        Err(error) if error.kind() == ErrorKind::Unsupported => String::new(),
        Err(error) => {
            report.trouble("server", Verdict::Warning, error.into());
            String::new()
        }
    }
}

/// Enters what the session and its backend agreed upon. There is a session only after the first lock.
pub(super) fn session(coordinator: &Coordinator, report: &mut Report) {
    let Some(terms) = coordinator.terms() else {
        report.add(
            "session",
            Verdict::Wrong,
            "it ended right after it began",
            "look at the server's log for the reason",
        );
        return;
    };
    let Some(timeout) = terms.timeout else {
        report.good("session", "no timeout: what a process holds ends with it");
        return;
    };
    let (asked, margin) = (coordinator.session_timeout(), margin(&terms, timeout));
    let changed = if timeout == asked { String::new() } else { format!(" (asked for: {})", words(asked)) };
    report.good(
        "session",
        format!(
            "timeout {}{changed}, margin {}: without a heartbeat everything counts as lost after {}",
            words(timeout),
            words(margin),
            words(timeout.saturating_sub(margin)),
        ),
    );
}

/// The session's terms for machines; `null` where there was no session.
pub(super) fn session_json(coordinator: &Coordinator) -> Value {
    let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    match coordinator.terms() {
        None => Value::Null,
        Some(terms) => json!({
            "timeout_ms": terms.timeout.map(millis),
            "margin_ms": terms.timeout.map(|timeout| millis(margin(&terms, timeout))),
        }),
    }
}

/// As core has it: a tenth of the timeout, or what the driver needs, if that is more.
fn margin(terms: &Terms, timeout: Duration) -> Duration {
    terms.margin.max(timeout / 10)
}

fn words(duration: Duration) -> humantime::FormattedDuration {
    humantime::format_duration(duration)
}
