//! Pages to read: which backend to choose, how common things are done, what can be measured. There is no code here.
//!
//! What happens to a holder that is cut off from its backend:
//!
#![doc = include_str!("../docs/loss.svg")]

#[doc = include_str!("../docs/choosing.md")]
pub mod choosing {}

#[doc = include_str!("../docs/cookbook.md")]
pub mod cookbook {}

#[doc = include_str!("../docs/metrics.md")]
pub mod metrics {}
