//! When the server's clock is believed, and what its time is.

use proptest::prelude::*;

use super::*;

/// What the server's clock says that stood still for `lag`, when that many seconds have passed.
fn read(clock: &ServerClock, passed: f64, lag: f64) -> bool {
    let sent = clock.begun + Duration::from_secs_f64(passed);
    #[expect(clippy::cast_possible_truncation)]
    let left = i64::from(KEPT) - (passed - lag) as i64;
    clock.read(&ClockReading { mark: "a", left, sent, received: sent + Duration::from_millis(5) })
}

#[test]
fn a_clock_that_ticks_is_right_at_any_phase() {
    for phase in 0..20 {
        let clock = ServerClock::new();
        for beat in 0..40 {
            assert!(read(&clock, 10.0 + f64::from(phase) * 0.05 + f64::from(beat) * 0.67, 0.0), "{phase} {beat}");
        }
    }
}

#[test]
fn a_clock_that_stood_still_is_wrong_until_it_ticks() {
    let clock = ServerClock::new();
    assert!(read(&clock, 10.2, 0.0));
    assert!(read(&clock, 13.5, 0.0));
    assert!(!read(&clock, 19.5, 6.0));
    assert!(!read(&clock, 19.6, 6.1));
    assert!(read(&clock, 20.7, 0.0));
}

#[test]
fn another_mark_begins_anew_and_is_no_proof() {
    let clock = ServerClock::new();
    assert!(read(&clock, 10.0, 0.0));
    let sent = clock.begun + Duration::from_secs(12);
    let reading = ClockReading { mark: "b", left: i64::from(KEPT), sent, received: sent };
    assert!(!clock.read(&reading));
    assert!(clock.read(&ClockReading {
        left: i64::from(KEPT) - 1,
        sent: sent + Duration::from_secs(1),
        received: sent + Duration::from_secs(1),
        ..reading
    }));
}

#[test]
fn tokens_are_not_behind_the_servers_time() {
    let clock = ServerClock::new();
    let now = Instant::now();
    clock.set(&ClockReading { mark: "a", left: i64::from(KEPT) - 5, sent: now, received: now }, 1_800_000_000);
    let token = clock.token();
    assert!((1_800_000_001_000_000..1_800_000_002_000_000).contains(&token), "{token}");
    // The next reading moves it on by the server's clock, and not by ours.
    clock.read(&ClockReading { mark: "a", left: i64::from(KEPT) - 65, sent: now, received: now });
    assert!(clock.token() >= token + 59_000_000);
}

/// One reckons at the end of the server's second, the other at its beginning: what is the latest time for the one is past for the other only
/// when it is past for all.
#[test]
fn a_token_is_past_only_when_it_is_past_for_all() {
    let now = Instant::now();
    let reckon = |begun_ms: u64, sent_ms: u64, received_ms: u64| {
        let clock = ServerClock { begun: now + Duration::from_millis(begun_ms), state: Mutex::default() };
        let [sent, received] = [sent_ms, received_ms].map(|ms| now + Duration::from_millis(ms));
        // The server's second 5 lasts from 100 to 1100 ms.
        clock.set(&ClockReading { mark: "a", left: i64::from(KEPT) - 5, sent, received }, 1_800_000_000);
        clock
    };
    let all = [reckon(0, 101, 102), reckon(50, 1090, 1099), reckon(0, 500, 700)];
    let at = |clock: &ServerClock, passed: f64| {
        let time = clock.state.lock().time.unwrap();
        let ours = passed - clock.begun.duration_since(now).as_secs_f64();
        (time.least + ours, time.most + ours)
    };
    for clock in &all {
        let (least, most) = at(clock, 2.0);
        let true_time = 1_800_000_001.9;
        assert!(least <= true_time && true_time <= most, "{least} {most}");
    }
    let token = all[0].token();
    for clock in &all {
        let wait = clock.until_past(token);
        assert!(wait > Duration::from_secs(1) && wait < Duration::from_secs(6), "{wait:?}");
        assert_eq!(clock.until_past(token - 10_000_000), Duration::ZERO);
    }
}

