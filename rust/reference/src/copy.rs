//! A copy between any two memory orders, element by element: what a forked child uses where torch would wake threads
//! that do not exist in it.

use crate::definition;
use striate_core::view::positions;
use striate_core::{Arguments, DType, Operation, Pool, Request, Why, with_scalar};

/// The row of the table of operations.
pub const ROW: Operation = Operation {
    note: "element by element, on the calling thread",
    ..definition("copy", "copy.reference", supports, run)
};

fn supports(request: &Request<'_>) -> Result<(), Why> {
    let (input, result) = (request.operand(0)?, request.result(0)?);
    match (input.dtype, input.sizes()) == (result.dtype, result.sizes()) && DType::ALL.contains(&input.dtype) {
        true => Ok(()),
        false => Err(format!("result: expected floating numbers like {input}, got {result}")),
    }
}

fn run(_request: &Request<'_>, mut arguments: Arguments<'_>, _pool: &dyn Pool) {
    let input = arguments.operands[0].take().expect("a supported request has an input");
    with_scalar!(input.dtype(), S => {
        let (input, mut result) = (input.typed::<S>(), arguments.results.remove(0).typed::<S>());
        for at in positions(input.dims) {
            result.set(at, input.at(at));
        }
    });
}
