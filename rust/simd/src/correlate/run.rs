//! The tiles of one run.

use super::{Apart, Chunk, Correlation, EVERY, Job, Start, Tile, Weights};
use crate::ahead::Shares;
use crate::isa::{Simd, Task};
use crate::tiles::{meet, most_taps, ones, unrolled};
use crate::turn::{Lines, Turn, spread};
use std::ops::Range;
use striate_core::Accumulator;

/// `SHARE` is `Offsets::share` if it is 1 or 2, else 0 for lines that no two accumulators have in common.
pub struct Run<'a, A, I, const SHARE: usize, const VECTOR: bool>(pub &'a Correlation<A, I>, pub Job<'a, A>);

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
        let ahead = Shares::new(job.ahead, plan.offsets.tiles.len() * job.items);
        let mut items = Items { count: job.items, apart: job.apart, start: job.start, ahead };
        for (number, tile) in plan.offsets.tiles.iter().enumerate() {
            // SAFETY: `run` asserted that source, weights, start and destination cover the reach of every tile and item.
            unsafe {
                macro_rules! by_rows {
                    ($clip:ident, $($rows:literal)*) => {
                        match Correlation::<A, I>::allotted(tile.rows, SHARE) {
                            $($rows => at.items::<$rows, SHARE, VECTOR, $clip>(isa, (number, tile), &mut items),)*
                            _ => at.items::<1, SHARE, VECTOR, $clip>(isa, (number, tile), &mut items),
                        }
                    };
                }
                if VECTOR && SHARE != 0 && tile.real != EVERY {
                    by_rows!(LINES, 14 8 7 4);
                } else if !VECTOR && SHARE != 0 && !plan.offsets.edges.is_empty() {
                    by_rows!(LANES, 14 8 7 4);
                } else {
                    by_rows!(NONE, 14 8 7 4);
                }
            }
        }
    }
}

/// What tiles leave out: nothing, lines of padding, or these and lanes of padding.
const NONE: u8 = 0;
const LINES: u8 = 1;
const LANES: u8 = 2;

/// Items that are computed together: how many, how far they lie apart, where sums start.
struct Items<'a, A> {
    count: usize,
    apart: Apart,
    start: Start<'a, A>,
    /// Asked for with every item of a tile.
    ahead: Shares,
}

