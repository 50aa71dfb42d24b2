#![doc = include_str!("../README.md")]

use tooz_core::Driver;
use tooz_core::driver::{ConnectArgs, ConnectFuture, OptionSpec, OptionValue};

#[cfg(target_os = "linux")]
mod access;
#[cfg(target_os = "linux")]
mod arena;
#[cfg(target_os = "linux")]
mod byte_lock;
mod characteristics;
#[cfg(target_os = "linux")]
mod checkup;
#[cfg(target_os = "linux")]
mod critical;
#[cfg(target_os = "linux")]
mod deaths;
#[cfg(target_os = "linux")]
mod dispatch;
#[cfg(target_os = "linux")]
mod doorbell;
#[cfg(target_os = "linux")]
mod error;
#[cfg(target_os = "linux")]
mod group;
#[cfg(target_os = "linux")]
mod holdings;
#[cfg(target_os = "linux")]
mod index;
#[cfg(target_os = "linux")]
mod layout;
#[cfg(target_os = "linux")]
mod list;
#[cfg(target_os = "linux")]
mod listening;
#[cfg(target_os = "linux")]
mod living;
#[cfg(target_os = "linux")]
mod lock;
#[cfg(target_os = "linux")]
mod namespace_folder;
#[cfg(target_os = "linux")]
mod options;
#[cfg(target_os = "linux")]
mod owner;
#[cfg(target_os = "linux")]
mod process;
#[cfg(target_os = "linux")]
mod queue;
#[cfg(target_os = "linux")]
mod region;
#[cfg(target_os = "linux")]
mod roster;
#[cfg(target_os = "linux")]
mod session;
#[cfg(target_os = "linux")]
mod slots;
#[cfg(target_os = "linux")]
mod table;
#[cfg(target_os = "linux")]
mod verify;
#[cfg(target_os = "linux")]
mod watch;

/// The card of this driver.
pub const DRIVER: Driver = Driver::new("ipc", &["ipc"], connect)
    .about("locks and groups between the processes of one host, kept in shared memory")
    .url("ipc://NAME")
    .options(OPTIONS)
    .characteristics(characteristics::BEST);

tooz_core::register!(DRIVER);

const OPTIONS: &[OptionSpec] = &[
    OptionSpec::new(
        "size",
        OptionValue::Integer,
        "8",
        "MiB of shared memory for a namespace, where its table is to be made",
    ),
    OptionSpec::new(
        "mode",
        OptionValue::Text,
        "600, with a group 660",
        "who may use it: 600 this user alone, 660 the members of a group of the system, 666 all users of this host",
    ),
    OptionSpec::new(
        "group",
        OptionValue::Text,
        "none",
        "the group of the system whose members may use it, by name or number",
    ),
];

#[cfg(target_os = "linux")]
fn connect(args: ConnectArgs) -> ConnectFuture {
    Box::pin(async move {
        let session = session::IpcSession::connect(&args)?;
        Ok(std::sync::Arc::new(session) as std::sync::Arc<dyn tooz_core::driver::Session>)
    })
}

#[cfg(not(target_os = "linux"))]
fn connect(_args: ConnectArgs) -> ConnectFuture {
    Box::pin(async {
        Err(tooz_core::Error::new(
            tooz_core::ErrorKind::Unsupported,
            "this driver needs the open file description locks and the /dev/shm of Linux; on this system use a server",
        ))
    })
}
