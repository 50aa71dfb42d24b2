//! What the tests of this package share: other processes of their own.

pub mod process;
