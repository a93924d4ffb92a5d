//! Torch's own intra-operator threads, and the choice between them, our own and none.

use crate::own_pool::OwnPool;
use crate::planning::generation;
use crate::torch_stable::Shim;
use std::any::Any;
use std::ffi::c_void;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Mutex, PoisonError};
use striate_core::{Pool, Serial};
use striate_plan::Plan;

/// Slots on torch's threads; obeys `torch.set_num_threads`, runs serially inside torch's own parallel regions.
pub struct TorchPool {
    shim: &'static Shim,
    width: usize,
}

struct Region<'a> {
    body: &'a (dyn Fn(usize) + Sync),
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

extern "C" fn region(begin: i64, end: i64, context: *mut c_void) {
    // SAFETY: `TorchPool::run` passes a `Region` that outlives the loop.
    let region = unsafe { &*context.cast::<Region<'_>>() };
    for slot in begin..end {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| (region.body)(slot as usize))) {
            *region.panic.lock().unwrap_or_else(PoisonError::into_inner) = Some(panic);
        }
    }
}

impl Pool for TorchPool {
    fn width(&self) -> usize {
        self.width
    }

    fn run(&self, slots: usize, body: &(dyn Fn(usize) + Sync)) {
        let mut context = Region { body, panic: Mutex::new(None) };
        let address = (&raw mut context).cast::<c_void>();
        // SAFETY: the loop calls `region` with our context and returns when all calls have.
        let code = unsafe { (self.shim.parallel_for)(0, slots as i64, 1, region, address) };
        if let Some(panic) = context.panic.into_inner().unwrap_or_else(PoisonError::into_inner) {
            resume_unwind(panic);
        }
        assert!(code == 0, "{}", self.shim.error("torch_parallel_for"));
    }
}

/// Whether this process was forked from the one in which torch's threads work. OpenMP's hang there once used.
pub fn forked() -> bool {
    generation() != 0
}

/// Microseconds of work below which waking a thread costs more than it brings.
const WORTH_SHARING: f64 = 50.0;

/// A cautious guess at the microseconds one thread needs: every tap counted as met, and every byte moved once.
pub fn estimated_microseconds(plan: &Plan) -> f64 {
    let g = &plan.problem.geometry;
    let product = |part: fn(&striate_core::Axis) -> i64| g.axes().iter().map(|a| part(a) as f64).product::<f64>();
    let (samples, channels) = (g.batch() as f64 * g.groups() as f64, g.c_in() as f64 * g.c_out() as f64);
    let macs = samples * channels * product(|a| a.output()) * product(|a| a.kernel());
    let moved = samples * (g.c_in() as f64 * product(|a| a.input()) + g.c_out() as f64 * product(|a| a.output()));
    let macs_per_microsecond = if plan.row.name == "reference" { 100.0 } else { 10_000.0 };
    macs / macs_per_microsecond + moved * plan.problem.dtype.size() as f64 / 8000.0
}

/// Calls `then` with the pool that suits work of so many microseconds on one thread.
pub fn with_pool<T>(shim: &'static Shim, microseconds: f64, then: impl FnOnce(&dyn Pool) -> T) -> T {
    if microseconds < WORTH_SHARING {
        return then(&Serial);
    }
    match shim.threads() {
        1 => then(&Serial),
        width if forked() => then(&OwnPool::new(width)),
        width => then(&TorchPool { shim, width }),
    }
}
