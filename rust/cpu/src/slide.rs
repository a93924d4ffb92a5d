//! One-dimensional convolution by vectors that slide across a pair of registers, the method that sliding window sums were
//! published with, channel by channel. Reading memory again at every tap is faster on the processors measured, so this
//! row stands behind those that do; a filter brings it out.

use striate_core::geometry::Role;
use striate_core::pool::{Part, for_each_part};
use striate_core::view::{carve, carved_bytes};
use striate_core::{Accumulator, Layout, Operands, Pass, Pool, Problem, Program, Scalar, Why};
use striate_simd::slide::{Slide, Sliding, convolve};

/// Columns of a part.
const BAND: usize = 1 << 13;
/// Taps of a kernel above which lines would outgrow their use.
const REACH: i64 = 1 << 20;

pub(crate) fn supports(problem: &Problem) -> Result<(), Why> {
    let [a, b, along] = problem.geometry.axes();
    let single = |axis: &striate_core::Axis| axis.input() == 1 && axis.kernel() == 1 && axis.output() == 1;
    if problem.pass != Pass::Fwd || problem.layout != Layout::Nchw {
        return Err("takes forward passes of contiguous tensors".into());
    }
    if problem.dtype != problem.dtype.accumulator() {
        return Err(format!("takes numbers that are their own sums, got {}", problem.dtype.name()));
    }
    if !single(a) || !single(b) || a.pad() != (0, 0) || b.pad() != (0, 0) || along.stride() != 1 {
        return Err("takes one dimension without a stride".into());
    }
    if (along.kernel() - 1) * along.dilation() > REACH {
        return Err(format!("takes kernels that reach over at most {REACH} positions"));
    }
    Ok(())
}

/// The compiled program.
pub(crate) struct Slid<S, I> {
    problem: Problem,
    isa: I,
    bounds: Vec<usize>,
    taps: Vec<S>,
}

impl<S: Accumulator + Scalar<Acc = S>, I: Slide<S>> Slid<S, I> {
    pub(crate) fn new(problem: &Problem, isa: I) -> Self {
        let outs = problem.geometry.axes()[2].output() as usize;
        let rows = problem.elements(Role::Output) / outs;
        let starts = (0..rows).flat_map(|row| (0..outs).step_by(BAND).map(move |from| row * outs + from));
        let bounds = starts.chain([rows * outs]).collect();
        let taps = vec![S::default(); problem.geometry.axes()[2].kernel() as usize];
        Slid { problem: *problem, isa, bounds, taps }
    }

    /// Numbers of a line.
    fn line(&self) -> usize {
        let along = &self.problem.geometry.axes()[2];
        let cols = (along.output() as usize).min(BAND);
        Sliding { taps: &self.taps, apart: along.dilation() as usize, cols }.reach(I::LANES)
    }
}

impl<S: Accumulator + Scalar<Acc = S>, I: Slide<S>> Program for Slid<S, I> {
    fn workspace(&self, width: usize) -> usize {
        carved_bytes::<S>(width, self.line())
    }

    fn run(&self, operands: Operands<'_>, pool: &dyn Pool) {
        let Operands { first, second, bias, out, workspace } = operands;
        let (source, weights, bias) =
            (first.typed::<S>().data, second.typed::<S>().data, bias.map(|b| b.typed::<S>().data));
        let g = &self.problem.geometry;
        let along = &g.axes()[2];
        let [groups, c_in, c_out] = [g.groups(), g.c_in(), g.c_out()].map(|count| count as usize);
        let [size, outs, taps] = [along.input(), along.output(), along.kernel()].map(|count| count as usize);
        let (lines, _) = carve::<S>(workspace, pool.width(), self.line());
        for_each_part(pool, (out.typed::<S>().data, &self.bounds), lines, &|part: Part<'_, S, S>| {
            let (row, from) = (self.bounds[part.index] / outs, self.bounds[part.index] % outs);
            let (sample, channel) = (row / (groups * c_out), row % (groups * c_out));
            part.out.fill(bias.map_or(S::default(), |bias| bias[channel]));
            // Where the line begins in the source, and what of it the source has.
            let base = from as i64 - along.pad().0;
            let real = base.clamp(0, size as i64)..(base + part.scratch.len() as i64).clamp(0, size as i64);
            let to = (real.start - base) as usize..(real.end - base).max(real.start - base) as usize;
            for summand in 0..c_in {
                let plane = (sample * groups + channel / c_out) * c_in + summand;
                let line = &source[plane * size..][real.start as usize..(real.end.max(real.start)) as usize];
                part.scratch.fill(S::default());
                part.scratch[to.clone()].copy_from_slice(line);
                let taps = &weights[(channel * c_in + summand) * taps..][..taps];
                let sliding = Sliding { taps, apart: along.dilation() as usize, cols: part.out.len() };
                convolve(self.isa, &sliding, part.scratch, part.out);
            }
        });
    }
}
