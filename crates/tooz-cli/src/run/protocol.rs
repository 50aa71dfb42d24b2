//! What `tooz` and its guard say to each other: frames of one size over a Unix socket.
//!
//! The socket is found by its address, not inherited: an inherited descriptor could only be taken up again with unsafe code, and
//! it would have to be kept from CMD by hand. Both ends check that the other is the process it should be.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;

use nix::sys::socket::{ControlMessage, MsgFlags, recvmsg, sendmsg};

use super::reason::Reason;

/// The moment that never comes: the kernel is the judge.
pub(super) const NEVER: u64 = u64::MAX;

/// How often to look whether the guard has ended before it came.
const BETWEEN_LOOKS: Duration = Duration::from_millis(10);

/// The kernel passes at most 253 descriptors in one message.
const DESCRIPTORS_AT_ONCE: usize = 200;

pub(super) const LENGTH: usize = 17;

/// One word. Moments are nanoseconds of [`now`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Frame {
    /// To the guard: keep the descriptors that come with it.
    Keep,
    /// To the guard: start CMD; SIGTERM it at the warning, SIGKILL it at the deadline.
    Start(Term),
    /// To the guard: the deadline has moved.
    Deadline(u64),
    /// To the guard: forward this signal to CMD's group.
    Signal(i32),
    /// To the guard: SIGTERM now, SIGKILL at that moment or when CMD itself has ended.
    Terminate(u64, Reason),
    /// To the guard: SIGKILL now.
    Kill(Reason),
    /// From the guard: CMD runs, in the group of this id.
    Started(i32),
    /// From the guard: CMD could not be started for want of resources, this errno.
    NotStarted(i32),
    /// From the guard: CMD was stopped by this signal.
    Stopped(i32),
    /// From the guard: it was said why CMD is ended.
    Said,
    /// From the guard, its last: CMD has ended.
    Ended(Ending),
}

/// Until when CMD may run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Term {
    /// From this moment on another may have what CMD runs under.
    pub(super) deadline: u64,
    /// So many nanoseconds before, CMD is told to end.
    pub(super) kill_after: u64,
}

impl Term {
    /// The moment at which CMD is told to end.
    pub(super) fn warning(self) -> u64 {
        if self.deadline == NEVER { NEVER } else { self.deadline.saturating_sub(self.kill_after) }
    }

    /// Whether CMD would be told to end at once.
    pub(super) fn is_nearly_over(self) -> bool {
        self.deadline != NEVER && self.warning() <= now()
    }

    /// Whether CMD must not run any more.
    pub(super) fn is_over(self) -> bool {
        self.deadline != NEVER && self.deadline <= now()
    }
}

/// How CMD ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ending {
    /// Why.
    pub(super) cause: Cause,
    /// Its exit code, or 128 + n for signal n.
    pub(super) code: u8,
}

/// The cause of the end of CMD.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// CMD itself, or another process that is no business of ours.
    Itself,
    /// The deadline was near or over.
    Deadline,
    /// `tooz` asked for it, or has died.
    Order,
}

impl Frame {
    fn encode(self) -> [u8; LENGTH] {
        let signed = |number: i32| u64::from(number.cast_unsigned());
        let (tag, first, second) = match self {
            Frame::Keep => (0, 0, 0),
            Frame::Start(Term { deadline, kill_after }) => (1, deadline, kill_after),
            Frame::Deadline(moment) => (2, moment, 0),
            Frame::Signal(signal) => (3, signed(signal), 0),
            Frame::Terminate(moment, reason) => (4, moment, reason.number()),
            Frame::Kill(reason) => (5, reason.number(), 0),
            Frame::Started(group) => (6, signed(group), 0),
            Frame::NotStarted(errno) => (7, signed(errno), 0),
            Frame::Stopped(signal) => (8, signed(signal), 0),
            Frame::Ended(Ending { cause, code }) => {
                let cause = match cause {
                    Cause::Itself => 0,
                    Cause::Deadline => 1,
                    Cause::Order => 2,
                };
                (9, cause, u64::from(code))
            }
            Frame::Said => (10, 0, 0),
        };
        let mut bytes = [tag; LENGTH];
        bytes[1..9].copy_from_slice(&first.to_le_bytes());
        bytes[9..].copy_from_slice(&second.to_le_bytes());
        bytes
    }

