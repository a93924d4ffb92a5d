//! The same program for channels of a larger contiguous tensor, handed out in pieces of a few channels of a sample, so
//! that several programs can take turns at what is in the cache.

use super::Produce;
use crate::frame::Lanes;
use std::ops::Range;
use striate_core::pool::{Part, Pool};
use striate_core::{Problem, Scalar, Tensor};
use striate_simd::{Convert, Simd};

/// Weights and bias as accumulators, in the order that they are read.
#[derive(Clone, Copy)]
pub struct Packed<'a, A> {
    pub weights: &'a [A],
    pub bias: &'a [A],
    /// Which taps are not zero, for every item; see [`Produce::live`].
    pub live: Option<&'a [bool]>,
}

impl<S: Scalar, I: Convert<S>> Produce<S, I> {
    /// The program for tensors whose samples lie `sample` apart, in pieces of `chunk` channels or, where vectors of
    /// channels are longer, of as few as possible. At most `grain` neighbouring taps live or die together.
    pub fn placed(problem: &Problem, lanes: Lanes, isa: I, (sample, chunk): (usize, usize), grain: usize) -> Self {
        let mut made = Produce::grained(problem, lanes, isa, grain);
        (made.src.sample, made.out.sample) = (sample, sample);
        let (each, items) = (chunk.div_ceil(made.weights.width), made.out.channels.div_ceil(made.weights.width));
        let bands = made.bands.count();
        (made.parts, made.bounds) = (Vec::new(), Vec::new());
        for n in 0..problem.geometry.batch() as usize {
            for item in (0..items).step_by(each) {
                made.parts.push([n, item, each.min(items - item), 0, bands]);
                made.bounds.push(n * sample + item * made.weights.width * made.out.channel);
            }
        }
        made
    }

    /// Where the pieces lie, counted from the first channel of the first sample, in order.
    pub fn pieces(&self) -> impl Iterator<Item = Range<usize>> + '_ {
        let (width, channels) = (self.weights.width, self.out.channels);
        self.parts.iter().zip(&self.bounds).map(move |([_, item, items, ..], &start)| {
            let end = ((item + items) * width).min(channels);
            start..start + (end - item * width) * self.out.channel
        })
    }

    /// Accumulators that weights and bias take.
    pub fn prepared(&self) -> usize {
        self.weights.len() + self.out.channels + <I as Simd<S::Acc>>::LANES
    }

    /// Accumulators of scratch memory that a piece needs.
    pub fn piece_scratch(&self) -> usize {
        self.scratch()
    }

    /// Reads weights and bias into [`Produce::prepared`] accumulators.
    pub fn prepare<'a>(
        &self,
        (weight, bias): (Tensor<'_>, Option<Tensor<'_>>),
        space: &'a mut [S::Acc],
        pool: &dyn Pool,
    ) -> Packed<'a, S::Acc> {
        let (weights, starts) = space.split_at_mut(self.weights.len());
        self.weights.pack(weight, weights, pool);
        crate::weights::bias(bias, starts);
        Packed { weights, bias: starts, live: None }
    }

    /// Which taps of packed weights are to be used, where any may be left out: one channel a vector, one phase.
    pub fn live(&self, packed: Packed<'_, S::Acc>) -> Option<Vec<bool>> {
        if self.planes.is_some() {
            return None;
        }
        let [phase] = &self.kinds[0].phases[..] else { return None };
        let items = packed.weights.chunks_exact(self.weights.item());
        (self.weights.width == 1).then(|| items.flat_map(|item| phase.correlation.live(item)).collect())
    }

    /// Computes a piece; `source` starts at the first channel of the first sample.
    pub fn piece(&self, part: Part<'_, S, S::Acc>, source: &[S], packed: Packed<'_, S::Acc>) {
        self.part(part, source, packed);
    }
}
