//! The exchanges of ranks by MPI.
//!
//! Two threads call MPI. The thread of the program makes the exchanges that it waits for, on the
//! communicator of all ranks. The thread of [`Lane`] exchanges the sums that were begun, on a
//! communicator of its own, so that neither order of calls depends on the other.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Mutex, PoisonError};
use std::thread::{JoinHandle, sleep, spawn, yield_now};
use std::time::{Duration, Instant};

use mpi::Threading;
use mpi::collective::SystemOperation;
use mpi::environment::Universe;
use mpi::request::{Request, Scope, scope};
use mpi::topology::SimpleCommunicator;
use mpi::traits::*;

use super::{
    AWAITED, AtomicU64, EXCHANGES, EXCHANGING, Error, Group, PendingSum, RECEIVED, Relaxed, Result,
};

static STARTED: Mutex<Option<(Universe, Option<Lane>)>> = Mutex::new(None);

/// Messages between ranks that wait: a question whether the other one waits, and its answer.
const QUESTION: i32 = 1;
const ANSWER: i32 = 2;
/// Bytes of a message, at most. MPI counts them in 31 bits.
const LARGEST_MESSAGE: usize = 1 << 30;
/// How long answers are awaited.
const GRACE: Duration = Duration::from_secs(5);
/// How often a rank that waits looks for questions.
const LOOK: Duration = Duration::from_millis(200);
/// How long a wait yields the processor between two looks, before it sleeps.
const YIELDING: Duration = Duration::from_micros(200);
/// How long a thread sleeps between two looks at a transfer. Over TCP, a look moves about 128 KiB.
const NAP: Duration = Duration::from_micros(50);

pub(super) fn start(patience: Duration) -> Result<Group> {
    let mut started = STARTED.lock().unwrap_or_else(PoisonError::into_inner);
    let Some((universe, threads)) = mpi::initialize_with_threading(Threading::Multiple) else {
        return Err(Error::usage(
            "MPI was started before in this process; start it once",
        ));
    };
    let world = universe.world();
    let machine = world.split_shared(0);
    let uses_lane = world.size() > 1 && threads == Threading::Multiple;
    *started = Some((universe, uses_lane.then(Lane::start)));
    Ok(Group {
        rank: world.rank() as usize,
        size: world.size() as usize,
        machine: (machine.size() as usize, machine.rank() as usize),
        patience,
    })
}

pub(super) fn finish() {
    let started = STARTED
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .take();
    if let Some((universe, lane)) = started {
        if let Some(Lane { sums, thread }) = lane {
            drop(sums);
            drop(thread.join());
        }
        drop(universe);
    }
}

fn world() -> SimpleCommunicator {
    SimpleCommunicator::world()
}

/// A thread that exchanges sums, one after another.
struct Lane {
    sums: Sender<(Vec<f32>, Sender<Vec<f32>>)>,
    thread: JoinHandle<()>,
}

impl Lane {
    fn start() -> Self {
        let (sums, queue) = channel::<(Vec<f32>, Sender<Vec<f32>>)>();
        let (is_ready, ready) = channel();
        let thread = spawn(move || {
            let communicator = world().duplicate();
            is_ready.send(()).ok();
            for (values, reply) in queue {
                let began = Instant::now();
                let sum = sum(&communicator, values);
                add(&EXCHANGING, began);
                // Nobody waits for the sum if the step has failed.
                drop(reply.send(sum));
            }
        });
        // All ranks duplicate the communicator before they use it. Fails if the thread has ended,
        // which `Group::awaited` reports.
        ready.recv().ok();
        Lane { sums, thread }
    }
}

fn add(nanoseconds: &AtomicU64, since: Instant) {
    let spent = u64::try_from(since.elapsed().as_nanos()).unwrap_or(u64::MAX);
    nanoseconds.fetch_add(spent, Relaxed);
}

/// Counts an exchange in which this rank received this many numbers of four bytes.
fn count(numbers: usize) {
    EXCHANGES.fetch_add(1, Relaxed);
    RECEIVED.fetch_add(4 * numbers as u64, Relaxed);
}

/// Waits for a transfer. The thread sleeps meanwhile, so that others can compute.
fn complete<'a, D: ?Sized, S: Scope<'a>>(mut request: Request<'a, D, S>) {
    let began = Instant::now();
    while let Err(pending) = request.test() {
        request = pending;
        if began.elapsed() < YIELDING {
            yield_now()
        } else {
            sleep(NAP)
        }
    }
}

/// The sum of `values` over ranks, in the order of ranks. Each rank adds one block of the values of
/// all ranks, and sends it to all. The order does not depend on how MPI transfers the blocks.
fn sum(communicator: &SimpleCommunicator, mut values: Vec<f32>) -> Vec<f32> {
    let (length, ranks) = (values.len(), communicator.size() as usize);
    if length == 0 {
        return values;
    }
    let block = length.div_ceil(ranks);
    values.resize(block * ranks, 0.0);
    let mut parts = vec![0f32; block * ranks];
    scope(|scope| {
        complete(communicator.immediate_all_to_all_into(scope, &values[..], &mut parts[..]));
    });
    let (sum, others) = parts.split_at_mut(block);
    for other in others.chunks_exact(block) {
        for (sum, x) in sum.iter_mut().zip(other) {
            *sum += x;
        }
    }
    scope(|scope| {
        complete(communicator.immediate_all_gather_into(scope, &*sum, &mut values[..]));
    });
    values.truncate(length);
    count(2 * block * (ranks - 1));
    values
}