/// What a chunk of taps meets in a tile.
#[derive(Clone, Copy)]
struct Met<'a, A> {
    taps: usize,
    /// Where its first line and its first weight lie.
    src: *const A,
    weights: *const A,
    /// Offsets of other taps, and those of them to use.
    others: &'a [usize],
    /// Their lanes that are real, if not all are.
    edges: &'a [Range<usize>],
    /// Distance of lines.
    pitch: usize,
    live: Option<&'a [bool]>,
    /// A bit for every line that is real.
    real: u32,
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
    unsafe fn items<const R: usize, const SHARE: usize, const VECTOR: bool, const CLIP: u8>(
        &self,
        isa: I,
        (number, tile): (usize, &Tile),
        items: &mut Items<'_, A>,
    ) {
        let none = const {
            R > 8 && (I::REGISTERS < 32 || SHARE != 1)
                || CLIP != NONE && (SHARE == 0 || VECTOR != (CLIP == LINES))
                || CLIP != LANES && I::EDGES
        };
        if none {
            unreachable!("no such tile");
        }
        // What all items have in common is worked out once.
        let chunks = &self.plan.chunks;
        let first = chunks.first().map(|chunk| self.met::<VECTOR>((number, tile), chunk));
        let turns = self.plan.offsets.turn != Turn::None;
        for item in 0..items.count {
            items.ahead.ask(isa);
            let shift = (item * items.apart.src, item * items.apart.weights);
            let to = item * items.apart.dst;
            // SAFETY: the caller's promise; a start of vectors has one for every item.
            unsafe {
                let mut acc = match items.start {
                    Start::Scalar(value) => [isa.splat(value); R],
                    Start::Vector(values) => [isa.load(values.as_ptr().add(item * I::LANES)); R],
                    Start::Each(values) => [isa.splat(*values.as_ptr().add(item)); R],
                    Start::Destination => self.load::<R>(isa, tile, to),
                };
                let mut lines = Lines::<I::V>::empty();
                let turned = if CLIP == LANES && turns {
                    Some(self.turned::<R, SHARE>(isa, (number, tile), shift.0, &mut lines))
                } else {
                    None
                };
                // One text for all chunks: a second would be compiled a second time for every size of tile.
                for (index, chunk) in chunks.iter().enumerate() {
                    let mut met = match &first {
                        Some(first) if index == 0 => *first,
                        _ => self.met::<VECTOR>((number, tile), chunk),
                    };
                    let mut from = shift;
                    if let Some(turned) = turned {
                        met.pitch = Turn::pitch(I::LANES);
                        (met.src, from.0) = (turned.wrapping_add(chunk.first * met.pitch), 0);
                    }
                    self.chunk::<R, SHARE, VECTOR, CLIP>(isa, &met, from, &mut acc);
                }
                self.store::<R>(isa, tile, to, &acc);
            }
        }
    }

    /// Turns the lines of a tile; returns where the first is.
    ///
    /// # Safety
    /// The memory must cover the tile's reach.
    #[inline(always)]
    unsafe fn turned<const R: usize, const SHARE: usize>(
        &self,
        isa: I,
        (number, tile): (usize, &Tile),
        shift: usize,
        lines: &mut Lines<I::V>,
    ) -> *const A {
        let offsets = &self.plan.offsets;
        let real = ones(tile.real.end) & !ones(tile.real.start) & ones(offsets.taps.0 + (R - 1) * SHARE);
        let from = (self.src.wrapping_add(tile.src + shift), offsets.pitch);
        // SAFETY: what the edge has of real lines is inside the reach, and chunks read no other lines.
        unsafe { lines.fill(isa, offsets.turn, from, &offsets.edges[number], real) }
    }

    /// What a chunk of taps meets in a tile.
    #[inline(always)]
    fn met<const VECTOR: bool>(&self, (number, tile): (usize, &Tile), chunk: &Chunk) -> Met<'_, A> {
        let (offsets, width) = (&self.plan.offsets, if VECTOR { I::LANES } else { 1 });
        let from = chunk.others.start.max(self.others.start);
        let others = from..chunk.others.end.min(self.others.end).max(from);
        let line = |at: usize| at.saturating_sub(chunk.first);
        Met {
            taps: chunk.taps,
            src: self.src.wrapping_add(tile.src + chunk.first * offsets.pitch),
            weights: self.weights.wrapping_add((chunk.weights + (from - chunk.others.start) * chunk.taps) * width),
            live: self.live.map(|live| &live[chunk.live + from - chunk.others.start..][..others.len()]),
            edges: match offsets.turn {
                Turn::None => offsets.edges.get(number * offsets.others.len() + others.start..).unwrap_or(&[]),
                _ => &[],
            },
            pitch: offsets.pitch,
            others: &offsets.others[others],
            real: ones(line(tile.real.end)) & !ones(line(tile.real.start)),
        }
    }

    /// # Safety
    /// The memory must cover the tile's reach.
    #[inline(always)]
    unsafe fn chunk<const R: usize, const SHARE: usize, const VECTOR: bool, const CLIP: u8>(
        &self,
        isa: I,
        met: &Met<'_, A>,
        (src, weights): (usize, usize),
        acc: &mut [I::V; R],
    ) {
        let from = (met.src.wrapping_add(src), met.weights.wrapping_add(weights));
        // SAFETY: inside the reach that `run` asserted.
        unsafe {
            macro_rules! by_taps {
                ($($n:literal)*) => { match met.taps {
                    $($n => self.taps::<R, $n, SHARE, VECTOR, CLIP>(isa, from, met, acc),)*
                    _ => unreachable!("a chunk has 1 to 8 taps"),
                } };
            }
            by_taps!(1 2 3 4 5 6 7 8);
        }
    }

    /// # Safety
    /// The memory must cover the tile's reach.
    #[inline(always)]
    unsafe fn load<const R: usize>(&self, isa: I, tile: &Tile, shift: usize) -> [I::V; R] {
        let offsets = &self.plan.offsets;
        let mut acc = [isa.splat(A::default()); R];
        unrolled!(N in [0 1 2 3 4 5 6 7 8 9 10 11 12 13] {
            if N < R && N < tile.rows {
                let lanes = tile.lanes.saturating_sub(N * offsets.lane_step).min(self.lanes);
                let from = self.dst.wrapping_add(shift + tile.dst + N * offsets.dst_pitch);
                // SAFETY: inside the destination reach that `run` asserted.
                acc[if N < R { N } else { 0 }] = unsafe { isa.load_masked(from, isa.mask(0, lanes)) };
            }
        });
        acc
    }

    /// # Safety
    /// The memory must cover the tile's reach.
    #[inline(always)]
    unsafe fn store<const R: usize>(&self, isa: I, tile: &Tile, shift: usize, acc: &[I::V; R]) {
        // Copies, which stores cannot change.
        let (pitch, step) = (self.plan.offsets.dst_pitch, self.plan.offsets.lane_step);
        let (rows, lanes, first) = (tile.rows, tile.lanes, self.dst.wrapping_add(shift + tile.dst));
        let to = |a: usize| first.wrapping_add(a * pitch);
        let whole = lanes.min(self.lanes) >= I::LANES + (rows - 1) * step;
        // Most tiles store everything; to ask once is faster than to ask for every vector.
        if whole && rows == R {
            for (a, v) in acc.iter().enumerate() {
                // SAFETY: inside the reach.
                unsafe { isa.store(to(a), *v) };
            }
            return;
        }
        unrolled!(N in [0 1 2 3 4 5 6 7 8 9 10 11 12 13] {
            if N < R && N < rows {
                let lanes = lanes.saturating_sub(N * step).min(self.lanes);
                let v = acc[if N < R { N } else { 0 }];
                // SAFETY: inside the reach.
                unsafe { if lanes >= I::LANES { isa.store(to(N), v) } else { isa.store_masked(to(N), v, isa.mask(0, lanes)) } }
            }
        });
    }

    /// # Safety
    /// As `tile`.
    #[inline(always)]
    unsafe fn taps<const R: usize, const TAPS: usize, const SHARE: usize, const VECTOR: bool, const CLIP: u8>(
        &self,
        isa: I,
        (src, mut weights): (*const A, *const A),
        met: &Met<'_, A>,
        acc: &mut [I::V; R],
    ) {
        if const { TAPS > most_taps(I::REGISTERS) } {
            unreachable!("no such chunk");
        }
        let pitch = met.pitch;
        let spreads = self.plan.offsets.turn == Turn::Spread;
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
            let mut mask = isa.mask(0, I::LANES);
            if CLIP == LANES {
                match met.edges.get(index) {
                    Some(edge) => mask = isa.mask(edge.start, edge.end),
                    None if spreads => {
                        for w in &mut w {
                            *w = spread(isa, other, *w);
                        }
                    }
                    None => {}
                }
            }
            unrolled!(N in [0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21] {
                if N < TAPS + (R - 1) * SHARE {
                    if CLIP == NONE || met.real >> N & 1 != 0 {
                        // SAFETY: line `N` is inside the reach, so far as the mask goes.
                        let x = unsafe { if CLIP == LANES { isa.load_masked(line, mask) } else { isa.load(line) } };
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
