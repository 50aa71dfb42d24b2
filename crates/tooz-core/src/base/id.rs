//! Names that are valid by construction, and how they become keys and file names that can't escape or collide.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use sha2::{Digest, Sha256};

use crate::base::error::{Error, Result};

/// The longest name, in bytes of UTF-8.
const LONGEST: usize = 255;

macro_rules! names {
    ($($(#[$doc:meta])* $name:ident, $what:literal;)*) => {$(
        $(#[$doc])*
        ///
        /// Any non-empty UTF-8 of at most 255 bytes without control characters; drivers encode it so that it stays
        /// distinct from every other name and reaches no key or file outside the namespace.
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(std::sync::Arc<str>);

        impl $name {
            /// Takes a name.
            ///
            /// # Errors
            /// [`Config`](crate::ErrorKind::Config): it is empty, too long, or has a control character in it; the error says which.
            pub fn new(name: impl AsRef<str>) -> Result<Self> {
                check($what, name.as_ref())?;
                Ok($name(name.as_ref().into()))
            }

            /// The name as it was given.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, formatter)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = Error;
            fn from_str(name: &str) -> Result<Self> {
                Self::new(name)
            }
        }

        impl TryFrom<&str> for $name {
            type Error = Error;
            fn try_from(name: &str) -> Result<Self> {
                Self::new(name)
            }
        }

        impl TryFrom<String> for $name {
            type Error = Error;
            fn try_from(name: String) -> Result<Self> {
                Self::new(name)
            }
        }

        impl TryFrom<&String> for $name {
            type Error = Error;
            fn try_from(name: &String) -> Result<Self> {
                Self::new(name)
            }
        }

        impl From<&$name> for $name {
            fn from(name: &$name) -> Self {
                name.clone()
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let name = String::deserialize(deserializer)?;
                Self::new(name).map_err(serde::de::Error::custom)
            }
        }
    )*};
}

names! {
    /// The name of a lock.
    LockName, "lock name";
    /// The name of a group.
    GroupId, "group name";
    /// The name of a member, unique among the living members of a group.
    MemberId, "member id";
    /// The part of the backend that a fleet has for itself; names in two namespaces never meet.
    Namespace, "namespace";
}

fn check(what: &str, name: &str) -> Result<()> {
    if name.is_empty() {
        return Err(Error::config(format!("a {what} must not be empty")));
    }
    if name.len() > LONGEST {
        return Err(Error::config(format!(
            "a {what} has at most {LONGEST} bytes of UTF-8, this one has {}: {:.40}…",
            name.len(),
            name
        )));
    }
    if let Some(bad) = name.chars().find(|c| c.is_control()) {
        return Err(Error::config(format!(
            "a {what} must not have control characters, this one has {bad:?}: {name:?}"
        )));
    }
    Ok(())
}

/// Identifies one request of one session for ever: 64 random bits of the coordinator, and a count.
///
/// A repeated request carries the same id, so that a backend that did it already does not do it twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u128);

impl RequestId {
    /// Whether this request was made before that one, by the same coordinator.
    pub const fn is_before(self, other: RequestId) -> bool {
        self.coordinator() == other.coordinator() && self.0 < other.0
    }

    /// The upper half, which is the same in all requests of one coordinator.
    pub const fn coordinator(self) -> u64 {
        (self.0 >> 64) as u64
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:032x}", self.0)
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

impl FromStr for RequestId {
    type Err = Error;

    /// Reads what `Display` wrote: 32 hexadecimal digits.
    fn from_str(text: &str) -> Result<Self> {
        u128::from_str_radix(text, 16)
            .map(RequestId)
            .map_err(|_| Error::config(format!("{text:?} is no request id: 32 hexadecimal digits")))
    }
}

/// Turns any name into at most `limit` characters of `a-z 0-9 _ - . %` and, for a name that had to be cut, `~`.
///
/// Different names stay different, also where the store folds case (capital letters are escaped too), and no result
/// begins with a dot or a dash. A name that would be longer than `limit` keeps its beginning and ends in `~` and the SHA-256 of the
/// whole name; `~` stands in no other result, and the full name has to be stored beside it. `limit` is at least 80.
///
/// ```
/// assert_eq!(tooz_core::driver::encode_name("../x", 200), "%2e.%2fx");
/// assert_ne!(tooz_core::driver::encode_name("A", 200), tooz_core::driver::encode_name("a", 200));
/// ```
pub fn encode_name(name: &str, limit: usize) -> Cow<'_, str> {
    debug_assert!(limit >= 80, "there must be room for a hash");
    let keeps = |index: usize, byte: u8| match byte {
        b'a'..=b'z' | b'0'..=b'9' | b'_' => true,
        b'-' | b'.' => index > 0,
        _ => false,
    };
    if name.len() <= limit && name.bytes().enumerate().all(|(index, byte)| keeps(index, byte)) {
        return Cow::Borrowed(name);
    }
    let mut encoded = String::with_capacity(name.len() * 3);
    for (index, byte) in name.bytes().enumerate() {
        if keeps(index, byte) {
            encoded.push(char::from(byte));
        } else {
            push_hex(&mut encoded, "%", byte);
        }
    }
    if encoded.len() > limit {
        encoded.truncate(limit - 65);
        encoded.push('~');
        for byte in Sha256::digest(name.as_bytes()) {
            push_hex(&mut encoded, "", byte);
        }
    }
    Cow::Owned(encoded)
}

/// Reads what [`encode_name`] wrote. `None` for a name that was cut (its full form is stored beside it) and for anything else.
pub fn decode_name(encoded: &str) -> Option<String> {
    if encoded.contains('~') {
        return None;
    }
    let decoded = percent_encoding::percent_decode_str(encoded).decode_utf8().ok()?.into_owned();
    // Only the canonical form counts: a stray file `%61` is not the lock `a`.
    (encode_name(&decoded, usize::MAX) == encoded).then_some(decoded)
}

fn push_hex(text: &mut String, before: &str, byte: u8) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    text.push_str(before);
    text.push(char::from(DIGITS[usize::from(byte >> 4)]));
    text.push(char::from(DIGITS[usize::from(byte & 15)]));
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn bad_names_are_refused_with_the_reason() {
        for (name, reason) in [("", "empty"), ("a\0b", "control"), ("x\ny", "control")] {
            let error = LockName::new(name).unwrap_err();
            assert!(error.to_string().contains(reason), "{error}");
        }
        assert!(LockName::new("x".repeat(255)).is_ok());
        assert!(LockName::new("x".repeat(256)).unwrap_err().to_string().contains("255"));
    }

    #[test]
    fn nasty_names_stay_distinct_and_inside() {
        let mut nasty: Vec<String> =
            ["a/b", "..", ".", "a b", "Ä", "A", "a", "%2F", "%2f", "-x", "~", "a~b", "/", "a.b"]
                .map(String::from)
                .to_vec();
        nasty.push("x".repeat(255));
        nasty.push("Ä".repeat(127));
        nasty.push(format!("{}b", "Ä".repeat(126)));
        let mut seen = HashSet::new();
        for name in &nasty {
            let encoded = encode_name(name, 200).into_owned();
            assert!(encoded.len() <= 200, "{encoded}");
            assert!(!encoded.starts_with(['.', '-']), "{encoded}");
            assert!(!encoded.contains('/'), "{encoded}");
            assert_eq!(encoded, encoded.to_lowercase());
            if !encoded.contains('~') {
                assert_eq!(decode_name(&encoded).as_deref(), Some(name.as_str()));
            }
            assert!(seen.insert(encoded), "{name} collides");
        }
        assert_eq!(decode_name("%61"), None);
    }
}
