//! Where threads come from. Kernels ask a [`Pool`] for slots and never start a thread themselves.

use crate::view::{Cuts, Shards};
use std::sync::atomic::{AtomicUsize, Ordering};

/// A source of threads.
pub trait Pool: Sync {
    /// How many slots may run at the same time, at least 1.
    fn width(&self) -> usize;

    /// Calls `body(slot)` once for every slot in `0..slots`, possibly concurrently, and returns when all are done.
    /// No two concurrent calls share a slot number.
    fn run(&self, slots: usize, body: &(dyn Fn(usize) + Sync));
}

/// The calling thread alone.
pub struct Serial;

impl Pool for Serial {
    fn width(&self) -> usize {
        1
    }
    fn run(&self, slots: usize, body: &(dyn Fn(usize) + Sync)) {
        (0..slots).for_each(body);
    }
}

/// Hands the numbers `0..tasks` out to the slots of a pool; each number is given exactly once.
pub fn claim(pool: &dyn Pool, tasks: usize, body: &(dyn Fn(usize, usize) + Sync)) {
    let slots = pool.width().min(tasks);
    if slots <= 1 {
        return (0..tasks).for_each(|task| body(0, task));
    }
    let next = AtomicUsize::new(0);
    pool.run(slots, &|slot| {
        loop {
            let task = next.fetch_add(1, Ordering::Relaxed);
            if task >= tasks {
                return;
            }
            body(slot, task);
        }
    });
}

/// What one part of a job may touch besides what it reads.
pub struct Part<'a, T, A> {
    /// Number of the part.
    pub index: usize,
    /// The part's own piece of the output.
    pub out: &'a mut [T],
    /// Scratch memory, content arbitrary.
    pub scratch: &'a mut [A],
}

/// Runs `body` once for every shard of the output. `bounds` cuts `out` into parts; `scratch` is cut into one equal
/// piece per slot.
pub fn for_each_part<T: Send, A: Send>(
    pool: &dyn Pool,
    (out, bounds): (&mut [T], &[usize]),
    scratch: &mut [A],
    body: &(dyn Fn(Part<'_, T, A>) + Sync),
) {
    let parts = bounds.len().saturating_sub(1);
    let each = scratch.len() / pool.width();
    let (out, scratch) = (Shards::new(out, Cuts::At(bounds)), Shards::new(scratch, Cuts::Every(each)));
    claim(pool, parts, &|slot, index| {
        // SAFETY: `claim` gives every part number once and never the same slot to two threads at a time.
        let (out, scratch) = unsafe { (out.part(index), scratch.part(slot)) };
        body(Part { index, out, scratch });
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Threads(usize);
    impl Pool for Threads {
        fn width(&self) -> usize {
            self.0
        }
        fn run(&self, slots: usize, body: &(dyn Fn(usize) + Sync)) {
            std::thread::scope(|scope| {
                for slot in 0..slots {
                    scope.spawn(move || body(slot));
                }
            });
        }
    }

    #[test]
    fn every_part_is_run_once_with_its_own_memory() {
        for width in [1, 2, 7] {
            let mut out = vec![0u32; 1000];
            let bounds: Vec<usize> = (0..=100).map(|i| i * i / 10).collect();
            let mut scratch = vec![0u8; 70];
            for_each_part(&Threads(width), (&mut out, &bounds), &mut scratch, &|part: Part<'_, u32, u8>| {
                part.scratch.fill(part.index as u8);
                for value in part.out {
                    *value += 1 + u32::from(part.scratch[0]);
                }
            });
            for i in 0..100 {
                assert!(out[bounds[i]..bounds[i + 1]].iter().all(|&v| v == 1 + i as u32));
            }
        }
    }
}
