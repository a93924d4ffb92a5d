//! The sum over everything but the channels, dimension 1 of the operand.

use crate::definition;
use striate_core::view::positions;
use striate_core::{Accumulator, Arguments, Operation, Pool, Request, Scalar, Why, with_scalar};

/// The row of the table of operations.
pub const ROW: Operation = Operation {
    work: |request| request.operand(0).map_or(0.0, |input| input.elements() as f64 / 500.0),
    ..definition("channel_sum", "channel_sum.reference", supports, run)
};

fn supports(request: &Request<'_>) -> Result<(), Why> {
    let (input, result) = (request.operand(0)?, request.result(0)?);
    match input.rank >= 2 && result.sizes() == &input.sizes()[1..2] {
        true => Ok(()),
        false => Err(format!("result: expected one number per channel of {input}, got {result}")),
    }
}

fn run(request: &Request<'_>, mut arguments: Arguments<'_>, _pool: &dyn Pool) {
    let input = arguments.operands[0].take().expect("a supported request has an input");
    let channel = 6 - request.operand(0).map_or(6, |input| input.rank) + 1;
    let result = arguments.results.remove(0);
    with_scalar!(input.dtype(), S => with_scalar!(result.dtype(), R => {
        let (input, result) = (input.typed::<S>(), result.typed::<R>());
        let mut sums = vec![0.0; result.dims[5]];
        for at in positions(input.dims) {
            sums[at[channel]] += input.at(at).widen().to_f64();
        }
        for (index, sum) in sums.into_iter().enumerate() {
            result.data[index * result.strides[5]] = R::narrow(<R as Scalar>::Acc::from_f64(sum));
        }
    }));
}
