//! Sums of stored numbers in a fixed order.

use crate::isa::{Convert, Simd, Task};
use striate_core::Scalar;

/// The sum of neighbouring numbers.
pub fn of_row<S: Scalar, I: Convert<S>>(isa: I, numbers: &[S]) -> S::Acc {
    isa.run(OfRow(numbers))
}

struct OfRow<'a, S>(&'a [S]);

impl<S: Scalar, I: Convert<S>> Task<I> for OfRow<'_, S> {
    type Out = S::Acc;
    #[inline(always)]
    fn call(self, isa: I) -> S::Acc {
        let lanes = <I as Simd<S::Acc>>::LANES;
        // Four chains hide the latency of an addition.
        let mut sums = [isa.splat(S::Acc::default()); 4];
        let mut blocks = self.0.chunks_exact(4 * lanes);
        for block in &mut blocks {
            for (sum, part) in sums.iter_mut().zip(block.chunks_exact(lanes)) {
                // SAFETY: the part is exactly one vector.
                *sum = isa.add(*sum, unsafe { isa.widen(part.as_ptr()) });
            }
        }
        let mut vectors = blocks.remainder().chunks_exact(lanes);
        for part in &mut vectors {
            // SAFETY: the part is exactly one vector.
            sums[0] = isa.add(sums[0], unsafe { isa.widen(part.as_ptr()) });
        }
        let mut tail = S::Acc::default();
        for number in vectors.remainder() {
            tail += number.widen();
        }
        isa.sum(isa.add(isa.add(sums[0], sums[1]), isa.add(sums[2], sums[3]))) + tail
    }
}

/// Adds rows of `sums.len()` numbers, laid end to end, onto `sums`.
pub fn of_columns<S: Scalar, I: Convert<S>>(isa: I, rows: &[S], sums: &mut [S::Acc]) {
    isa.run(OfColumns(rows, sums));
}

struct OfColumns<'a, S: Scalar>(&'a [S], &'a mut [S::Acc]);

impl<S: Scalar, I: Convert<S>> Task<I> for OfColumns<'_, S> {
    type Out = ();
    #[inline(always)]
    fn call(self, isa: I) {
        let (lanes, width) = (<I as Simd<S::Acc>>::LANES, self.1.len());
        for row in self.0.chunks_exact(width) {
            let mut parts = row.chunks_exact(lanes);
            let mut sums = self.1.chunks_exact_mut(lanes);
            for (part, sum) in (&mut parts).zip(&mut sums) {
                // SAFETY: both are exactly one vector.
                unsafe { isa.store(sum.as_mut_ptr(), isa.add(isa.load(sum.as_ptr()), isa.widen(part.as_ptr()))) };
            }
            for (number, sum) in parts.remainder().iter().zip(sums.into_remainder()) {
                *sum += number.widen();
            }
        }
    }
}