    pub(super) fn decode(bytes: [u8; LENGTH]) -> io::Result<Self> {
        let number = |at: usize| {
            let mut number = [0; 8];
            number.copy_from_slice(&bytes[at..at + 8]);
            u64::from_le_bytes(number)
        };
        let (first, second) = (number(1), number(9));
        let strange = || io::Error::new(io::ErrorKind::InvalidData, "a frame of unknown form");
        let signed = |number: u64| Ok::<_, io::Error>(u32::try_from(number).map_err(|_| strange())?.cast_signed());
        Ok(match bytes[0] {
            0 => Frame::Keep,
            1 => Frame::Start(Term { deadline: first, kill_after: second }),
            2 => Frame::Deadline(first),
            3 => Frame::Signal(signed(first)?),
            4 => Frame::Terminate(first, Reason::of_number(second)),
            5 => Frame::Kill(Reason::of_number(first)),
            6 => Frame::Started(signed(first)?),
            7 => Frame::NotStarted(signed(first)?),
            8 => Frame::Stopped(signed(first)?),
            9 => {
                let cause = match first {
                    0 => Cause::Itself,
                    1 => Cause::Deadline,
                    2 => Cause::Order,
                    _ => return Err(strange()),
                };
                Frame::Ended(Ending { cause, code: u8::try_from(second).map_err(|_| strange())? })
            }
            10 => Frame::Said,
            _ => return Err(strange()),
        })
    }
}

/// Nanoseconds of the clock that deadlines are judged by: it goes on while the machine sleeps.
pub(super) fn now() -> u64 {
    use nix::time::{ClockId, clock_gettime};
    #[cfg(target_os = "linux")]
    const CLOCK: ClockId = ClockId::CLOCK_BOOTTIME;
    #[cfg(not(target_os = "linux"))]
    const CLOCK: ClockId = ClockId::CLOCK_MONOTONIC;
    let time = clock_gettime(CLOCK).expect("the clock is part of every supported kernel");
    #[allow(clippy::cast_sign_loss, reason = "the clock counts from the machine's start on")]
    {
        time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64
    }
}

pub(super) fn send(mut stream: &UnixStream, frame: Frame) -> io::Result<()> {
    stream.write_all(&frame.encode())
}

/// The next frame; `None` at the end of the stream, however it came.
pub(super) fn receive(mut stream: &UnixStream) -> Option<Frame> {
    let mut bytes = [0; LENGTH];
    stream.read_exact(&mut bytes).ok()?;
    Frame::decode(bytes).ok()
}

/// Hands descriptors over; the other side calls [`receive_keeping`].
pub(super) fn send_descriptors(stream: &UnixStream, descriptors: &[OwnedFd]) -> io::Result<()> {
    for some in descriptors.chunks(DESCRIPTORS_AT_ONCE) {
        let raw: Vec<_> = some.iter().map(AsRawFd::as_raw_fd).collect();
        let sent = sendmsg::<()>(
            stream.as_raw_fd(),
            &[IoSlice::new(&Frame::Keep.encode())],
            &[ControlMessage::ScmRights(&raw)],
            MsgFlags::empty(),
            None,
        )?;
        if sent != LENGTH {
            return Err(io::Error::new(io::ErrorKind::WriteZero, "the guard took only a part of a frame"));
        }
    }
    Ok(())
}

/// The next frame, with whatever descriptors come with it. They stay open until this process ends, which is what they are for,
/// and are closed in every program that this process starts.
pub(super) fn receive_keeping(stream: &UnixStream) -> Option<Frame> {
    let mut bytes = [0; LENGTH];
    let mut space = nix::cmsg_space!([i32; DESCRIPTORS_AT_ONCE]);
    #[cfg(target_os = "linux")]
    let flags = MsgFlags::MSG_CMSG_CLOEXEC | MsgFlags::MSG_WAITALL;
    #[cfg(not(target_os = "linux"))]
    let flags = MsgFlags::MSG_WAITALL;
    let length = {
        let mut slices = [IoSliceMut::new(&mut bytes)];
        recvmsg::<()>(stream.as_raw_fd(), &mut slices, Some(&mut space), flags).ok()?.bytes
    };
    if length != LENGTH {
        return None;
    }
    Frame::decode(bytes).ok()
}

/// Where the guard finds the one that started it.
pub(super) struct Meeting {
    listener: UnixListener,
    address: String,
}

impl Meeting {
    /// A fresh address that can't be guessed.
    pub(super) fn open() -> io::Result<Self> {
        let address = format!("tooz-{}-{:016x}{:016x}", std::process::id(), fastrand::u64(..), fastrand::u64(..));
        let listener = UnixListener::bind_addr(&socket_address(&address)?)?;
        Ok(Meeting { listener, address })
    }

    /// What the guard is told.
    pub(super) fn address(&self) -> &str {
        &self.address
    }

