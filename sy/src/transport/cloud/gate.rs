//! When a whole service is in trouble: one backoff for all requests of a run, instead of one each.
//!
//! A few failures in a row, with no answer in between that makes sense, close the gate. One request at a time then tries
//! whether the service is back. If it isn't within the time that retries may take, everything that still waits fails at
//! once, without being sent: a storm of refusals must not be fed.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Failures in a row, over all requests, that close the gate.
const CLOSES_AFTER: u32 = 8;
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub struct Gate {
    state: Mutex<State>,
    changed: Condvar,
    patience: Duration,
}

#[derive(Debug, Default)]
struct State {
    failures: u32,
    /// Since when nothing has succeeded.
    since: Option<Instant>,
    pause: Duration,
    until: Option<Instant>,
    /// A request is out to see whether the service is back.
    probing: bool,
    broken: bool,
}

impl Gate {
    /// `patience`: how long a service may fail before a run gives it up.
    pub fn new(patience: Duration) -> Self {
        Self { state: Mutex::default(), changed: Condvar::new(), patience }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until a request may be sent; `false` if none may any more. `stopped` ends the wait.
    pub fn pass(&self, stopped: &dyn Fn() -> bool) -> bool {
        let mut state = self.lock();
        loop {
            if state.broken || stopped() {
                return false;
            }
            let Some(until) = state.until else { return true };
            let now = Instant::now();
            if now >= until && !state.probing {
                state.probing = true;
                return true;
            }
            let nap = until.saturating_duration_since(now).clamp(Duration::from_millis(1), Duration::from_millis(50));
            state = self.changed.wait_timeout(state, nap).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// The service answered sensibly.
    pub fn succeeded(&self) {
        let mut state = self.lock();
        if state.failures > 0 {
            *state = State { broken: state.broken, ..State::default() };
            drop(state);
            self.changed.notify_all();
        }
    }

    /// The service refused for reasons of its own, or could not be reached. `at_least` is the pause that it asked for.
    pub fn failed(&self, at_least: Option<Duration>) {
        let mut state = self.lock();
        let now = Instant::now();
        let since = *state.since.get_or_insert(now);
        state.failures += 1;
        if state.failures < CLOSES_AFTER && at_least.is_none() {
            return;
        }
        // Those that were under way when the gate closed tell nothing new.
        if state.until.is_none() || state.probing {
            state.pause = (state.pause * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE).max(at_least.unwrap_or_default().min(self.patience));
            state.until = Some(now + state.pause);
            state.probing = false;
            state.broken = state.failures >= CLOSES_AFTER && now - since + state.pause > self.patience;
            drop(state);
            self.changed.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_failures_leave_the_gate_open() {
        let gate = Gate::new(Duration::from_secs(15));
        for _ in 1..CLOSES_AFTER {
            gate.failed(None);
        }
        assert!(gate.pass(&|| false));
        gate.succeeded();
        assert!(gate.lock().since.is_none());
    }

    #[test]
    fn a_service_that_stays_away_is_given_up() {
        let gate = Gate::new(Duration::from_millis(600));
        for _ in 0..CLOSES_AFTER {
            gate.failed(None);
        }
        assert!(gate.pass(&|| false), "one may see whether it is back");
        gate.failed(None);
        assert!(!gate.pass(&|| false));
    }

    #[test]
    fn a_closed_gate_lets_one_through_at_a_time() {
        let gate = Gate::new(Duration::from_secs(60));
        for _ in 0..CLOSES_AFTER {
            gate.failed(None);
        }
        let begun = Instant::now();
        assert!(gate.pass(&|| false));
        assert!(begun.elapsed() >= FIRST_PAUSE / 2);
        assert!(!gate.pass(&|| begun.elapsed() > Duration::from_secs(1)), "the second waits");
        gate.succeeded();
        assert!(gate.pass(&|| false));
    }
}
