//! Processes that train one network together, through MPI.
//!
//! Each process is a rank with a device of its own. All ranks run the same program on the same
//! settings. They differ in the part of each batch that they compute, and exchange what depends on
//! the whole batch: embeddings, gradients, and the statistics of batch norm. Sums over ranks are in
//! the order of ranks, so all ranks and repeated runs have the same bits. A thread can exchange a sum
//! while the rank computes ([`Group::begin_sum`]).
//!
//! Without the feature `mpi`, or without `mpirun`, the group has one rank and exchanges nothing.

#[cfg(feature = "mpi")]
mod mpi;

use std::sync::OnceLock;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

#[cfg(feature = "mpi")]
use crate::error::Error;
use crate::error::Result;

/// How long a rank waits for the others before the run ends.
pub const PATIENCE: Duration = Duration::from_secs(600);

/// The ranks of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Group {
    rank: usize,
    size: usize,
    /// The ranks on the machine of this one, and the position of this one among them.
    machine: (usize, usize),
    patience: Duration,
}

impl Group {
    /// A group of one rank.
    pub const ALONE: Group = Group {
        rank: 0,
        size: 1,
        machine: (1, 0),
        patience: PATIENCE,
    };

    #[cfg(test)]
    pub(crate) fn of(rank: usize, size: usize) -> Self {
        Group {
            rank,
            size,
            ..Group::ALONE
        }
    }

    /// The position of this process, from 0.
    pub fn rank(self) -> usize {
        self.rank
    }

    /// The number of ranks.
    pub fn size(self) -> usize {
        self.size
    }

    /// Whether this rank writes files and prints results.
    pub fn is_first(self) -> bool {
        self.rank == 0
    }

    /// The number of ranks on the machine of this one.
    pub fn on_machine(self) -> usize {
        self.machine.0
    }

    /// Whether this is the first rank of its machine.
    pub fn is_first_on_machine(self) -> bool {
        self.machine.1 == 0
    }
}

static CURRENT: OnceLock<Group> = OnceLock::new();
static EXCHANGES: AtomicU64 = AtomicU64::new(0);
static RECEIVED: AtomicU64 = AtomicU64::new(0);
static BEGUN: AtomicU64 = AtomicU64::new(0);
static EXCHANGING: AtomicU64 = AtomicU64::new(0);
static AWAITED: AtomicU64 = AtomicU64::new(0);

/// What this process has exchanged with other ranks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Traffic {
    /// Calls for which all ranks meet.
    pub exchanges: u64,
    /// Bytes that other ranks sent to this one.
    pub received: u64,
    /// Number of calls of [`Group::begin_sum`].
    pub begun: u64,
    /// Time in which sums that were begun were exchanged.
    pub exchanging: Duration,
    /// The part of it in which this rank waited for them.
    pub awaited: Duration,
}

/// What this process has exchanged so far.
pub fn traffic() -> Traffic {
    Traffic {
        exchanges: EXCHANGES.load(Relaxed),
        received: RECEIVED.load(Relaxed),
        begun: BEGUN.load(Relaxed),
        exchanging: Duration::from_nanos(EXCHANGING.load(Relaxed)),
        awaited: Duration::from_nanos(AWAITED.load(Relaxed)),
    }
}

/// Joins the group that `mpirun` started. Without it, the group has one rank. A rank that waits
/// longer than `patience` for another one fails. Call this once per process, and [`finish`] at its
/// end.
///
/// # Errors
/// `Error::Usage` if the group was joined before.
#[cfg(feature = "mpi")]
pub fn start(patience: Duration) -> Result<Group> {
    let group = mpi::start(patience)?;
    Ok(*CURRENT.get_or_init(|| group))
}

/// The group that this process has joined, or a group of one rank.
pub fn current() -> Group {
    *CURRENT.get().unwrap_or(&Group::ALONE)
}

/// The variables by which launchers tell a process how many ranks there are: Open MPI, MPICH and
/// Intel MPI, MVAPICH, and Slurm's `srun`.
const SIZES: [&str; 4] = [
    "OMPI_COMM_WORLD_SIZE",
    "PMI_SIZE",
    "MV2_COMM_WORLD_SIZE",
    "SLURM_STEP_NUM_TASKS",
];
/// The position of a process among all.
const RANKS: [&str; 4] = [
    "OMPI_COMM_WORLD_RANK",
    "PMI_RANK",
    "MV2_COMM_WORLD_RANK",
    "SLURM_PROCID",
];
/// The position of a process among those of its machine.
const LOCAL_RANKS: [&str; 4] = [
    "OMPI_COMM_WORLD_LOCAL_RANK",
    "MPI_LOCALRANKID",
    "MV2_COMM_WORLD_LOCAL_RANK",
    "SLURM_LOCALID",
];

fn number(variables: &[&str]) -> Option<usize> {
    let value = variables.iter().find_map(|name| std::env::var(name).ok());
    value.and_then(|value| value.parse().ok())
}

