//! The multiply-add loop of the weight gradient.
//!
//! Accumulators are taps: `taps` of the shared direction times a few of the others, each a vector whose lanes are
//! summed at the very end. A step holds some lines of the output gradient in registers; a loaded source line `n`
//! serves every tap `t` and gradient line `a` with `t + a * share = n`.

use crate::ahead::{Ahead, Shares};
use crate::isa::{Simd, Task};
use crate::tiles::{chunks, meet, ones, unrolled};
use crate::turn::{Lines, Turn};
use std::marker::PhantomData;
use std::ops::Range;
use striate_core::Accumulator;

/// Some gradient lines and the source lines they meet.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    /// Offset of gradient line 0.
    pub grad: usize,
    /// Source offset of its first shared and first other tap.
    pub src: usize,
    /// Gradient lines, one of [`line_counts`].
    pub lines: usize,
    /// Lanes of the gradient that count. Where the first does not start the vector, the source has all lanes, since
    /// those left out belong to the step before.
    pub lanes: (usize, usize),
    /// Position of the first source line along the shared direction.
    pub line: usize,
    /// The first of its `Offsets::edges`.
    pub edges: usize,
}

/// Numbers of gradient lines that may share loads, largest first, by register count.
pub const fn line_counts(registers: usize) -> &'static [usize] {
    if registers >= 32 { &[7, 4, 1] } else { &[4, 1] }
}

/// The offsets of a weight gradient, before they are checked.
pub struct Offsets {
    /// Source offsets of the taps outside the shared direction.
    pub others: Vec<usize>,
    /// Number of taps along the shared direction.
    pub taps: usize,
    /// Source distance of neighbouring taps of the shared direction.
    pub pitch: usize,
    /// Gradient lines lie this many shared taps apart.
    pub share: usize,
    /// Distance of the gradient lines of a step.
    pub grad_pitch: usize,
    /// The steps.
    pub steps: Vec<Step>,
    /// Steps after which the sums go back to memory, so that the lines in use stay in the first cache.
    pub round: usize,
    /// Positions between neighbouring taps of the shared direction.
    pub reach: usize,
    /// Whether only source lines that are real may be read. Memory must then lie as far apart as positions do.
    pub bounded: bool,
    /// Numbers of the source that may be read for every step and other tap, where not all may; the others count as zeros.
    pub edges: Vec<Range<usize>>,
    /// How they become lanes. Turned lines have one edge for every step, and other taps are positions in such a line.
    pub turn: Turn,
}

impl Offsets {
    /// Source offset of a position of the shared direction.
    fn at(&self, line: usize) -> usize {
        line * self.pitch / self.reach
    }
}

/// Memory of one run.
pub struct Job<'a, A> {
    /// Gradient numbers.
    pub grad: &'a [A],
    /// Source numbers.
    pub src: &'a [A],
    /// Added to every source offset; may be negative where the taps in use make up for it.
    pub base: isize,
    /// The steps to take.
    pub steps: Range<usize>,
    /// The other taps to use.
    pub others: Range<usize>,
    /// Planes that are added to the same sums.
    pub items: usize,
    /// How far they lie apart in gradient and source.
    pub apart: (usize, usize),
    /// Lanes of every vector to use, at most.
    pub lanes: usize,
    /// Positions along the shared direction whose lines are real; what taps meet elsewhere is left out.
    pub real: Range<usize>,
    /// Gradient and source that will be needed soon, so far as the first item is concerned: those of others lie as far
    /// apart as items do. They are asked for step by step.
    pub ahead: [Ahead; 2],
    /// Sums to add to.
    pub sums: &'a mut [A],
}

/// Offsets whose reach is known, for one vector width.
pub struct Gather<A, I> {
    offsets: Offsets,
    src_reach: usize,
    /// What is read of the first source line, over all steps and other taps that have edges.
    read: Range<usize>,
    grad_reach: usize,
    /// The same without the lanes.
    grad_base: usize,
    made_for: PhantomData<fn(A, I)>,
}

/// Taps of the shared direction in the largest register tile, by register count.
pub const fn most_taps(registers: usize) -> usize {
    if registers >= 32 { 7 } else { 4 }
}

/// Others in the largest tile with so many taps: sums, gradient lines and a source line must fit the registers with
/// some to spare, or the compiler moves sums to the stack.
const fn most_others(registers: usize, taps: usize) -> usize {
    if registers >= 32 && taps <= 4 { 3 } else { 2 }
}

