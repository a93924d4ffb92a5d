//! Columns that no padding touches, read from channels-last tensors as they are.
//!
//! Filling a box costs a pass over memory, which small kernels cannot afford. In the middle of a row every tap meets
//! a real position, so vectors of channels can be loaded from the tensor itself; only the few columns at both ends go
//! through a box. Rows above and below the tensor are left out of the taps.

use crate::frame::{Bands, Frame, Strides, Track};
use crate::tiling::{Mode, correlation};
use std::ops::Range;
use striate_core::Accumulator;
use striate_simd::Simd;
use striate_simd::correlate::{Correlation, Job, Offsets, Start, Tile, Weights, tile_size};

/// Fewer columns than this are not worth an own loop.
const LEAST: usize = 8;

/// Bytes that a tile of all items computed together may read: they should stay in the level-1 cache.
const NEAR: usize = 24 << 10;

/// The columns and how to produce a row of them.
pub struct Interior<A, I> {
    /// The columns.
    pub columns: Range<usize>,
    correlation: Correlation<A, I>,
    /// Vectors of channels that are computed together.
    pub together: usize,
    src: Strides,
}

impl<A: Accumulator, I: Simd<A>> Interior<A, I> {
    /// The interior of a problem of rank 1 or 2 with one sweep an axis, if it has one worth the name.
    pub fn new(mode: Mode, tracks: &[Track; 3], bands: &Bands, (src, out): (&Strides, &Strides)) -> Option<Self> {
        let flat =
            tracks[0].outs == 1 && tracks[0].source == 1 && tracks[0].sweeps[0].taps == 1 && tracks[0].origin == 0;
        let single = tracks.iter().all(|t| t.sweeps.len() == 1 && t.sweeps[0].taps > 0);
        let vectors = src.channel == 1 && out.channel == 1 && src.channels.is_multiple_of(I::LANES);
        if !(flat && single && vectors && mode == Mode::Pixels(2) && bands.size[2] == tracks[2].outs) {
            return None;
        }
        let whole = |j: &usize| {
            let taps = tracks[2].sweeps[0].valid_taps(*j as i64, tracks[2].source);
            taps == (0..tracks[2].sweeps[0].taps)
        };
        let first = (0..tracks[2].outs).find(whole)?;
        let columns = first..(first..tracks[2].outs).rfind(whole)? + 1;
        if columns.len() < LEAST {
            return None;
        }
        let sweeps = [0, 1, 2].map(|a| tracks[a].sweeps[0]);
        let frame = Frame::of_tensor(src);
        let mut offsets = correlation::<A, I>(mode, &frame, (&sweeps, [1, 1, columns.len()], [0; 3]), out.axis);
        offsets.tiles = exact::<A, I>(&offsets, src.axis[2] * sweeps[2].src_step as usize, out.axis[2]);
        let rows = offsets.tiles.iter().map(|tile| tile.rows).max()?;
        let lines = offsets.others.len() * (offsets.taps.0 + rows * offsets.share);
        let together = (NEAR / (lines * I::LANES * size_of::<A>())).max(1);
        Some(Interior { columns, correlation: Correlation::new(offsets), together, src: *src })
    }

    /// Where the source rows lie that row `row` is the first to meet, in a sample.
    pub fn fresh(&self, tracks: &[Track; 3], row: usize) -> Range<usize> {
        let (sweep, pitch) = (&tracks[1].sweeps[0], self.src.axis[1]);
        let end = sweep.src0 + row as i64 * sweep.src_step + (sweep.taps - 1) * sweep.reach_step + 1;
        let at = |position: i64| position.clamp(0, tracks[1].source) as usize * pitch;
        at(end - sweep.src_step)..at(end)
    }

    /// Produces the columns of row `row` of `items` vectors of channels, position by position so that neighbouring
    /// memory is read together. `sample` is the offset of the sample's first position of those channels; the
    /// destination starts at the first of the columns.
    pub fn row(
        &self,
        isa: I,
        (tracks, row): (&[Track; 3], usize),
        (tensor, sample, items): (&[A], usize, usize),
        (weights, start): (&[A], &[A]),
        dst: &mut [A],
    ) {
        let [y, x] = [(1, row), (2, self.columns.start)].map(|(axis, at)| {
            let sweep = &tracks[axis].sweeps[0];
            (sweep.src0 + at as i64 * sweep.src_step) as isize * self.src.axis[axis] as isize
        });
        let job = Job {
            src: tensor,
            base: sample as isize + y + x,
            items,
            weights: Weights::Vector(weights),
            start: Start::Vector(start),
            others: Mode::Pixels(2).clip(tracks, [0; 3], [0, row], self.correlation.others()),
            lanes: usize::MAX,
            live: None,
            dst,
        };
        self.correlation.run(isa, job);
    }
}

/// The tiles again, without accumulators that are computed and dropped: they would read past the columns. A tile that
/// is not full starts earlier and produces some positions a second time, or is cut into single ones.
fn exact<A: Accumulator, I: Simd<A>>(offsets: &Offsets, src: usize, dst: usize) -> Vec<Tile> {
    let class = offsets.dst_pitch / dst;
    let mut tiles = Vec::new();
    for tile in &offsets.tiles {
        let size = tile_size(tile.rows, I::REGISTERS, offsets.share).expect("tiles have one of the sizes");
        let back = size - tile.rows;
        if tile.dst / offsets.dst_pitch >= back {
            let (src, dst) = (tile.src - back * class * src, tile.dst - back * offsets.dst_pitch);
            tiles.push(Tile { src, dst, rows: size, ..*tile });
        } else {
            tiles.extend((0..tile.rows).map(|a| Tile {
                src: tile.src + a * class * src,
                dst: tile.dst + a * offsets.dst_pitch,
                rows: 1,
                ..*tile
            }));
        }
    }
    tiles
}
