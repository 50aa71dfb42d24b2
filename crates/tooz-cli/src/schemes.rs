//! The drivers that this command was built without: which feature links the one that answers a scheme.

use crate::failure::CommandFailure;

/// Each feature of this package that is a driver, and the schemes that it answers.
const KNOWN: [(&str, &[&str]); 10] = [
    ("consul", &["consul", "consul+https"]),
    ("etcd", &["etcd", "etcd+https", "etcd3+http", "etcd3+https"]),
    ("file", &["file"]),
    ("ipc", &["ipc"]),
    ("memcached", &["memcached", "memcached+tls", "memcached+unix"]),
    ("memory", &["memory", "zake"]),
    ("mysql", &["mysql", "mariadb"]),
    ("postgres", &["postgres", "postgresql"]),
    ("redis", &["redis", "rediss", "redis+unix"]),
    ("zookeeper", &["zookeeper", "kazoo", "zookeeper+tls", "kazoo+tls"]),
];

/// Where this package is, for the words that say how to build it.
const INSTALL: &str = "cargo install --path crates/tooz-cli --features";

/// Refuses a URL whose scheme no linked driver answers, and says what to build. A URL without a scheme is refused elsewhere.
pub(crate) fn check(url: &str) -> Result<(), CommandFailure> {
    let Some((scheme, _)) = url.split_once(':').filter(|(scheme, _)| is_scheme(scheme)) else { return Ok(()) };
    let linked = tooz::drivers();
    if linked.iter().any(|driver| driver.schemes().contains(&scheme)) {
        return Ok(());
    }
    Err(CommandFailure::usage(advice(scheme)))
}

/// What needs a driver that is not linked.
#[cfg(not(all(feature = "postgres", feature = "mysql")))]
pub(crate) fn not_built(driver: &str) -> CommandFailure {
    CommandFailure::usage(without(driver))
}

fn without(driver: &str) -> String {
    format!("this tooz was built without the driver {driver}; {INSTALL} {driver} builds one with it")
}

fn advice(scheme: &str) -> String {
    if let Some((feature, _)) = KNOWN.iter().find(|(_, schemes)| schemes.contains(&scheme)) {
        return without(feature);
    }
    let drivers = tooz::drivers();
    let linked: Vec<_> = drivers.iter().flat_map(|driver| driver.schemes()).copied().collect();
    let others: Vec<_> = KNOWN
        .iter()
        .map(|(feature, _)| *feature)
        .filter(|one| !drivers.iter().any(|driver| driver.name() == *one))
        .collect();
    let unknown = format!("no driver answers the scheme {scheme:?}; this tooz answers {}", linked.join(", "));
    if others.is_empty() {
        return unknown;
    }
    format!("{unknown}; {INSTALL} full builds one with {}, too", others.join(", "))
}

/// As RFC 3986 has it: anything else may be a part of a secret, and is not repeated.
fn is_scheme(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphabetic())
        && text.chars().all(|one| one.is_ascii_alphanumeric() || "+-.".contains(one))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_linked_driver_is_known_with_its_schemes() {
        for driver in tooz::drivers() {
            let known = KNOWN.iter().find(|(name, _)| *name == driver.name());
            assert_eq!(known.map(|(_, schemes)| *schemes), Some(driver.schemes()), "{}", driver.name());
        }
        #[cfg(feature = "full")]
        assert_eq!(tooz::drivers().len(), KNOWN.len());
    }

    #[test]
    fn what_no_driver_answers_is_advised_only_what_there_is() {
        let unknown = advice("fiel");
        assert!(unknown.contains("\"fiel\"") && !unknown.contains("features fiel"), "{unknown}");
        assert!(advice("rediss").ends_with("--features redis builds one with it"), "{}", advice("rediss"));
        assert!(!is_scheme("user:secret") && !is_scheme("1a") && is_scheme("etcd3+http"));
    }
}