impl<A: Accumulator, I: Simd<A>> Gather<A, I> {
    /// Works out how far the offsets reach; runs compare that with the memory they are given.
    pub fn new(offsets: Offsets) -> Gather<A, I> {
        let farthest = offsets.others.iter().copied().max().unwrap_or(0);
        let mut reach = (0, 0, 0);
        for step in &offsets.steps {
            assert!(step.lines == 1 || line_counts(I::REGISTERS).contains(&step.lines) && offsets.share <= 2);
            assert!(step.lanes.0 < step.lanes.1 && step.lanes.1 <= I::LANES);
            let lines = offsets.taps.max(1) - 1 + (step.lines - 1) * offsets.share;
            reach.0 = reach.0.max(step.src + farthest + lines * offsets.pitch + step.lanes.1);
            reach.1 = reach.1.max(step.grad + (step.lines - 1) * offsets.grad_pitch + step.lanes.1);
            reach.2 = reach.2.max(step.grad + (step.lines - 1) * offsets.grad_pitch);
        }
        let src_reach = if offsets.bounded { 0 } else { reach.0 };
        let edged = !offsets.edges.is_empty();
        assert!(if edged { offsets.bounded } else { offsets.turn == Turn::None }, "edges bound what is read");
        let mut read = Range { start: usize::MAX, end: 0 };
        let turned = offsets.turn != Turn::None;
        for step in offsets.steps.iter().filter(|_| edged) {
            let others = if turned { &[0][..] } else { &offsets.others };
            let mine = &offsets.edges[step.edges..][..others.len()];
            for (other, numbers) in others.iter().zip(mine).filter(|(_, numbers)| !numbers.is_empty()) {
                let from = step.src - offsets.at(step.line) + other;
                read = read.start.min(from + numbers.start)..read.end.max(from + numbers.end);
            }
            assert!(!turned || mine[0].end <= offsets.turn.numbers(I::LANES));
        }
        assert!(!turned || farthest + I::LANES <= Turn::pitch(I::LANES));
        let ordered = || offsets.steps.is_sorted_by_key(|step| step.src - offsets.at(step.line));
        assert!(!offsets.bounded || edged || ordered(), "steps lie in the order of their rows");
        Gather { offsets, src_reach, read, grad_reach: reach.1, grad_base: reach.2, made_for: PhantomData }
    }

    /// Numbers of source memory a run needs, unless it is bounded.
    pub fn src_reach(&self) -> usize {
        self.src_reach
    }

    /// Numbers in the sums: a vector for every tap, ordered `[other][shared tap][lane]`.
    pub fn sums(&self) -> usize {
        self.offsets.others.len() * self.offsets.taps * I::LANES
    }

    /// Number of steps.
    pub fn steps(&self) -> usize {
        self.offsets.steps.len()
    }

    /// Number of taps outside the shared direction.
    pub fn others(&self) -> usize {
        self.offsets.others.len()
    }

    /// Adds steps to the sums.
    pub fn run(&self, isa: I, job: Job<'_, A>) {
        let steps = self.offsets.steps.get(job.steps.clone()).expect("steps in range");
        let others = self.offsets.others.get(job.others.clone()).expect("other taps in range");
        let reach = if job.lanes < I::LANES { self.grad_base + job.lanes } else { self.grad_reach };
        let last = |apart: usize| job.items.saturating_sub(1) * apart;
        let reach = reach + last(job.apart.0);
        assert!(reach <= job.grad.len() || steps.is_empty(), "gradient of {} is short of {reach}", job.grad.len());
        assert!(self.sums() <= job.sums.len(), "sums of {} are short of {}", job.sums.len(), self.sums());
        let (near, far) = (others.iter().min().copied().unwrap_or(0), others.iter().max().copied().unwrap_or(0));
        let at = |line: usize| self.offsets.at(line);
        let edged = !self.offsets.edges.is_empty();
        let (from, to) = if edged {
            (self.read.start.saturating_add(at(job.real.start)), self.read.end + at(job.real.end.saturating_sub(1)))
        } else if self.offsets.bounded {
            let row = |step: Option<&Step>| step.map_or(0, |step| step.src - at(step.line));
            let last = at(job.real.end.saturating_sub(1)) + I::LANES;
            (row(steps.first()) + near + at(job.real.start), row(steps.last()) + far + last)
        } else {
            (0, self.src_reach)
        };
        let (from, to) = (job.base + from as isize, job.base + (to + last(job.apart.1)) as isize);
        let none = others.is_empty() || job.real.is_empty() || edged && self.read.is_empty();
        assert!(
            none || from >= 0 && to <= job.src.len() as isize,
            "source of {} does not hold {from}..{to}",
            job.src.len()
        );
        match self.offsets.share {
            1 => isa.run(Run::<A, I, 1>(self, job)),
            2 => isa.run(Run::<A, I, 2>(self, job)),
            _ => isa.run(Run::<A, I, 0>(self, job)),
        }
    }
}

