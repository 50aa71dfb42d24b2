//! What a backend can do and what it promises, as a small set that is printed, tested and required.

use std::fmt;

macro_rules! characteristics {
    ($($(#[$doc:meta])* $name:ident = $bit:literal, $kind:ident;)*) => {
        /// One thing that a backend can do (a *capability*) or promises (a *quality*).
        ///
        /// An undeclared capability answers [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported). A declared quality
        /// is tested by the conformance suite, or cited from the backend's own documentation.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum Characteristic {
            $($(#[$doc])* $name,)*
        }

        impl Characteristic {
            /// Every characteristic there is, in the order of the table in the documentation.
            pub const ALL: &[Characteristic] = &[$(Characteristic::$name),*];

            /// The name as it stands in tables, errors and JSON.
            pub const fn name(self) -> &'static str {
                match self { $(Characteristic::$name => stringify!($name),)* }
            }

            /// Whether this is something that can be done, or something that is promised.
            pub const fn kind(self) -> CharacteristicKind {
                match self { $(Characteristic::$name => CharacteristicKind::$kind,)* }
            }

            const fn bit(self) -> u32 {
                match self { $(Characteristic::$name => 1 << $bit,)* }
            }
        }
    };
}

/// The two kinds of [`Characteristic`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CharacteristicKind {
    /// Undeclared means that the call answers `Unsupported`.
    Capability,
    /// Undeclared means that a program should not count on it.
    Quality,
}

characteristics! {
    /// Groups, and with them elections and partitioning.
    Groups = 0, Capability;
    /// Shared locks beside exclusive ones.
    SharedLocks = 1, Capability;
    /// A lock can be taken from its holder by force.
    BreakableLocks = 2, Capability;
    /// First come, first served between coordinators.
    FairLocks = 3, Quality;
    /// Changes of groups and leaders are told by the backend; no poll is needed for them.
    PushedWatches = 4, Quality;
    /// Tokens grow for as long as the backend keeps its data, whatever fails.
    DurableFencing = 5, Quality;
    /// A held lock outlives a restart of the server within the session timeout.
    HoldsAcrossRestart = 6, Quality;
    /// Coordination between the threads of one process.
    DistributedAcrossThreads = 7, Quality;
    /// Coordination between the processes of one host.
    DistributedAcrossProcesses = 8, Quality;
    /// Coordination between hosts.
    DistributedAcrossHosts = 9, Quality;
    /// What a member holds ends with its process, not by a timeout.
    NonTimeoutBased = 10, Quality;
    /// Operations take effect one at a time, in real-time order.
    Linearizable = 11, Quality;
    /// All clients see operations in one order that keeps each client's own order.
    Sequential = 12, Quality;
    /// Operations that cause one another are seen in that order.
    Causal = 13, Quality;
    /// Operations on several objects take effect as if one after another.
    Serializable = 14, Quality;
    /// Under a network partition, clients on both sides see the same state or an error.
    SameViewUnderPartitions = 15, Quality;
    /// All clients see the same state at the same time.
    SameViewAcrossClients = 16, Quality;
}

/// A set of [`Characteristic`]s.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Characteristics(u32);

impl Characteristics {
    /// The empty set.
    pub const NONE: Characteristics = Characteristics(0);

    /// The threads and processes of one host.
    pub const ONE_HOST: Characteristics =
        Self::of(&[Characteristic::DistributedAcrossThreads, Characteristic::DistributedAcrossProcesses]);

    /// The threads and processes of many hosts.
    pub const MANY_HOSTS: Characteristics = Self::ONE_HOST.with(Characteristic::DistributedAcrossHosts);

    /// One order for all, which may be behind what happens now.
    pub const SEQUENTIAL: Characteristics = Self::of(&[Characteristic::Sequential, Characteristic::Causal]);

    /// One order for all, in real time.
    pub const LINEARIZABLE: Characteristics = Self::SEQUENTIAL.with(Characteristic::Linearizable);

    /// All clients see the same, also when the network is cut.
    pub const SAME_VIEW: Characteristics =
        Self::of(&[Characteristic::SameViewUnderPartitions, Characteristic::SameViewAcrossClients]);

    /// All that tooz can do: groups, and locks of each kind that are shared, broken, fair, told of by pushes, and fenced for ever.
    pub const FULL_SERVICE: Characteristics = Self::of(&[
        Characteristic::Groups,
        Characteristic::SharedLocks,
        Characteristic::BreakableLocks,
        Characteristic::FairLocks,
        Characteristic::PushedWatches,
        Characteristic::DurableFencing,
    ]);

    /// The set of the given ones.
    pub const fn of(list: &[Characteristic]) -> Self {
        let mut bits = 0;
        let mut index = 0;
        while index < list.len() {
            bits |= list[index].bit();
            index += 1;
        }
        Characteristics(bits)
    }

    /// This set with one more.
    pub const fn with(self, one: Characteristic) -> Self {
        Characteristics(self.0 | one.bit())
    }

    /// This set with one less.
    pub const fn without(self, one: Characteristic) -> Self {
        Characteristics(self.0 & !one.bit())
    }

    /// This set and that one.
    pub const fn and(self, other: Characteristics) -> Self {
        Characteristics(self.0 | other.0)
    }

    /// This set without any of that one.
    pub const fn without_any(self, other: Characteristics) -> Self {
        Characteristics(self.0 & !other.0)
    }

    /// Whether `one` is in the set.
    pub const fn has(self, one: Characteristic) -> bool {
        self.0 & one.bit() != 0
    }

    /// What of `wanted` this set lacks.
    pub const fn missing(self, wanted: Characteristics) -> Characteristics {
        wanted.without_any(self)
    }

    /// Whether nothing is in the set.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The members of the set, in the order of [`Characteristic::ALL`].
    pub fn iter(self) -> impl Iterator<Item = Characteristic> {
        Characteristic::ALL.iter().copied().filter(move |one| self.has(*one))
    }
}

impl fmt::Display for Characteristic {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// The names, separated by commas.
impl fmt::Display for Characteristics {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, one) in self.iter().enumerate() {
            if index > 0 {
                formatter.write_str(", ")?;
            }
            formatter.write_str(one.name())?;
        }
        Ok(())
    }
}

impl fmt::Debug for Characteristics {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_set().entries(self.iter()).finish()
    }
}

impl FromIterator<Characteristic> for Characteristics {
    fn from_iter<T: IntoIterator<Item = Characteristic>>(list: T) -> Self {
        list.into_iter().fold(Self::NONE, Self::with)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_characteristic_has_a_bit_of_its_own() {
        let all: Characteristics = Characteristic::ALL.iter().copied().collect();
        assert_eq!(all.iter().count(), Characteristic::ALL.len());
    }

    #[test]
    fn what_is_missing_is_named() {
        let has = Characteristics::of(&[Characteristic::Groups]);
        let wanted = has.with(Characteristic::FairLocks);
        assert_eq!(has.missing(wanted).to_string(), "FairLocks");
    }
}
