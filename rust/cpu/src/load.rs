//! Filling boxes from tensors.

use crate::frame::{Frame, Lanes, Strides, Track};
use striate_core::Scalar;
use striate_simd::Convert;
use striate_simd::rows::{Block, widen};

/// Where a box's source positions lie in the tensor, for one band.
#[derive(Clone, Copy, Debug)]
pub struct Cut {
    /// First source position inside the tensor along each axis, and the position in the box it goes to.
    first: [(usize, usize); 3],
    /// Source positions to be copied along each axis.
    count: [usize; 3],
}

impl Cut {
    /// The cut for the band that starts at `start`.
    pub fn new(tracks: &[Track; 3], frame: &Frame, start: [usize; 3]) -> Cut {
        let mut cut = Cut { first: [(0, 0); 3], count: [0; 3] };
        for a in 0..3 {
            let from = tracks[a].box_start(start[a]);
            let lo = from.clamp(0, tracks[a].source);
            let hi = (from + frame.extent[a] as i64).clamp(lo, tracks[a].source);
            cut.first[a] = (lo as usize, (lo - from) as usize);
            cut.count[a] = (hi - lo) as usize;
        }
        cut
    }
}

/// Copies one channel (or `lanes` channels) of a sample into a box whose padding is already zero.
/// `sample` starts at the first channel to be copied.
pub fn load<S: Scalar, I: Convert<S>>(
    isa: I,
    (frame, cut): (&Frame, &Cut),
    strides: &Strides,
    lanes: (Lanes, usize),
    sample: &[S],
    into: &mut [S::Acc],
) {
    if cut.count.contains(&0) {
        return;
    }
    for s0 in 0..cut.count[0] {
        let from = (cut.first[0].0 + s0) * strides.axis[0]
            + cut.first[1].0 * strides.axis[1]
            + cut.first[2].0 * strides.axis[2];
        let to = (cut.first[0].1 + s0) * frame.pitch[0] + cut.first[1].1 * frame.pitch[1];
        if lanes.0 == Lanes::Width {
            width_slice(isa, (frame, cut), strides, &sample[from..], &mut into[to..]);
        } else {
            channel_slice(isa, (frame, cut), (strides, lanes.1), &sample[from..], &mut into[to..]);
        }
    }
}

fn width_slice<S: Scalar, I: Convert<S>>(
    isa: I,
    (frame, cut): (&Frame, &Cut),
    strides: &Strides,
    from: &[S],
    into: &mut [S::Acc],
) {
    let (residues, first) = (frame.residues, cut.first[2].1);
    for residue in 0..residues.min(cut.count[2]) {
        // Column `residue` of the tensor's part goes to this box position, its followers next to it.
        let to = frame.shift(2, first + residue);
        let block = Block {
            rows: cut.count[1],
            cols: (cut.count[2] - residue).div_ceil(residues),
            from_pitch: strides.axis[1],
            from_step: strides.axis[2] * residues,
            to_pitch: frame.pitch[1],
            to_step: 1,
        };
        widen(isa, &block, &from[residue * strides.axis[2]..], &mut into[to..]);
    }
}

fn channel_slice<S: Scalar, I: Convert<S>>(
    isa: I,
    (frame, cut): (&Frame, &Cut),
    (strides, lanes): (&Strides, usize),
    from: &[S],
    into: &mut [S::Acc],
) {
    for s1 in 0..cut.count[1] {
        let block = Block {
            rows: cut.count[2],
            cols: lanes,
            from_pitch: strides.axis[2],
            from_step: strides.channel,
            to_pitch: frame.unit,
            to_step: 1,
        };
        let to = s1 * frame.pitch[1] + cut.first[2].1 * frame.unit;
        widen(isa, &block, &from[s1 * strides.axis[1]..], &mut into[to..]);
    }
}
