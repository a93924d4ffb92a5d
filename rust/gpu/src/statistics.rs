//! Mean and variance of what a convolution produces, cuda/statistics.cuh: its blocks leave moments in workspace, one
//! launch puts together those of several convolutions.

use crate::depthwise::{ceil_div, scalar};
use crate::placed::Placed;
use striate_core::recipe::{Unit, values};
use striate_core::{DType, Launch, Word};

const THREADS: u32 = 128;

impl Placed<'_> {
    /// The type of arguments of a kernel whose own are `base`.
    pub fn arguments(&self, base: &str) -> String {
        if self.moments { format!("WithMoments<{base}>") } else { base.into() }
    }

    /// What follows its own arguments, where so many blocks produce a part of each channel.
    pub fn moment_words(&self, slots: i64) -> impl Iterator<Item = Word> {
        [Word::Workspace(0), Word::Value(slots)].into_iter().take(if self.moments { 2 } else { 0 })
    }

    /// Bytes of what they leave behind: count, mean and squared deviations.
    pub fn workspace(&self, slots: i64) -> usize {
        let channels = self.geometry.groups() * self.geometry.c_out();
        if self.moments { 3 * self.dtype.accumulator().size() * (channels * slots) as usize } else { 0 }
    }
}

/// Writes means and variances of tensors whose moments lie at so many bytes of workspace, in so many bytes each.
pub fn merge(accumulator: DType, channels: usize, tensors: &[(usize, usize)], to: Word) -> Launch {
    let mut words = vec![to, Word::Value(channels as i64)];
    words.extend(tensors.iter().map(|&(at, _)| Word::Workspace(at)));
    let slot = 3 * accumulator.size() * channels;
    words.extend(values(tensors.iter().map(|&(_, bytes)| (bytes / slot) as i64)));
    let unit = Unit {
        header: "statistics.cuh",
        arguments: &format!("MergeArgs<{}>", tensors.len()),
        function: "merge_moments<K>",
        types: &[("Acc", scalar(accumulator))],
        constants: &[],
    };
    let source = unit.source(THREADS, 1024, words.len());
    let warps = (channels * tensors.len()) as i64;
    Launch { source, grid: ceil_div(warps, i64::from(THREADS / 32)) as u32, block: THREADS, shared: 0, words }
}
