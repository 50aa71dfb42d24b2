//! Whether a quantity stays flat: it convicts a slow leak, and acquits what grows only at first.
//!
//! A process grows while it warms up: caches fill, the allocator takes its arenas, threads are started. That fades, and a leak does not. So the
//! first third is not looked at, the rest is cut into six stretches of equal time, and of each the least value is taken, since a peak
//! is no leak and what has leaked is never given back. A leak grows in the last three stretches by more than the tolerance, in each step between
//! them, and at least half as fast as in the three before.

/// A quantity over the time of one process.
#[derive(Debug, Clone, Default)]
pub(crate) struct Curve {
    /// Seconds since the process began, and how much it was then.
    points: Vec<(f64, f64)>,
}

/// What a curve shows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Shape {
    /// There are too few points to tell.
    TooShort,
    Flat(Growth),
    Growing(Growth),
}

/// How much it grew in the last third of the time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Growth {
    pub(crate) by: f64,
    pub(crate) seconds: f64,
    /// Growth up to this is not told from chance.
    pub(crate) tolerance: f64,
}

/// Into how many stretches the last two thirds are cut.
const STRETCHES: usize = 6;
/// How many points each stretch has at least.
const FEWEST: usize = 4;
/// What has become slower than so many times what it was is fading.
const FADING: f64 = 0.5;
/// Each step has at least so much of what all steps together would have, were they alike.
const EVENLY: f64 = 0.25;

impl Curve {
    pub(crate) fn push(&mut self, seconds: f64, value: f64) {
        self.points.push((seconds, value));
    }

    pub(crate) fn last(&self) -> Option<f64> {
        self.points.last().map(|(_, value)| *value)
    }

    /// The least value behind the first third of the time.
    pub(crate) fn warm(&self) -> Option<f64> {
        let from = self.points.last()?.0 / 3.0;
        let warm = self.points.iter().filter(|(at, _)| *at >= from);
        warm.map(|(_, value)| *value).min_by(f64::total_cmp)
    }

    /// Judges it. Growth within that tolerance is called flat.
    pub(crate) fn shape(&self, tolerance: f64) -> Shape {
        let Some((lows, seconds)) = self.lows() else { return Shape::TooShort };
        let (early, late) = (lows[2] - lows[0], lows[5] - lows[3]);
        let growth = Growth { by: late, seconds: seconds * 2.0, tolerance };
        let is_even = lows[3..].windows(2).all(|step| step[1] - step[0] >= late / 2.0 * EVENLY);
        if late > tolerance && is_even && late >= early * FADING {
            return Shape::Growing(growth);
        }
        Shape::Flat(growth)
    }

    /// The least value of each stretch, and how long one is; `None`: there are too few points.
    fn lows(&self) -> Option<([f64; STRETCHES], f64)> {
        let end = self.points.last()?.0;
        let (from, parts) = (end / 3.0, 6.0);
        let length = (end - from) / parts;
        let mut stretches = [const { Vec::new() }; STRETCHES];
        for (at, value) in self.points.iter().filter(|(at, _)| *at >= from) {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 0 to 6")]
            let index = ((at - from) / length) as usize;
            stretches[index.min(STRETCHES - 1)].push(*value);
        }
        let mut lows = [0.0; STRETCHES];
        for (low, stretch) in lows.iter_mut().zip(&stretches) {
            *low = stretch.iter().copied().min_by(f64::total_cmp).filter(|_| stretch.len() >= FEWEST)?;
        }
        Some((lows, length))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Twenty minutes, looked at every five seconds, with chance in it.
    fn curve(value: impl Fn(f64) -> f64) -> Curve {
        let mut random = fastrand::Rng::with_seed(7);
        let mut curve = Curve::default();
        for step in 1..=240 {
            let at = f64::from(step) * 5.0;
            curve.push(at, value(at) + random.f64() * 60.0);
        }
        curve
    }

    fn is_leak(curve: &Curve) -> bool {
        matches!(curve.shape(512.0), Shape::Growing(_))
    }

    /// What was once recorded: seconds, and KiB of memory.
    fn recorded(text: &str) -> Curve {
        let mut curve = Curve::default();
        for (at, value) in text.lines().map(|line| line.split_once(' ').unwrap()) {
            curve.push(at.parse().unwrap(), value.parse().unwrap());
        }
        curve
    }

    #[test]
    fn recorded_runs_are_acquitted_and_a_recorded_leak_is_not() {
        assert!(!is_leak(&recorded(include_str!("recorded/memory.txt"))));
        assert!(!is_leak(&recorded(include_str!("recorded/etcd.txt"))));
        // Four hundred bytes of each operation were forgotten.
        assert!(is_leak(&recorded(include_str!("recorded/leak.txt"))));
    }

    #[test]
    fn what_stands_still_is_flat() {
        assert!(!is_leak(&curve(|_| 20_000.0)));
        assert!(!is_leak(&curve(|at| 20_000.0 - at)));
    }

    #[test]
    fn a_slow_leak_is_convicted() {
        assert!(is_leak(&curve(|at| 20_000.0 + at * 2.5)));
        // In steps, as an allocator takes its memory.
        assert!(is_leak(&curve(|at| 20_000.0 + (at * 2.5 / 132.0).floor() * 132.0)));
        // After a warm-up.
        assert!(is_leak(&curve(|at| 30_000.0 - 10_000.0 * (-at / 100.0).exp() + at * 3.0)));
    }

    #[test]
    fn a_warm_up_is_acquitted() {
        assert!(!is_leak(&curve(|at| 30_000.0 - 20_000.0 * (-at / 60.0).exp())));
        assert!(!is_leak(&curve(|at| 30_000.0 - 20_000.0 * (-at / 200.0).exp())));
        assert!(!is_leak(&curve(|at| 20_000.0 + (at * 50.0).min(10_000.0))));
    }

    #[test]
    fn one_step_is_no_leak_whenever_it_comes() {
        for when in 1..24 {
            assert!(!is_leak(&curve(|at| if at > f64::from(when) * 50.0 { 24_000.0 } else { 20_000.0 })), "{when}");
        }
    }

    #[test]
    fn a_saw_is_flat_and_a_rising_saw_is_not() {
        assert!(!is_leak(&curve(|at| 20_000.0 + at % 90.0 * 100.0)));
        assert!(is_leak(&curve(|at| 20_000.0 + at % 60.0 * 100.0 + at * 4.0)));
    }

    #[test]
    fn a_leak_of_few_is_convicted_where_few_are_tolerated() {
        let mut files = Curve::default();
        for step in 1..=240_u32 {
            files.push(f64::from(step) * 5.0, f64::from(20 + step / 12));
        }
        assert!(matches!(files.shape(2.0), Shape::Growing(_)), "{:?}", files.shape(2.0));
    }

    #[test]
    fn too_few_points_are_not_judged() {
        let mut curve = Curve::default();
        assert_eq!(curve.shape(0.0), Shape::TooShort);
        for at in 1..20_u32 {
            curve.push(f64::from(at), f64::from(at) * 1000.0);
        }
        assert_eq!(curve.shape(0.0), Shape::TooShort);
    }
}
