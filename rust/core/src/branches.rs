//! What a call asks of depthwise convolutions that stand side by side over one tensor, read from the settings and
//! checked against the tensors.
//!
//! Settings are `pass` (`fwd`, `dx`, `dw`), `form`, and per branch one entry per axis of `low`, the padding before the
//! first position, and of `dilation`, and one `grain`: 0, or the size of the blocks of taps along every axis of which
//! many are zero and to be left out. Strides are 1 and every branch keeps the size of the maps. Of B branches
//!
//! * a forward pass reads x, B weights `[c, 1, k...]` and B biases (or none) and writes the results and, of the form
//!   `each` with `statistics=1`, their means and biased variances by channel, `[2, B, c]` in the type of sums,
//! * an input gradient reads the gradients of the results and the B weights and writes the gradient of x,
//! * a weight gradient reads the gradients of the results and x and writes B weight gradients and, where there are
//!   twice as many results, B bias gradients.

use crate::axis::{Axis, Pass};
use crate::geometry::{Channels, Geometry};
use crate::kernel::Why;
use crate::operation::{Request, Signature};
use crate::problem::{DType, Device, Layout, Problem};

/// What the branches see and what becomes of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Form {
    /// All see all channels; each has a result of its own.
    Each,
    /// All see all channels; the result is their sum.
    Sum,
    /// Each sees some neighbouring channels, in order, and fills the same ones of the one result. Channels before those
    /// of the first branch are copied.
    Split,
}

/// One branch.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Branch {
    /// Its first channel.
    pub first: usize,
    /// Its convolution, alone.
    pub problem: Problem,
}

/// A checked request.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Branches {
    /// What is produced.
    pub pass: Pass,
    /// What the branches see.
    pub form: Form,
    /// Type of the maps.
    pub dtype: DType,
    /// Samples of a map.
    pub batch: usize,
    /// Channels of a map.
    pub channels: usize,
    /// Positions of a map.
    pub plane: usize,
    /// The branches, at least one.
    pub branches: Vec<Branch>,
    /// Whether bias gradients are asked for.
    pub biases: bool,
    /// Size of blocks of taps of which many are zero, if any.
    pub grain: Option<usize>,
    /// Whether means and variances of the results are asked for.
    pub statistics: bool,
}

fn demand(holds: bool, why: impl FnOnce() -> Why) -> Result<(), Why> {
    if holds { Ok(()) } else { Err(why()) }
}

impl Branches {
    /// Of a request; every tensor is contiguous.
    pub fn of(request: &Request<'_>) -> Result<Branches, Why> {
        let settings = request.settings;
        let pass = match settings.word("pass")? {
            "fwd" => Pass::Fwd,
            "dx" => Pass::Dx,
            "dw" => Pass::Dw,
            other => return Err(format!("pass: expected fwd, dx or dw, got {other:?}")),
        };
        let form = match settings.word("form")? {
            "each" => Form::Each,
            "sum" => Form::Sum,
            "split" => Form::Split,
            other => return Err(format!("form: expected each, sum or split, got {other:?}")),
        };
        let map = request.operand(0)?;
        let (low, dilation) = (settings.integers("low")?, settings.integers("dilation")?);
        let (rank, entries) = (map.rank.saturating_sub(2), low.len());
        if !(1..=3).contains(&rank) || !entries.is_multiple_of(rank) || dilation.len() != entries {
            return Err(format!("low and dilation: expected one entry per axis and branch, got {low:?}, {dilation:?}"));
        }
        let (batch, channels) = (map.sizes()[0], map.sizes()[1]);
        let plane = map.sizes()[2..].iter().product();
        let mut made = Branches {
            pass,
            form,
            dtype: map.dtype,
            batch,
            channels,
            plane,
            branches: Vec::new(),
            grain: usize::try_from(settings.integer("grain")?).ok().filter(|&grain| grain > 0),
            biases: pass == Pass::Dw && request.results.len() == 2 * (entries / rank),
            statistics: settings.integer("statistics").unwrap_or(0) != 0,
        };
        let weights = made.tensors(request, entries / rank)?;
        let taken: usize = weights.iter().map(|weight| weight.sizes().first().copied().unwrap_or(0)).sum();
        let mut first = if form == Form::Split { channels.saturating_sub(taken) } else { 0 };
        for (index, weight) in weights.into_iter().enumerate() {
            let numbers = (&low[index * rank..][..rank], &dilation[index * rank..][..rank]);
            let problem = made.problem(map, weight, numbers)?;
            made.branches.push(Branch { first, problem });
            first += if form == Form::Split { weight.sizes()[0] } else { 0 };
        }
        demand(form != Form::Split || first == channels, || format!("weights: more than {channels} channels"))?;
        Ok(made)
    }

