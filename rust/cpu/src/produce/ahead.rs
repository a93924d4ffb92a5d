//! What is asked for while something else is worked on.

use super::{Produce, Run, Target};
use crate::frame::Lanes;
use striate_core::Scalar;
use striate_simd::Convert;
use striate_simd::ahead::Ahead;

impl<S: Scalar, I: Convert<S>> Produce<S, I> {
    /// The plane after the one at `at`, which is likely next.
    pub(super) fn next_plane(&self, at: usize, source: &[S]) -> Ahead {
        let whole = self.lanes == Lanes::Width && self.src.axis[2] == 1 && self.bands.count() == 1;
        let next = |planes: usize| (at + planes * self.src.channel).min(source.len());
        if whole { Ahead::of(&source[next(1)..next(2)]) } else { Ahead::NONE }
    }

    /// What is written after a run, or by the end of it where sums go through a stage.
    pub(super) fn next_written(&self, run: &Run<'_, S::Acc, I>, out: &[S]) -> Ahead {
        if self.out.axis[2] != 1 || !self.bands.contiguous() {
            return Ahead::NONE;
        }
        let many = run.kind.size.iter().product::<usize>() * run.lanes;
        let first = run.dst + if self.target == Target::Tensor { many } else { 0 };
        let next = |numbers: usize| (first + numbers).min(out.len());
        Ahead::of(&out[next(0)..next(many)])
    }
}
