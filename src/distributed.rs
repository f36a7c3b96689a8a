//! Processes that train one network together, through MPI.
//!
//! Each process is a rank with a device of its own. All ranks run the same program on the same
//! settings. They differ in the part of each batch that they compute, and exchange what depends on
//! the whole batch: embeddings, gradients, and the statistics of batch norm. Sums over ranks are in
//! the order of ranks, so all ranks and repeated runs have the same bits.
//!
//! Without the feature `mpi`, or without `mpirun`, the group has one rank and exchanges nothing.

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
    patience: Duration,
}

impl Group {
    /// A group of one rank.
    pub const ALONE: Group = Group {
        rank: 0,
        size: 1,
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
}

static CURRENT: OnceLock<Group> = OnceLock::new();
static EXCHANGES: AtomicU64 = AtomicU64::new(0);
static RECEIVED: AtomicU64 = AtomicU64::new(0);

/// What this process has exchanged with other ranks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Traffic {
    /// Calls for which all ranks meet.
    pub exchanges: u64,
    /// Bytes that other ranks sent to this one.
    pub received: u64,
}

/// What this process has exchanged so far.
pub fn traffic() -> Traffic {
    Traffic {
        exchanges: EXCHANGES.load(Relaxed),
        received: RECEIVED.load(Relaxed),
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

#[cfg(feature = "mpi")]
mod mpi {
    use std::sync::{Mutex, PoisonError};
    use std::thread::{sleep, yield_now};
    use std::time::{Duration, Instant};

    use mpi::collective::SystemOperation;
    use mpi::environment::Universe;
    use mpi::traits::*;

    use super::{EXCHANGES, Error, Group, RECEIVED, Relaxed, Result};

    static UNIVERSE: Mutex<Option<Universe>> = Mutex::new(None);

    /// Messages between ranks that wait: a question whether the other one waits, and its answer.
    const QUESTION: i32 = 1;
    const ANSWER: i32 = 2;
    /// Bytes of a message, at most. MPI counts them in 31 bits.
    const LARGEST_MESSAGE: usize = 1 << 30;
    /// How long answers are awaited.
    const GRACE: Duration = Duration::from_secs(5);
    /// How often a rank that waits looks for questions.
    const LOOK: Duration = Duration::from_millis(200);

    pub(super) fn start(patience: Duration) -> Result<Group> {
        let mut universe = UNIVERSE.lock().unwrap_or_else(PoisonError::into_inner);
        let threads = mpi::Threading::Funneled;
        let Some((started, _)) = mpi::initialize_with_threading(threads) else {
            return Err(Error::usage(
                "MPI was started before in this process; start it once",
            ));
        };
        let world = started.world();
        *universe = Some(started);
        Ok(Group {
            rank: world.rank() as usize,
            size: world.size() as usize,
            patience,
        })
    }

    pub(super) fn finish() {
        drop(
            UNIVERSE
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take(),
        );
    }

    fn world() -> mpi::topology::SimpleCommunicator {
        mpi::topology::SimpleCommunicator::world()
    }

    impl Group {
        pub(super) fn gather_by_mpi(self, values: &[f32]) -> Result<Vec<f32>> {
            let mut all = vec![0f32; values.len() * self.size];
            if !values.is_empty() {
                self.arrive()?;
                world().all_gather_into(values, &mut all[..]);
                self.count(values.len() * (self.size - 1));
            }
            Ok(all)
        }

        /// Each rank adds one block of the values of all ranks, and sends it to all.
        pub(super) fn sum_by_mpi(self, values: &mut Vec<f32>) -> Result<()> {
            if values.is_empty() {
                return Ok(());
            }
            let length = values.len();
            let block = length.div_ceil(self.size);
            values.resize(block * self.size, 0.0);
            let mut parts = vec![0f32; block * self.size];
            self.arrive()?;
            world().all_to_all_into(&values[..], &mut parts[..]);
            let (sum, others) = parts.split_at_mut(block);
            for other in others.chunks_exact(block) {
                for (sum, x) in sum.iter_mut().zip(other) {
                    *sum += x;
                }
            }
            world().all_gather_into(&*sum, &mut values[..]);
            values.truncate(length);
            self.count(2 * block * (self.size - 1));
            Ok(())
        }

        pub(super) fn any_by_mpi(self, bits: u32) -> Result<u32> {
            let mut all = 0u32;
            self.arrive()?;
            world().all_reduce_into(&bits, &mut all, SystemOperation::bitwise_or());
            self.count(1);
            Ok(all)
        }

        pub(super) fn broadcast_by_mpi(self, mut bytes: Vec<u8>) -> Result<Vec<u8>> {
            self.arrive()?;
            let (world, mut length) = (world(), bytes.len() as u64);
            let first = world.process_at_rank(0);
            first.broadcast_into(&mut length);
            bytes.resize(length as usize, 0);
            for part in bytes.chunks_mut(LARGEST_MESSAGE) {
                first.broadcast_into(part);
            }
            Ok(bytes)
        }

        /// Counts an exchange in which this rank received this many numbers of four bytes.
        fn count(self, numbers: usize) {
            EXCHANGES.fetch_add(1, Relaxed);
            RECEIVED.fetch_add(4 * numbers as u64, Relaxed);
        }

        /// Waits until all ranks are here, at most as long as the group is patient.
        fn arrive(self) -> Result<()> {
            let started = Instant::now();
            let mut looked = started;
            let mut request = world().immediate_barrier();
            loop {
                request = match request.test() {
                    Ok(_) => return Ok(()),
                    Err(pending) => pending,
                };
                let waited = started.elapsed();
                if waited < Duration::from_micros(200) {
                    yield_now();
                } else {
                    sleep((waited / 20).min(Duration::from_millis(1)));
                }
                if looked.elapsed() > LOOK {
                    self.answer();
                    looked = Instant::now();
                }
                if waited > self.patience {
                    // The barrier is not complete, and the process ends soon.
                    std::mem::forget(request);
                    return Err(self.late());
                }
            }
        }

        /// Answers the ranks that ask whether this one waits.
        fn answer(self) {
            let world = world();
            while let Some(status) = world.any_process().immediate_probe_with_tag(QUESTION) {
                let asking = world.process_at_rank(status.source_rank());
                asking.receive_with_tag::<u8>(QUESTION);
                asking.send_with_tag(&0u8, ANSWER);
            }
        }

        /// The error that names the ranks that do not wait.
        fn late(self) -> Error {
            let others = (0..self.size).filter(|&rank| rank != self.rank);
            let mut late: Vec<usize> = others.collect();
            for &rank in &late {
                world()
                    .process_at_rank(rank as i32)
                    .send_with_tag(&0u8, QUESTION);
            }
            let asked = Instant::now();
            while asked.elapsed() < GRACE && !late.is_empty() {
                self.answer();
                while let Some(status) = world().any_process().immediate_probe_with_tag(ANSWER) {
                    let source = status.source_rank();
                    world()
                        .process_at_rank(source)
                        .receive_with_tag::<u8>(ANSWER);
                    late.retain(|&rank| rank as i32 != source);
                }
                sleep(Duration::from_millis(10));
            }
            let names: Vec<String> = late.iter().map(usize::to_string).collect();
            let who = match names.as_slice() {
                [] => "a rank that waits elsewhere".to_string(),
                [one] => format!("rank {one}"),
                several => format!("ranks {}", several.join(", ")),
            };
            Error::device(
                format!("of rank {}", self.rank),
                format!(
                    "{who} did not arrive within {} s; see whether it still runs, or allow more time",
                    self.patience.as_secs_f64()
                ),
            )
        }
    }
}
