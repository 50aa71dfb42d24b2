//! Where events go: whole lines, without waiting for a reader that is too slow.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::time::{Duration, Instant, SystemTime};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::stamp;

/// A pipe that has room at all has room for so many bytes; a longer piece could wait for the reader in its middle.
const AT_ONCE: usize = 4096;

/// How often is looked at the end whether a full pipe has room again.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// A descriptor, and what it had no room for.
pub(super) struct EventSink {
    file: File,
    /// What is not written yet of a line whose beginning was.
    rest: Vec<u8>,
    /// How many events were not written.
    missed: u64,
    has_complained: bool,
}

impl EventSink {
    pub(super) fn new(file: File) -> Self {
        EventSink { file, rest: Vec::new(), missed: 0, has_complained: false }
    }

    /// Writes a line. A reader that is too slow for a full pipe is told later how many it missed. Answers, once, why nothing can be
    /// written; a reader that went away is no reason.
    pub(super) fn write(&mut self, event: &str) -> Option<io::Error> {
        let written = self.push_behind_the_rest(event);
        if !matches!(written, Ok(true)) {
            self.missed += 1;
        }
        let is_gone =
            |error: &io::Error| matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset);
        let error = written.err().filter(|error| !is_gone(error) && !self.has_complained);
        self.has_complained |= error.is_some();
        error
    }

    /// Gives a slow reader some time to read the last line to its end, and how many it missed.
    pub(super) fn finish(&mut self, patience: Duration) {
        let begin = Instant::now();
        while matches!(self.push_what_is_late(), Ok(false)) && begin.elapsed() < patience {
            std::thread::sleep(LOOK_AGAIN);
        }
    }

    fn push_behind_the_rest(&mut self, event: &str) -> io::Result<bool> {
        Ok(self.push_what_is_late()? && self.push(event)?)
    }

    /// The rest of a line, and how many events there was no room for.
    fn push_what_is_late(&mut self) -> io::Result<bool> {
        if !self.push_rest()? {
            return Ok(false);
        }
        if self.missed > 0 {
            let (count, at) = (self.missed, stamp::utc(SystemTime::now()));
            if !self.push(&format!("{{\"event\":\"missed\",\"count\":{count},\"at\":\"{at}\"}}"))? {
                return Ok(false);
            }
            self.missed = 0;
        }
        Ok(self.rest.is_empty())
    }

    /// False: nothing of it was written. What is begun is written to its end before anything else.
    fn push(&mut self, line: &str) -> io::Result<bool> {
        self.rest = format!("{line}\n").into_bytes();
        let length = self.rest.len();
        let pushed = self.push_rest();
        if self.rest.len() < length {
            return Ok(true);
        }
        self.rest.clear();
        pushed
    }

    /// False: there is no room for all of it just now.
    fn push_rest(&mut self) -> io::Result<bool> {
        while !self.rest.is_empty() {
            // The descriptor is the caller's, too, who may not want it to be one that never blocks.
            let mut watched = [PollFd::new(self.file.as_fd(), PollFlags::POLLOUT)];
            if !matches!(poll(&mut watched, PollTimeout::ZERO), Ok(1..)) {
                return Ok(false);
            }
            match self.file.write(&self.rest[..self.rest.len().min(AT_ONCE)]) {
                Ok(0) => return Ok(false),
                Ok(written) => drop(self.rest.drain(..written)),
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                    return Ok(false);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::fd::OwnedFd;

    use super::*;

    fn lines(text: &str) -> Vec<serde_json::Value> {
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[test]
    fn a_reader_that_was_too_slow_is_told_how_much_it_missed_and_reads_whole_lines() {
        // No part of a pipe's size; longer than what is written in one piece, too.
        for length in [3_000, 9_000] {
            let (mut reader, writer) = io::pipe().unwrap();
            let mut sink = EventSink::new(File::from(OwnedFd::from(writer)));
            let event = format!("{{\"event\":\"{}\"}}", "x".repeat(length));
            let mut count = 0;
            while sink.missed == 0 {
                assert!(sink.write(&event).is_none());
                count += 1;
            }
            sink.write(&event);
            let mut bytes = vec![0; 1 << 20];
            let mut read = reader.read(&mut bytes).unwrap();
            sink.write("{\"event\":\"last\"}");
            drop(sink);
            while let Ok(more @ 1..) = reader.read(&mut bytes[read..]) {
                read += more;
            }
            let lines = lines(std::str::from_utf8(&bytes[..read]).unwrap());
            let [.., missed, last] = lines.as_slice() else { panic!("{lines:?}") };
            assert_eq!((&missed["event"], &last["event"]), (&"missed".into(), &"last".into()));
            assert_eq!(missed["count"].as_u64().unwrap() + lines.len() as u64 - 2, count + 1);
        }
    }

    #[test]
    fn the_last_line_is_written_to_its_end() {
        let (mut reader, writer) = io::pipe().unwrap();
        let mut sink = EventSink::new(File::from(OwnedFd::from(writer)));
        let event = format!("{{\"event\":\"{}\"}}", "x".repeat(9_000));
        while sink.rest.is_empty() {
            sink.write(&event);
        }
        let reading = std::thread::spawn(move || {
            let mut text = String::new();
            reader.read_to_string(&mut text).map(|_| text)
        });
        sink.finish(Duration::from_mins(1));
        drop(sink);
        assert!(!lines(&reading.join().unwrap().unwrap()).is_empty());
    }

    #[test]
    fn what_can_not_be_written_to_is_told_once_and_a_reader_that_went_away_is_not() {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let mut sink = EventSink::new(full);
        assert_eq!(sink.write("{}").unwrap().kind(), io::ErrorKind::StorageFull);
        assert!(sink.write("{}").is_none());
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        assert!(EventSink::new(File::from(OwnedFd::from(writer))).write("{}").is_none());
    }
}
