//! Small kernels on channels-last tensors, read as they are.
//!
//! Filling a box costs a pass over memory, which small kernels cannot afford. Vectors of channels can be loaded from the
//! tensor itself: taps that meet padding are left out, rows of them among the other taps and columns of them line by
//! line.

use crate::frame::{Bands, Frame, Strides, Track};
use crate::tiling::{Mode, correlation};
use crate::weights::Weights;
use std::ops::Range;
use striate_core::{Accumulator, Sweep};
use striate_simd::Simd;
use striate_simd::correlate::{Correlation, Job, Start, Weights as TapWeights};

/// With fewer columns than this whose taps all meet real positions, padding is most of the work.
const LEAST: usize = 4;

/// Bytes that a tile of all items computed together may read: they should stay in the level-1 cache.
const NEAR: usize = 24 << 10;

/// How to produce a row.
pub struct Interior<A, I> {
    /// One for every sweep of rows and columns, columns first.
    correlations: Vec<Correlation<A, I>>,
    /// Vectors of channels that are computed together.
    pub together: usize,
    src: Strides,
    out: Strides,
}

impl<A: Accumulator, I: Simd<A>> Interior<A, I> {
    /// For a problem of rank 1 or 2 whose kernel is small beside its rows.
    pub fn new(mode: Mode, tracks: &[Track; 3], bands: &Bands, (src, out): (&Strides, &Strides)) -> Option<Self> {
        let flat =
            tracks[0].outs == 1 && tracks[0].source == 1 && tracks[0].sweeps[0].taps == 1 && tracks[0].origin == 0;
        let tapped = tracks.iter().all(|t| t.sweeps.iter().all(|s| s.taps > 0));
        let vectors = src.channel == 1 && out.channel == 1 && src.channels.is_multiple_of(I::LANES);
        if !(flat && tapped && vectors && mode == Mode::Pixels(2) && bands.size[2] == tracks[2].outs) {
            return None;
        }
        let full = |s: &Sweep| (0..s.outs).filter(|&j| s.valid_taps(j, tracks[2].source) == (0..s.taps)).count();
        if tracks[2].sweeps.iter().any(|sweep| full(sweep) < LEAST) {
            return None;
        }
        let frame = Frame::of_tensor(src);
        let (mut correlations, mut most) = (Vec::new(), 1);
        for rows in &tracks[1].sweeps {
            for along in &tracks[2].sweeps {
                let sweeps = [tracks[0].sweeps[0], *rows, *along];
                let to = [out.axis[0], out.axis[1], out.axis[2] * tracks[2].out_step];
                let phase = (&sweeps, [1, 1, along.outs as usize], [0; 3], [None, None, Some(tracks[2].source)]);
                let mut offsets = correlation::<A, I>(mode, &frame, phase, to);
                if offsets.share > 2 {
                    return None;
                }
                offsets.bounded = true;
                let rows = offsets.tiles.iter().map(|tile| tile.rows).max()?;
                most = most.max(offsets.others.len() * (offsets.taps.0 + rows * offsets.share));
                correlations.push(Correlation::new(offsets));
            }
        }
        let together = (NEAR / (most * I::LANES * size_of::<A>())).max(1);
        Some(Interior { correlations, together, src: *src, out: *out })
    }

    /// Where the source rows lie that row `row` is the first to meet, in a sample.
    pub fn fresh(&self, track: &Track, row: usize) -> Range<usize> {
        // Past the last row there may be no sweep.
        let Some(sweep) = track.sweeps.get(row % track.out_step) else { return 0..0 };
        let end = sweep.src0 + (row / track.out_step) as i64 * sweep.src_step + (sweep.taps - 1) * sweep.reach_step + 1;
        let at = |position: i64| position.clamp(0, track.source) as usize * self.src.axis[1];
        at(end - sweep.src_step)..at(end)
    }

    /// Produces row `row` of `items` vectors of channels, position by position so that neighbouring
    /// memory is read together. `sample` is the offset of the sample's first position of those channels, `first` the
    /// number of the first vector; the destination starts at the row.
    pub fn row(
        &self,
        isa: I,
        (tracks, row): (&[Track; 3], usize),
        (tensor, sample, items): (&[A], usize, usize),
        (weights, packed, first): (&Weights, &[A], usize),
        (start, dst): (&[A], &mut [A]),
    ) {
        let (phase, at) = (row % tracks[1].out_step, row / tracks[1].out_step);
        let columns = &tracks[2].sweeps;
        for (index, along) in columns.iter().enumerate() {
            let number = phase * columns.len() + index;
            let correlation = &self.correlations[number];
            let rows = &tracks[1].sweeps[phase];
            let from = (rows.src0 + at as i64 * rows.src_step) as isize * self.src.axis[1] as isize;
            let job = Job {
                src: tensor,
                base: sample as isize + from + along.src0 as isize * self.src.axis[2] as isize,
                items,
                apart: weights.item(),
                weights: TapWeights::Vector(&packed[first * weights.item() + weights.starts[number] * weights.width..]),
                start: Start::Vector(&start[first * weights.width..]),
                others: Mode::Pixels(2).clip(tracks, [0, phase, index], [0, at], correlation.others()),
                lanes: usize::MAX,
                live: None,
                dst: &mut dst[along.out0 as usize * self.out.axis[2]..],
            };
            correlation.run(isa, job);
        }
    }
}
