//! Signals that request an early stop.

use super::STOPPED_EARLY;
use crate::error::Result;
use crate::interrupt::Cause;

/// The exit code of a command that `cause` stopped: 128 plus the number of a signal that ends a
/// process, as shells have it, and [`STOPPED_EARLY`] for a time limit and for SIGUSR1, which batch
/// systems send in place of one.
pub fn exit_code(cause: Cause) -> u8 {
    #[cfg(unix)]
    if let Cause::Signal(number) = cause
        && number != signal_hook::consts::SIGUSR1 as usize
    {
        return u8::try_from(128 + number).unwrap_or(STOPPED_EARLY);
    }
    let _ = cause;
    STOPPED_EARLY
}

/// From now on SIGINT, SIGTERM, SIGHUP and SIGUSR1 (which SLURM's `--signal` sends) request a stop, except
/// those that the process was started to ignore. A second signal ends the
/// process at once, as the first one would without a handler. Handlers only set flags.
///
/// # Errors
/// `Error::Usage` if the system refuses a handler.
#[cfg(unix)]
pub fn listen() -> Result<()> {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
    use signal_hook::flag;

    use crate::error::Error;
    use crate::interrupt;

    // The jobs of one process register once.
    static IS_LISTENING: AtomicBool = AtomicBool::new(false);
    if IS_LISTENING.swap(true, Ordering::Relaxed) {
        return Ok(());
    }
    let is_second = Arc::new(AtomicBool::new(false));
    let register = |signal| {
        // Actions run in the order of their registration: the first signal finds the flag unset, and sets it.
        flag::register_conditional_default(signal, is_second.clone())?;
        flag::register(signal, is_second.clone())?;
        flag::register_usize(signal, interrupt::signal(), signal as usize)
    };
    let ignored = ignored();
    for signal in [SIGHUP, SIGINT, SIGTERM, SIGUSR1] {
        if ignored & (1 << (signal - 1)) != 0 {
            continue;
        }
        register(signal).map_err(|e| {
            Error::usage(format!("a handler of signal {signal} cannot be set: {e}"))
        })?;
    }
    Ok(())
}

/// The signals that this process was started to ignore, as `nohup` does, one bit each. Empty where the
/// system has no /proc.
#[cfg(unix)]
fn ignored() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0)
}

/// Without signals of this kind only a time limit stops a command early.
#[cfg(not(unix))]
pub fn listen() -> Result<()> {
    Ok(())
}
