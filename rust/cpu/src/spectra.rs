//! Values of kernels that are kept for later calls.
//!
//! A kernel is known again by what is in it, and not by where it lies: comparing costs a fraction of a transform, and
//! needs nobody to tell when memory was written. Entries that were not asked for longest go first.

use crate::flat::Flat;
use std::any::{Any, TypeId};
use std::sync::{Arc, Mutex};
use striate_core::{Accumulator, View};
use striate_simd::Simd;

/// Bytes that are kept at most.
const KEPT: usize = 256 << 20;

/// All that values depend on beside the kernel's numbers.
#[derive(Clone, Copy, PartialEq)]
struct Key {
    element: TypeId,
    lanes: usize,
    length: usize,
    layout: ([usize; 3], [usize; 3], bool),
}

struct Entry<A> {
    kernel: Vec<A>,
    values: Vec<A>,
}

struct Known {
    key: Key,
    bytes: usize,
    entry: Arc<dyn Any + Send + Sync>,
}

/// Most recently used last.
static KNOWN: Mutex<Vec<Known>> = Mutex::new(Vec::new());

/// Values that an entry holds, alive while somebody looks at them.
pub(crate) struct Held<A>(Arc<Entry<A>>);

impl<A> std::ops::Deref for Held<A> {
    type Target = [A];
    fn deref(&self) -> &[A] {
        &self.0.values
    }
}

/// The values of all of an operand's kernels, `length` numbers each, from an earlier call or from `make`.
pub(crate) fn values<A: Accumulator, I: Simd<A>>(
    _isa: I,
    (flat, length): (&Flat, usize),
    kernel: &View<'_, A>,
    make: impl FnOnce(&mut [A]),
) -> Held<A> {
    let key = Key { element: TypeId::of::<A>(), lanes: I::LANES, length, layout: flat.kernel_layout() };
    // Nobody waits for the lock, which a forked child may find locked for ever.
    if let Some(found) = KNOWN.try_lock().ok().and_then(|mut known| find(&mut known, key, kernel.data)) {
        return Held(found);
    }
    let taps: usize = flat.kernel_layout().0.iter().product();
    let mut values = vec![A::default(); kernel.data.len() / taps * length];
    make(&mut values);
    let made = Arc::new(Entry { kernel: kernel.data.to_vec(), values });
    if let Ok(mut known) = KNOWN.try_lock() {
        let bytes = (made.kernel.len() + made.values.len()) * size_of::<A>();
        known.push(Known { key, bytes, entry: made.clone() });
        let mut total: usize = known.iter().map(|one| one.bytes).sum();
        while total > KEPT {
            total -= known.remove(0).bytes;
        }
    }
    Held(made)
}

fn find<A: Accumulator>(known: &mut Vec<Known>, key: Key, kernel: &[A]) -> Option<Arc<Entry<A>>> {
    let entry = |one: &Known| one.entry.clone().downcast::<Entry<A>>().ok();
    let is_it = |one: &Known| one.key == key && entry(one).is_some_and(|entry| same(&entry.kernel, kernel));
    let index = known.iter().rposition(is_it)?;
    let one = known.remove(index);
    let found = entry(&one);
    known.push(one);
    found
}

/// Equality piece by piece, each without a branch.
fn same<A: Accumulator>(a: &[A], b: &[A]) -> bool {
    let pieces = || a.chunks(256).zip(b.chunks(256));
    a.len() == b.len() && pieces().all(|(a, b)| a.iter().zip(b).fold(true, |same, (x, y)| same & (x == y)))
}

/// Gives the memory of all values back once running calls are done.
pub(crate) fn forget() {
    if let Ok(mut known) = KNOWN.try_lock() {
        known.clear();
    }
}
