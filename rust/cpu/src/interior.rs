//! Small kernels on channels-last tensors, read as they are.
//!
//! Filling a box costs a pass over memory, which small kernels cannot afford. Vectors of channels can be loaded from the
//! tensor itself: taps that meet padding are left out, rows of them among the other taps and columns of them line by
//! line.

use crate::frame::{Frame, Lanes, Strides, Track};
use crate::tiling::{Mode, correlation};
use crate::weights::Weights;
use std::ops::Range;
use striate_core::{Accumulator, Sweep};
use striate_simd::Simd;
use striate_simd::ahead::Ahead;
use striate_simd::correlate::{Apart, Correlation, Job, Start, Weights as TapWeights};

/// Where the taps of a row of the kernel exceed a tile's, padding is computed with them: so many columns must have all
/// their taps on real positions to make up for it.
const LEAST: usize = 4;

/// Whether vectors of channels can be read from tensors of this memory order, so far as taps go by columns in tiles.
pub fn readable(mode: Mode, tracks: &[Track; 3], tensors: [&Strides; 2], width: usize) -> bool {
    let flat = tracks[0].outs == 1 && tracks[0].source == 1 && tracks[0].sweeps[0].taps == 1 && tracks[0].origin == 0;
    let tapped = tracks.iter().all(|t| t.sweeps.iter().all(|s| s.taps > 0));
    let vectors = tensors.iter().all(|s| s.channel == 1 && s.channels.is_multiple_of(width));
    flat && tapped && vectors && mode == Mode::Pixels(2)
}

/// How to produce a row.
pub struct Interior<A, I> {
    /// One for every sweep of rows and columns, columns first.
    correlations: Vec<Correlation<A, I>>,
    src: Strides,
    out: Strides,
}

impl<A: Accumulator, I: Simd<A>> Interior<A, I> {
    /// For a problem of rank 1 or 2 whose kernel is small beside its rows.
    pub fn new(mode: Mode, tracks: &[Track; 3], (src, out): (&Strides, &Strides)) -> Option<Self> {
        if !readable(mode, tracks, [src, out], I::LANES) {
            return None;
        }
        let full = |s: &Sweep| (0..s.outs).filter(|&j| s.valid_taps(j, tracks[2].source) == (0..s.taps)).count();
        let frame = Frame::of_tensor(src, Lanes::Channels);
        let mut correlations = Vec::new();
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
                let made = Correlation::new(offsets);
                if made.rounds() > 1 && full(along) < LEAST {
                    return None;
                }
                correlations.push(made);
            }
        }
        Some(Interior { correlations, src: *src, out: *out })
    }

    /// Where the source rows lie that row `row` is the first to meet, in a sample.
    pub fn fresh(&self, track: &Track, row: usize) -> Range<usize> {
        // Past the last row there may be no sweep.
        let Some(sweep) = track.sweeps.get(row % track.out_step) else { return 0..0 };
        let end = sweep.src0 + (row / track.out_step) as i64 * sweep.src_step + (sweep.taps - 1) * sweep.reach_step + 1;
        let at = |position: i64| position.clamp(0, track.source) as usize * self.src.axis[1];
        at(end - sweep.src_step)..at(end)
    }

    /// Produces row `row` of some vectors of channels, a few positions at a time so that neighbouring memory is read
    /// together. `sample` is the offset of the sample, `ahead` what the next row needs; the destination starts at the row and
    /// the first of the vectors.
    pub fn row(
        &self,
        isa: I,
        (tracks, row, items): (&[Track; 3], usize, Range<usize>),
        (tensor, sample, ahead): (&[A], usize, &[A]),
        (weights, packed): (&Weights, &[A]),
        (start, dst): (&[A], &mut [A]),
    ) {
        let (phase, at) = (row % tracks[1].out_step, row / tracks[1].out_step);
        let columns = &tracks[2].sweeps;
        let next = |rows: usize| (rows * self.out.axis[1]).min(dst.len());
        let ahead = [Ahead::of(ahead), Ahead::of(&dst[next(1)..next(2)])];
        for (index, along) in columns.iter().enumerate() {
            let number = phase * columns.len() + index;
            let correlation = &self.correlations[number];
            let rows = &tracks[1].sweeps[phase];
            let from = (rows.src0 + at as i64 * rows.src_step) as isize * self.src.axis[1] as isize;
            let job = Job {
                src: tensor,
                base: (sample + items.start * I::LANES) as isize
                    + from
                    + along.src0 as isize * self.src.axis[2] as isize,
                items: items.len(),
                apart: Apart { src: I::LANES, dst: I::LANES, weights: weights.item() },
                weights: TapWeights::Vector(
                    &packed[items.start * weights.item() + weights.starts[number] * weights.width..],
                ),
                start: Start::Vector(&start[items.start * weights.width..]),
                others: Mode::Pixels(2).clip(tracks, [0, phase, index], [0, at], correlation.others()),
                lanes: usize::MAX,
                live: None,
                ahead: ahead.map(|ahead| ahead.piece(index, columns.len())),
                dst: &mut dst[along.out0 as usize * self.out.axis[2]..],
            };
            correlation.run(isa, job);
        }
    }
}
