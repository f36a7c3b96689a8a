//! The request to stop early, by a signal or at a time limit.
//!
//! Long computations call [`check`] or [`requested`] between steps. They always take at least one
//! step, so that a run that is repeatedly stopped and resumed ends.
//!
//! The request is global because signals are sent to a process. The library installs no signal
//! handler; the command line does. A program with its own handlers stores the signal's number in
//! [`signal`], or calls [`stop_after`].

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;

use web_time::Instant;

use crate::distributed;
use crate::error::{Error, Result};

/// The cause of an early stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// A signal, by its number.
    Signal(usize),
    TimeLimit(Duration),
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cause::TimeLimit(limit) => write!(f, "the time limit of {} s", limit.as_secs_f64()),
            Cause::Signal(number) => match signal_name(*number) {
                Some(name) => f.write_str(name),
                None => write!(f, "signal {number}"),
            },
        }
    }
}

#[cfg(unix)]
fn signal_name(number: usize) -> Option<&'static str> {
    let number = i32::try_from(number).ok()?;
    signal_hook::low_level::signal_name(number)
}

#[cfg(not(unix))]
fn signal_name(_: usize) -> Option<&'static str> {
    None
}

static SIGNAL: LazyLock<Arc<AtomicUsize>> = LazyLock::new(Arc::default);
static DEADLINE: Mutex<Option<(Instant, Duration)>> = Mutex::new(None);

/// Returns the number of the signal that requested a stop, or 0. Signal handlers store it here.
pub fn signal() -> Arc<AtomicUsize> {
    SIGNAL.clone()
}

/// Requests a stop after `limit` from now. `None` removes an earlier limit.
pub fn stop_after(limit: Option<Duration>) {
    // A deadline that the clock cannot represent is never reached.
    let deadline = limit.and_then(|limit| Some((Instant::now().checked_add(limit)?, limit)));
    *DEADLINE.lock().unwrap_or_else(PoisonError::into_inner) = deadline;
}

/// Returns the cause if a stop is requested.
pub fn requested() -> Option<Cause> {
    match SIGNAL.load(Ordering::Relaxed) {
        0 => (*DEADLINE.lock().unwrap_or_else(PoisonError::into_inner))
            .filter(|(deadline, _)| Instant::now() >= *deadline)
            .map(|(_, limit)| Cause::TimeLimit(limit)),
        number => Some(Cause::Signal(number)),
    }
}

/// The causes of a stop as [`agreed`] exchanges them. A signal's number is in the bits above.
const AT_TIME_LIMIT: u32 = 1;
const OTHER: u32 = 2;
const BY_SIGNAL: u32 = 4;
const SIGNAL_BITS: u32 = 3;

/// As [`requested`], and also returns the cause of another rank. Returns true too if any rank gives
/// `other`. All ranks have to call this.
///
/// # Errors
/// `Error::Device` if a rank does not arrive.
pub fn agreed(other: bool) -> Result<(Option<Cause>, bool)> {
    let own = requested();
    let group = distributed::current();
    if group.size() == 1 {
        return Ok((own, other));
    }
    let mut bits = match own {
        None => 0,
        Some(Cause::TimeLimit(_)) => AT_TIME_LIMIT,
        Some(Cause::Signal(number)) => BY_SIGNAL | (number as u32) << SIGNAL_BITS,
    };
    if other {
        bits |= OTHER;
    }
    let all = group.any(bits)?;
    let cause = own.or_else(|| {
        if all & BY_SIGNAL != 0 {
            return Some(Cause::Signal((all >> SIGNAL_BITS) as usize));
        }
        let limit = *DEADLINE.lock().unwrap_or_else(PoisonError::into_inner);
        let limit = limit.map_or(Duration::ZERO, |(_, limit)| limit);
        (all & AT_TIME_LIMIT != 0).then_some(Cause::TimeLimit(limit))
    });
    Ok((cause, all & OTHER != 0))
}

/// Fails if a stop is requested on any rank. All ranks have to call this.
///
/// # Errors
/// `Error::Stopped` with the text that `place` returns.
pub fn check(place: impl FnOnce() -> String) -> Result<()> {
    match agreed(false)?.0 {
        None => Ok(()),
        Some(cause) => Err(Error::Stopped {
            cause,
            place: place(),
            folder: None,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::Cause;
    use std::time::Duration;

    #[test]
    fn a_cause_is_named() {
        let limit = Cause::TimeLimit(Duration::from_millis(1500));
        assert_eq!(limit.to_string(), "the time limit of 1.5 s");
        let unknown = Cause::Signal(12_345);
        assert_eq!(unknown.to_string(), "signal 12345");
        #[cfg(unix)]
        assert_eq!(Cause::Signal(15).to_string(), "SIGTERM");
    }
}
