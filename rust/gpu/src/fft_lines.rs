//! Convolutions of 1 to 3 axes as products of polynomials, and how long a transform they get.
//!
//! `y[t] = sum_j k[j] x[t + s - j]` says that output `t` is coefficient `t + s` of the product of `x` and `k`. With rows
//! far enough apart that nothing runs into a neighbouring row that is wanted, planes and volumes are lines as well.

use crate::depthwise::ceil_div;
use striate_core::{Request, Signature, Why};

/// Positions of a tensor as coefficients; `FftSignal` of the kernel text without strides.
#[derive(Clone, Copy, Debug)]
pub struct Signal {
    pub extent: [i64; 3],
    pub period: [i64; 3],
    pub start: [i64; 3],
    pub origin: i64,
}

/// The three tensors of a convolution as polynomials.
#[derive(Clone, Copy, Debug)]
pub struct Lines {
    pub input: Signal,
    pub kernel: Signal,
    pub output: Signal,
    pub flip: bool,
    pub periodic: bool,
    /// Axes.
    pub rank: usize,
    pub samples: i64,
    pub channels: i64,
    /// 1 or `channels`.
    pub kernels: i64,
    /// Coefficients between neighbours along each axis.
    pub step: [i64; 3],
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

fn three(sizes: &[usize], missing: i64) -> [i64; 3] {
    let mut padded = [missing; 3];
    padded[3 - sizes.len()..].iter_mut().zip(sizes).for_each(|(to, &size)| *to = size as i64);
    padded
}

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
        let shift: Result<Vec<usize>, _> = settings.integers("shift")?.into_iter().map(usize::try_from).collect();
        let shift = shift.ok().filter(|shift| shift.len() == rank).ok_or("shift: expected a number per axis")?;
        if [input, kernel, output].iter().any(|tensor| tensor.elements() == 0) {
            return Err("expected tensors that are not empty".into());
        }
        let periodic = settings.integer("periodic")? != 0;
        let [x, k, y] = [&input.sizes()[2..], &kernel.sizes()[1..], &output.sizes()[2..]].map(|axes| three(axes, 1));
        let (mut extent, mut start, mut first) = (x, [0; 3], three(&shift, 0));
        for a in 0..3 {
            if periodic {
                if y[a] != x[a] {
                    return Err(format!("output: expected the sizes {x:?}, got {y:?}"));
                }
                extent[a] = y[a] + k[a] - 1;
                start[a] = (first[a] + 1 - k[a]).rem_euclid(x[a]);
                first[a] = k[a] - 1;
            } else if first[a] + y[a] >= x[a] + k[a] {
                return Err(format!("output: {y:?} from {first:?} on leaves the product of {x:?} and {k:?}"));
            }
        }
        let pitch = |a: usize| (extent[a] + k[a] - 1 - first[a]).max(first[a] + y[a]).max(k[a]);
        let step = [pitch(1).saturating_mul(pitch(2)), pitch(2), 1];
        let plain = |extent, origin| Signal { extent, period: extent, start: [0; 3], origin };
        let lines = Lines {
            input: Signal { extent, period: x, start, origin: 0 },
            kernel: plain(k, 0),
            output: plain(y, first.iter().zip(step).fold(0i64, |sum, (at, step)| sum + at.saturating_mul(step))),
            flip: settings.integer("flip")? != 0,
            periodic,
            rank,
            samples: input.sizes()[0] as i64,
            channels: input.sizes()[1] as i64,
            kernels: kernel.sizes()[0] as i64,
            step,
        };
        let reach = lines.reach();
        if reach > 2 << LONGEST {
            return Err(format!("takes at most {} coefficients, this has {reach}", 2u64 << LONGEST));
        }
        Ok(lines)
    }

    /// One more than the last coefficient of a signal.
    pub fn end(&self, signal: &Signal) -> i64 {
        signal.extent.iter().zip(self.step).fold(signal.origin + 1, |sum, (size, step)| sum + (size - 1) * step)
    }

    /// Coefficients of a transform that yields everything at once.
    fn reach(&self) -> i64 {
        let (kernel, first, end) = (self.end(&self.kernel), self.output.origin, self.end(&self.output));
        (self.end(&self.input) + kernel - 1 - first).max(end).max(kernel)
    }

    /// The least work: one transform of everything, or overlapping ones, where blocks hold 2^`held` complex numbers.
    pub fn cut(&self, held: u32) -> Cut {
        let (kernel, first, end) = (self.end(&self.kernel), self.output.origin, self.end(&self.output));
        let bits_of = |size: i64| (64 - (size.max(2) - 1).leading_zeros() - 1).max(SHORTEST);
        let tops = |bits: u32| bits.saturating_sub(held).div_ceil(4);
        let whole = bits_of(self.reach());
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