/// The clock of a server that stood still is behind until it ticks; tokens are not.
#[test]
fn a_clock_that_stood_still_takes_no_token_back() {
    let clock = ServerClock::new();
    let now = clock.begun + Duration::from_secs(20);
    clock.set(&ClockReading { mark: "a", left: i64::from(KEPT) - 14, sent: now, received: now }, 1_800_000_000);
    let before = clock.token();
    let later = now + Duration::from_secs(6);
    clock.read(&ClockReading { mark: "a", left: i64::from(KEPT) - 14, sent: later, received: later });
    assert!(clock.token() >= before);
}

/// A reading whose request and whose answer were so long on their way, by a clock that goes right. Answers when it was received, and whether it counts.
fn read_slowly(clock: &ServerClock, sent: f64, forth: f64, back: f64) -> (f64, bool) {
    take(clock, sent, (sent + forth).floor(), sent + forth + back)
}

fn take(clock: &ServerClock, sent: f64, said: f64, received: f64) -> (f64, bool) {
    let at = |passed: f64| clock.begun + Duration::from_secs_f64(passed);
    #[expect(clippy::cast_possible_truncation, reason = "small numbers")]
    let left = i64::from(KEPT) - said as i64;
    (received, clock.read(&ClockReading { mark: "a", left, sent: at(sent), received: at(received) }))
}

#[test]
fn a_slow_answer_is_no_clock_that_stands_still() {
    for (forth, back) in [(1.5, 0.0), (0.0, 1.5), (3.0, 3.0)] {
        let clock = ServerClock::new();
        let mut now = 10.3;
        let mut beat = |forth, back, pause| {
            let (received, counts) = read_slowly(&clock, now, forth, back);
            now = received + pause;
            counts
        };
        assert!((0..6).all(|_| beat(0.005, 0.005, 1.7)), "while it is fast");
        assert!((0..12).all(|_| beat(forth, back, 1.7)), "while it is slow");
        // A fast answer behind slow ones may be in doubt, until the clock has ticked.
        let refused = (0..20).take_while(|_| !beat(0.005, 0.005, 0.17)).count();
        assert!(refused < 7, "{refused} are refused");
        assert!((0..40).all(|_| beat(0.005, 0.005, 1.7)), "when it is fast again");
    }
}

/// A computer that was kept from running, with the clock that the server has on it, goes on where it was.
#[test]
fn a_clock_that_was_set_back_is_believed_when_it_has_ticked() {
    let clock = ServerClock::new();
    assert!((0..10).all(|beat| read(&clock, 10.2 + f64::from(beat) * 3.0, 0.0)));
    assert!(!read(&clock, 100.2, 50.0));
    assert!(read(&clock, 101.3, 50.0));
    assert!((0..10).all(|beat| read(&clock, 104.2 + f64::from(beat) * 3.0, 50.0)));
}

/// What the clock says of a server that stood still in these times: the last whole second in which it ran.
fn said(stops: &[(f64, f64)], at: f64) -> f64 {
    let mut second = at.floor();
    while stops.iter().any(|(from, to)| (*from..*to).contains(&second)) {
        second -= 1.0;
    }
    second
}

proptest! {
    /// Whatever is how long on its way: no session is believed for longer than the server keeps it.
    #[test]
    fn what_a_stopped_server_dates_too_early_is_never_believed(
        phase in 0.0..1.0_f64,
        beats in proptest::collection::vec((0.0..2.5_f64, 0.0..2.5_f64, 0.05..4.0_f64, -0.5..1.5_f64, 0.0..9.0_f64), 1..60),
    ) {
        let clock = ServerClock::new();
        let (mut now, mut stops) = (20.0 + phase, Vec::new());
        for (number, (forth, back, pause, before, long)) in beats.into_iter().enumerate() {
            // The first is right, and so is each third behind it.
            if number % 3 == 2 {
                stops.push((now - before, now - before + long));
            }
            let comes = now + forth;
            // What comes while the server stands still is served when it goes on.
            let served = stops.iter().filter(|(from, to)| (*from..*to).contains(&comes)).map(|(_, to)| *to).fold(comes, f64::max);
            let said = said(&stops, served);
            let (received, counts) = take(&clock, now, said, served + back);
            // Its zero is ours, and by this much a session is kept longer.
            prop_assert!(!counts || now - said <= seconds(LONGER.cast_signed()) + 0.25, "sent at {now}, and the clock said {said}");
            now = received + pause;
        }
    }
}
