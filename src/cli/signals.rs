//! Signals that request an early stop.

use super::STOPPED_EARLY;
use crate::error::Result;
use crate::interrupt::Cause;

/// Returns the exit code of a command that was stopped by `cause`. It is [`STOPPED_EARLY`] for a
/// time limit and for SIGUSR1, which batch systems send before their own time limit. For other
/// signals it is 128 plus the signal's number, as in shells.
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

/// Installs handlers by which SIGINT, SIGTERM, SIGHUP and SIGUSR1 request a stop, except for
/// signals that the process was started to ignore. A second signal ends the process at once, as the
/// first one would without a handler. The handlers only set flags.
///
/// # Errors
/// `Error::Usage` if the system rejects a handler.
#[cfg(unix)]
pub fn listen() -> Result<()> {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
    use signal_hook::flag;

    use crate::error::Error;
    use crate::interrupt;

    // `reproduce` runs several commands in one process; the handlers are installed once.
    static IS_LISTENING: AtomicBool = AtomicBool::new(false);
    if IS_LISTENING.swap(true, Ordering::Relaxed) {
        return Ok(());
    }
    let is_second = Arc::new(AtomicBool::new(false));
    let register = |signal| {
        // Actions run in the order of registration, so the first signal finds the flag unset, then
        // sets it.
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
            Error::usage(format!(
                "a handler for signal {signal} cannot be installed: {e}"
            ))
        })?;
    }
    Ok(())
}

/// Returns the signals that this process was started to ignore, as `nohup` does, one bit each. The
/// mask is empty on systems without /proc.
#[cfg(unix)]
fn ignored() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0)
}

/// Does nothing: outside Unix, only a time limit stops a command early.
#[cfg(not(unix))]
pub fn listen() -> Result<()> {
    Ok(())
}