    /// How many gradients of results are read by a gradient, and how many results a forward pass writes.
    pub fn ends(&self, branches: usize) -> usize {
        if self.form == Form::Each { branches } else { 1 }
    }

    /// Checks every tensor but the shapes of weights, which are returned.
    fn tensors<'a>(&self, request: &'a Request<'_>, count: usize) -> Result<Vec<&'a Signature>, Why> {
        let ends = self.ends(count);
        let operands = |from: usize, count: usize| (from..from + count).map(|index| request.operand(index));
        let results = |from: usize, count: usize| (from..from + count).map(|index| request.result(index));
        let (maps, weights): (Vec<_>, Vec<_>) = match self.pass {
            Pass::Fwd => (results(0, ends).collect(), operands(1, count).collect()),
            Pass::Dx => (operands(0, ends).chain(results(0, 1)).collect(), operands(ends, count).collect()),
            Pass::Dw => (operands(0, ends + 1).collect(), results(0, count).collect()),
        };
        let map = request.operand(0)?;
        if self.statistics {
            let (found, type_of_sums) = (request.result(ends)?, self.dtype.accumulator());
            let right = self.pass == Pass::Fwd && self.form == Form::Each && found.dtype == type_of_sums;
            demand(right && found.sizes() == [2, count, self.channels], || {
                format!("statistics: expected form each, pass fwd and [2, branches, channels], got {found}")
            })?;
        }
        for found in maps {
            let found = found?;
            demand(found.sizes() == map.sizes() && found.dtype == map.dtype, || {
                format!("expected {map}, got {found}")
            })?;
        }
        let weights = weights.into_iter().collect::<Result<Vec<_>, _>>()?;
        for (index, weight) in weights.iter().enumerate() {
            let bias = match self.pass {
                Pass::Fwd => request.operands.get(1 + count + index).and_then(Option::as_ref),
                _ if self.biases => Some(request.result(count + index)?),
                _ => None,
            };
            demand(weight.dtype == weights[0].dtype, || format!("weights: expected one type, got {weight}"))?;
            if let Some(bias) = bias {
                let fits = bias.sizes() == &weight.sizes()[..1] && bias.dtype == weight.dtype;
                demand(fits, || format!("biases: expected one number per channel of {weight}, got {bias}"))?;
            }
        }
        let all = request.operands.iter().flatten().chain(request.results);
        let strange = all.into_iter().find(|tensor| !tensor.is_contiguous() || !DType::ALL.contains(&tensor.dtype));
        strange.map_or(Ok(weights), |tensor| Err(format!("expected contiguous floating numbers, got {tensor}")))
    }

    fn problem(&self, map: &Signature, weight: &Signature, (low, dilation): (&[i64], &[i64])) -> Result<Problem, Why> {
        let &[count, 1, ref kernel @ ..] = weight.sizes() else {
            return Err(format!("weights: expected [channels, 1, ...], got {weight}"));
        };
        let rank = low.len();
        let fits = kernel.len() == rank && (self.form == Form::Split || count == self.channels);
        demand(fits && count > 0, || format!("weights: expected rank {rank} and channels of {map}, got {weight}"))?;
        demand([self.dtype, self.dtype.accumulator()].contains(&weight.dtype), || {
            format!("weights: expected {} or its accumulator, got {weight}", self.dtype.name())
        })?;
        let axes: Result<Vec<Axis>, Why> = (0..rank)
            .map(|axis| {
                let (size, kernel) = (map.sizes()[2 + axis] as i64, kernel[axis] as i64);
                let reach = dilation[axis].checked_mul(kernel - 1).ok_or("dilation: too large")?;
                Axis::new(size, kernel, 1, dilation[axis], (low[axis], reach - low[axis]))
            })
            .collect();
        let channels = Channels { groups: count as i64, c_in: 1, c_out: 1 };
        Ok(Problem {
            pass: self.pass,
            dtype: self.dtype,
            weight_dtype: weight.dtype,
            layout: Layout::Nchw,
            device: Device::Cpu,
            tf32: false,
            geometry: Geometry::new(self.batch as i64, channels, &axes?)?,
        })
    }
}
