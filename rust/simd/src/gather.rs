//! The multiply-add loop of the weight gradient.
//!
//! Accumulators are taps: `taps` of the shared direction times a few of the others, each a vector whose lanes are
//! summed at the very end. A step holds some lines of the output gradient in registers; a loaded source line `n`
//! serves every tap `t` and gradient line `a` with `t + a * share = n`.

use crate::isa::{Simd, Task};
use crate::tiles::{chunks, meet, unrolled};
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
    /// Gradient lines, [`LINES`] or 1.
    pub lines: usize,
    /// Lanes that count, at most a vector.
    pub lanes: usize,
    /// Position of the first source line along the shared direction, for clipping.
    pub line: usize,
}

/// Gradient lines that share loads.
pub const LINES: usize = 4;

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
    /// Positions between neighbouring taps, and between the first and last gradient line of a step.
    pub reach: (usize, usize),
}

/// Offsets whose reach is known, for one vector width.
pub struct Gather<A, I> {
    offsets: Offsets,
    src_reach: usize,
    grad_reach: usize,
    /// The same without the lanes.
    grad_base: usize,
    made_for: PhantomData<fn(A, I)>,
}

/// (taps, others) of the largest register tile by register count.
const fn tile(registers: usize) -> (usize, usize) {
    if registers >= 32 { (7, 3) } else { (4, 2) }
}

impl<A: Accumulator, I: Simd<A>> Gather<A, I> {
    /// Works out how far the offsets reach; runs compare that with the memory they are given.
    pub fn new(offsets: Offsets) -> Gather<A, I> {
        let farthest = offsets.others.iter().copied().max().unwrap_or(0);
        let mut reach = (0, 0, 0);
        for step in &offsets.steps {
            assert!(
                (step.lines == 1 || step.lines == LINES && (1..=2).contains(&offsets.share)) && step.lanes <= I::LANES
            );
            let lines = offsets.taps.max(1) - 1 + (step.lines - 1) * offsets.share;
            reach.0 = reach.0.max(step.src + farthest + lines * offsets.pitch + step.lanes);
            reach.1 = reach.1.max(step.grad + (step.lines - 1) * offsets.grad_pitch + step.lanes);
            reach.2 = reach.2.max(step.grad + (step.lines - 1) * offsets.grad_pitch);
        }
        Gather { offsets, src_reach: reach.0, grad_reach: reach.1, grad_base: reach.2, made_for: PhantomData }
    }

    /// Numbers of source memory a run needs.
    pub fn src_reach(&self) -> usize {
        self.src_reach
    }

    /// Numbers in the sums: a vector for every tap, ordered `[other][shared tap][lane]`.
    pub fn sums(&self) -> usize {
        self.offsets.others.len() * self.offsets.taps * I::LANES
    }

    /// Adds all steps to the sums, using at most the first `lanes` lanes of each, and only taps that meet a source
    /// position in `real` along the shared direction.
    pub fn run(&self, isa: I, (grad, src): (&[A], &[A]), sums: &mut [A], lanes: usize, real: Range<usize>) {
        let reach = if lanes < I::LANES { self.grad_base + lanes } else { self.grad_reach };
        assert!(self.src_reach <= src.len(), "source of {} is short of {}", src.len(), self.src_reach);
        assert!(reach <= grad.len() || self.offsets.steps.is_empty(), "gradient of {} is short of {reach}", grad.len());
        assert!(self.sums() <= sums.len(), "sums of {} are short of {}", sums.len(), self.sums());
        let memory = (grad.as_ptr(), src.as_ptr(), sums.as_mut_ptr());
        match self.offsets.share {
            1 => isa.run(Run::<A, I, 1>(self, memory, lanes, real)),
            2 => isa.run(Run::<A, I, 2>(self, memory, lanes, real)),
            _ => isa.run(Run::<A, I, 0>(self, memory, lanes, real)),
        }
    }
}

/// Gradient, source and sums, whose reach `Gather::run` asserted.
type Memory<A> = (*const A, *const A, *mut A);

struct Run<'a, A, I, const SHARE: usize>(&'a Gather<A, I>, Memory<A>, usize, Range<usize>);

