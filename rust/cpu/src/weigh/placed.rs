//! The same program for channels of larger contiguous tensors, handed out in pieces, so that several programs can take
//! turns at what is in the cache.

use super::Weigh;
use crate::frame::Lanes;
use std::ops::Range;
use striate_core::pool::Part;
use striate_core::{Problem, Scalar};
use striate_simd::Convert;

impl<S: Scalar, I: Convert<S>> Weigh<S, I> {
    /// The program for tensors whose samples lie `sample` apart.
    pub fn placed(problem: &Problem, lanes: Lanes, isa: I, sample: usize) -> Self {
        let mut made = Weigh::new(problem, lanes, isa);
        (made.grad.sample, made.input.sample) = (sample, sample);
        made
    }

    /// The channels whose sums belong together, as ranges.
    pub fn blocks(&self) -> impl Iterator<Item = Range<usize>> + '_ {
        let each = self.width() * self.together();
        (0..self.groups()).map(move |group| group * each..((group + 1) * each).min(self.pairs()))
    }

    /// The pieces that a block is the sum of, and the accumulators of each.
    pub fn pieces(&self) -> (usize, usize) {
        (self.splits, self.group())
    }

    /// Accumulators of scratch memory that a piece needs.
    pub fn piece_scratch(&self) -> usize {
        self.scratch()
    }

    /// Computes piece `index`, counted over all blocks; `grad` and `input` start at the first channel.
    pub fn piece(&self, part: Part<'_, S::Acc, S::Acc>, grad: &[S], input: &[S]) {
        self.part(part, grad, input);
    }
}