/// Sends the bytes of rank `root` of `communicator` to its other ranks.
fn broadcast(communicator: &SimpleCommunicator, root: usize, bytes: &mut Vec<u8>) {
    let root = communicator.process_at_rank(root as i32);
    let mut length = bytes.len() as u64;
    root.broadcast_into(&mut length);
    bytes.resize(length as usize, 0);
    for part in bytes.chunks_mut(LARGEST_MESSAGE) {
        root.broadcast_into(part);
    }
}

impl Group {
    pub(super) fn gather_by_mpi(self, values: &[f32]) -> Result<Vec<f32>> {
        let mut all = vec![0f32; values.len() * self.size];
        if !values.is_empty() {
            self.arrive()?;
            world().all_gather_into(values, &mut all[..]);
            count(values.len() * (self.size - 1));
        }
        Ok(all)
    }

    pub(super) fn sum_by_mpi(self, values: &mut Vec<f32>) -> Result<()> {
        self.arrive()?;
        *values = sum(&world(), std::mem::take(values));
        Ok(())
    }

    pub(super) fn begin_sum_by_mpi(self, mut values: Vec<f32>) -> Result<PendingSum> {
        let started = STARTED.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((_, Some(lane))) = &*started else {
            drop(started);
            self.sum_by_mpi(&mut values)?;
            return Ok(PendingSum::Done(values));
        };
        let (reply, sum) = channel();
        // Fails if the thread has ended, which `Group::awaited` reports.
        drop(lane.sums.send((values, reply)));
        Ok(PendingSum::Exchanged(self, sum))
    }

    /// Waits for the thread that exchanges a sum, at most as long as the group is patient.
    pub(super) fn awaited(self, sum: &Receiver<Vec<f32>>) -> Result<Vec<f32>> {
        let began = Instant::now();
        loop {
            match sum.recv_timeout(LOOK) {
                Ok(sum) => {
                    add(&AWAITED, began);
                    return Ok(sum);
                }
                Err(RecvTimeoutError::Timeout) => self.answer(),
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(Error::device(
                        format!("of rank {}", self.rank),
                        "the thread that exchanges gradients has ended; its message is above",
                    ));
                }
            }
            if began.elapsed() > self.patience {
                return Err(self.late());
            }
        }
    }

    pub(super) fn any_by_mpi(self, bits: u32) -> Result<u32> {
        let mut all = 0u32;
        self.arrive()?;
        world().all_reduce_into(&bits, &mut all, SystemOperation::bitwise_or());
        count(1);
        Ok(all)
    }

    pub(super) fn broadcast_by_mpi(self, mut bytes: Vec<u8>) -> Result<Vec<u8>> {
        self.arrive()?;
        broadcast(&world(), 0, &mut bytes);
        Ok(bytes)
    }

    pub(super) fn share_on_machine_by_mpi(self, mut bytes: Vec<u8>) -> Result<Vec<u8>> {
        self.arrive()?;
        broadcast(&world().split_shared(0), 0, &mut bytes);
        Ok(bytes)
    }

    pub(super) fn agree_by_mpi<T>(self, own: Result<T>) -> Result<T> {
        let patient = Group {
            patience: Duration::MAX,
            ..self
        };
        patient.arrive()?;
        let failed = if own.is_err() { self.rank } else { self.size };
        let mut first = 0u32;
        world().all_reduce_into(&(failed as u32), &mut first, SystemOperation::min());
        let first = first as usize;
        if first == self.size {
            return own;
        }
        let mut bytes = match &own {
            Err(error) if first == self.rank => {
                serde_json::to_vec(&sent(error)).unwrap_or_default()
            }
            _ => Vec::new(),
        };
        broadcast(&world(), first, &mut bytes);
        let error = serde_json::from_slice(&bytes);
        Err(error.map_or_else(|e| Error::usage(e.to_string()), received))
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
            if waited < YIELDING {
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

/// An error as one rank sends it to others: the kind, the file or device, and the message.
type SentError = (String, String, String);

fn sent(error: &Error) -> SentError {
    let (kind, of, message) = match error {
        Error::Usage(message) => ("usage", String::new(), message.clone()),
        Error::Data { path, message } => ("data", path.display().to_string(), message.clone()),
        Error::Io { path, source, hint } => (
            "data",
            path.display().to_string(),
            format!("{source}; {hint}"),
        ),
        Error::Device { device, message } => ("device", device.clone(), message.clone()),
        other => ("", String::new(), other.to_string()),
    };
    (kind.to_string(), of, message)
}

/// The error that [`sent`] describes, with the same text and the same exit code of the program.
fn received((kind, of, message): SentError) -> Error {
    match kind.as_str() {
        "usage" => Error::Usage(message),
        "data" => Error::data(of, message),
        "device" => Error::device(of, message),
        _ => Error::Guard(message),
    }
}

#[cfg(test)]
mod tests {
    use super::{received, sent};
    use crate::error::Error;

    #[test]
    fn an_error_of_another_rank_has_its_text() {
        let missing = std::io::Error::from(std::io::ErrorKind::NotFound);
        for error in [
            Error::usage("a setting"),
            Error::data("images/a.png", "is damaged"),
            Error::read("images", missing),
            Error::device("a card", "was lost"),
            Error::NonFinite("a loss".to_string()),
        ] {
            let other = received(sent(&error));
            assert_eq!(other.to_string(), error.to_string());
            let is_usage = |error: &Error| matches!(error, Error::Usage(_));
            assert_eq!(is_usage(&other), is_usage(&error));
        }
    }
}