    /// Waits for the process of that id, and for no other, but not for ever; `gone` says that it won't come any more.
    pub(super) async fn accept(
        &self,
        pid: u32,
        longest: Duration,
        mut gone: impl FnMut() -> bool,
    ) -> io::Result<UnixStream> {
        self.listener.set_nonblocking(true)?;
        let listener = tokio::net::UnixListener::from_std(self.listener.try_clone()?)?;
        let limit = tokio::time::sleep(longest);
        tokio::pin!(limit);
        loop {
            tokio::select! {
                accepted = listener.accept() => {
                    let stream = accepted?.0.into_std()?;
                    if is_peer(&stream, pid) {
                        stream.set_nonblocking(false)?;
                        return Ok(stream);
                    }
                }
                () = tokio::time::sleep(BETWEEN_LOOKS) => {
                    if gone() {
                        return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "it ended at once"));
                    }
                }
                () = &mut limit => {
                    let why = format!("it was not there after {longest:?}");
                    return Err(io::Error::new(io::ErrorKind::TimedOut, why));
                }
            }
        }
    }
}

/// Connects the guard to its parent.
pub(super) fn meet(address: &str, parent: u32) -> io::Result<UnixStream> {
    let stream = UnixStream::connect_addr(&socket_address(address)?)?;
    if !is_peer(&stream, parent) {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, "somebody else listens there"));
    }
    Ok(stream)
}

/// Linux has addresses without files: nothing has to be cleaned up.
#[cfg(target_os = "linux")]
fn socket_address(address: &str) -> io::Result<std::os::unix::net::SocketAddr> {
    use std::os::linux::net::SocketAddrExt;
    std::os::unix::net::SocketAddr::from_abstract_name(address)
}

#[cfg(not(target_os = "linux"))]
fn socket_address(address: &str) -> io::Result<std::os::unix::net::SocketAddr> {
    std::os::unix::net::SocketAddr::from_pathname(std::env::temp_dir().join(address))
}

#[cfg(target_os = "linux")]
fn is_peer(stream: &UnixStream, pid: u32) -> bool {
    use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
    getsockopt(stream, PeerCredentials).is_ok_and(|peer| u32::try_from(peer.pid()) == Ok(pid))
}

/// Elsewhere the address, which can't be guessed, has to be enough.
#[cfg(not(target_os = "linux"))]
fn is_peer(_stream: &UnixStream, _pid: u32) -> bool {
    true
}

#[cfg(not(target_os = "linux"))]
impl Drop for Meeting {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(std::env::temp_dir().join(&self.address));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_frame_comes_out_as_it_went_in() {
        let frames = [
            Frame::Keep,
            Frame::Start(Term { deadline: 5, kill_after: NEVER }),
            Frame::Deadline(NEVER),
            Frame::Signal(15),
            Frame::Terminate(7, Reason::Lost(tooz::LossReason::TakenOver)),
            Frame::Kill(Reason::NotHeld),
            Frame::Said,
            Frame::Started(i32::MAX),
            Frame::NotStarted(11),
            Frame::Stopped(20),
            Frame::Ended(Ending { cause: Cause::Deadline, code: 255 }),
        ];
        let (one, other) = UnixStream::pair().unwrap();
        for frame in frames {
            send(&one, frame).unwrap();
            assert_eq!(receive(&other), Some(frame));
        }
        drop(one);
        assert_eq!(receive(&other), None);
    }

    #[test]
    fn descriptors_arrive_with_their_frames() {
        let (one, other) = UnixStream::pair().unwrap();
        let (reader, writer) = io::pipe().unwrap();
        send_descriptors(&one, &[writer.into()]).unwrap();
        send(&one, Frame::Kill(Reason::NotHeld)).unwrap();
        assert_eq!(receive_keeping(&other), Some(Frame::Keep));
        assert_eq!(receive_keeping(&other), Some(Frame::Kill(Reason::NotHeld)));
        // The writer's duplicate lives on in this process, so the pipe has no end yet.
        nix::fcntl::fcntl(&reader, nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK)).unwrap();
        let error = (&reader).read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    }

    fn accept(longest: Duration, gone: impl FnMut() -> bool) -> io::ErrorKind {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let meeting = Meeting::open().unwrap();
            // A process comes, but not the one that is waited for.
            let _stranger = meet(meeting.address(), std::process::id()).unwrap();
            meeting.accept(1, longest, gone).await.unwrap_err().kind()
        })
    }

    #[test]
    fn a_wait_for_a_process_ends_with_it_or_in_time() {
        let mut looks = 0;
        let gone = || {
            looks += 1;
            looks == 3
        };
        assert_eq!(accept(Duration::from_mins(1), gone), io::ErrorKind::ConnectionAborted);
        assert_eq!(accept(Duration::from_millis(50), || false), io::ErrorKind::TimedOut);
    }
}
