//! Where events go: whole lines, without waiting for a reader that is too slow.

use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::time::SystemTime;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::stamp;

/// A descriptor, and what it had no room for.
pub(super) struct EventSink {
    file: File,
    /// The end of a line whose beginning was written.
    rest: Vec<u8>,
    /// How many events were not written.
    missed: u64,
}

impl EventSink {
    pub(super) fn new(file: File) -> Self {
        EventSink { file, rest: Vec::new(), missed: 0 }
    }

    /// Writes a line. A reader that is too slow for a full pipe is told later how many it missed.
    pub(super) fn write(&mut self, event: &str) {
        let rest = std::mem::take(&mut self.rest);
        if !rest.is_empty() && !self.push(rest.clone()) {
            self.rest = rest;
        }
        if !self.rest.is_empty() {
            self.missed += 1;
            return;
        }
        if self.missed > 0 {
            let (count, at) = (self.missed, stamp::utc(SystemTime::now()));
            if self.push(format!("{{\"event\":\"missed\",\"count\":{count},\"at\":\"{at}\"}}\n").into()) {
                self.missed = 0;
            }
        }
        if self.missed > 0 || !self.push(format!("{event}\n").into()) {
            self.missed += 1;
        }
    }

    /// False: nothing of it was written.
    fn push(&mut self, mut line: Vec<u8>) -> bool {
        // The descriptor is the caller's, too, who may not want it to be one that never blocks.
        let mut watched = [PollFd::new(self.file.as_fd(), PollFlags::POLLOUT)];
        if !matches!(poll(&mut watched, PollTimeout::ZERO), Ok(1..)) {
            return false;
        }
        match self.file.write(&line) {
            Ok(written) => {
                line.drain(..written);
                self.rest = line;
                written > 0
            }
            Err(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::fd::OwnedFd;

    use super::*;

    #[test]
    fn a_reader_that_was_too_slow_is_told_how_much_it_missed_and_reads_whole_lines() {
        let (mut reader, writer) = std::io::pipe().unwrap();
        let mut sink = EventSink::new(File::from(OwnedFd::from(writer)));
        // No part of a pipe's size, and not longer than what is written in one piece.
        let event = format!("{{\"event\":\"{}\"}}", "x".repeat(3_000));
        let mut count = 0;
        while sink.missed == 0 {
            sink.write(&event);
            count += 1;
        }
        sink.write(&event);
        let mut bytes = vec![0; 1 << 20];
        let mut length = reader.read(&mut bytes).unwrap();
        sink.write("{\"event\":\"last\"}");
        drop(sink);
        while let Ok(more @ 1..) = reader.read(&mut bytes[length..]) {
            length += more;
        }
        let text = String::from_utf8(bytes[..length].to_vec()).unwrap();
        let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let [.., missed, last] = lines.as_slice() else { panic!("{text}") };
        assert_eq!((&missed["event"], &last["event"]), (&"missed".into(), &"last".into()));
        assert_eq!(missed["count"].as_u64().unwrap() + lines.len() as u64 - 2, count + 1);
    }
}
