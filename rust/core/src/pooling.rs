//! What a call asks of pooling: its windows, read from the settings and checked against the tensors.
//!
//! Settings are `mode` (`max`, `min`, `sum` or `avg`), `pass` (`fwd`, or `dx` for the transpose of a sum), and one
//! entry per axis of `size` (of the input), `kernel`, `stride` and `dilation`, two of `pad` (low, high). An average
//! divides by `divisor`, or where that is 0 by the number of taps that lie inside the input and `ring` positions
//! around it.

use crate::axis::{Axis, Pass};
use crate::kernel::Why;
use crate::operation::{Request, Signature};
use crate::problem::DType;

/// What is made of the numbers in a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The greatest; NaN is greater than all.
    Max,
    /// The least; NaN is less than all.
    Min,
    /// The sum.
    Sum,
    /// The sum over a divisor that may differ from window to window.
    Avg,
}

/// A checked request.
#[derive(Clone, Debug)]
pub struct Pooling {
    /// What is made of a window.
    pub mode: Mode,
    /// Forward, or the transpose of a sum.
    pub pass: Pass,
    /// The windows; leading axes that the tensors lack are unit.
    pub axes: [Axis; 3],
    /// Spatial dimensions of the tensors.
    pub rank: usize,
    /// Samples.
    pub batch: usize,
    /// Channels.
    pub channels: usize,
    divisor: f64,
    ring: [i64; 3],
}

impl Pooling {
    /// Of a request whose first operand is read and whose first result is written, both `[n, c, spatial...]`.
    pub fn of(request: &Request<'_>) -> Result<Pooling, Why> {
        let settings = request.settings;
        let (input, result) = (request.operand(0)?, request.result(0)?);
        let mode = match settings.word("mode")? {
            "max" => Mode::Max,
            "min" => Mode::Min,
            "sum" => Mode::Sum,
            "avg" => Mode::Avg,
            other => return Err(format!("mode: expected max, min, sum or avg, got {other:?}")),
        };
        let pass = if settings.word("pass")? == "dx" { Pass::Dx } else { Pass::Fwd };
        let list = |name: &str, len: usize| {
            settings.integers(name).and_then(|values| match values.len() == len {
                true => Ok(values),
                false => Err(format!("{name}: expected {len} integers, got {values:?}")),
            })
        };
        let rank = settings.integers("kernel")?.len();
        if !(1..=3).contains(&rank) || input.rank != rank + 2 || result.rank != rank + 2 {
            return Err(format!("expected tensors of {rank} + 2 dimensions, got {input} and {result}"));
        }
        let [size, kernel, stride] = [list("size", rank)?, list("kernel", rank)?, list("stride", rank)?];
        let [dilation, pad, around] = [list("dilation", rank)?, list("pad", 2 * rank)?, list("ring", rank)?];
        let (mut axes, mut ring) = ([Axis::UNIT; 3], [0; 3]);
        for a in 0..rank {
            let pad = (pad[2 * a], pad[2 * a + 1]);
            axes[3 - rank + a] = Axis::new(size[a], kernel[a], stride[a], dilation[a], pad)?;
            ring[3 - rank + a] = around[a];
        }
        let (batch, channels) = (input.sizes()[0], input.sizes()[1]);
        let divisor = settings.number("divisor")?;
        let made = Pooling { mode, pass, axes, rank, batch, channels, divisor, ring };
        made.fits(input, result)?;
        Ok(made)
    }

    fn fits(&self, input: &Signature, result: &Signature) -> Result<(), Why> {
        if self.pass == Pass::Dx && matches!(self.mode, Mode::Max | Mode::Min) {
            return Err("pass: only sums have a transpose".into());
        }
        let sizes = |produced: bool| {
            let axes = &self.axes[3 - self.rank..];
            let spatial =
                axes.iter().map(|axis| if produced { axis.extent(self.pass) } else { axis.source(self.pass) });
            [self.batch, self.channels].into_iter().chain(spatial.map(|size| size as usize)).collect::<Vec<_>>()
        };
        for (name, tensor, expected) in [("operand", input, sizes(false)), ("result", result, sizes(true))] {
            if tensor.sizes() != expected {
                return Err(format!("{name}: expected sizes {expected:?}, got {:?}", tensor.sizes()));
            }
        }
        if !DType::ALL.contains(&input.dtype) {
            return Err(format!("operand: expected floating numbers, got {}", input.dtype.name()));
        }
        Ok(())
    }

    /// The windows over an input that has grown by the padding that counts.
    pub fn counted(&self) -> [Axis; 3] {
        [0, 1, 2].map(|a| {
            let (axis, ring) = (&self.axes[a], self.ring[a]);
            let (lo, hi) = axis.pad();
            let pad = (lo - ring, hi - ring);
            let grown = Axis::new(axis.input() + 2 * ring, axis.kernel(), axis.stride(), axis.dilation(), pad);
            grown.expect("a ring moves positions from the padding to the input")
        })
    }

    /// For every axis the factors of the divisor along the positions of a forward result.
    pub fn divisors(&self) -> [Vec<f64>; 3] {
        let (counted, counts) = (self.counted(), self.mode == Mode::Avg && self.divisor == 0.0);
        [0, 1, 2].map(|a| {
            if !counts {
                let known = if a == 2 { self.divisor } else { 1.0 };
                return vec![known; self.axes[a].output() as usize];
            }
            // A window without a tap has the sum 0.
            let taps = |o| counted[a].walk(Pass::Fwd, o).len.max(1) as f64;
            (0..counted[a].output()).map(taps).collect()
        })
    }

    /// How far a step along each axis leads in the input's plane, whose positions are numbered in order.
    pub fn plane(&self) -> [i64; 3] {
        let [_, b, c] = &self.axes;
        [b.input() * c.input(), c.input(), 1]
    }

    /// Right-aligned indices of a position, as views of the tensors want them.
    pub fn at(&self, n: usize, c: usize, position: [usize; 3]) -> [usize; 6] {
        let mut at = [0; 6];
        at[4 - self.rank] = n;
        at[5 - self.rank] = c;
        at[6 - self.rank..].copy_from_slice(&position[3 - self.rank..]);
        at
    }
}

/// Whether a tensor `[n, c, spatial...]` is dense with channels innermost, and not contiguous as well.
pub fn is_channels_last(tensor: &Signature) -> bool {
    let (sizes, strides) = (tensor.sizes(), &tensor.strides[6 - tensor.rank..]);
    let mut expected = 1;
    tensor.rank > 2
        && !tensor.is_contiguous()
        && [1].into_iter().chain((2..tensor.rank).rev()).chain([0]).all(|axis| {
            let fits = sizes[axis] == 1 || strides[axis] == expected;
            expected *= sizes[axis];
            fits
        })
}
