//! Signals that request an early stop.

use crate::error::Result;

/// From now on SIGINT, SIGTERM and SIGUSR1 (which SLURM's `--signal` sends) request a stop. A second signal ends the
/// process at once, as the first one would without a handler. Handlers only set flags.
///
/// # Errors
/// `Error::Usage` if the system refuses a handler.
#[cfg(unix)]
pub fn listen() -> Result<()> {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR1};
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
    for signal in [SIGINT, SIGTERM, SIGUSR1] {
        register(signal).map_err(|e| {
            Error::usage(format!("a handler of signal {signal} cannot be set: {e}"))
        })?;
    }
    Ok(())
}

/// Without signals of this kind only a time limit stops a command early.
#[cfg(not(unix))]
pub fn listen() -> Result<()> {
    Ok(())
}
