//! The multiply-add loop of the forward pass and the input gradient.
//!
//! One tile is a column of `rows` vector accumulators. Along the *shared* direction, accumulator `a` meets tap `t`
//! at source line `t + a * share`, so one loaded line serves every pair with that sum: with `share` 1 and weights
//! in registers, `rows + taps - 1` loads feed `rows * taps` multiply-adds. The taps of all other directions are a
//! list of source offsets, looped over outside. What the lanes are (columns or channels) and what the shared
//! direction is (rows, columns or vectors) is the caller's choice of offsets; dilation and stride are offsets too.

use crate::isa::{Simd, Task};
use crate::tiles::{chunks, meet, most_taps, unrolled};
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
    /// One vector.
    Vector(&'a [A]),
    /// What the destination holds.
    Destination,
}

/// Accumulators of a tile for a number of remaining ones, by register count and whether lines are shared.
pub fn tile_rows(remaining: usize, registers: usize, share: usize) -> usize {
    let sizes: &[usize] = if registers >= 32 && share == 1 { &[14, 8, 4, 1] } else { &[8, 4, 1] };
    // The smallest tile that covers what remains, if little of it is wasted; else the largest that fits.
    let cover = sizes.iter().rev().copied().find(|&size| size >= remaining);
    match cover {
        Some(size) if size * 4 <= remaining * 5 || size <= 4 => size,
        _ => sizes.iter().copied().find(|&size| size <= remaining).unwrap_or(1),
    }
}

