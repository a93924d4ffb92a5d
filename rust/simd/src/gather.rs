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
    /// Gradient lines, one of [`line_counts`].
    pub lines: usize,
    /// Lanes of the gradient that count. Where the first does not start the vector, the source has all lanes, since
    /// those left out belong to the step before.
    pub lanes: (usize, usize),
    /// Position of the first source line along the shared direction, for clipping.
    pub line: usize,
}

/// Numbers of gradient lines that may share loads, largest first, by register count.
pub const fn line_counts(registers: usize) -> &'static [usize] {
    if registers >= 32 { &[7, 4, 1] } else { &[4, 1] }
}

/// What is left out of a vector.
const NOTHING: u8 = 0;
/// Lanes of the gradient.
const GRADIENT: u8 = 1;
/// Lanes of the gradient and the source.
const BOTH: u8 = 2;

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

/// Taps of the shared direction in the largest register tile, by register count.
const fn most_taps(registers: usize) -> usize {
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
        for steps in offsets.steps.chunks(offsets.round.max(1)) {
            for (first, taps) in chunks(offsets.taps, most_taps(I::REGISTERS)) {
                for (other, others) in chunks(offsets.others.len(), most_others(I::REGISTERS, taps)) {
                    let part = Part { plan, other, first, memory, lanes, real: real.clone() };
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
        if const { T > most_taps(I::REGISTERS) || C > most_others(I::REGISTERS, T) } {
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
            // SAFETY: every line of the step is inside the reach; lanes left out are not touched.
            unsafe {
                macro_rules! by_lines {
                    ($($lines:literal)*) => { match step.lines {
                        $($lines if SHARE != 0 => self.masked::<T, C, $lines, SHARE>(isa, step, &others, &mut acc),)*
                        _ => self.masked::<T, C, 1, 1>(isa, step, &others, &mut acc),
                    } };
                }
                by_lines!(7 4);
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
        step: &Step,
        others: &[usize; C],
        acc: &mut [[I::V; C]; T],
    ) {
        if const { L > line_counts(I::REGISTERS)[0] } {
            unreachable!("no such step");
        }
        // SAFETY: passed on unchanged.
        unsafe {
            if step.lanes.0 > 0 {
                self.step::<T, C, L, SHARE, GRADIENT>(isa, step, others, acc);
            } else if step.lanes.1.min(self.lanes) < I::LANES {
                self.step::<T, C, L, SHARE, BOTH>(isa, step, others, acc);
            } else {
                self.step::<T, C, L, SHARE, NOTHING>(isa, step, others, acc);
            }
        }
    }

    /// # Safety
    /// The step must be inside the reach.
    #[inline(always)]
    unsafe fn step<const T: usize, const C: usize, const L: usize, const SHARE: usize, const OUT: u8>(
        &self,
        isa: I,
        step: &Step,
        others: &[usize; C],
        acc: &mut [[I::V; C]; T],
    ) {
        let offsets = &self.plan.offsets;
        let mask = isa.mask(step.lanes.0, step.lanes.1.min(self.lanes));
        let grad = self.memory.0.wrapping_add(step.grad);
        let mut g = [isa.splat(A::default()); L];
        for (a, slot) in g.iter_mut().enumerate() {
            // SAFETY: the caller vouches for the step's gradient lines.
            *slot = unsafe { read::<A, I>(isa, OUT != NOTHING, grad.wrapping_add(a * offsets.grad_pitch), mask) };
        }
        let mut line = self.memory.1.wrapping_add(step.src + self.first * offsets.pitch);
        unrolled!(N in [0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18] {
            if N < T + (L - 1) * SHARE {
                unrolled!(D in [0 1 2] {
                    if D < C {
                        let d = if D < C { D } else { 0 };
                        // SAFETY: the caller vouches for the step's source lines.
                        let x = unsafe { read::<A, I>(isa, OUT == BOTH, line.wrapping_add(others[d]), mask) };
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
unsafe fn read<A: Accumulator, I: Simd<A>>(isa: I, masked: bool, from: *const A, mask: I::M) -> I::V {
    // SAFETY: passed on unchanged.
    unsafe { if masked { isa.load_masked(from, mask) } else { isa.load(from) } }
}
