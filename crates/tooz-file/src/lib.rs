#![doc = include_str!("../README.md")]

use tooz_core::driver::{ConnectArgs, ConnectFuture, OptionSpec, OptionValue};
use tooz_core::{Characteristic, Characteristics, Driver};

#[cfg(any(target_os = "linux", target_os = "android"))]
mod access;
#[cfg(any(target_os = "linux", target_os = "android"))]
mod alive;
#[cfg(any(target_os = "linux", target_os = "android"))]
mod checkup;
#[cfg(any(target_os = "linux", target_os = "android"))]
mod echo;
#[cfg(any(target_os = "linux", target_os = "android"))]
mod error;
#[cfg(any(target_os = "linux", target_os = "android"))]
mod glance;
#[cfg(any(target_os = "linux", target_os = "android"))]
mod group;
#[cfg(any(target_os = "linux", target_os = "android"))]
mod group_folder;
#[cfg(any(target_os = "linux", target_os = "android"))]
mod layout;
#[cfg(any(target_os = "linux", target_os = "android"))]
mod line;
#[cfg(any(target_os = "linux", target_os = "android"))]
mod lock;
#[cfg(any(target_os = "linux", target_os = "android"))]
mod lock_file;
#[cfg(any(target_os = "linux", target_os = "android"))]
mod member_record;
#[cfg(any(target_os = "linux", target_os = "android"))]
mod memberships;
#[cfg(any(target_os = "linux", target_os = "android"))]
mod ofd;
#[cfg(any(target_os = "linux", target_os = "android"))]
mod options;
#[cfg(any(target_os = "linux", target_os = "android"))]
mod record;
#[cfg(any(target_os = "linux", target_os = "android"))]
mod roster;
#[cfg(any(target_os = "linux", target_os = "android"))]
mod session;
#[cfg(any(target_os = "linux", target_os = "android"))]
mod sweep;
#[cfg(any(target_os = "linux", target_os = "android"))]
mod unfinished;
#[cfg(any(target_os = "linux", target_os = "android"))]
mod version;
#[cfg(any(target_os = "linux", target_os = "android"))]
mod wait;
#[cfg(any(target_os = "linux", target_os = "android"))]
mod watch;

/// The card of this driver.
pub const DRIVER: Driver = Driver::new("file", &["file"], connect)
    .about("locks and groups between the processes of one host, kept in a folder")
    .url("file:///FOLDER, or file: for the user's state folder")
    .options(OPTIONS)
    .characteristics(BEST);

tooz_core::register!(DRIVER);

const OPTIONS: &[OptionSpec] = &[OptionSpec::new(
    "inotify",
    OptionValue::Boolean,
    "true, but never on a network file system",
    "let the kernel tell changes of groups and leaders; false: look for them",
)];

/// What a folder on a local file system gives. Each is defended in the README.
const BEST: Characteristics = Characteristics::FULL_SERVICE
    .and(Characteristics::ONE_HOST)
    .and(Characteristics::LINEARIZABLE)
    .and(Characteristics::SAME_VIEW)
    .with(Characteristic::NonTimeoutBased)
    .without(Characteristic::BreakableLocks);

#[cfg(any(target_os = "linux", target_os = "android"))]
fn connect(args: ConnectArgs) -> ConnectFuture {
    Box::pin(async move { session::connect(&args) })
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn connect(_args: ConnectArgs) -> ConnectFuture {
    Box::pin(async {
        Err(tooz_core::Error::new(
            tooz_core::ErrorKind::Unsupported,
            "this driver needs the open file description locks of Linux; on this system use ipc: or a server",
        ))
    })
}
