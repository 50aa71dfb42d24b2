//! Which trials may run beside each other. Most wait far more than they compute; one that crowds takes the whole of a small machine, on which
//! all others would be late, and so it runs alone.
//!
//! A run of many programs does best to run first what runs beside others, of all of them, and then what runs alone: `TOOZ_TRIALS` says which of the
//! two a program has.
//!
//! Several test programs keep this among them when `TOOZ_TURNS` names a file: it is locked by all that run, or by the one that runs alone. As long as
//! one waits or runs that is to be alone, no others begin: so the machine is emptied once for all of these, and not for each. A list of how long each took, and whether alone, grows beside it, with `.log` at the end of its name.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::PathBuf;
use std::time::Instant;

use libtest_mimic::Trial;
use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

/// The variable that names the file.
const FILE: &str = "TOOZ_TURNS";

/// The variable that says which trials a program has: those `beside` others, or those that run `alone`. Without it, it has all.
const WHICH: &str = "TOOZ_TRIALS";

/// For the trials of one program, first come, first served. A trial that panicked has had its turn: this lock knows no poison.
static HERE: RwLock<()> = RwLock::const_new(());

/// Whom a trial bears beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beside {
    /// Any trial but those that run alone.
    Others,
    /// None.
    Nobody,
}

impl Beside {
    /// Of a trial of that name, where these are the ones that crowd.
    pub fn of(name: &str, crowds: &[&str]) -> Beside {
        if crowds.contains(&name) { Beside::Nobody } else { Beside::Others }
    }
}

/// The trials of a program, those that crowd behind all others: so these wait for the machine once. `TOOZ_TRIALS=beside` leaves those out, and
/// `TOOZ_TRIALS=alone` all others.
///
/// # Panics
/// When one of the names is no trial's, and when the variable says something else.
pub fn in_order(trials: Vec<Trial>, crowds: &[&str]) -> Vec<Trial> {
    chosen(trials, crowds, std::env::var(WHICH).ok().as_deref())
}

fn chosen(mut trials: Vec<Trial>, crowds: &[&str], which: Option<&str>) -> Vec<Trial> {
    for name in crowds {
        assert!(trials.iter().any(|trial| trial.name() == *name), "there is no trial {name}, which is said to crowd");
    }
    let crowds = |trial: &Trial| crowds.contains(&trial.name());
    match which {
        None => trials.sort_by_key(crowds),
        Some("beside") => trials.retain(|trial| !crowds(trial)),
        Some("alone") => trials.retain(crowds),
        Some(other) => panic!("{WHICH}={other} is none of: beside, alone"),
    }
    trials
}

/// A trial's turn. It ends with the drop.
#[must_use = "the turn ends at once"]
pub struct Turn {
    name: String,
    beside: Beside,
    begun: Instant,
    log: Option<PathBuf>,
    _here: Option<ProcessTurn>,
    _everywhere: Option<MachineTurn>,
}

