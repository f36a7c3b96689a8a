//! The ranks that `mpirun` starts with the feature `mpi`.

use std::thread::sleep;
use std::time::Duration;

use crate::distributed;
use crate::error::{Error, Result};

/// How long a rank waits before it prints an error. If the first rank has the same one, it ends, and
/// Open MPI kills the others two seconds later.
const WAIT_WITH_ERROR: Duration = Duration::from_secs(5);

/// Joins the ranks that `mpirun` started. `supports_ranks` says whether the command can use
/// several. Ranks beside the first print errors only.
///
/// # Errors
/// `Error::Usage` if there are several ranks and the command can use one.
pub fn join(supports_ranks: bool, seconds: f64) -> Result<()> {
    #[cfg(feature = "mpi")]
    if distributed::launched_ranks() > 1 {
        let patience = Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX);
        let group = distributed::start(patience)?;
        if group.size() > 1 && !supports_ranks {
            return Err(Error::usage(
                "this command runs on one rank; start it without mpirun",
            ));
        }
        if !group.is_first() {
            crate::console::be_silent();
        }
    }
    let _ = (supports_ranks, seconds);
    Ok(())
}

/// Leaves the group, unless this rank has failed. A rank that ends without leaving ends the others.
/// Returns how error messages begin.
pub fn leave(outcome: &Result<()>) -> String {
    let group = distributed::current();
    match outcome {
        Ok(()) | Err(Error::Stopped { .. }) => distributed::finish(),
        Err(_) if !group.is_first() => sleep(WAIT_WITH_ERROR),
        Err(_) => {}
    }
    match group.size() {
        1 => "parallax:".to_string(),
        _ => format!("parallax: rank {}:", group.rank()),
    }
}
