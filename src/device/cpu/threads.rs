//! The threads of the CPU device. A training step has about a thousand loops of some hundred microseconds, so a thread
//! that has nothing to do looks out for the next loop for a while before it sleeps: waking it would cost as much as a
//! loop. The thread that asks for a loop takes part in it.

use std::any::Any;
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize};
use std::sync::{Arc, Condvar, LazyLock, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long a thread looks out before it sleeps: longer than what stands between two loops of a step.
const LOOK_OUT: Duration = Duration::from_micros(300);
/// Looks between two questions for the time, and before the processor is offered to other programs.
const LOOKS: usize = 100;

/// The threads of the process, one a core with the caller's.
static ALL: LazyLock<Threads> = LazyLock::new(|| {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    Threads::new(cores)
});

thread_local! {
    static CHOSEN: RefCell<Option<Arc<Threads>>> = const { RefCell::new(None) };
}

/// Runs `body`, in which the loops of this thread have `threads` threads in place of one a core. Their results do not
/// depend on it.
pub fn with_threads<R>(threads: usize, body: impl FnOnce() -> R) -> R {
    let before = CHOSEN.replace(Some(Arc::new(Threads::new(threads))));
    let result = catch_unwind(AssertUnwindSafe(body));
    CHOSEN.set(before);
    result.unwrap_or_else(|panic| resume_unwind(panic))
}

/// Calls `body` with each of 0 .. count, in any order and on several threads; on this one where the others are busy.
pub(crate) fn for_each(count: usize, body: &(dyn Fn(usize) + Sync)) {
    match CHOSEN.with_borrow(Clone::clone) {
        Some(threads) => threads.for_each(count, body),
        None => ALL.for_each(count, body),
    }
}

struct Threads {
    shared: Arc<Shared>,
    others: Vec<JoinHandle<()>>,
}

struct Shared {
    /// Held by the thread whose loop runs.
    busy: Mutex<()>,
    /// The loop that runs, or null.
    job: AtomicPtr<Job>,
    /// Goes up with each loop.
    number: AtomicUsize,
    /// Threads that may hold the pointer to the loop.
    inside: AtomicUsize,
    sleeping: AtomicUsize,
    /// Guards the step from looking out to sleeping.
    bed: Mutex<()>,
    bell: Condvar,
    closed: AtomicBool,
}

/// A loop: on the stack of the thread that asked for it.
struct Job {
    /// Borrowed for as long as the loop runs.
    body: *const (dyn Fn(usize) + Sync),
    count: usize,
    next: AtomicUsize,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Job {
    /// Takes turns until none is left. A panic ends the loop and is kept.
    fn work(&self) {
        // SAFETY: whoever has the job is counted in `inside` or asked for it, and the body is borrowed until these are
        // gone.
        let body = unsafe { &*self.body };
        let turns = AssertUnwindSafe(|| {
            loop {
                let turn = self.next.fetch_add(1, Relaxed);
                if turn >= self.count {
                    return;
                }
                body(turn);
            }
        });
        if let Err(panic) = catch_unwind(turns) {
            self.next.store(self.count, Relaxed);
            lock(&self.panic).get_or_insert(panic);
        }
    }
}

impl Threads {
    /// `count` threads with the one that asks.
    fn new(count: usize) -> Self {
        let shared = Arc::new(Shared {
            busy: Mutex::new(()),
            job: AtomicPtr::default(),
            number: AtomicUsize::new(0),
            inside: AtomicUsize::new(0),
            sleeping: AtomicUsize::new(0),
            bed: Mutex::new(()),
            bell: Condvar::new(),
            closed: AtomicBool::new(false),
        });
        let spawn = |_| {
            let shared = shared.clone();
            let named = std::thread::Builder::new().name("parallax-cpu".to_string());
            // Where the system gives no more threads, the loops run on those that there are.
            named.spawn(move || shared.look_out()).ok()
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
            // SAFETY: only the lifetime is left out; `run` returns when no thread has the pointer any more.
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
                .for_each(|_| self.bell.notify_one());
        }
        job.work();
        // A thread counts itself before it reads the pointer: it finds null, or is seen here.
        self.job.store(std::ptr::null_mut(), SeqCst);
        let mut looks = 0;
        while self.inside.load(SeqCst) > 0 {
            pause(&mut looks);
        }
    }

    /// The life of a thread: waits for a loop, takes part in it.
    fn look_out(&self) {
        let mut seen = 0;
        while let Some(number) = self.next_after(seen) {
            seen = number;
            self.inside.fetch_add(1, SeqCst);
            let job = self.job.load(SeqCst);
            if !job.is_null() {
                // SAFETY: the job is alive while it can be read here: `run` waits until nobody is inside.
                unsafe { &*job }.work();
            }
            self.inside.fetch_sub(1, SeqCst);
        }
    }

    /// The number of a loop after `seen`, as soon as there is one; None at the end.
    fn next_after(&self, seen: usize) -> Option<usize> {
        let changed = || {
            let number = self.number.load(SeqCst);
            (number != seen || self.closed.load(SeqCst)).then_some(number)
        };
        let (start, mut looks) = (Instant::now(), 0);
        let number = loop {
            if let Some(number) = changed() {
                break number;
            }
            pause(&mut looks);
            if looks % LOOKS == 0 && start.elapsed() > LOOK_OUT {
                let mut bed = lock(&self.bed);
                self.sleeping.fetch_add(1, SeqCst);
                let number = loop {
                    if let Some(number) = changed() {
                        break number;
                    }
                    bed = self.bell.wait(bed).unwrap_or_else(PoisonError::into_inner);
                };
                self.sleeping.fetch_sub(1, SeqCst);
                break number;
            }
        };
        (!self.closed.load(SeqCst)).then_some(number)
    }
}

/// Waits for a moment; from the hundredth on it lets others have the processor, where there are any.
fn pause(looks: &mut usize) {
    *looks += 1;
    if *looks < LOOKS {
        std::hint::spin_loop();
    } else {
        std::thread::yield_now();
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.shared.closed.store(true, SeqCst);
        drop(lock(&self.shared.bed));
        self.shared.bell.notify_all();
        for thread in self.others.drain(..) {
            // It does not panic: what a loop's body does is caught in `work`.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_turn_is_taken_once() {
        with_threads(4, || {
            for count in (0..200).chain([10_000]) {
                let taken: Vec<AtomicUsize> = (0..count).map(|_| AtomicUsize::new(0)).collect();
                for_each(count, &|turn| {
                    taken[turn].fetch_add(1, Relaxed);
                });
                assert!(taken.iter().all(|taken| taken.load(Relaxed) == 1));
            }
        });
    }

    /// Loops that follow one another at once, after a while, and after everyone has fallen asleep.
    #[test]
    fn sleepers_wake() {
        with_threads(3, || {
            for wait in [0, 0, 100, 1_000, 20_000, 0, 5_000] {
                std::thread::sleep(Duration::from_micros(wait));
                let threads = Mutex::new(std::collections::HashSet::new());
                for_each(3, &|_| {
                    lock(&threads).insert(std::thread::current().id());
                    // Long enough that each turn finds a thread of its own.
                    std::thread::sleep(Duration::from_millis(30));
                });
                assert_eq!(lock(&threads).len(), 3);
            }
        });
    }

    #[test]
    fn a_loop_inside_a_loop_and_several_at_once_are_run_too() {
        with_threads(3, || {
            let sum = AtomicUsize::new(0);
            for_each(8, &|_| {
                for_each(8, &|turn| {
                    sum.fetch_add(turn, Relaxed);
                });
            });
            assert_eq!(sum.into_inner(), 8 * 28);
        });
        let sum = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..500 {
                        for_each(16, &|turn| {
                            sum.fetch_add(turn, Relaxed);
                        });
                    }
                });
            }
        });
        assert_eq!(sum.into_inner(), 4 * 500 * 120);
    }

    #[test]
    fn a_panic_reaches_the_caller_and_leaves_the_threads_whole() {
        with_threads(3, || {
            for _ in 0..50 {
                let caught = catch_unwind(|| {
                    for_each(100, &|turn| assert!(turn != 57, "turn 57"));
                });
                assert!(caught.is_err());
                let sum = AtomicUsize::new(0);
                for_each(100, &|turn| {
                    sum.fetch_add(turn, Relaxed);
                });
                assert_eq!(sum.into_inner(), 4_950);
            }
        });
    }
}