#[allow(dead_code)]
enum ProcessTurn {
    Beside(RwLockReadGuard<'static, ()>),
    Alone(RwLockWriteGuard<'static, ()>),
}

/// Waits for the turn of the trial of that name, on this thread. Call it before the trial's runtime is made.
///
/// # Panics
/// On a thread of a runtime, and when the file that `TOOZ_TURNS` names can't be opened or locked.
pub fn take(name: &str, beside: Beside) -> Turn {
    let file = std::env::var_os(FILE);
    let everywhere = file.as_ref().map(|file| MachineTurn::take(file, beside));
    // Those of this program are kept apart by the file as well, where there is one.
    let here = file.is_none().then(|| match beside {
        Beside::Others => ProcessTurn::Beside(HERE.blocking_read()),
        Beside::Nobody => ProcessTurn::Alone(HERE.blocking_write()),
    });
    let log = file.map(|file| with_end(&file, ".log"));
    Turn { name: name.to_owned(), beside, begun: Instant::now(), log, _here: here, _everywhere: everywhere }
}

/// The turn among several programs. The locks go with their files.
struct MachineTurn {
    _turn: File,
    /// Of one that runs alone: the gate, which it keeps shut from when it begins to wait. It is shut for others, and not for those that are
    /// to run alone too.
    _gate: Option<File>,
}

impl MachineTurn {
    fn take(file: &OsString, beside: Beside) -> Self {
        let words = "TOOZ_TURNS names a file that can be written and locked";
        let open = |end: &str| {
            let path = with_end(file, end);
            OpenOptions::new().create(true).truncate(false).write(true).open(path).expect(words)
        };
        let (gate, turn) = (open(".gate"), open(""));
        match beside {
            Beside::Others => {
                // It passes the gate, which is open again behind it.
                gate.lock().expect(words);
                turn.lock_shared().expect(words);
                MachineTurn { _turn: turn, _gate: None }
            }
            Beside::Nobody => {
                gate.lock_shared().expect(words);
                turn.lock().expect(words);
                MachineTurn { _turn: turn, _gate: Some(gate) }
            }
        }
    }
}

fn with_end(file: &OsString, end: &str) -> PathBuf {
    let mut path = file.clone();
    path.push(end);
    path.into()
}

impl Drop for Turn {
    fn drop(&mut self) {
        let Some(log) = &self.log else { return };
        let how = if self.beside == Beside::Nobody { "alone" } else { "beside" };
        let line = format!("{}\t{how}\t{}\n", self.begun.elapsed().as_millis(), self.name);
        // The list says where the time goes; no trial fails for want of it.
        if let Ok(mut file) = OpenOptions::new().create(true).append(true).open(log) {
            let _ = file.write_all(line.as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;

    use super::*;

    #[test]
    fn a_trial_that_runs_alone_has_none_beside_it() {
        static RUNNING: AtomicUsize = AtomicUsize::new(0);
        let run = |beside| {
            let _turn = take("one", beside);
            let others = RUNNING.fetch_add(1, Ordering::SeqCst);
            thread::sleep(std::time::Duration::from_millis(5));
            RUNNING.fetch_sub(1, Ordering::SeqCst);
            assert!(beside == Beside::Others || others == 0, "{others} run beside it");
        };
        thread::scope(|scope| {
            for index in 0..12 {
                scope.spawn(move || run(if index % 3 == 0 { Beside::Nobody } else { Beside::Others }));
            }
        });
    }

    #[test]
    fn those_that_crowd_come_last() {
        let names = |which| {
            let trials = ["a", "b", "c"].map(|name| Trial::test(name, || Ok(()))).into();
            chosen(trials, &["a"], which).iter().map(|trial| trial.name().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(names(None), ["b", "c", "a"]);
        assert_eq!(names(Some("beside")), ["b", "c"]);
        assert_eq!(names(Some("alone")), ["a"]);
        assert_eq!((Beside::of("a", &["a"]), Beside::of("b", &["a"])), (Beside::Nobody, Beside::Others));
    }

    #[test]
    fn two_programs_keep_it_by_the_file() {
        let path = std::env::temp_dir().join(format!("tooz-turns-{}", std::process::id())).into_os_string();
        let first = MachineTurn::take(&path, Beside::Others);
        let second = MachineTurn::take(&path, Beside::Others);
        let file = |end: &str| OpenOptions::new().write(true).open(with_end(&path, end)).unwrap();
        let (turn, gate) = (file(""), file(".gate"));
        assert!(turn.try_lock().is_err() && gate.try_lock().is_ok(), "the gate is open behind them");
        gate.unlock().unwrap();
        drop((first, second));
        let first = MachineTurn::take(&path, Beside::Nobody);
        assert!(turn.try_lock_shared().is_err() && gate.try_lock().is_err(), "others are kept out");
        assert!(gate.try_lock_shared().is_ok(), "one more that is to run alone may come");
        gate.unlock().unwrap();
        drop(first);
        assert!(turn.try_lock_shared().is_ok() && gate.try_lock().is_ok());
        for end in ["", ".gate"] {
            std::fs::remove_file(with_end(&path, end)).unwrap();
        }
    }
}
