//! What each backend gives up under which fault, as its README says. All else is demanded.

use std::fmt::Write as _;

use tooz_conformance::checker::Law;

use crate::backend::{BACKENDS, Backend};
use crate::fault::FaultKind;

/// One thing that a backend gives up.
pub(crate) struct Concession {
    backend: &'static str,
    faults: &'static [FaultKind],
    laws: &'static [Law],
    /// In the words of the driver's README.
    why: &'static str,
}

use FaultKind::{Deaf, Refuse, Reset, ServerDown, ServerKill, ServerRestart, Swallow};

/// Of a server that is gone, by whatever death.
const GONE: &[FaultKind] = &[ServerKill, ServerRestart, ServerDown];

const CONCESSIONS: &[Concession] = &[
    Concession {
        backend: "memcached",
        faults: GONE,
        laws: &[Law::Belief],
        why: "memcached keeps nothing: the holder believes on until its next heartbeat, and for so long two may hold",
    },
    Concession {
        backend: "mysql",
        faults: GONE,
        laws: &[Law::Belief],
        why: "a restart frees all locks, and is told to all at once, in no order",
    },
    Concession {
        backend: "mysql",
        faults: &[Refuse, Reset, Swallow, Deaf],
        laws: &[Law::Belief],
        why: "what a member holds ends with its connection, and both sides hear of that in no order",
    },
    Concession {
        backend: "postgres",
        faults: GONE,
        laws: &[Law::Belief],
        why: "a restart frees all locks, and is told to all at once, in no order",
    },
    Concession {
        backend: "postgres",
        faults: &[Refuse, Reset, Swallow, Deaf],
        laws: &[Law::Belief],
        why: "what a member holds ends with its connection, and both sides hear of that in no order",
    },
];

/// The laws that this backend gives up where these faults come.
pub(crate) fn given_up(backend: &Backend, faults: &[FaultKind]) -> Vec<Law> {
    let of_it = CONCESSIONS.iter().filter(|one| one.backend == backend.name);
    let happen = of_it.filter(|one| one.faults.iter().any(|fault| faults.contains(fault)));
    let mut laws: Vec<Law> = happen.flat_map(|one| one.laws).copied().collect();
    laws.sort_unstable();
    laws.dedup();
    laws
}

/// The table of all pairs, as Markdown.
pub(crate) fn table() -> String {
    let mut text = String::from("| fault | what it is |");
    for backend in BACKENDS {
        let _ = write!(text, " {} |", backend.name);
    }
    let _ = writeln!(text, "\n|---|---|{}", ":-:|".repeat(BACKENDS.len()));
    for fault in FaultKind::ALL {
        let _ = write!(text, "| `{}` | {} |", fault.name(), fault.sentence());
        for backend in BACKENDS {
            let laws: Vec<_> = given_up(backend, &[*fault]).iter().map(|law| format!("−{law}")).collect();
            let is_of_clusters = backend.clustered().is_ok_and(|clustered| fault.fits(clustered.ground));
            let cell = if fault.fits(backend.ground) || is_of_clusters { "✓".to_owned() } else { "·".to_owned() };
            let _ = write!(text, " {} |", if laws.is_empty() { cell } else { laws.join(" ") });
        }
        text.push('\n');
    }
    text.push('\n');
    for Concession { backend, faults, laws, why } in CONCESSIONS {
        let faults: Vec<_> = faults.iter().map(|fault| format!("`{}`", fault.name())).collect();
        let laws: Vec<_> = laws.iter().map(|law| law.name()).collect();
        let _ = writeln!(text, "- {backend}, {}: gives up {}, since {why}.", faults.join(" "), laws.join(" and "));
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
            let backend = Backend::named(one.backend).unwrap();
            assert!(one.faults.iter().all(|fault| fault.fits(backend.ground)), "{}", one.backend);
        }
    }
}
