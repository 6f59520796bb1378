//! How many large transfers are under way: as many as bring something.
//!
//! A few to begin with, more while the rate grows with them, fewer when it does not, half when the service asks for fewer
//! requests. What they hold in memory together is limited as well.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::error::{Result, SyncError};
use crate::sync::Control;

/// Transfers at a time to begin with, and at most.
const FIRST: u32 = 8;
const MOST: u32 = 48;
/// Content in memory at a time, bytes. With what threads and connections take it stays within 150 MiB.
pub const MEMORY: u64 = 80 << 20;
/// How long a rate is measured.
const SPAN: Duration = Duration::from_millis(500);
/// Requests that were refused for one reason count once.
const BREATH: Duration = Duration::from_millis(250);
/// A rate that is not higher by this has not grown.
const GAIN: f64 = 1.08;
/// Spans without another attempt, after one that brought nothing.
const HOLD: u32 = 10;
/// The same after the service asked for fewer requests.
const PEACE: u32 = 40;

/// What was seen while a certain number was under way.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Span {
    /// Bytes a second, all together.
    pub rate: f64,
    /// As many were under way as might be.
    pub full: bool,
    /// The service asked for fewer requests.
    pub throttled: bool,
}

/// Looks for the number of transfers beyond which the rate does not grow.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Climb {
    pub limit: u32,
    most: u32,
    /// The number before it was raised, and the rate it had.
    before: Option<(u32, f64)>,
    hold: u32,
}

impl Climb {
    pub fn new(most: u32) -> Self {
        Self { limit: FIRST.min(most).max(1), most: most.max(1), before: None, hold: 0 }
    }

    #[must_use]
    pub fn next(self, span: Span) -> Self {
        if span.throttled {
            return Self { limit: (self.limit / 2).max(1), before: None, hold: PEACE, ..self };
        }
        if !span.full {
            // What was not used tells nothing.
            return self;
        }
        let raised = (self.limit + (self.limit / 2).max(1)).min(self.most);
        match self.before {
            Some((less, rate)) if span.rate <= rate * GAIN => Self { limit: less, before: None, hold: HOLD, ..self },
            None if self.hold > 0 => Self { hold: self.hold - 1, ..self },
            _ if raised == self.limit => Self { before: None, hold: HOLD, ..self },
            _ => Self { limit: raised, before: Some((self.limit, span.rate)), ..self },
        }
    }
}

/// Size of the parts of an object, where nobody wants a certain one: larger than `least` if a connection moves more in a second,
/// but each of `at_once` connections shall have two, and none be larger than `most`.
pub fn part_size(least: u64, size: u64, per_connection: f64, at_once: u32, most: u64) -> u64 {
    let fair = size / (2 * u64::from(at_once.max(1)));
    let wanted = (per_connection as u64).min(fair).min(most);
    least.max(wanted - wanted % (1 << 20))
}

/// The large transfers of a run.
pub struct Slots<'r> {
    control: &'r Control,
    /// How often the service has asked for fewer requests.
    throttled: Box<dyn Fn() -> u64 + Send + Sync + 'r>,
    state: Mutex<State>,
    freed: Condvar,
}

#[derive(Debug)]
struct State {
    climb: Climb,
    used: u32,
    memory: u64,
    full: bool,
    since: Instant,
    bytes: u64,
    throttled: u64,
    /// Bytes a second of one transfer, of late.
    per_connection: f64,
}

impl std::fmt::Debug for Slots<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Slots").field("state", &self.state).finish_non_exhaustive()
    }
}

