//! What the guard hears: the frames of its `tooz` and the ends of its children, without a thread of their own, so that all that was said is
//! known before the clock is judged, also when the guard itself stood still meanwhile.

use std::io::{ErrorKind, Read};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::protocol::{Frame, LENGTH};

/// The longest wait where the kernel has no descriptor that tells of children.
#[cfg(not(target_os = "linux"))]
const WITHOUT_TELLER: Duration = Duration::from_millis(10);

pub(super) struct Ears<'a> {
    stream: &'a UnixStream,
    /// The beginning of a frame whose end has not come yet.
    begun: Vec<u8>,
    /// Whether `tooz` has gone, or says what is not understood: both are the end of it.
    gone: bool,
    #[cfg(target_os = "linux")]
    children: nix::sys::signalfd::SignalFd,
}

impl<'a> Ears<'a> {
    /// From here on the stream does not block. SIGCHLD has to be blocked in this process.
    pub(super) fn open(stream: &'a UnixStream) -> std::io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Ears {
            stream,
            begun: Vec::new(),
            gone: false,
            #[cfg(target_os = "linux")]
            children: {
                use nix::sys::signal::{SigSet, Signal};
                use nix::sys::signalfd::{SfdFlags, SignalFd};
                let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
                SignalFd::with_flags(&SigSet::from(Signal::SIGCHLD), flags)?
            },
        })
    }

    /// All frames that have come and were not heard yet.
    pub(super) fn frames(&mut self) -> Vec<Frame> {
        let mut bytes = [0; 64 * LENGTH];
        while !self.gone {
            match (&mut &*self.stream).read(&mut bytes) {
                Ok(0) => self.gone = true,
                Ok(length) => self.begun.extend_from_slice(&bytes[..length]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => self.gone = true,
            }
        }
        let whole = self.begun.len() / LENGTH * LENGTH;
        let mut frames = Vec::new();
        for frame in self.begun[..whole].chunks_exact(LENGTH) {
            let decoded = <[u8; LENGTH]>::try_from(frame).ok().and_then(|bytes| Frame::decode(bytes).ok());
            let Some(frame) = decoded else {
                self.gone = true;
                break;
            };
            frames.push(frame);
        }
        self.begun.drain(..whole);
        frames
    }

    /// Whether nothing will come any more.
    pub(super) fn is_deaf(&self) -> bool {
        self.gone
    }

    /// Waits until something comes or a child changes, at most so long.
    pub(super) fn wait(&self, patience: Duration) {
        #[cfg(not(target_os = "linux"))]
        let patience = patience.min(WITHOUT_TELLER);
        let mut watched = Vec::new();
        // The end of a stream is there for ever.
        if !self.gone {
            watched.push(PollFd::new(self.stream.as_fd(), PollFlags::POLLIN));
        }
        #[cfg(target_os = "linux")]
        watched.push(PollFd::new(self.children.as_fd(), PollFlags::POLLIN));
        // Rounded up: what is rounded down comes back too early, again and again.
        let millis = patience.as_nanos().div_ceil(1_000_000);
        let timeout = i32::try_from(millis).ok().and_then(|millis| PollTimeout::try_from(millis).ok());
        // Its answer is found out by a look, also after an error.
        let _ = poll(&mut watched, timeout.unwrap_or(PollTimeout::MAX));
        #[cfg(target_os = "linux")]
        while matches!(self.children.read_signal(), Ok(Some(_))) {}
    }
}
