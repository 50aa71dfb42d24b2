//! How is spoken: whether to people at all, in sentences or as JSON, and where events go. The guard and the last step before CMD speak in the
//! same manner, of which they are told in one word.

use std::fs::File;
use std::os::fd::RawFd;

use super::descriptor;

/// The descriptors that every program has: they are for others, too.
const STANDARD: RawFd = 2;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Manner {
    /// Nothing but errors for people.
    pub(crate) quiet: bool,
    /// JSON on stderr in place of sentences.
    pub(crate) json: bool,
    /// The descriptor that gets all events.
    pub(crate) events: Option<RawFd>,
    /// Whether this is `tooz` itself. What it starts has the same descriptor, and need not complain of it once more.
    pub(crate) is_first: bool,
}

/// Why a descriptor can't take events.
#[derive(Debug)]
pub(crate) struct EventsError(pub(crate) String);

impl Manner {
    /// As a word of a command line.
    pub(crate) fn word(self) -> String {
        let flag = |is: bool, letter| if is { letter } else { "." };
        let events = self.events.map(|descriptor| descriptor.to_string()).unwrap_or_default();
        format!("{}{}{events}", flag(self.quiet, "q"), flag(self.json, "j"))
    }

    pub(crate) fn parse(word: &str) -> Option<Self> {
        let (flags, events) = word.split_at_checked(2)?;
        let events = if events.is_empty() { None } else { Some(events.parse().ok()?) };
        Some(Manner { quiet: flags.starts_with('q'), json: flags.ends_with('j'), events, is_first: false })
    }

    /// A way of one's own to the caller's descriptor.
    pub(super) fn open_events(self) -> Result<Option<File>, EventsError> {
        let Some(descriptor) = self.events else { return Ok(None) };
        descriptor::duplicate(descriptor).map(Some).map_err(|why| {
            EventsError(format!(
                "descriptor {descriptor} can't take events: {why}; give one that is open for writing, as in --events-fd 3 3>events.jsonl"
            ))
        })
    }

    /// Closes the caller's descriptor in a process whose children are not to have it.
    pub(crate) fn close_callers_events(self) {
        if let Some(descriptor) = self.events.filter(|descriptor| *descriptor > STANDARD) {
            let _ = nix::unistd::close(descriptor);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manner_is_read_as_it_was_written() {
        for quiet in [false, true] {
            for json in [false, true] {
                for events in [None, Some(3), Some(17)] {
                    let manner = Manner { quiet, json, events, is_first: false };
                    assert_eq!(Manner::parse(&manner.word()), Some(manner));
                }
            }
        }
        assert_eq!(Manner::parse("q"), None);
        assert_eq!(Manner::parse("qjx"), None);
    }
}
