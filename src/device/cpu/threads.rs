//! The thread pool of the CPU device. A training step runs about a thousand loops of some hundred
//! microseconds each. To wake a thread would cost as much as a loop, so an idle thread spins for a
//! while before it sleeps. The thread that calls a loop takes part in it.

use std::any::Any;
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize};
use std::sync::{Arc, Condvar, LazyLock, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long an idle thread spins before it sleeps: longer than a step pauses between two loops.
const SPIN_TIME: Duration = Duration::from_micros(300);
/// Spins before a thread yields the processor, and between two readings of the clock.
const SPINS: usize = 100;

/// The default threads: with the calling thread, one per core.
static DEFAULT: LazyLock<Threads> = LazyLock::new(|| {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    Threads::new(cores)
});

thread_local! {
    static WITH_THREADS: RefCell<Option<Arc<Threads>>> = const { RefCell::new(None) };
}

/// Runs `body`. Inside it, the loops of this thread run on `threads` threads instead of one per
/// core. Results do not depend on the number of threads.
pub fn with_threads<R>(threads: usize, body: impl FnOnce() -> R) -> R {
    let before = WITH_THREADS.replace(Some(Arc::new(Threads::new(threads))));
    let result = catch_unwind(AssertUnwindSafe(body));
    WITH_THREADS.set(before);
    result.unwrap_or_else(|panic| resume_unwind(panic))
}

/// Calls `body` with each index of `0..count`, in any order, on all threads that are free.
pub(crate) fn for_each(count: usize, body: &(dyn Fn(usize) + Sync)) {
    match WITH_THREADS.with_borrow(Clone::clone) {
        Some(threads) => threads.for_each(count, body),
        None => DEFAULT.for_each(count, body),
    }
}

struct Threads {
    shared: Arc<Shared>,
    others: Vec<JoinHandle<()>>,
}

struct Shared {
    /// Locked by the thread whose loop runs.
    busy: Mutex<()>,
    /// The current loop, or null.
    job: AtomicPtr<Job>,
    /// Counts the loops.
    number: AtomicUsize,
    /// The number of threads that may hold the pointer to the loop.
    inside: AtomicUsize,
    sleeping: AtomicUsize,
    /// Locked between the last check of `number` and the sleep, so that no wake-up is lost.
    bed: Mutex<()>,
    wake: Condvar,
    closed: AtomicBool,
}

/// A loop. It is stored on the stack of the thread that called it.
struct Job {
    /// Borrowed until the loop ends.
    body: *const (dyn Fn(usize) + Sync),
    count: usize,
    next: AtomicUsize,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Job {
    /// Runs `body` for the next index until none is left. A panic ends the loop and is stored.
    fn work(&self) {
        // SAFETY: a thread that has the job is counted in `inside` or is its caller, and the caller
        // borrows the body until `inside` is 0.
        let body = unsafe { &*self.body };
        let indices = AssertUnwindSafe(|| {
            loop {
                let index = self.next.fetch_add(1, Relaxed);
                if index >= self.count {
                    return;
                }
                body(index);
            }
        });
        if let Err(panic) = catch_unwind(indices) {
            self.next.store(self.count, Relaxed);
            lock(&self.panic).get_or_insert(panic);
        }
    }
}

impl Threads {
    /// A pool of `count` threads. The calling thread is one of them.
    fn new(count: usize) -> Self {
        let shared = Arc::new(Shared {
            busy: Mutex::new(()),
            job: AtomicPtr::default(),
            number: AtomicUsize::new(0),
            inside: AtomicUsize::new(0),
            sleeping: AtomicUsize::new(0),
            bed: Mutex::new(()),
            wake: Condvar::new(),
            closed: AtomicBool::new(false),
        });
        let spawn = |_| {
            let shared = shared.clone();
            let named = std::thread::Builder::new().name("parallax-cpu".to_string());
            // If the system refuses a thread, the loops run on fewer.
            named.spawn(move || shared.run_loops()).ok()
        };
        let others = (1..count).map_while(spawn).collect();
        Threads { shared, others }
    }

    fn for_each(&self, count: usize, body: &(dyn Fn(usize) + Sync)) {
        let alone = self.others.is_empty() || count < 2;
        let free = (!alone).then(|| self.shared.busy.try_lock());
        let Some(Ok(_busy)) = free else {
            return (0..count).for_each(body);
        };
        let job = Job {
            // SAFETY: only the lifetime changes, and `run` returns when no thread has the pointer.
            body: unsafe { std::mem::transmute::<&(dyn Fn(usize) + Sync), _>(body) },
            count,
            next: AtomicUsize::new(0),
            panic: Mutex::new(None),
        };
        self.shared.run(&job);
        if let Some(panic) = job
            .panic
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner)
        {
            resume_unwind(panic);
        }
    }
}

impl Shared {
    fn run(&self, job: &Job) {
        self.job.store(std::ptr::from_ref(job).cast_mut(), SeqCst);
        self.number.fetch_add(1, SeqCst);
        if self.sleeping.load(SeqCst) > 0 {
            let _bed = lock(&self.bed);
            (1..job.count)
                .take(self.sleeping.load(SeqCst))
                .for_each(|_| self.wake.notify_one());
        }
        job.work();
        // A thread increments `inside` before it reads the pointer: it reads null or is waited for.
        self.job.store(std::ptr::null_mut(), SeqCst);
        let mut spins = 0;
        while self.inside.load(SeqCst) > 0 {
            pause(&mut spins);
        }
    }

    /// The main function of a thread: takes part in one loop after the other.
    fn run_loops(&self) {
        let mut seen = 0;
        while let Some(number) = self.next_after(seen) {
            seen = number;
            self.inside.fetch_add(1, SeqCst);
            let job = self.job.load(SeqCst);
            if !job.is_null() {
                // SAFETY: the job is alive, because `run` waits until `inside` is 0.
                unsafe { &*job }.work();
            }
            self.inside.fetch_sub(1, SeqCst);
        }
    }

    /// Waits for a loop after `seen` and returns its number, or `None` when the pool is dropped.
    fn next_after(&self, seen: usize) -> Option<usize> {
        let changed = || {
            let number = self.number.load(SeqCst);
            (number != seen || self.closed.load(SeqCst)).then_some(number)
        };
        let (start, mut spins) = (Instant::now(), 0);
        let number = loop {
            if let Some(number) = changed() {
                break number;
            }
            pause(&mut spins);
            if spins % SPINS == 0 && start.elapsed() > SPIN_TIME {
                let mut bed = lock(&self.bed);
                self.sleeping.fetch_add(1, SeqCst);
                let number = loop {
                    if let Some(number) = changed() {
                        break number;
                    }
                    bed = self.wake.wait(bed).unwrap_or_else(PoisonError::into_inner);
                };
                self.sleeping.fetch_sub(1, SeqCst);
                break number;
            }
        };
        (!self.closed.load(SeqCst)).then_some(number)
    }
}

/// Waits for a moment. After [`SPINS`] calls, it yields the processor to other programs.
fn pause(spins: &mut usize) {
    *spins += 1;
    if *spins < SPINS {
        std::hint::spin_loop();
    } else {
        std::thread::yield_now();
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.shared.closed.store(true, SeqCst);
        drop(lock(&self.shared.bed));
        self.shared.wake.notify_all();
        for thread in self.others.drain(..) {
            // A thread does not panic: `work` catches the panics of a body.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_index_is_passed_once() {
        with_threads(4, || {
            for count in (0..200).chain([10_000]) {
                let calls: Vec<AtomicUsize> = (0..count).map(|_| AtomicUsize::new(0)).collect();
                for_each(count, &|index| {
                    calls[index].fetch_add(1, Relaxed);
                });
                assert!(calls.iter().all(|calls| calls.load(Relaxed) == 1));
            }
        });
    }

    /// Runs loops at once, after a while, and when all threads sleep.
    #[test]
    fn sleeping_threads_wake() {
        with_threads(3, || {
            for wait in [0, 0, 100, 1_000, 20_000, 0, 5_000] {
                std::thread::sleep(Duration::from_micros(wait));
                let threads = Mutex::new(std::collections::HashSet::new());
                for_each(3, &|_| {
                    lock(&threads).insert(std::thread::current().id());
                    // Long enough for each index to run on a thread of its own.
                    std::thread::sleep(Duration::from_millis(30));
                });
                assert_eq!(lock(&threads).len(), 3);
            }
        });
    }

    #[test]
    fn nested_and_concurrent_loops_run() {
        with_threads(3, || {
            let sum = AtomicUsize::new(0);
            for_each(8, &|_| {
                for_each(8, &|index| {
                    sum.fetch_add(index, Relaxed);
                });
            });
            assert_eq!(sum.into_inner(), 8 * 28);
        });
        let sum = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..500 {
                        for_each(16, &|index| {
                            sum.fetch_add(index, Relaxed);
                        });
                    }
                });
            }
        });
        assert_eq!(sum.into_inner(), 4 * 500 * 120);
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_threads_survive() {
        with_threads(3, || {
            for _ in 0..50 {
                let caught = catch_unwind(|| {
                    for_each(100, &|index| assert!(index != 57, "index 57"));
                });
                assert!(caught.is_err());
                let sum = AtomicUsize::new(0);
                for_each(100, &|index| {
                    sum.fetch_add(index, Relaxed);
                });
                assert_eq!(sum.into_inner(), 4_950);
            }
        });
    }
}
