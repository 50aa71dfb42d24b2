//! The unit: the cheapest thing that the backend's own means can do.

use std::fs::File;
use std::os::fd::AsRawFd as _;

use anyhow::Result;
use nix::fcntl::{FcntlArg, fcntl};
use tooz::Probe;

use crate::backend::{Backend, Unit};
use crate::memory_floor::{MemoryFloor, MemoryPair};
use crate::progress::Progress;
use crate::report::Report;
use crate::stats::{SILENCE, Sample, with_warm_up};
use crate::target::Measure;

pub(crate) async fn measure(backend: &Backend, report: &mut Report, progress: &Progress) -> Result<()> {
    progress.step("the raw round trip");
    let rounds = report.rounds(5000);
    match backend.unit {
        Unit::Absolute => {}
        Unit::Fcntl => {
            let sample = fcntl_pairs(rounds)?;
            report.set_unit("one fcntl pair", sample.summary());
        }
        Unit::Memory => {
            let (memory, mut sample) = (MemoryPair::new().await?, Sample::new());
            for _ in 0..report.rounds(50_000) {
                sample.time(memory.pair()).await?;
            }
            report.set_unit("one pair of the memory driver", sample.summary());
            report.set_memory_floor(MemoryFloor::measure(report.rounds(500)).await?);
        }
        Unit::Read => {
            let sample = probe(backend, Probe::Read, rounds).await?;
            report.set_unit("raw round trip", sample.summary());
            let rare = rare_probe(backend, Probe::Read, report.rounds(500)).await?;
            report.rare_unit("the same, each after 10 ms of silence", rare.summary());
        }
        Unit::Write => {
            let writes = probe(backend, Probe::Write, rounds).await?;
            report.set_unit("one bare write", writes.summary());
            let rare = rare_probe(backend, Probe::Write, report.rounds(500)).await?;
            report.rare_unit("the same, each after 10 ms of silence", rare.summary());
            let reads = probe(backend, Probe::Read, rounds).await?;
            report.times(Measure::Write, "raw round trip", reads.summary(), None);
        }
    }
    Ok(())
}

async fn probe(backend: &Backend, probe: Probe, rounds: usize) -> Result<Sample> {
    let coordinator = backend.connect("raw", "raw").await?;
    let mut sample = Sample::after_warm_up(rounds);
    for _ in 0..with_warm_up(rounds) {
        sample.time(coordinator.probe(probe)).await?;
    }
    coordinator.close().await?;
    Ok(sample)
}

/// As often as a hand-over is measured: a processor that fell asleep, and a server that did, take their time to wake up.
async fn rare_probe(backend: &Backend, probe: Probe, rounds: usize) -> Result<Sample> {
    let coordinator = backend.connect("raw", "rare").await?;
    let mut sample = Sample::new();
    for _ in 0..rounds {
        tokio::time::sleep(SILENCE).await;
        sample.time(coordinator.probe(probe)).await?;
    }
    coordinator.close().await?;
    Ok(sample)
}

/// An open-file lock taken and given back, as the driver does it.
fn fcntl_pairs(rounds: usize) -> Result<Sample> {
    let file: File = tempfile::tempfile()?;
    let lock = |kind: i32| nix::libc::flock {
        l_type: i16::try_from(kind).unwrap_or_default(),
        l_whence: 0,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    let (take, give) = (lock(nix::libc::F_WRLCK), lock(nix::libc::F_UNLCK));
    let mut sample = Sample::new();
    debug_assert!(file.as_raw_fd() >= 0);
    for _ in 0..rounds {
        let begun = std::time::Instant::now();
        fcntl(&file, FcntlArg::F_OFD_SETLK(&take))?;
        fcntl(&file, FcntlArg::F_OFD_SETLK(&give))?;
        sample.add(begun.elapsed());
    }
    Ok(sample)
}
