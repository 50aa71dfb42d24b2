//! What the tests of this package share: other processes of their own, and the memory driver with a known bug.

pub mod mutant;
pub mod process;
