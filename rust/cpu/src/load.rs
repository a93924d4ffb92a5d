//! Filling boxes from tensors.

use crate::frame::{Frame, Lanes, Strides, Track};
use striate_core::Scalar;
use striate_simd::rows::{Block, Deal, deal, widen};
use striate_simd::{Convert, Simd};

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

    /// Box positions along an axis that are inside the tensor; all of them for no axis.
    pub fn real(&self, axis: Option<usize>) -> std::ops::Range<usize> {
        axis.map_or(0..usize::MAX, |a| self.first[a].1..self.first[a].1 + self.count[a])
    }
}

/// Channels to be copied: one, or `lanes` of them into boxes `to_box` apart, a vector of channels in each.
#[derive(Clone, Copy, Debug)]
pub struct Channels {
    /// What lanes are.
    pub along: Lanes,
    /// Number of channels.
    pub count: usize,
    /// Distance of boxes.
    pub to_box: usize,
}

/// Copies channels of a sample into boxes whose padding is already zero. `sample` starts at the first channel.
pub fn load<S: Scalar, I: Convert<S>>(
    isa: I,
    (frame, cut): (&Frame, &Cut),
    strides: &Strides,
    channels: Channels,
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
        if channels.along == Lanes::Width {
            width_slice(isa, (frame, cut), strides, &sample[from..], &mut into[to..]);
            continue;
        }
        for s1 in 0..cut.count[1] {
            let row = &sample[from + s1 * strides.axis[1]..];
            let to = to + s1 * frame.pitch[1] + cut.first[2].1 * frame.unit;
            positions(isa, cut.count[2], strides, channels, row, &mut into[to..]);
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

/// Copies the channels of `count` positions along the last axis.
pub fn positions<S: Scalar, I: Convert<S>>(
    isa: I,
    count: usize,
    strides: &Strides,
    channels: Channels,
    from: &[S],
    into: &mut [S::Acc],
) {
    let width = <I as Simd<S::Acc>>::LANES;
    if strides.channel == 1 {
        let dealt = Deal { rows: count, cols: channels.count, from_pitch: strides.axis[2], to_box: channels.to_box };
        return deal(isa, &dealt, from, into);
    }
    for (index, first) in (0..channels.count).step_by(width).enumerate() {
        let block = Block {
            rows: count,
            cols: width.min(channels.count - first),
            from_pitch: strides.axis[2],
            from_step: strides.channel,
            to_pitch: width,
            to_step: 1,
        };
        widen(isa, &block, &from[first * strides.channel..], &mut into[index * channels.to_box..]);
    }
}
