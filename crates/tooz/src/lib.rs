#![doc = include_str!("../README.md")]

pub use tooz_core::*;

#[cfg(feature = "file")]
pub use tooz_file as file;
#[cfg(feature = "memory")]
pub use tooz_memory as memory;
