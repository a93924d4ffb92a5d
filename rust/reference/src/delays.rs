//! One time step of a layer of delays, weight by weight.

use crate::definition;
use striate_core::delays::Delays;
use striate_core::{Accumulator, Arguments, DType, Operation, Pool, Request, Scalar, with_scalar};

/// The row of the table of operations.
pub const ROW: Operation = Operation {
    dtypes: &[DType::F32, DType::F64],
    ..definition("delay_step", "delay_step.reference", |request| Delays::of(request).map(|_| ()), run)
};

fn run(request: &Request<'_>, mut arguments: Arguments<'_>, _pool: &dyn Pool) {
    let sizes = Delays::of(request).expect("the request is supported");
    let [ring, weight, delays, bias] =
        [0, 1, 2, 3].map(|index| arguments.operands.get_mut(index).and_then(Option::take));
    let delays = delays.expect("a supported request has delays").typed::<i32>().data;
    with_scalar!(sizes.dtype, S => {
        let [ring, weight, bias] = [ring, weight, bias].map(|tensor| tensor.map_or(&[][..], |t| t.typed::<S>().data));
        let result = arguments.results.remove(0).typed::<S>().data;
        for (at, to) in result.iter_mut().enumerate() {
            let (sample, output) = (at / sizes.outputs, at % sizes.outputs);
            let mut sum = bias.get(output).map_or(0.0, |bias| bias.widen().to_f64());
            for input in 0..sizes.inputs {
                let one = output * sizes.inputs + input;
                let met = ring[sizes.at(output, input, delays[one]) + sample];
                sum += weight[one].widen().to_f64() * met.widen().to_f64();
            }
            *to = S::narrow(<S as Scalar>::Acc::from_f64(sum));
        }
    });
}
