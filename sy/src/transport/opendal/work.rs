//! Waits for what OpenDAL does. It is asynchronous, and we are not: each thread of ours drives its own operation.

use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;

use super::errors;
use crate::error::{ErrorKind, Result, SyncError};
use crate::sync::Stop;

/// How often to look whether the run was stopped.
const TICK: Duration = Duration::from_millis(50);
/// An operation that takes longer has failed. Content goes in pieces, each of which is one.
const PATIENCE: Duration = Duration::from_secs(90);
/// For what has to be cleaned up after the run was stopped.
const LAST: Duration = Duration::from_secs(2);
const TRIES: u32 = 4;

/// The runtime belongs to one store and ends with it: a process that forks between two runs takes none along.
#[derive(Debug)]
pub struct Work {
    /// There until the end.
    runtime: Option<Runtime>,
    stop: Stop,
    /// Operations begun so far.
    pub begun: AtomicU64,
}

impl Drop for Work {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // A name that is being looked up must not hold the run up.
            runtime.shutdown_background();
        }
    }
}

impl Work {
    pub fn new(stop: Stop) -> Result<Self> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .max_blocking_threads(8)
            .thread_name("sypy-opendal")
            .enable_all()
            .build()
            .map_err(|error| SyncError::io(&error, "start", "a thread"))?;
        Ok(Self { runtime: Some(runtime), stop, begun: AtomicU64::new(0) })
    }

    pub fn wait<T>(&self, work: impl Future<Output = opendal::Result<T>>) -> Result<T> {
        self.wait_for(async { work.await.map_err(|error| errors::of(&error)) })
    }

    pub fn wait_for<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        self.wait_long(in_time(work))
    }

    /// For what is made of many operations, each of which has its own time.
    pub fn wait_long<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        if self.stop.is_set() {
            return Err(SyncError::cancelled());
        }
        self.drive(work, || self.stop.is_set().then(SyncError::cancelled))
    }

    /// Has it done in the background.
    pub fn spawn<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> Result<JoinHandle<T>> {
        Ok(self.runtime.as_ref().ok_or_else(SyncError::cancelled)?.spawn(work))
    }

    /// Whether the run was stopped or not, but not for long.
    pub fn clean_up<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        let begun = Instant::now();
        self.drive(work, || (begun.elapsed() > LAST).then(SyncError::cancelled))
    }

    fn drive<T>(&self, work: impl Future<Output = Result<T>>, given_up: impl Fn() -> Option<SyncError>) -> Result<T> {
        self.begun.fetch_add(1, Relaxed);
        let Some(runtime) = &self.runtime else { return Err(SyncError::cancelled()) };
        runtime.block_on(async {
            let mut work = pin!(work);
            loop {
                if let Ok(done) = tokio::time::timeout(TICK, work.as_mut()).await {
                    return done;
                }
                if let Some(error) = given_up() {
                    return Err(error);
                }
            }
        })
    }

    /// Tries again where that may help.
    pub fn tries<T>(&self, mut work: impl FnMut() -> Result<T>) -> Result<T> {
        let mut tries = 1;
        loop {
            match work() {
                Err(error) if error.retryable && error.kind != ErrorKind::SourceChanged && tries < TRIES => {
                    let until = Instant::now() + Duration::from_millis(200 << tries);
                    while Instant::now() < until {
                        if self.stop.is_set() {
                            return Err(SyncError::cancelled());
                        }
                        std::thread::sleep(TICK);
                    }
                    tries += 1;
                }
                other => return other,
            }
        }
    }
}

/// An operation that takes too long has failed.
pub async fn in_time<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    match tokio::time::timeout(PATIENCE, work).await {
        Ok(done) => done,
        Err(_) => Err(SyncError::new(ErrorKind::Timeout, "the service did not answer in time").retryable()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::Control;

    #[test]
    fn a_stopped_run_waits_for_nothing() {
        let control = Control::default();
        let work = Work::new(control.stop()).expect("a runtime");
        assert_eq!(work.wait_for(async { Ok(1) }), Ok(1));
        let begun = Instant::now();
        let stopped = std::thread::scope(|threads| {
            threads.spawn(|| {
                std::thread::sleep(Duration::from_millis(100));
                control.cancel();
            });
            work.wait_for(std::future::pending::<Result<()>>())
        });
        assert_eq!(stopped.expect_err("stopped").kind, ErrorKind::Cancelled);
        assert!(begun.elapsed() < Duration::from_secs(1));
        assert!(work.wait_for(async { Ok(1) }).is_err(), "nothing new begins");
        assert_eq!(work.clean_up(async { Ok(2) }), Ok(2));
    }

    #[test]
    fn only_what_may_help_is_tried_again() {
        let work = Work::new(Control::default().stop()).expect("a runtime");
        let count = |error: SyncError| {
            let mut tries = 0;
            let _ = work.tries(|| {
                tries += 1;
                if tries > 1 { Ok(()) } else { Err(error.clone()) }
            });
            tries
        };
        assert_eq!(count(SyncError::new(ErrorKind::Network, "x").retryable()), 2);
        assert_eq!(count(SyncError::new(ErrorKind::NotFound, "x")), 1);
    }
}
