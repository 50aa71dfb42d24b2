//! What each backend gives up under which fault, as its README says. All else is demanded.

use std::fmt::Write as _;

use tooz_conformance::checker::Law;

use crate::backend::{BACKENDS, Backend};
use crate::fault::{CARDS, FaultKind};

/// One thing that a backend gives up.
pub(crate) struct Concession {
    backends: &'static [&'static str],
    faults: &'static [FaultKind],
    laws: &'static [Law],
    /// In the words of the driver's README.
    why: &'static str,
}

use FaultKind::{ClockAhead, ClockBack, DiskFull, Full, ShutOut, Upgrade};
use FaultKind::{Deaf, Refuse, Reset, ServerDown, ServerKill, ServerRestart, Swallow};

const CONCESSIONS: &[Concession] = &[
    Concession {
        backends: &["memcached"],
        faults: &[ServerKill, ServerRestart, ServerDown, Upgrade],
        laws: &[Law::Belief],
        why: "memcached keeps nothing: the holder believes on until its next heartbeat, and for so long two may hold",
    },
    Concession {
        backends: &["memcached"],
        faults: &[Full],
        laws: &[Law::Belief, Law::Members, Law::Watches],
        why: "a server that is full to the last byte deletes the record that it has no room to append to: of a lock, so \
              that two may hold it, or of a group, which then has fewer members for a while",
    },
    Concession {
        backends: &["mysql", "postgres"],
        // One that can't write to its disk ends.
        faults: &[ServerKill, ServerRestart, ServerDown, Upgrade, DiskFull],
        laws: &[Law::Belief],
        why: "a restart frees all locks, and is told to all at once, in no order",
    },
    Concession {
        backends: &["mysql", "postgres"],
        faults: &[Refuse, Reset, Swallow, Deaf, ShutOut],
        laws: &[Law::Belief],
        why: "what a member holds ends with its connection, and both sides hear of that in no order",
    },
    Concession {
        backends: &["redis"],
        faults: &[ClockAhead, ClockBack],
        laws: &[Law::Belief],
        why: "a clock that is set forward, be it right again, ends sessions early, and another may have the lock before \
              the owner hears of it",
    },
];

/// The laws that this backend gives up where these faults come.
pub(crate) fn given_up(backend: &Backend, faults: &[FaultKind]) -> Vec<Law> {
    let of_it = CONCESSIONS.iter().filter(|one| one.backends.contains(&backend.name));
    let happen = of_it.filter(|one| one.faults.iter().any(|fault| faults.contains(fault)));
    let mut laws: Vec<Law> = happen.flat_map(|one| one.laws).copied().collect();
    laws.sort_unstable();
    laws.dedup();
    laws
}

/// Whether that can be done to the backend, be it by a flag.
fn can_happen(backend: &Backend, fault: FaultKind) -> bool {
    let by_flag = [backend.clustered(), backend.upgraded(), backend.with_disk()];
    fault.fits(backend) || by_flag.iter().flatten().any(|special| fault.fits(special))
}

/// The table of all pairs, as Markdown.
pub(crate) fn table() -> String {
    let mut text = String::from("| fault | what it is |");
    for backend in BACKENDS {
        let _ = write!(text, " {} |", backend.name);
    }
    let _ = writeln!(text, "\n|---|---|{}", ":-:|".repeat(BACKENDS.len()));
    for card in CARDS {
        let _ = write!(text, "| `{}` | {} |", card.name, card.sentence);
        for backend in BACKENDS {
            let laws: Vec<_> = given_up(backend, &[card.kind]).iter().map(|law| format!("−{law}")).collect();
            let cell = match (can_happen(backend, card.kind), laws.is_empty()) {
                (false, _) => "·".to_owned(),
                (true, true) => "✓".to_owned(),
                (true, false) => laws.join(" "),
            };
            let _ = write!(text, " {cell} |");
        }
        text.push('\n');
    }
    text.push('\n');
    for Concession { backends, faults, laws, why } in CONCESSIONS {
        let faults: Vec<_> = faults.iter().map(|fault| format!("`{}`", fault.name())).collect();
        let laws: Vec<_> = laws.iter().map(|law| law.name()).collect();
        let (who, faults, laws) = (backends.join(" and "), faults.join(" "), laws.join(" and "));
        let verb = if backends.len() == 1 { "gives" } else { "give" };
        let _ = writeln!(text, "- {who}, {faults}: {verb} up {laws}, since {why}.");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_readme_has_the_table() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/README.md");
        let readme = std::fs::read_to_string(path).unwrap();
        assert!(readme.contains(&table()), "put this into {path}:\n{}", table());
    }

    #[test]
    fn a_concession_is_of_a_fault_that_the_backend_can_have() {
        for one in CONCESSIONS {
            let backends = || one.backends.iter().map(|name| Backend::named(name).unwrap());
            let can = |fault: &FaultKind| backends().any(|backend| can_happen(backend, *fault));
            assert!(one.faults.iter().all(can), "{:?}: {}", one.backends, one.why);
        }
    }
}