/// Accumulators that are computed for a tile of `rows`: the smallest size that covers them.
pub fn tile_size(rows: usize, registers: usize, share: usize) -> Option<usize> {
    let sizes: &[usize] = if registers >= 32 && share == 1 { &[1, 4, 8, 14] } else { &[1, 4, 8] };
    sizes.iter().copied().find(|&size| size >= rows)
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
        for tile in &mut offsets.tiles {
            let rows = Self::allotted(tile.rows, offsets.share);
            let lines = offsets.taps.0.max(offsets.taps.1).max(1) - 1 + (rows - 1) * offsets.share;
            let real = tile.real.start..tile.real.end.min(lines + 1);
            let worth = if offsets.bounded { real.len() <= lines } else { real.len() * 4 <= (lines + 1) * 3 };
            tile.real = if worth { real } else { EVERY };
            let real = if worth { tile.real.clone() } else { 0..lines + 1 };
            if !real.is_empty() {
                read.0 = read.0.min(tile.src + real.start * offsets.pitch);
                read.1 = read.1.max(tile.src + (real.end - 1) * offsets.pitch + I::LANES);
            }
            for a in 0..tile.rows {
                let lanes = tile.lanes.saturating_sub(a * offsets.lane_step).min(I::LANES);
                reach.0 = reach.0.max(tile.dst + a * offsets.dst_pitch + lanes);
                reach.1 = reach.1.max(tile.dst + a * offsets.dst_pitch);
            }
        }
        let mut made = Vec::new();
        let (mut weights, mut live) = (0, 0);
        for (taps, others) in
            [(offsets.taps.0, 0..offsets.split), (offsets.taps.1, offsets.split..offsets.others.len())]
        {
            if taps == 0 || others.is_empty() {
                continue;
            }
            for (first, taps) in chunks(taps, most_taps(I::REGISTERS).min(most)) {
                made.push(Chunk { first, taps, others: others.clone(), weights, live });
                weights += taps * others.len();
                live += others.len();
            }
        }
        let (dst_reach, dst_base) = reach;
        Correlation {
            offsets,
            chunks: made,
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
        assert!(vector || !self.offsets.bounded, "only with vectors of weights lines are left out");
        assert!(job.items == 1 || vector && job.items > 1 && job.lanes >= I::LANES, "one item, or full vectors");
        let last = (job.items - 1) * I::LANES;
        let apart = job.apart / if vector { I::LANES } else { 1 };
        let used = self.offsets.others.get(job.others.clone()).expect("other taps in range");
        if let (Some(&near), Some(&far), false) = (used.iter().min(), used.iter().max(), self.lines.is_empty()) {
            let (from, to) = (near + self.lines.start, far + self.lines.end + last);
            let (from, to) = (job.base + from as isize, job.base + to as isize);
            assert!(
                from >= 0 && to <= job.src.len() as isize,
                "source of {} does not hold {from}..{to}",
                job.src.len()
            );
        }
        let reach = if job.lanes < I::LANES { self.dst_base + job.lanes } else { self.dst_reach };
        assert!(reach + last <= job.dst.len(), "destination of {} is short of {reach} + {last}", job.dst.len());
        assert!(self.weights + (job.items - 1) * apart <= given, "too few weights");
        assert!(job.live.is_none_or(|live| live.len() == self.lives() && job.items == 1), "an entry per chunk of taps");
        if let Start::Vector(start) = job.start {
            assert!(start.len() >= I::LANES + last);
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

/// Memory of one run.
pub struct Job<'a, A> {
    /// Source numbers.
    pub src: &'a [A],
    /// Added to every source offset; may be negative where the other taps in use make up for it.
    pub base: isize,
    /// Neighbouring vectors of channels in source, destination and start that are computed together, tile by tile.
    pub items: usize,
    /// Distance of their weights.
    pub apart: usize,
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
    /// Destination numbers.
    pub dst: &'a mut [A],
}

/// `SHARE` is `Offsets::share` if it is 1 or 2, else 0 for lines that no two accumulators have in common.
struct Run<'a, A, I, const SHARE: usize, const VECTOR: bool>(&'a Correlation<A, I>, Job<'a, A>);

impl<A: Accumulator, I: Simd<A>, const SHARE: usize, const VECTOR: bool> Task<I> for Run<'_, A, I, SHARE, VECTOR> {
    type Out = ();
    #[inline(always)]
    fn call(self, isa: I) {
        let Run(plan, job) = self;
        let (Weights::Scalar(weights) | Weights::Vector(weights)) = job.weights;
        let at = Place {
            plan,
            src: job.src.as_ptr().wrapping_offset(job.base),
            weights: weights.as_ptr(),
            others: job.others,
            lanes: job.lanes,
            live: job.live,
            dst: job.dst.as_mut_ptr(),
        };
        let items = Items { count: job.items, apart: job.apart, start: job.start };
        for tile in &plan.offsets.tiles {
            // SAFETY: `run` asserted that source, weights, start and destination cover the reach of every tile and item.
            unsafe {
                macro_rules! by_rows {
                    ($clip:literal, $($rows:literal)*) => {
                        match Correlation::<A, I>::allotted(tile.rows, SHARE) {
                            $($rows => at.items::<$rows, SHARE, VECTOR, $clip>(isa, tile, &items),)*
                            _ => at.items::<1, SHARE, VECTOR, $clip>(isa, tile, &items),
                        }
                    };
                }
                if VECTOR && SHARE != 0 && tile.real != EVERY {
                    by_rows!(true, 14 8 4);
                } else {
                    by_rows!(false, 14 8 4);
                }
            }
        }
    }
}

/// Vectors of channels that are computed together: how many, how far their weights lie apart, where sums start.
struct Items<'a, A> {
    count: usize,
    apart: usize,
    start: Start<'a, A>,
}

/// What a chunk of taps meets: offsets of other taps, those of them to use, and the lines that are real.
struct Met<'a> {
    others: &'a [usize],
    live: Option<&'a [bool]>,
    /// A bit for every line.
    real: u32,
}

/// A bit for every number from `first` on that is in `range`.
#[inline(always)]
fn bits(range: &Range<usize>, first: usize) -> u32 {
    let below = |end: usize| 1u32.checked_shl(end.saturating_sub(first) as u32).unwrap_or(0).wrapping_sub(1);
    below(range.end) & !below(range.start)
}

