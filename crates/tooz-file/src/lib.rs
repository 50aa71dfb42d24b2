#![doc = include_str!("../README.md")]

use tooz_core::Driver;
use tooz_core::driver::{ConnectArgs, ConnectFuture, OptionSpec, OptionValue};

#[cfg(any(target_os = "linux", target_os = "android"))]
mod access;
#[cfg(any(target_os = "linux", target_os = "android"))]
mod alive_file;
#[cfg(any(target_os = "linux", target_os = "android"))]
mod byte_lock;
mod characteristics;
#[cfg(any(target_os = "linux", target_os = "android"))]
mod checkup;
#[cfg(any(target_os = "linux", target_os = "android"))]
mod dispatch;
#[cfg(any(target_os = "linux", target_os = "android"))]
mod error;
#[cfg(any(target_os = "linux", target_os = "android"))]
mod file_system;
#[cfg(any(target_os = "linux", target_os = "android"))]
mod folder_stamp;
#[cfg(any(target_os = "linux", target_os = "android"))]
mod group;
#[cfg(any(target_os = "linux", target_os = "android"))]
mod group_folder;
#[cfg(any(target_os = "linux", target_os = "android"))]
mod holders;
#[cfg(any(target_os = "linux", target_os = "android"))]
mod holdings;
#[cfg(any(target_os = "linux", target_os = "android"))]
mod layout;
#[cfg(any(target_os = "linux", target_os = "android"))]
mod line;
#[cfg(any(target_os = "linux", target_os = "android"))]
mod lock;
#[cfg(any(target_os = "linux", target_os = "android"))]
mod lock_file;
#[cfg(any(target_os = "linux", target_os = "android"))]
mod namespace_folder;
#[cfg(any(target_os = "linux", target_os = "android"))]
mod open_file;
#[cfg(any(target_os = "linux", target_os = "android"))]
mod options;
#[cfg(any(target_os = "linux", target_os = "android"))]
mod recheck;
#[cfg(any(target_os = "linux", target_os = "android"))]
mod record;
#[cfg(any(target_os = "linux", target_os = "android"))]
mod session;
#[cfg(any(target_os = "linux", target_os = "android"))]
mod sweep;
#[cfg(any(target_os = "linux", target_os = "android"))]
mod unfinished;
#[cfg(any(target_os = "linux", target_os = "android"))]
mod upkeep;
#[cfg(any(target_os = "linux", target_os = "android"))]
mod version;
#[cfg(any(target_os = "linux", target_os = "android"))]
mod wait;
#[cfg(any(target_os = "linux", target_os = "android"))]
mod watched_group;

/// The card of this driver.
pub const DRIVER: Driver = Driver::new("file", &["file"], connect)
    .about("locks and groups between the processes of one host, kept in a folder")
    .url("file:///FOLDER, or file: for the user's state folder")
    .options(OPTIONS)
    .characteristics(characteristics::BEST);

tooz_core::register!(DRIVER);

const OPTIONS: &[OptionSpec] = &[OptionSpec::new(
    "inotify",
    OptionValue::Boolean,
    "true, but never on a network file system",
    "let the kernel tell changes of groups and leaders; false: look for them",
)];

#[cfg(any(target_os = "linux", target_os = "android"))]
fn connect(args: ConnectArgs) -> ConnectFuture {
    Box::pin(async move {
        let session = session::FileSession::connect(&args)?;
        Ok(std::sync::Arc::new(session) as std::sync::Arc<dyn tooz_core::driver::Session>)
    })
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