impl<'r> Slots<'r> {
    /// `most`: never more at a time.
    pub fn new(control: &'r Control, most: Option<u64>, throttled: impl Fn() -> u64 + Send + Sync + 'r) -> Self {
        let climb = Climb::new(most.map_or(MOST, |most| most.min(u64::from(MOST)) as u32));
        let state = State {
            climb,
            used: 0,
            memory: 0,
            full: false,
            since: Instant::now(),
            bytes: control.bytes.load(Relaxed),
            throttled: throttled(),
            per_connection: 0.0,
        };
        Self { control, throttled: Box::new(throttled), state: Mutex::new(state), freed: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a turn, and for room for `memory` bytes.
    fn take(&self, memory: u64, gone: &dyn Fn() -> bool) -> Option<Slot<'_, 'r>> {
        self.acquire(1, memory, gone)
    }

    /// Waits for room for what is small enough to be sent besides.
    pub fn hold(&self, memory: u64) -> Result<Slot<'_, 'r>> {
        self.acquire(0, memory, &|| false).ok_or_else(SyncError::cancelled)
    }

    fn acquire(&self, slots: u32, memory: u64, gone: &dyn Fn() -> bool) -> Option<Slot<'_, 'r>> {
        let mut state = self.lock();
        loop {
            if self.control.should_stop() || gone() {
                return None;
            }
            self.look(&mut state);
            // What is larger than all the memory goes alone.
            let room = memory == 0 || state.memory == 0 || state.memory + memory <= MEMORY;
            if room && (slots == 0 || state.used < state.climb.limit) {
                state.used += slots;
                state.memory += memory;
                state.full |= slots > 0 && state.used >= state.climb.limit;
                return Some(Slot { slots: self, count: slots, memory, begun: Instant::now() });
            }
            state = self.freed.wait_timeout(state, Duration::from_millis(50)).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Draws conclusions from what was seen lately.
    fn look(&self, state: &mut State) {
        let (now, throttled) = (Instant::now(), (self.throttled)());
        let span = now - state.since;
        let refused = throttled > state.throttled;
        if span < if refused { BREATH } else { SPAN } {
            return;
        }
        let bytes = self.control.bytes.load(Relaxed);
        let rate = bytes.saturating_sub(state.bytes) as f64 / span.as_secs_f64();
        let full = state.full;
        state.climb = state.climb.next(Span { rate, full, throttled: refused });
        (state.since, state.bytes, state.throttled) = (now, bytes, throttled);
        state.full = state.used >= state.climb.limit;
    }

    /// Could one of `threads` more be under way?
    fn has_room(&self, threads: u32) -> bool {
        let state = self.lock();
        state.used < state.climb.limit && threads < state.climb.limit
    }

    /// How many may be under way, and bytes a second of one: 0 as long as nothing is known.
    pub fn pace(&self) -> (u32, f64) {
        let state = self.lock();
        (state.climb.limit, state.per_connection)
    }

    /// Calls `one` with each number below `count`, as many at a time as there may be. Each holds `memory` bytes and moves about
    /// `bytes`. Ends with the first error.
    pub fn each(&self, count: u32, memory: u64, bytes: u64, one: &(dyn Fn(u32, &Failed) -> Result<()> + Sync)) -> Result<()> {
        let job =
            Job { slots: self, count, memory, bytes, one, next: AtomicU32::new(0), threads: AtomicU32::new(1), failed: Failed::default() };
        std::thread::scope(|threads| job.work(threads));
        match job.failed.0.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some(error) => Err(error),
            None if self.control.should_stop() => Err(SyncError::cancelled()),
            None => Ok(()),
        }
    }
}

/// A turn. Given back when dropped.
#[derive(Debug)]
pub struct Slot<'s, 'r> {
    slots: &'s Slots<'r>,
    count: u32,
    memory: u64,
    begun: Instant,
}

impl Slot<'_, '_> {
    fn moved(&self, bytes: u64) {
        let rate = bytes as f64 / self.begun.elapsed().as_secs_f64().max(1e-6);
        let mut state = self.slots.lock();
        state.per_connection = if state.per_connection == 0.0 { rate } else { 0.7 * state.per_connection + 0.3 * rate };
    }
}

impl Drop for Slot<'_, '_> {
    fn drop(&mut self) {
        let mut state = self.slots.lock();
        state.used -= self.count;
        state.memory -= self.memory;
        drop(state);
        self.slots.freed.notify_all();
    }
}

/// The first error of several transfers that belong together.
#[derive(Debug, Default)]
pub struct Failed(Mutex<Option<SyncError>>);

impl Failed {
    pub fn is_set(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }
}

struct Job<'j, 'r> {
    slots: &'j Slots<'r>,
    count: u32,
    memory: u64,
    bytes: u64,
    one: &'j (dyn Fn(u32, &Failed) -> Result<()> + Sync),
    next: AtomicU32,
    threads: AtomicU32,
    failed: Failed,
}

impl Job<'_, '_> {
    fn work<'s>(&'s self, threads: &'s std::thread::Scope<'s, '_>) {
        let over = || self.failed.is_set() || self.next.load(Relaxed) >= self.count;
        while let Some(slot) = self.slots.take(self.memory, &over) {
            let n = self.next.fetch_add(1, Relaxed);
            if n >= self.count {
                return;
            }
            if n + 1 < self.count && self.slots.has_room(self.threads.load(Relaxed)) {
                self.threads.fetch_add(1, Relaxed);
                // With fewer threads it only takes longer.
                let _ = std::thread::Builder::new().name("sypy-part".into()).spawn_scoped(threads, || self.work(threads));
            }
            match (self.one)(n, &self.failed) {
                Ok(()) => slot.moved(self.bytes),
                Err(error) => {
                    self.failed.0.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                    return;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full(rate: f64) -> Span {
        Span { rate, full: true, throttled: false }
    }

    /// Where a service goes that gives each transfer 10, and all together no more than `all`.
    fn climbed(all: f64, spans: u32) -> Climb {
        (0..spans).fold(Climb::new(48), |climb, _| climb.next(full((f64::from(climb.limit) * 10.0).min(all))))
    }

    #[test]
    fn more_are_under_way_while_that_brings_something() {
        assert_eq!(climbed(1e9, 1).limit, 12);
        assert_eq!(climbed(1e9, 30).limit, 48, "and no more than that");
        let some = (3..40).map(|spans| climbed(150.0, spans).limit).collect::<Vec<_>>();
        assert!(some.iter().all(|limit| (12..=27).contains(limit)), "{some:?}");
        assert!((3..40).all(|spans| climbed(80.0, spans).limit <= 12), "no gain from the first step on");
    }

    #[test]
    fn half_are_left_when_the_service_asks_for_fewer() {
        let throttled = Span { throttled: true, ..full(100.0) };
        let climb = Climb::new(48).next(throttled);
        assert_eq!(climb.limit, 4);
        assert_eq!((0..9).fold(climb, |climb, _| climb.next(throttled)).limit, 1);
        let later = |spans| (0..spans).fold(climb, |climb: Climb, _| climb.next(full(f64::from(climb.limit))));
        assert_eq!(later(PEACE).limit, 4, "and it is left in peace for a while");
        assert_eq!(later(PEACE + 1).limit, 6);
    }

    #[test]
    fn what_is_not_used_up_tells_nothing() {
        let climb = Climb::new(48);
        assert_eq!(climb.next(Span { full: false, ..full(1e9) }), climb);
        assert_eq!((Climb::new(1).next(full(1.0)).limit, Climb::new(0).limit), (1, 1));
    }

    #[test]
    fn parts_grow_where_one_takes_less_than_a_second() {
        const MIB: u64 = 1 << 20;
        let size = |per_connection: u64, size: u64| part_size(16 * MIB, size * MIB, (per_connection * MIB) as f64, 8, 64 * MIB) / MIB;
        assert_eq!(size(0, 4096), 16, "nothing is known yet");
        assert_eq!((size(10, 4096), size(40, 4096), size(500, 4096)), (16, 40, 64));
        assert_eq!((size(500, 512), size(500, 100)), (32, 16), "every connection has two");
    }

    #[test]
    fn every_number_comes_once_and_no_more_at_a_time_than_may() {
        let control = Control::default();
        let slots = Slots::new(&control, Some(3), || 0);
        let (seen, now, most) = (Mutex::new(Vec::new()), AtomicU32::new(0), AtomicU32::new(0));
        let done = slots.each(20, 1, 1, &|n, _| {
            most.fetch_max(now.fetch_add(1, Relaxed) + 1, Relaxed);
            std::thread::sleep(Duration::from_millis(2));
            seen.lock().expect("no panic").push(n);
            now.fetch_sub(1, Relaxed);
            Ok(())
        });
        assert!(done.is_ok());
        let mut seen = seen.into_inner().expect("no panic");
        seen.sort_unstable();
        assert_eq!(seen, (0..20).collect::<Vec<_>>());
        assert!((2..=3).contains(&most.load(Relaxed)));
    }

    #[test]
    fn the_first_error_ends_it() {
        let control = Control::default();
        let slots = Slots::new(&control, None, || 0);
        let calls = AtomicU32::new(0);
        let done = slots.each(1000, 0, 1, &|n, _| {
            calls.fetch_add(1, Relaxed);
            std::thread::sleep(Duration::from_millis(2));
            if n == 3 { Err(SyncError::unsupported("three")) } else { Ok(()) }
        });
        assert!(done.is_err() && calls.load(Relaxed) < 1000);
    }

    #[test]
    fn memory_is_shared() {
        let control = Control::default();
        let slots = Slots::new(&control, None, || 0);
        let first = slots.hold(MEMORY - 1).expect("room");
        std::thread::scope(|threads| {
            let waiting = threads.spawn(|| slots.hold(2).map(|_| Instant::now()).expect("room, later"));
            std::thread::sleep(Duration::from_millis(80));
            let freed = Instant::now();
            drop(first);
            assert!(waiting.join().expect("no panic") >= freed);
        });
        assert!(slots.hold(MEMORY * 2).is_ok(), "alone");
    }
}
