//! Two fuzzers on the memory driver: one drops every future at any poll, one lets everything go wrong that a backend can do.
//!
//! Each runs for some seconds with another seed each time. `TOOZ_FUZZ_SECONDS=3600` runs them for longer, and `TOOZ_FUZZ_SEED=N` begins
//! with the seed that a failure has told: then the same decisions are taken again. What the threads make of them may differ, so a
//! failure may take some rounds to come back: with a seed, that one seed is used again and again.

mod cancel;
mod claims;
mod faults;
mod follow;
mod hand;
mod rounds;
