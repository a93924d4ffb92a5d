//! Threads of our own, for callers without torch and for forked children, in which torch's OpenMP pool would hang.
//!
//! Every caller works on its own job until no slot of it is left, so nested and concurrent use always progress; the
//! threads only help. They are started when first wanted, and again in a process that was forked from this one.

use crate::planning::generation;
use std::any::Any;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use striate_core::Pool;

/// Most threads a caller may ask for.
const WIDEST: usize = 256;

type Body<'a> = dyn Fn(usize) + Sync + 'a;

struct Job {
    body: *const Body<'static>,
    slots: usize,
    next: AtomicUsize,
    progress: Mutex<Progress>,
    finished: Condvar,
}

#[derive(Default)]
struct Progress {
    done: usize,
    panic: Option<Box<dyn Any + Send>>,
}

// SAFETY: the body is `Sync` and dereferenced only between `OwnPool::run`'s entry and return, see `Job::help`.
unsafe impl Send for Job {}
// SAFETY: as above; the rest is atomics and locks.
unsafe impl Sync for Job {}

impl Job {
    /// Works on slots until none is left.
    fn help(&self) {
        loop {
            let slot = self.next.fetch_add(1, Ordering::Relaxed);
            if slot >= self.slots {
                return;
            }
            // SAFETY: a slot below `slots` is not done yet, so the caller of `run` still waits and its body lives.
            let outcome = catch_unwind(AssertUnwindSafe(|| unsafe { (*self.body)(slot) }));
            let mut progress = lock(&self.progress);
            progress.done += 1;
            if let Err(panic) = outcome {
                progress.panic = Some(panic);
            }
            if progress.done == self.slots {
                self.finished.notify_all();
            }
        }
    }

    fn exhausted(&self) -> bool {
        self.next.load(Ordering::Relaxed) >= self.slots
    }
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Arc<Job>>,
    threads: usize,
}

struct Crew {
    generation: u32,
    queue: Mutex<Queue>,
    arrived: Condvar,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Crew {
    /// This process's crew. One inherited through a fork has no threads and perhaps a locked queue: it is left
    /// behind untouched.
    fn get() -> &'static Crew {
        static CREW: AtomicPtr<Crew> = AtomicPtr::new(std::ptr::null_mut());
        let generation = generation();
        let mut current = CREW.load(Ordering::Acquire);
        loop {
            // SAFETY: null or a crew leaked below.
            if let Some(crew) = unsafe { current.as_ref() }.filter(|crew| crew.generation == generation) {
                return crew;
            }
            let made = Box::into_raw(Box::new(Crew { generation, queue: Mutex::default(), arrived: Condvar::new() }));
            match CREW.compare_exchange(current, made, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => current = made,
                Err(other) => {
                    // SAFETY: `made` was never published.
                    drop(unsafe { Box::from_raw(made) });
                    current = other;
                }
            }
        }
    }

    fn publish(&'static self, job: &Arc<Job>) {
        let mut queue = lock(&self.queue);
        queue.jobs.push_back(job.clone());
        while queue.threads < job.slots - 1 {
            let name = format!("striate-{}", queue.threads);
            // A refused thread is no error: the caller does its share.
            if std::thread::Builder::new().name(name).spawn(move || self.serve()).is_err() {
                break;
            }
            queue.threads += 1;
        }
        drop(queue);
        self.arrived.notify_all();
    }

    fn withdraw(&self, job: &Arc<Job>) {
        lock(&self.queue).jobs.retain(|other| !Arc::ptr_eq(other, job));
    }

    fn serve(&self) {
        loop {
            let mut queue = lock(&self.queue);
            let job = loop {
                match queue.jobs.iter().find(|job| !job.exhausted()) {
                    Some(job) => break job.clone(),
                    None => queue = self.arrived.wait(queue).unwrap_or_else(PoisonError::into_inner),
                }
            };
            drop(queue);
            job.help();
        }
    }
}

/// A number of slots on our own threads, the caller's included.
pub struct OwnPool {
    width: usize,
}

impl OwnPool {
    /// A pool of `width` slots, cut to 1..=256.
    pub fn new(width: usize) -> OwnPool {
        OwnPool { width: width.clamp(1, WIDEST) }
    }
}

impl Pool for OwnPool {
    fn width(&self) -> usize {
        self.width
    }

    fn run(&self, slots: usize, body: &(dyn Fn(usize) + Sync)) {
        if self.width == 1 || slots <= 1 {
            return (0..slots).for_each(body);
        }
        // SAFETY: only the lifetime changes; `help` uses the body for unfinished slots only, and this function
        // returns when none is left.
        let body = unsafe { std::mem::transmute::<*const Body<'_>, *const Body<'static>>(body) };
        let (next, progress) = (AtomicUsize::new(0), Mutex::default());
        let job = Arc::new(Job { body, slots, next, progress, finished: Condvar::new() });
        let crew = Crew::get();
        crew.publish(&job);
        job.help();
        let mut progress = lock(&job.progress);
        while progress.done < slots {
            progress = job.finished.wait(progress).unwrap_or_else(PoisonError::into_inner);
        }
        let panic = progress.panic.take();
        drop(progress);
        crew.withdraw(&job);
        if let Some(panic) = panic {
            resume_unwind(panic);
        }
    }
}
