//! From a stage of accumulators into the tensor.

use super::{Produce, Run};
use crate::frame::Lanes;
use striate_core::Scalar;
use striate_simd::Convert;
use striate_simd::rows::{Block, Weave, narrow, weave};

impl<S: Scalar, I: Convert<S>> Produce<S, I> {
    /// Converts a stage and scatters it to where it belongs.
    pub(super) fn flush(&self, run: &Run<'_, S::Acc, I>, stage: &[S::Acc], out: &mut [S]) {
        let size = run.kind.size;
        let ([slice, row, _], phase) = self.destination(size);
        for o0 in 0..size[0] {
            if self.lanes == Lanes::Channels {
                for o1 in 0..size[1] {
                    let block = Block {
                        rows: size[2],
                        cols: run.lanes,
                        from_pitch: phase,
                        from_step: 1,
                        to_pitch: self.out.axis[2],
                        to_step: self.out.channel,
                    };
                    let to = run.dst + o0 * self.out.axis[0] + o1 * self.out.axis[1];
                    narrow(self.isa, &block, &stage[o0 * slice + o1 * row..], &mut out[to..]);
                }
                continue;
            }
            if self.tracks[2].sweeps.len() == 2 && self.out.axis[2] == 1 {
                let woven =
                    Weave { rows: size[1], cols: size[2], from_pitch: row, second: phase, to_pitch: self.out.axis[1] };
                weave(self.isa, &woven, &stage[o0 * slice..], &mut out[run.dst + o0 * self.out.axis[0]..]);
                continue;
            }
            for sweep in self.tracks[2].sweeps.iter().filter(|s| self.tracks[2].count(s, size[2]) > 0) {
                let p2 = sweep.out0 as usize;
                let block = Block {
                    rows: size[1],
                    cols: self.tracks[2].count(sweep, size[2]),
                    from_pitch: row,
                    from_step: 1,
                    to_pitch: self.out.axis[1],
                    to_step: self.out.axis[2] * self.tracks[2].out_step,
                };
                let to = run.dst + o0 * self.out.axis[0] + p2 * self.out.axis[2];
                narrow(self.isa, &block, &stage[o0 * slice + p2 * phase..], &mut out[to..]);
            }
        }
    }
}
