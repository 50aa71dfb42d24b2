//! A toy driver that fails, panics, hangs, answers late or twice in every method, and what core makes of it: nothing hangs, nothing
//! that stood ends in silence, nothing is left at the backend, and the backend is not stormed.

mod answers;
mod callers;
mod cases;
mod closing;
mod crowds;
mod driver;
mod hangs;
mod leaving;
mod life;
mod lines;
mod panics;
mod reports;
mod secrets;
mod silence;
mod stage;
mod storms;
mod terms;
mod told;
mod waits;
mod watches;