struct Run<'a, A, I, const SHARE: usize>(&'a Gather<A, I>, Job<'a, A>);

impl<A: Accumulator, I: Simd<A>, const SHARE: usize> Task<I> for Run<'_, A, I, SHARE> {
    type Out = ();
    #[inline(always)]
    fn call(self, isa: I) {
        let Run(plan, job) = self;
        let offsets = &plan.offsets;
        let (skipped, used) = (job.others.start, job.others.len());
        if used == 0 {
            return;
        }
        let memory = (job.grad.as_ptr(), job.src.as_ptr().wrapping_offset(job.base), job.sums.as_mut_ptr());
        let rounds = offsets.steps[job.steps.clone()].chunks(offsets.round.max(1));
        for (round, steps) in rounds.clone().enumerate() {
            for (first, taps) in chunks(offsets.taps, most_taps(I::REGISTERS)) {
                let most = most_others(I::REGISTERS, taps);
                let folds = used.div_ceil(most);
                for (fold, (other, others)) in chunks(used, most).enumerate() {
                    let (index, count) = (round * folds + fold, rounds.len() * folds);
                    let ahead = job.ahead.map(|ahead| if first == 0 { ahead.piece(index, count) } else { Ahead::NONE });
                    let part = Part { plan, other: skipped + other, first, memory, ahead, job: &job };
                    macro_rules! by_size {
                        ($(($t:literal $c:literal))*) => { match (taps, others) {
                            // SAFETY: `Gather::run` asserted the reach of all steps and the size of the sums.
                            $(($t, $c) => unsafe { part.fold::<$t, $c, SHARE>(isa, steps) },)*
                            _ => unreachable!("chunks are at most the register tile"),
                        } };
                    }
                    by_size!((1 1)(1 2)(1 3)(2 1)(2 2)(2 3)(3 1)(3 2)(3 3)(4 1)(4 2)(4 3)(5 1)(5 2)(6 1)(6 2)(7 1)(7 2));
                }
            }
        }
    }
}

/// Gradient, source and sums, whose reach `Gather::run` asserted.
type Memory<A> = (*const A, *const A, *mut A);

struct Part<'a, A, I> {
    plan: &'a Gather<A, I>,
    other: usize,
    first: usize,
    memory: Memory<A>,
    /// Of the job's, what is asked for by the way.
    ahead: [Ahead; 2],
    job: &'a Job<'a, A>,
}