impl<A: Accumulator, I: Simd<A>, const SHARE: usize> Task<I> for Run<'_, A, I, SHARE> {
    type Out = ();
    #[inline(always)]
    fn call(self, isa: I) {
        let Run(plan, memory, lanes, real) = self;
        let offsets = &plan.offsets;
        let (most_taps, most_others) = const { tile(I::REGISTERS) };
        for steps in offsets.steps.chunks(offsets.round.max(1)) {
            for (other, others) in chunks(offsets.others.len(), most_others) {
                for (first, taps) in chunks(offsets.taps, most_taps) {
                    let part = Part { plan, other, first, memory, lanes, real: real.clone() };
                    macro_rules! by_size {
                        ($(($t:literal $c:literal))*) => { match (taps, others) {
                            // SAFETY: `Gather::run` asserted the reach of all steps and the size of the sums.
                            $(($t, $c) => unsafe { part.fold::<$t, $c, SHARE>(isa, steps) },)*
                            _ => unreachable!("chunks are at most the register tile"),
                        } };
                    }
                    by_size!((1 1)(1 2)(1 3)(2 1)(2 2)(2 3)(3 1)(3 2)(3 3)(4 1)(4 2)(4 3)(5 1)(5 2)(5 3)(6 1)(6 2)(6 3)(7 1)(7 2)(7 3));
                }
            }
        }
    }
}

struct Part<'a, A, I> {
    plan: &'a Gather<A, I>,
    other: usize,
    first: usize,
    memory: Memory<A>,
    lanes: usize,
    real: Range<usize>,
}

impl<A: Accumulator, I: Simd<A>> Part<'_, A, I> {
    /// # Safety
    /// The memory must cover the plan's reach.
    #[inline(always)]
    unsafe fn fold<const T: usize, const C: usize, const SHARE: usize>(&self, isa: I, steps: &[Step]) {
        if const { T > tile(I::REGISTERS).0 || C > tile(I::REGISTERS).1 } {
            unreachable!("no such tile");
        }
        let offsets = &self.plan.offsets;
        let mut acc = [[isa.splat(A::default()); C]; T];
        let mut others = [0; C];
        others.copy_from_slice(&offsets.others[self.other..self.other + C]);
        let (near, far) = (self.first * offsets.reach.0, (self.first + T - 1) * offsets.reach.0 + offsets.reach.1);
        for step in steps {
            if step.line + near >= self.real.end || step.line + far < self.real.start {
                continue;
            }
            // SAFETY: every line of the step is inside the reach; masked lanes are not touched.
            unsafe {
                match (SHARE != 0 && step.lines == LINES, step.lanes.min(self.lanes) >= I::LANES) {
                    (true, true) => self.step::<T, C, LINES, SHARE, false>(isa, step, &others, &mut acc),
                    (true, false) => self.step::<T, C, LINES, SHARE, true>(isa, step, &others, &mut acc),
                    (false, true) => self.step::<T, C, 1, 1, false>(isa, step, &others, &mut acc),
                    (false, false) => self.step::<T, C, 1, 1, true>(isa, step, &others, &mut acc),
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
    unsafe fn step<const T: usize, const C: usize, const L: usize, const SHARE: usize, const MASKED: bool>(
        &self,
        isa: I,
        step: &Step,
        others: &[usize; C],
        acc: &mut [[I::V; C]; T],
    ) {
        let offsets = &self.plan.offsets;
        let mask = isa.mask(step.lanes.min(self.lanes));
        let grad = self.memory.0.wrapping_add(step.grad);
        let mut g = [isa.splat(A::default()); L];
        for (a, slot) in g.iter_mut().enumerate() {
            // SAFETY: the caller vouches for the step's gradient lines.
            *slot = unsafe { read::<A, I, MASKED>(isa, grad.wrapping_add(a * offsets.grad_pitch), mask) };
        }
        let mut line = self.memory.1.wrapping_add(step.src + self.first * offsets.pitch);
        unrolled!(N in [0 1 2 3 4 5 6 7 8 9 10 11 12] {
            if N < T + (L - 1) * SHARE {
                unrolled!(D in [0 1 2] {
                    if D < C {
                        let d = if D < C { D } else { 0 };
                        // SAFETY: the caller vouches for the step's source lines.
                        let x = unsafe { read::<A, I, MASKED>(isa, line.wrapping_add(others[d]), mask) };
                        unrolled!(P in [0 1 2 3 4 5 6] {
                            if let Some((a, p)) = const { meet(N, P, T, SHARE, L) } {
                                acc[p][d] = isa.mul_add(g[a], x, acc[p][d]);
                            }
                        });
                    }
                });
                line = line.wrapping_add(offsets.pitch);
            }
        });
    }
}

/// # Safety
/// As the loads it chooses from.
#[inline(always)]
unsafe fn read<A: Accumulator, I: Simd<A>, const MASKED: bool>(isa: I, from: *const A, mask: I::M) -> I::V {
    // SAFETY: passed on unchanged.
    unsafe { if MASKED { isa.load_masked(from, mask) } else { isa.load(from) } }
}
