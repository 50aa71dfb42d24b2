//! Pages to read: which backend to choose, how common things are done, what can be measured. There is no code here.

#[doc = include_str!("../docs/choosing.md")]
pub mod choosing {}

#[doc = include_str!("../docs/cookbook.md")]
pub mod cookbook {}

#[doc = include_str!("../docs/metrics.md")]
pub mod metrics {}
