//! The multiply-add loop of the forward pass and the input gradient.
//!
//! One tile is a column of `rows` vector accumulators. Along the *shared* direction, accumulator `a` meets tap `t`
//! at source line `t + a * share`, so one loaded line serves every pair with that sum: with `share` 1 and weights
//! in registers, `rows + taps - 1` loads feed `rows * taps` multiply-adds. The taps of all other directions are a
//! list of source offsets, looped over outside. What the lanes are (columns or channels) and what the shared
//! direction is (rows, columns or vectors) is the caller's choice of offsets; dilation and stride are offsets too.

mod run;

use crate::ahead::Ahead;
use crate::isa::Simd;
use crate::tiles::{chunks, most_taps};
use crate::turn::Turn;
use run::Run;
use std::marker::PhantomData;
use std::ops::Range;
use striate_core::Accumulator;

/// All lines of a tile.
const EVERY: Range<usize> = 0..usize::MAX;

/// One tile of accumulators.
#[derive(Clone, Debug)]
pub struct Tile {
    /// Source offset of accumulator 0 at the first shared and first other tap, without the others' offset.
    pub src: usize,
    /// Destination offset of accumulator 0.
    pub dst: usize,
    /// Accumulators to be stored.
    pub rows: usize,
    /// Lanes of accumulator 0 to be stored; may exceed a vector.
    pub lanes: usize,
    /// Source lines along the shared direction that may be anything but zeros.
    pub real: Range<usize>,
}

/// The offsets of a correlation, before they are checked.
#[derive(Default)]
pub struct Offsets {
    /// Source offsets of the taps outside the shared direction.
    pub others: Vec<usize>,
    /// Taps along the shared direction: the first `split` others have `taps.0`, the rest `taps.1`.
    pub taps: (usize, usize),
    /// See `taps`.
    pub split: usize,
    /// Source distance of neighbouring taps of the shared direction.
    pub pitch: usize,
    /// Accumulators lie this many shared taps apart.
    pub share: usize,
    /// Destination distance of neighbouring accumulators.
    pub dst_pitch: usize,
    /// Whether lines that are not real must not be read; else they are read where leaving them out does not pay.
    pub bounded: bool,
    /// Numbers of the source that may be read for every tile and other tap, in this order, where not all may; the
    /// others count as zeros.
    pub edges: Vec<Range<usize>>,
    /// How they become lanes. Turned lines have one edge for every tile, and other taps are positions in such a line.
    pub turn: Turn,
    /// Each further accumulator stores this many lanes fewer than `Tile::lanes`.
    pub lane_step: usize,
    /// The tiles.
    pub tiles: Vec<Tile>,
}

/// Offsets whose reach is known, for one vector width.
pub struct Correlation<A, I> {
    offsets: Offsets,
    chunks: Vec<Chunk>,
    weights: usize,
    src_reach: usize,
    /// The source numbers that lines are read from, without the other taps.
    lines: Range<usize>,
    dst_reach: usize,
    /// The last without the lanes.
    dst_base: usize,
    made_for: PhantomData<fn(A, I)>,
}

/// Neighbouring shared taps whose weights are in registers together, and the others they belong to.
#[derive(Clone, Debug)]
struct Chunk {
    first: usize,
    taps: usize,
    others: Range<usize>,
    /// Weights of all chunks before this one.
    weights: usize,
    /// Others of all chunks before this one.
    live: usize,
}