struct Place<'a, A, I> {
    plan: &'a Correlation<A, I>,
    src: *const A,
    weights: *const A,
    others: Range<usize>,
    lanes: usize,
    live: Option<&'a [bool]>,
    dst: *mut A,
}

impl<A: Accumulator, I: Simd<A>> Place<'_, A, I> {
    /// # Safety
    /// The memory must cover the tile's reach for every item.
    #[inline(always)]
    unsafe fn items<const R: usize, const SHARE: usize, const VECTOR: bool, const CLIP: bool>(
        &self,
        isa: I,
        tile: &Tile,
        items: &Items<'_, A>,
    ) {
        for item in 0..items.count {
            let at = Place {
                src: self.src.wrapping_add(item * I::LANES),
                weights: self.weights.wrapping_add(item * items.apart),
                dst: self.dst.wrapping_add(item * I::LANES),
                others: self.others.clone(),
                ..*self
            };
            // SAFETY: the caller's promise; a start of vectors has one for every item.
            unsafe {
                let start = match items.start {
                    Start::Scalar(value) => Some(isa.splat(value)),
                    Start::Vector(values) => Some(isa.load(values.as_ptr().add(item * I::LANES))),
                    Start::Destination => None,
                };
                at.tile::<R, SHARE, VECTOR, CLIP>(isa, tile, start);
            }
        }
    }

    /// # Safety
    /// The memory must cover the tile's reach.
    #[inline(always)]
    unsafe fn tile<const R: usize, const SHARE: usize, const VECTOR: bool, const CLIP: bool>(
        &self,
        isa: I,
        tile: &Tile,
        start: Option<I::V>,
    ) {
        if const { R > 8 && (I::REGISTERS < 32 || SHARE != 1) || CLIP && (SHARE == 0 || !VECTOR) } {
            unreachable!("no such tile");
        }
        let width = if VECTOR { I::LANES } else { 1 };
        let offsets = &self.plan.offsets;
        let mut acc = [start.unwrap_or(isa.splat(A::default())); R];
        if start.is_none() {
            unrolled!(N in [0 1 2 3 4 5 6 7 8 9 10 11 12 13] {
                if N < R && N < tile.rows {
                    let lanes = tile.lanes.saturating_sub(N * offsets.lane_step).min(self.lanes);
                    // SAFETY: inside the destination reach that `run` asserted.
                    acc[if N < R { N } else { 0 }] =
                        unsafe { isa.load_masked(self.dst.add(tile.dst + N * offsets.dst_pitch), isa.mask(0, lanes)) };
                }
            });
        }
        for chunk in &self.plan.chunks {
            let taps = chunk.taps;
            let from = chunk.others.start.max(self.others.start);
            let others = from..chunk.others.end.min(self.others.end).max(from);
            let real = bits(&tile.real, chunk.first);
            // SAFETY: inside the reach that `run` asserted.
            unsafe {
                let src = self.src.wrapping_add(tile.src + chunk.first * offsets.pitch);
                let weights = self.weights.add((chunk.weights + (from - chunk.others.start) * taps) * width);
                let live = self.live.map(|live| &live[chunk.live + from - chunk.others.start..][..others.len()]);
                let met = Met { others: &offsets.others[others], live, real };
                macro_rules! by_taps {
                    ($($n:literal)*) => { match taps {
                        $($n => self.taps::<R, $n, SHARE, VECTOR, CLIP>(isa, (src, weights), met, &mut acc),)*
                        _ => unreachable!("a chunk has 1 to 8 taps"),
                    } };
                }
                by_taps!(1 2 3 4 5 6 7 8);
            }
        }
        // SAFETY: inside the destination reach that `run` asserted.
        unsafe { self.store::<R>(isa, tile, &acc) }
    }

    /// # Safety
    /// The memory must cover the tile's reach.
    #[inline(always)]
    unsafe fn store<const R: usize>(&self, isa: I, tile: &Tile, acc: &[I::V; R]) {
        let offsets = &self.plan.offsets;
        let to = |a: usize| self.dst.wrapping_add(tile.dst + a * offsets.dst_pitch);
        let whole = tile.lanes.min(self.lanes) >= I::LANES + (tile.rows - 1) * offsets.lane_step;
        // Most tiles store everything; to ask once is faster than to ask for every vector.
        if whole && tile.rows == R {
            for (a, v) in acc.iter().enumerate() {
                // SAFETY: inside the reach.
                unsafe { isa.store(to(a), *v) };
            }
            return;
        }
        unrolled!(N in [0 1 2 3 4 5 6 7 8 9 10 11 12 13] {
            if N < R && N < tile.rows {
                let lanes = tile.lanes.saturating_sub(N * offsets.lane_step).min(self.lanes);
                let v = acc[if N < R { N } else { 0 }];
                // SAFETY: inside the reach.
                unsafe { if lanes >= I::LANES { isa.store(to(N), v) } else { isa.store_masked(to(N), v, isa.mask(0, lanes)) } }
            }
        });
    }

    /// # Safety
    /// As `tile`.
    #[inline(always)]
    unsafe fn taps<const R: usize, const TAPS: usize, const SHARE: usize, const VECTOR: bool, const CLIP: bool>(
        &self,
        isa: I,
        (src, mut weights): (*const A, *const A),
        met: Met<'_>,
        acc: &mut [I::V; R],
    ) {
        if const { TAPS > most_taps(I::REGISTERS) } {
            unreachable!("no such chunk");
        }
        let pitch = self.plan.offsets.pitch;
        // A local copy, so that sums stay in registers whatever became of `acc`.
        let mut sums = *acc;
        let step = TAPS * if VECTOR { I::LANES } else { 1 };
        for (index, &other) in met.others.iter().enumerate() {
            if met.live.is_some_and(|live| !live[index]) {
                weights = weights.wrapping_add(step);
                continue;
            }
            let mut w = [sums[0]; TAPS];
            for (t, slot) in w.iter_mut().enumerate() {
                // SAFETY: `run` asserted enough weights.
                *slot =
                    unsafe { if VECTOR { isa.load(weights.add(t * I::LANES)) } else { isa.splat(*weights.add(t)) } };
            }
            weights = weights.wrapping_add(step);
            let mut line = src.wrapping_add(other);
            if SHARE == 0 {
                // SAFETY: inside the reach.
                unsafe { self.unshared(isa, line, &w, &mut sums) };
                continue;
            }
            unrolled!(N in [0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21] {
                if N < TAPS + (R - 1) * SHARE {
                    if !CLIP || met.real >> N & 1 != 0 {
                        // SAFETY: line `N` is inside the reach.
                        let x = unsafe { isa.load(line) };
                        unrolled!(T in [0 1 2 3 4 5 6 7] {
                            if let Some((a, t)) = const { meet(N, T, TAPS, SHARE, R) } {
                                sums[a] = isa.mul_add(w[t], x, sums[a]);
                            }
                        });
                    }
                    line = line.wrapping_add(pitch);
                }
            });
        }
        *acc = sums;
    }

    /// # Safety
    /// As `tile`.
    #[inline(always)]
    unsafe fn unshared<const R: usize, const TAPS: usize>(
        &self,
        isa: I,
        line: *const A,
        w: &[I::V; TAPS],
        acc: &mut [I::V; R],
    ) {
        let (pitch, apart) = (self.plan.offsets.pitch, self.plan.offsets.share * self.plan.offsets.pitch);
        unrolled!(T in [0 1 2 3 4 5 6 7] {
            if T < TAPS {
                unrolled!(N in [0 1 2 3 4 5 6 7] {
                    if N < R {
                        let (a, t) = (if N < R { N } else { 0 }, if T < TAPS { T } else { 0 });
                        // SAFETY: the line of accumulator `N` and tap `T` is inside the reach.
                        acc[a] = isa.mul_add(w[t], unsafe { isa.load(line.add(N * apart + T * pitch)) }, acc[a]);
                    }
                });
            }
        });
    }
}
