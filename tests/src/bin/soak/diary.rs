//! What a soak has seen so far, in a file: a run that was ended goes on from there.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use crate::census::Census;
use crate::usage::Usage;

/// One look at everything.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Sample {
    /// Seconds since this process began.
    pub(crate) at: f64,
    pub(crate) operations: u64,
    pub(crate) own: Usage,
    pub(crate) server: Option<Usage>,
    pub(crate) stored: Census,
}

#[derive(Debug, Serialize, Deserialize)]
enum Line {
    /// A process began, with a server of its own.
    Life,
    Sample(Sample),
    /// The time was over.
    Ended,
}

/// The lives of a soak: the samples of each process that took part in it.
#[derive(Debug, Default)]
pub(crate) struct Diary {
    pub(crate) lives: Vec<Vec<Sample>>,
    is_ended: bool,
}

impl Diary {
    /// Reads what is there. A line that was cut off when the process was killed is the last one, and left out.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let mut diary = Diary::default();
        if !path.exists() {
            return Ok(diary);
        }
        let text = fs::read_to_string(path).with_context(|| format!("can't read {}", path.display()))?;
        for line in text.lines().map_while(|line| serde_json::from_str(line).ok()) {
            match line {
                Line::Life => diary.lives.push(Vec::new()),
                Line::Sample(sample) => diary.lives.last_mut().context("a sample without a life")?.push(sample),
                Line::Ended => diary.is_ended = true,
            }
        }
        Ok(diary)
    }

    /// For how many seconds it has been going on.
    pub(crate) fn seconds(&self) -> f64 {
        self.lives.iter().filter_map(|life| life.last()).map(|sample| sample.at).sum()
    }

    pub(crate) fn operations(&self) -> u64 {
        self.lives.iter().filter_map(|life| life.last()).map(|sample| sample.operations).sum()
    }

    /// Whether it came to its end, so that the next run is another one.
    pub(crate) fn is_ended(&self) -> bool {
        self.is_ended
    }
}

/// The file, to be gone on with.
pub(crate) struct Pen(File);

impl Pen {
    /// Begins a life, behind those of that diary.
    pub(crate) fn take(path: &Path, before: &Diary) -> Result<Pen> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        let why = || format!("can't write {}", path.display());
        // Written anew, so that a line that was cut off does not spoil those behind it.
        let mut pen = Pen(OpenOptions::new().create(true).truncate(true).write(true).open(path).with_context(why)?);
        for life in &before.lives {
            pen.write(&Line::Life)?;
            for sample in life {
                pen.sample(sample)?;
            }
        }
        pen.write(&Line::Life)?;
        Ok(pen)
    }

    pub(crate) fn sample(&mut self, sample: &Sample) -> Result<()> {
        self.write(&Line::Sample(sample.clone()))
    }

    pub(crate) fn end(&mut self) -> Result<()> {
        self.write(&Line::Ended)
    }

    fn write(&mut self, line: &Line) -> Result<()> {
        writeln!(self.0, "{}", serde_json::to_string(line)?)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(at: f64, operations: u64) -> Sample {
        Sample { at, operations, own: Usage::default(), server: None, stored: Census::new() }
    }

    #[test]
    fn a_run_goes_on_where_the_last_one_was_killed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/diary.jsonl");
        let mut pen = Pen::take(&path, &Diary::read(&path).unwrap()).unwrap();
        pen.sample(&sample(5.0, 10)).unwrap();
        pen.sample(&sample(10.0, 20)).unwrap();
        pen.0.write_all(b"{\"Sample\":{\"at\":15.").unwrap();
        let before = Diary::read(&path).unwrap();
        assert_eq!((before.seconds(), before.operations(), before.is_ended()), (10.0, 20, false));
        let mut pen = Pen::take(&path, &before).unwrap();
        pen.sample(&sample(3.0, 7)).unwrap();
        pen.end().unwrap();
        let whole = Diary::read(&path).unwrap();
        assert_eq!((whole.seconds(), whole.operations(), whole.is_ended()), (13.0, 27, true));
        assert_eq!(whole.lives.len(), 2);
    }
}