/// Weights in the order of [`Correlation::weight_order`], one value for all lanes or one per lane.
#[derive(Clone, Copy)]
pub enum Weights<'a, A> {
    /// One number a tap.
    Scalar(&'a [A]),
    /// A vector a tap.
    Vector(&'a [A]),
}

/// What accumulators start from.
#[derive(Clone, Copy)]
pub enum Start<'a, A> {
    /// The same in every lane.
    Scalar(A),
    /// A vector for every item.
    Vector(&'a [A]),
    /// A number for every item.
    Each(&'a [A]),
    /// What the destination holds.
    Destination,
}

/// Accumulators of a tile, largest first.
fn tile_sizes(registers: usize, share: usize) -> &'static [usize] {
    if registers >= 32 && share == 1 { &[14, 8, 7, 4, 1] } else { &[8, 7, 4, 1] }
}

/// Accumulators of the next tile where so many positions remain: the sizes are those that compute the fewest, where a
/// tile itself costs as much as some of them.
pub fn tile_rows(remaining: usize, registers: usize, share: usize) -> usize {
    const TILE: usize = 3;
    let sizes = tile_sizes(registers, share);
    if remaining > 2 * sizes[0] {
        return sizes[0];
    }
    let mut best = vec![(0, 0)];
    for count in 1..=remaining {
        let cost = |&size: &usize| (size + TILE + best[count.saturating_sub(size)].0, size);
        best.push(sizes.iter().map(cost).min().expect("there are sizes"));
    }
    best[remaining].1
}

/// Accumulators that are computed for a tile of `rows`: the smallest size that covers them.
pub fn tile_size(rows: usize, registers: usize, share: usize) -> Option<usize> {
    tile_sizes(registers, share).iter().rev().copied().find(|&size| size >= rows)
}

/// The taps of some offsets in chunks of at most `most`, and the number of weights.
fn chunked(offsets: &Offsets, most: usize) -> (Vec<Chunk>, usize) {
    let mut made = Vec::new();
    let (mut weights, mut live) = (0, 0);
    for (taps, others) in [(offsets.taps.0, 0..offsets.split), (offsets.taps.1, offsets.split..offsets.others.len())] {
        if taps == 0 || others.is_empty() {
            continue;
        }
        for (first, taps) in chunks(taps, most) {
            made.push(Chunk { first, taps, others: others.clone(), weights, live });
            weights += taps * others.len();
            live += others.len();
        }
    }
    (made, weights)
}

impl<A: Accumulator, I: Simd<A>> Correlation<A, I> {
    /// Checks nothing, but works out how far the offsets reach; runs compare that with the memory they are given.
    pub fn new(offsets: Offsets) -> Correlation<A, I> {
        Correlation::in_chunks(offsets, usize::MAX)
    }

    /// The same with at most `most` neighbouring shared taps in registers together: those that [`Job::live`] takes out
    /// together.
    pub fn in_chunks(mut offsets: Offsets, most: usize) -> Correlation<A, I> {
        assert!(!offsets.bounded || [1, 2].contains(&offsets.share), "only shared lines can be left out");
        let farthest = offsets.others.iter().copied().max().unwrap_or(0);
        let (mut reach, mut read) = ((0, 0), (usize::MAX, 0));
        let edged = !offsets.edges.is_empty();
        let turned = offsets.turn != Turn::None;
        let each = if turned { 1 } else { offsets.others.len() };
        assert!(!edged || offsets.bounded && offsets.edges.len() == offsets.tiles.len() * each);
        assert!(!turned || edged && offsets.edges.iter().all(|numbers| numbers.end <= offsets.turn.numbers(I::LANES)));
        assert!(!turned || offsets.taps.0.max(offsets.taps.1) <= 8 && farthest + I::LANES <= Turn::pitch(I::LANES));
        for (number, tile) in offsets.tiles.iter_mut().enumerate() {
            let rows = Self::allotted(tile.rows, offsets.share);
            let lines = offsets.taps.0.max(offsets.taps.1).max(1) - 1 + (rows - 1) * offsets.share;
            let real = tile.real.start..tile.real.end.min(lines + 1);
            let worth = if offsets.bounded { real.len() <= lines } else { real.len() * 4 <= (lines + 1) * 3 };
            tile.real = if worth { real } else { EVERY };
            let real = if worth { tile.real.clone() } else { 0..lines + 1 };
            let mut reads = |other: usize, lanes: Range<usize>| {
                if !real.is_empty() && !lanes.is_empty() {
                    read.0 = read.0.min(tile.src + real.start * offsets.pitch + other + lanes.start);
                    read.1 = read.1.max(tile.src + (real.end - 1) * offsets.pitch + other + lanes.end);
                }
            };
            if turned {
                reads(0, offsets.edges[number].clone());
            } else if edged {
                let mine = &offsets.edges[number * offsets.others.len()..];
                offsets.others.iter().zip(mine).for_each(|(&other, lanes)| reads(other, lanes.clone()));
            } else {
                reads(0, 0..I::LANES);
            }
            for a in 0..tile.rows {
                let lanes = tile.lanes.saturating_sub(a * offsets.lane_step).min(I::LANES);
                reach.0 = reach.0.max(tile.dst + a * offsets.dst_pitch + lanes);
                reach.1 = reach.1.max(tile.dst + a * offsets.dst_pitch);
            }
        }
        let (chunks, weights) = chunked(&offsets, most_taps(I::REGISTERS).min(most));
        let (dst_reach, dst_base) = reach;
        Correlation {
            offsets,
            chunks,
            weights,
            src_reach: read.1 + farthest,
            lines: read.0..read.1,
            dst_reach,
            dst_base,
            made_for: PhantomData,
        }
    }

    /// Accumulators actually computed for a tile.
    fn allotted(rows: usize, share: usize) -> usize {
        tile_size(rows, I::REGISTERS, share).expect("a tile has at most `tile_rows` rows")
    }

    /// Number of taps outside the shared direction.
    pub fn others(&self) -> usize {
        self.offsets.others.len()
    }

    /// How often the accumulators of a tile leave their registers.
    pub fn rounds(&self) -> usize {
        self.chunks.len()
    }

    /// Numbers of source memory a run needs.
    pub fn src_reach(&self) -> usize {
        self.src_reach
    }

    /// Numbers of destination memory a run needs.
    pub fn dst_reach(&self) -> usize {
        self.dst_reach
    }

    /// The order in which weights are read: (other tap, shared tap).
    pub fn weight_order(&self) -> impl Iterator<Item = (usize, usize)> + '_ {
        self.chunks.iter().flat_map(move |chunk| {
            chunk.others.clone().flat_map(move |other| (0..chunk.taps).map(move |t| (other, chunk.first + t)))
        })
    }

    /// For [`Job::live`]: whether any of some weights of one item, one number a tap, is not zero.
    pub fn live(&self, weights: &[A]) -> impl Iterator<Item = bool> + '_ {
        let weights = weights[..self.weights].to_vec();
        self.chunks.iter().flat_map(move |chunk| {
            let mine = &weights[chunk.weights..][..chunk.taps * chunk.others.len()];
            let live: Vec<bool> =
                mine.chunks_exact(chunk.taps).map(|taps| taps.iter().any(|&tap| tap != A::default())).collect();
            live
        })
    }

    /// How many numbers [`Correlation::live`] gives.
    pub fn lives(&self) -> usize {
        self.chunks.iter().map(|chunk| chunk.others.len()).sum()
    }

    /// Computes all tiles, using only the other taps in `others`.
    pub fn run(&self, isa: I, job: Job<'_, A>) {
        let (given, vector) = match job.weights {
            Weights::Scalar(w) => (w.len(), false),
            Weights::Vector(w) => (w.len() / I::LANES, true),
        };
        let edged = !self.offsets.edges.is_empty();
        assert!(vector != edged || !self.offsets.bounded && !edged, "lines are left out for vectors or under edges");
        assert!(
            job.items == 1 || job.items > 1 && (edged || vector && job.lanes >= I::LANES),
            "one item, or whole ones"
        );
        let last = |apart: usize| (job.items - 1) * apart;
        let apart = job.apart.weights / if vector { I::LANES } else { 1 };
        let used = self.offsets.others.get(job.others.clone()).expect("other taps in range");
        if let (Some(&near), Some(&far), false) = (used.iter().min(), used.iter().max(), self.lines.is_empty()) {
            let (near, far) = if edged { (0, 0) } else { (near, far) };
            let (from, to) = (near + self.lines.start, far + self.lines.end + last(job.apart.src));
            let (from, to) = (job.base + from as isize, job.base + to as isize);
            assert!(
                from >= 0 && to <= job.src.len() as isize,
                "source of {} does not hold {from}..{to}",
                job.src.len()
            );
        }
        let reach = if job.lanes < I::LANES { self.dst_base + job.lanes } else { self.dst_reach };
        let reach = reach + last(job.apart.dst);
        assert!(reach <= job.dst.len(), "destination of {} is short of {reach}", job.dst.len());
        assert!(self.weights + last(apart) <= given, "too few weights");
        assert!(job.live.is_none_or(|live| live.len() == self.lives() && job.items == 1), "an entry per chunk of taps");
        match job.start {
            Start::Vector(start) => assert!(start.len() >= I::LANES + last(I::LANES)),
            Start::Each(start) => assert!(start.len() >= job.items),
            _ => {}
        }
        match (self.offsets.share, vector) {
            (1, false) => isa.run(Run::<A, I, 1, false>(self, job)),
            (2, false) => isa.run(Run::<A, I, 2, false>(self, job)),
            (_, false) => isa.run(Run::<A, I, 0, false>(self, job)),
            (1, true) => isa.run(Run::<A, I, 1, true>(self, job)),
            (2, true) => isa.run(Run::<A, I, 2, true>(self, job)),
            (_, true) => isa.run(Run::<A, I, 0, true>(self, job)),
        }
    }
}

/// Distances of items.
#[derive(Clone, Copy, Default)]
pub struct Apart {
    /// In the source.
    pub src: usize,
    /// In the destination.
    pub dst: usize,
    /// In the weights.
    pub weights: usize,
}

/// Memory of one run.
pub struct Job<'a, A> {
    /// Source numbers.
    pub src: &'a [A],
    /// Added to every source offset; may be negative where the other taps in use make up for it.
    pub base: isize,
    /// Vectors of channels, or under edges planes, that are computed together, tile by tile.
    pub items: usize,
    /// How far they lie apart.
    pub apart: Apart,
    /// Weights.
    pub weights: Weights<'a, A>,
    /// Where sums start.
    pub start: Start<'a, A>,
    /// The other taps to use.
    pub others: Range<usize>,
    /// Lanes to store at most; a vector or more stores what the tiles say.
    pub lanes: usize,
    /// The taps to use, in the order of [`Correlation::live`]; what is left out must have zeros for weights.
    pub live: Option<&'a [bool]>,
    /// Memory that will be needed soon: it is asked for while tiles are computed.
    pub ahead: [Ahead; 2],
    /// Destination numbers.
    pub dst: &'a mut [A],
}
