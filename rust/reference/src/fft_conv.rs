//! Convolution of every channel with a kernel of any length, and the gradient of its kernel, from the definition:
//! `y[t] = sum_j k[j] x[t + shift - j]`, where `x` is zero outside or periodic and `k` may be stored in reverse.

use crate::definition;
use striate_core::view::positions;
use striate_core::{Accumulator, Arguments, Operation, Request, Scalar, Signature, Why, with_scalar};

/// The row of the convolution.
pub const CONV: Operation = definition(
    "fft_conv",
    "fft_conv.reference",
    |request| conv(request).map(|_| ()),
    |r, a, _| {
        run(&conv(r).expect("the request is supported"), a, [0, 1, 2]);
    },
);

/// The row of the kernel's gradient.
pub const GRAD_KERNEL: Operation = definition(
    "fft_conv_grad_kernel",
    "fft_conv_grad_kernel.reference",
    |r| grad_kernel(r).map(|_| ()),
    |r, a, _| {
        run(&grad_kernel(r).expect("the request is supported"), a, [1, 2, 0]);
    },
);

fn conv(request: &Request<'_>) -> Result<Definition, Why> {
    Definition::new(request, [request.operand(0)?, request.operand(1)?, request.result(0)?])
}

fn grad_kernel(request: &Request<'_>) -> Result<Definition, Why> {
    Definition::new(request, [request.operand(1)?, request.result(0)?, request.operand(0)?])
}

struct Definition {
    rank: usize,
    kernels: usize,
    shift: Vec<i64>,
    flip: bool,
    periodic: bool,
}

impl Definition {
    fn new(request: &Request<'_>, [input, kernel, output]: [&Signature; 3]) -> Result<Definition, Why> {
        let settings = &request.settings;
        let shift = settings.integers("shift")?;
        let fits = (3..=5).contains(&input.rank)
            && [input.rank, kernel.rank + 1] == [output.rank; 2]
            && input.rank == shift.len() + 2
            && input.sizes()[..2] == output.sizes()[..2]
            && [1, input.sizes()[1]].contains(&kernel.sizes()[0]);
        if !fits || kernel.dtype != input.dtype.accumulator() || output.dtype != input.dtype {
            return Err(format!("expected input and output [N, C, ...] and kernel [C, ...], got {request}"));
        }
        let mut padded = vec![0; 3 - shift.len()];
        padded.extend(shift);
        Ok(Definition {
            rank: input.rank,
            kernels: kernel.sizes()[0],
            shift: padded,
            flip: settings.integer("flip")? != 0,
            periodic: settings.integer("periodic")? != 0,
        })
    }

    /// The input position of an output position and a tap.
    fn input(&self, output: &[usize; 6], tap: &[usize; 6], size: &[usize; 6]) -> Option<[usize; 6]> {
        let mut at = *output;
        for a in 8 - self.rank..6 {
            let position = output[a] as i64 + self.shift[a - 3] - tap[a] as i64;
            at[a] = match self.periodic {
                true => position.rem_euclid(size[a] as i64) as usize,
                false => usize::try_from(position).ok().filter(|&position| position < size[a])?,
            };
        }
        Some(at)
    }

    /// The tap as it is stored, of the kernel of a channel.
    fn stored(&self, tap: &[usize; 6], size: &[usize; 6], channel: usize) -> [usize; 6] {
        let mut at = *tap;
        for a in 8 - self.rank..6 {
            at[a] = if self.flip { size[a] - 1 - tap[a] } else { tap[a] };
        }
        at[7 - self.rank] = if self.kernels == 1 { 0 } else { channel };
        at
    }
}

/// Sums all products into the one of input, kernel and output (in this order in `which`, counted over operands and
/// results) that is the result.
fn run(definition: &Definition, mut arguments: Arguments<'_>, which: [usize; 3]) {
    let [first, second] = [0, 1].map(|index| arguments.operands[index].take().expect("supported requests have both"));
    let result = arguments.results.remove(0);
    with_scalar!(first.dtype(), S => with_scalar!(second.dtype(), T => with_scalar!(result.dtype(), R => {
        let (first, second, mut result) = (first.typed::<S>(), second.typed::<T>(), result.typed::<R>());
        let dims = which.map(|index| [first.dims, second.dims, result.dims][index]);
        let mut sums = vec![0.0; result.dims.iter().product()];
        let shape = result.dims;
        let flat = |at: &[usize; 6]| at.iter().zip(&shape).fold(0, |sum, (at, size)| sum * size + at);
        let mut taps = dims[1];
        taps[7 - definition.rank] = 1;
        for output in positions(dims[2]) {
            for tap in positions(taps) {
                let Some(input) = definition.input(&output, &tap, &dims[0]) else { continue };
                let stored = definition.stored(&tap, &dims[1], output[7 - definition.rank]);
                let mut at = [[0; 6]; 3];
                which.iter().zip([input, stored, output]).for_each(|(&index, position)| at[index] = position);
                sums[flat(&at[2])] += first.at(at[0]).widen().to_f64() * second.at(at[1]).widen().to_f64();
            }
        }
        for at in positions(shape) {
            result.set(at, R::narrow(<R as Scalar>::Acc::from_f64(sums[flat(&at)])));
        }
    })));
}