/// The number of ranks of the launcher that started this process; 1 without one.
pub fn launched_ranks() -> usize {
    number(&SIZES).unwrap_or(1)
}

/// The position of this process among the launcher's ranks, from 0.
pub fn launched_rank() -> usize {
    number(&RANKS).unwrap_or(0)
}

/// The position of this process among the ranks of its machine, from 0.
pub fn local_rank() -> usize {
    number(&LOCAL_RANKS).unwrap_or(0)
}

/// Leaves the group. All ranks have to call this, in place of an exit, unless they failed.
pub fn finish() {
    #[cfg(feature = "mpi")]
    mpi::finish();
}

impl Group {
    /// The values of all ranks, one after another. Each rank gives the same number of values.
    ///
    /// # Errors
    /// `Error::Device` that names the ranks that did not arrive in time.
    pub fn gather(self, values: &[f32]) -> Result<Vec<f32>> {
        if self.size == 1 {
            return Ok(values.to_vec());
        }
        #[cfg(feature = "mpi")]
        return self.gather_by_mpi(values);
        #[cfg(not(feature = "mpi"))]
        unreachable!("a group of several ranks needs the feature mpi")
    }

    /// Replaces each value by its sum over ranks, `((rank 0 + rank 1) + rank 2) + ...`.
    ///
    /// # Errors
    /// As [`Group::gather`].
    pub fn sum(self, values: &mut Vec<f32>) -> Result<()> {
        #[cfg(feature = "mpi")]
        if self.size > 1 {
            return self.sum_by_mpi(values);
        }
        let _ = values;
        Ok(())
    }

    /// Begins [`Group::sum`] and does not wait for it. A thread exchanges the values, one sum after
    /// another, in the order in which they were begun, which has to be that of all ranks. Other
    /// exchanges can go on at the same time. If the MPI library does not allow calls of two threads
    /// (`MPI_THREAD_MULTIPLE`), the sum is computed at once.
    ///
    /// # Errors
    /// As [`Group::gather`].
    pub fn begin_sum(self, values: Vec<f32>) -> Result<PendingSum> {
        BEGUN.fetch_add(1, Relaxed);
        #[cfg(feature = "mpi")]
        if self.size > 1 {
            return self.begin_sum_by_mpi(values);
        }
        Ok(PendingSum::Done(values))
    }

    /// The result of this rank, unless another one failed: then the error of the first rank that
    /// did, on all ranks. Waits without a limit for ranks that have not called this.
    ///
    /// # Errors
    /// The error of a rank.
    pub fn agree<T>(self, own: Result<T>) -> Result<T> {
        #[cfg(feature = "mpi")]
        if self.size > 1 {
            return self.agree_by_mpi(own);
        }
        own
    }

    /// The bytes that the first rank of the machine gives, on every rank of the machine. Those of
    /// its other ranks are dropped. All ranks have to call this.
    ///
    /// # Errors
    /// As [`Group::gather`].
    pub fn share_on_machine(self, bytes: Vec<u8>) -> Result<Vec<u8>> {
        #[cfg(feature = "mpi")]
        if self.size > 1 {
            return self.share_on_machine_by_mpi(bytes);
        }
        Ok(bytes)
    }

    /// The bits that any rank has set.
    ///
    /// # Errors
    /// As [`Group::gather`].
    pub fn any(self, bits: u32) -> Result<u32> {
        #[cfg(feature = "mpi")]
        if self.size > 1 {
            return self.any_by_mpi(bits);
        }
        Ok(bits)
    }

    /// The bytes that rank 0 gives, on every rank. Those of other ranks are dropped.
    ///
    /// # Errors
    /// As [`Group::gather`].
    pub fn broadcast(self, bytes: Vec<u8>) -> Result<Vec<u8>> {
        #[cfg(feature = "mpi")]
        if self.size > 1 {
            return self.broadcast_by_mpi(bytes);
        }
        Ok(bytes)
    }

    /// Waits until all ranks have called this.
    ///
    /// # Errors
    /// As [`Group::gather`].
    pub fn wait(self) -> Result<()> {
        self.any(0).map(drop)
    }
}

/// A sum over ranks that was begun.
#[derive(Debug)]
pub enum PendingSum {
    Done(Vec<f32>),
    /// The thread sends the sum.
    #[cfg(feature = "mpi")]
    Exchanged(Group, std::sync::mpsc::Receiver<Vec<f32>>),
}

impl PendingSum {
    /// Waits for the sum.
    ///
    /// # Errors
    /// As [`Group::gather`].
    pub fn wait(self) -> Result<Vec<f32>> {
        match self {
            PendingSum::Done(values) => Ok(values),
            #[cfg(feature = "mpi")]
            PendingSum::Exchanged(group, sum) => group.awaited(&sum),
        }
    }
}
