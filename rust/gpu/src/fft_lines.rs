//! Convolutions as products of polynomials ([`Polynomials`]) on a device: how long a transform they get.

use crate::depthwise::ceil_div;
use std::ops::Deref;
use striate_core::polynomials::Polynomials;
use striate_core::{Request, Signature, Why};

/// The three tensors of a convolution as polynomials, and how many lines of each there are.
#[derive(Clone, Copy, Debug)]
pub struct Lines {
    polynomials: Polynomials,
    /// Axes.
    pub rank: usize,
    pub samples: i64,
    pub channels: i64,
    /// 1 or `channels`.
    pub kernels: i64,
}

impl Deref for Lines {
    type Target = Polynomials;

    fn deref(&self) -> &Polynomials {
        &self.polynomials
    }
}

/// Transforms that together yield a line of outputs.
#[derive(Clone, Copy, Debug)]
pub struct Cut {
    /// Binary logarithm of the complex numbers of a transform.
    pub bits: u32,
    /// Of those, what passes through global memory do, four at a time, before blocks do the rest.
    pub tops: u32,
    /// Transforms of a line.
    pub windows: i64,
    /// Coefficients that each yields.
    pub each: i64,
    /// Where the first begins to read.
    pub lowest: i64,
    /// Coefficients that are wanted.
    pub valid: (i64, i64),
}

/// The shortest transform has 2^this complex numbers, twice as many coefficients.
pub const SHORTEST: u32 = 8;
/// The longest.
const LONGEST: u32 = 26;

impl Lines {
    /// From the settings and the three tensors.
    pub fn of(request: &Request<'_>, [input, kernel, output]: [&Signature; 3]) -> Result<Lines, Why> {
        let settings = &request.settings;
        let rank = input.rank.wrapping_sub(2);
        let sizes = (1..=3).contains(&rank) && [kernel.rank + 1, output.rank] == [input.rank; 2];
        if !sizes || input.sizes()[..2] != output.sizes()[..2] || ![1, input.sizes()[1]].contains(&kernel.sizes()[0]) {
            return Err(format!("expected [N, C, ...], [C, ...] and [N, C, ...], got {input}, {kernel} and {output}"));
        }
        if kernel.dtype != input.dtype.accumulator() || output.dtype != input.dtype {
            return Err(format!("kernel: expected {}, got {kernel}", input.dtype.accumulator().name()));
        }
        if [input, kernel, output].iter().any(|tensor| tensor.elements() == 0) {
            return Err("expected tensors that are not empty".into());
        }
        let axes = [&input.sizes()[2..], &kernel.sizes()[1..], &output.sizes()[2..]];
        let polynomials = Polynomials::new(settings, axes)?;
        let [samples, channels, kernels] = [input.sizes()[0], input.sizes()[1], kernel.sizes()[0]].map(|n| n as i64);
        let lines = Lines { polynomials, rank, samples, channels, kernels };
        let reach = lines.reach();
        if reach as u64 > 2 << LONGEST {
            return Err(format!("takes at most {} coefficients, this has {reach}", 2u64 << LONGEST));
        }
        Ok(lines)
    }

    /// The least work: one transform of everything, or overlapping ones, where blocks hold 2^`held` complex numbers.
    pub fn cut(&self, held: u32) -> Cut {
        let (kernel, (first, end)) = (self.end(&self.kernel) as i64, self.wanted());
        let (first, end) = (first as i64, end as i64);
        let bits_of = |size: i64| (64 - (size.max(2) - 1).leading_zeros() - 1).max(SHORTEST);
        let tops = |bits: u32| bits.saturating_sub(held).div_ceil(4);
        let whole = bits_of(self.reach() as i64);
        let made =
            |bits, windows, each, lowest| Cut { bits, tops: tops(bits), windows, each, lowest, valid: (first, end) };
        // A pass through global memory, there and back, costs about what ten levels do.
        let cost = |cut: &Cut| {
            let transforms = cut.windows as f64 + 0.5 / self.samples as f64;
            transforms * (1u64 << cut.bits) as f64 * f64::from(6 + cut.bits + 10 * cut.tops)
        };
        let mut best = made(whole, 1, end - first, 0);
        for bits in bits_of(kernel + 1)..whole {
            let each = (2i64 << bits) - kernel + 1;
            let cut = made(bits, ceil_div(end - first, each), each, first + 1 - kernel);
            if cost(&cut) < cost(&best) {
                best = cut;
            }
        }
        best
    }
}