impl<A: Accumulator, I: Simd<A>> Part<'_, A, I> {
    /// A bit for every source line of a step that is real.
    #[inline(always)]
    fn real<const T: usize, const SHARE: usize>(&self, step: &Step) -> u32 {
        let reach = self.plan.offsets.reach;
        let line = step.line + self.first * reach;
        let below = |end: usize| {
            let left = end.saturating_sub(line);
            ones(if reach == 1 { left } else { left.div_ceil(reach) })
        };
        below(self.job.real.end) & !below(self.job.real.start) & ones(T + (step.lines - 1) * SHARE)
    }

    /// # Safety
    /// The memory must cover the plan's reach.
    #[inline(always)]
    unsafe fn fold<const T: usize, const C: usize, const SHARE: usize>(&self, isa: I, steps: &[Step]) {
        if const { T > most_taps(I::REGISTERS) || C > most_others(I::REGISTERS, T) } {
            unreachable!("no such tile");
        }
        let offsets = &self.plan.offsets;
        let mut acc = [[isa.splat(A::default()); C]; T];
        let mut others = [0; C];
        others.copy_from_slice(&offsets.others[self.other..self.other + C]);
        for item in 0..self.job.items {
            let apart = (item * self.job.apart.0, item * self.job.apart.1);
            let [grad, source] = self.ahead;
            let bytes = |numbers: usize| numbers * size_of::<A>();
            let mut ahead = Shares::new([grad.shifted(bytes(apart.0)), source.shifted(bytes(apart.1))], steps.len());
            for step in steps {
                ahead.ask(isa);
                let real = self.real::<T, SHARE>(step);
                if real == 0 {
                    continue;
                }
                // SAFETY: every line of the step is inside the reach; lanes left out are not touched.
                unsafe {
                    macro_rules! by_lines {
                        ($($lines:literal)*) => { match step.lines {
                            $($lines if SHARE != 0 =>
                                self.masked::<T, C, $lines, SHARE>(isa, (step, apart, real), &others, &mut acc),)*
                            _ => self.masked::<T, C, 1, 1>(isa, (step, apart, real), &others, &mut acc),
                        } };
                    }
                    by_lines!(7 4);
                }
            }
        }
        for (c, column) in (self.other..self.other + C).enumerate() {
            for (t, row) in acc.iter().enumerate() {
                // SAFETY: `run` asserted the size of the sums.
                unsafe {
                    let to = self.memory.2.add((column * offsets.taps + self.first + t) * I::LANES);
                    isa.store(to, isa.add(isa.load(to), row[c]));
                }
            }
        }
    }

    /// # Safety
    /// The step must be inside the reach.
    #[inline(always)]
    unsafe fn masked<const T: usize, const C: usize, const L: usize, const SHARE: usize>(
        &self,
        isa: I,
        (step, apart, real): (&Step, (usize, usize), u32),
        others: &[usize; C],
        acc: &mut [[I::V; C]; T],
    ) {
        if const { L > line_counts(I::REGISTERS)[0] } {
            unreachable!("no such step");
        }
        // SAFETY: passed on unchanged.
        unsafe {
            let whole = step.lanes.0 == 0 && step.lanes.1.min(self.job.lanes) == I::LANES;
            if whole && self.plan.offsets.edges.is_empty() {
                self.step::<T, C, L, SHARE, false>(isa, (step, apart, real), others, acc);
            } else {
                self.step::<T, C, L, SHARE, true>(isa, (step, apart, real), others, acc);
            }
        }
    }

    /// # Safety
    /// The step must be inside the reach.
    #[inline(always)]
    unsafe fn step<const T: usize, const C: usize, const L: usize, const SHARE: usize, const MASKED: bool>(
        &self,
        isa: I,
        (step, apart, real): (&Step, (usize, usize), u32),
        others: &[usize; C],
        acc: &mut [[I::V; C]; T],
    ) {
        let offsets = &self.plan.offsets;
        let mask = isa.mask(step.lanes.0, step.lanes.1.min(self.job.lanes));
        if const { I::EDGES && !MASKED } {
            unreachable!("no such step");
        }
        let grad = self.memory.0.wrapping_add(step.grad + apart.0);
        let mut g = [isa.splat(A::default()); L];
        for (a, slot) in g.iter_mut().enumerate() {
            // SAFETY: the caller vouches for the step's gradient lines.
            *slot = unsafe { read::<A, I>(isa, MASKED, grad.wrapping_add(a * offsets.grad_pitch), mask) };
        }
        let mut pitch = offsets.pitch;
        let mut line = self.memory.1.wrapping_add(step.src + apart.1 + self.first * pitch);
        let mut masks = [mask; C];
        let mut lines = Lines::<I::V>::empty();
        if MASKED && offsets.turn != Turn::None {
            // SAFETY: what the edge has of real lines is inside the reach; no others are used below.
            line = unsafe { lines.fill(isa, offsets.turn, (line, pitch), &offsets.edges[step.edges], real) };
            pitch = Turn::pitch(I::LANES);
            masks = [isa.mask(0, I::LANES); C];
        } else if MASKED && !offsets.edges.is_empty() {
            let edges = &offsets.edges[step.edges + self.other..][..C];
            for (mask, numbers) in masks.iter_mut().zip(edges) {
                *mask = isa.mask(numbers.start, numbers.end);
            }
        } else if MASKED && step.lanes.0 > 0 {
            masks = [isa.mask(0, I::LANES); C];
        }
        unrolled!(N in [0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18] {
            if N < T + (L - 1) * SHARE {
                if real >> N & 1 != 0 {
                    unrolled!(D in [0 1 2] {
                        if D < C {
                            let d = if D < C { D } else { 0 };
                            // SAFETY: the caller vouches for the step's real source lines.
                            let x = unsafe { read::<A, I>(isa, MASKED, line.wrapping_add(others[d]), masks[d]) };
                            unrolled!(P in [0 1 2 3 4 5 6] {
                                if let Some((a, p)) = const { meet(N, P, T, SHARE, L) } {
                                    acc[p][d] = isa.mul_add(g[a], x, acc[p][d]);
                                }
                            });
                        }
                    });
                }
                line = line.wrapping_add(pitch);
            }
        });
    }
}

/// # Safety
/// As the loads it chooses from.
#[inline(always)]
unsafe fn read<A: Accumulator, I: Simd<A>>(isa: I, masked: bool, from: *const A, mask: I::M) -> I::V {
    // SAFETY: passed on unchanged.
    unsafe { if masked { isa.load_masked(from, mask) } else { isa.load(from) } }
}
