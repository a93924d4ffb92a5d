//! Pooling by its definition: every window of every output position, tap by tap.

use crate::definition;
use striate_core::pooling::{Mode, Pooling};
use striate_core::view::positions;
use striate_core::{
    Accumulator, Arguments, Axis, DType, Operation, Pass, Pool, Request, Scalar, View, Why, with_scalar,
};

/// Pooling of windows.
pub const POOL: Operation = definition("pool", "pool.reference", |r| Pooling::of(r).map(|_| ()), pool);
/// The position of every window's extreme.
pub const ARGMAX: Operation =
    definition("pool_argmax", "pool_argmax.reference", |r| Pooling::of(r).map(|_| ()), argmax);
/// The numbers at given positions.
pub const GATHER: Operation = definition("pool_gather", "pool_gather.reference", indexed, gather);
/// Numbers summed at given positions.
pub const SCATTER: Operation = definition("pool_scatter", "pool_scatter.reference", indexed, scatter);

/// Calls `visit(operand position, produced position)` for every pair that meets, in the order of the taps.
fn meetings(axes: &[Axis; 3], pass: Pass, p: [usize; 3], mut visit: impl FnMut([usize; 3])) {
    let [a, b, c] = [0, 1, 2].map(|axis| axes[axis].walk(pass, p[axis] as i64));
    for i in 0..a.len {
        for j in 0..b.len {
            for k in 0..c.len {
                visit([a.a0 + i * a.a_step, b.a0 + j * b.a_step, c.a0 + k * c.a_step].map(|at| at as usize));
            }
        }
    }
}

/// Every sample, channel and produced position.
fn produced(pooling: &Pooling) -> impl Iterator<Item = (usize, usize, [usize; 3])> {
    let [a, b, c] = pooling.axes.map(|axis| axis.extent(pooling.pass) as usize);
    positions([1, pooling.batch, pooling.channels, a, b, c]).map(|[_, n, c, x, y, z]| (n, c, [x, y, z]))
}

/// The extreme of a window and its position, as torch finds them: the first of equals, the last NaN.
fn extreme<S: Scalar>(pooling: &Pooling, input: &View<'_, S>, (n, c, p): (usize, usize, [usize; 3])) -> (f64, i64) {
    let (sign, weights) = (if pooling.mode == Mode::Min { -1.0 } else { 1.0 }, pooling.plane());
    let first = [0, 1, 2].map(|a| pooling.axes[a].walk(Pass::Fwd, p[a] as i64).a0);
    let mut best = (f64::NEG_INFINITY, first.iter().zip(weights).map(|(a, b)| a * b).sum());
    meetings(&pooling.axes, Pass::Fwd, p, |at| {
        let value = sign * input.at(pooling.at(n, c, at)).widen().to_f64();
        if value > best.0 || value.is_nan() {
            best = (value, at.iter().zip(weights).map(|(&a, b)| a as i64 * b).sum());
        }
    });
    (sign * best.0, best.1)
}

fn pool(request: &Request<'_>, mut arguments: Arguments<'_>, _pool: &dyn Pool) {
    let pooling = Pooling::of(request).expect("the request is supported");
    let divisors = pooling.divisors();
    let by = |at: [usize; 3]| divisors[0][at[0]] * divisors[1][at[1]] * divisors[2][at[2]];
    let input = arguments.operands[0].take().expect("a supported request has an input");
    with_scalar!(input.dtype(), S => {
        let (input, mut result) = (input.typed::<S>(), arguments.results.remove(0).typed::<S>());
        for (n, c, p) in produced(&pooling) {
            let mut sum = 0.0;
            match (pooling.mode, pooling.pass) {
                (Mode::Max | Mode::Min, _) => sum = extreme(&pooling, &input, (n, c, p)).0,
                (mode, pass) => meetings(&pooling.axes, pass, p, |at| {
                    let value = input.at(pooling.at(n, c, at)).widen().to_f64();
                    sum += if (mode, pass) == (Mode::Avg, Pass::Dx) { value / by(at) } else { value };
                }),
            }
            if (pooling.mode, pooling.pass) == (Mode::Avg, Pass::Fwd) {
                sum /= by(p);
            }
            result.set(pooling.at(n, c, p), S::narrow(<S as Scalar>::Acc::from_f64(sum)));
        }
    });
}

fn argmax(request: &Request<'_>, mut arguments: Arguments<'_>, _pool: &dyn Pool) {
    let pooling = Pooling::of(request).expect("the request is supported");
    let input = arguments.operands[0].take().expect("a supported request has an input");
    let result = arguments.results.remove(0);
    let each = |set: &mut dyn FnMut([usize; 6], i64)| {
        with_scalar!(input.dtype(), S => {
            let input = input.typed::<S>();
            for (n, c, p) in produced(&pooling) {
                set(pooling.at(n, c, p), extreme(&pooling, &input, (n, c, p)).1);
            }
        });
    };
    if result.dtype() == DType::I32 {
        let mut result = result.typed::<i32>();
        return each(&mut |at, index| result.set(at, index as i32));
    }
    let mut result = result.typed::<i64>();
    each(&mut |at, index| result.set(at, index));
}

fn indexed(request: &Request<'_>) -> Result<(), Why> {
    let (numbers, indices, result) = (request.operand(0)?, request.operand(1)?, request.result(0)?);
    let paired = if request.op == "pool_gather" { result } else { numbers };
    if indices.sizes() != paired.sizes() || ![DType::I32, DType::I64].contains(&indices.dtype) {
        return Err(format!("indices: expected integers of size {:?}, got {indices}", paired.sizes()));
    }
    if numbers.dtype != result.dtype || !DType::ALL.contains(&numbers.dtype) || numbers.rank < 3 {
        return Err(format!("result: expected floating numbers like {numbers}, got {result}"));
    }
    match numbers.rank == result.rank && numbers.sizes()[..2] == result.sizes()[..2] {
        true => Ok(()),
        false => Err(format!("result: expected the samples and channels of {numbers}, got {result}")),
    }
}

/// Calls `visit(paired position, indexed position)` for every index that lies in the plane.
fn each_index(request: &Request<'_>, arguments: &mut Arguments<'_>, mut visit: impl FnMut([usize; 6], [usize; 6])) {
    let indices = arguments.operands[1].take().expect("a supported request has indices");
    let plane = if request.op == "pool_gather" { request.operands[0].as_ref() } else { Some(&request.results[0]) };
    let plane = plane.expect("a supported request has a plane");
    let spatial = 8 - plane.rank;
    let mut within = [1; 6];
    within[spatial..].copy_from_slice(&plane.dims[spatial..]);
    let size: usize = within.iter().product();
    let mut pair = |at: [usize; 6], index: i64| {
        let Some(mut rest) = usize::try_from(index).ok().filter(|&index| index < size) else { return };
        let mut to = at;
        for axis in (spatial..6).rev() {
            to[axis] = rest % within[axis];
            rest /= within[axis];
        }
        visit(at, to);
    };
    let dims = request.operands[1].as_ref().expect("a supported request has indices").dims;
    if indices.dtype() == DType::I32 {
        let indices = indices.typed::<i32>();
        return positions(dims).for_each(|at| pair(at, i64::from(indices.at(at))));
    }
    let indices = indices.typed::<i64>();
    positions(dims).for_each(|at| pair(at, indices.at(at)));
}

fn gather(request: &Request<'_>, mut arguments: Arguments<'_>, _pool: &dyn Pool) {
    let numbers = arguments.operands[0].take().expect("a supported request has numbers");
    with_scalar!(numbers.dtype(), S => {
        let (numbers, mut result) = (numbers.typed::<S>(), arguments.results.remove(0).typed::<S>());
        // A window without a tap has no position; what it gathers is nothing.
        positions(result.dims).for_each(|at| result.set(at, S::default()));
        each_index(request, &mut arguments, |at, from| result.set(at, numbers.at(from)));
    });
}

fn scatter(request: &Request<'_>, mut arguments: Arguments<'_>, _pool: &dyn Pool) {
    let numbers = arguments.operands[0].take().expect("a supported request has numbers");
    with_scalar!(numbers.dtype(), S => {
        let (numbers, mut result) = (numbers.typed::<S>(), arguments.results.remove(0).typed::<S>());
        let dims = result.dims;
        let flat = |at: [usize; 6]| at.iter().zip(dims).fold(0, |all, (i, d)| all * d + i);
        let mut sums = vec![0.0; dims.iter().product()];
        each_index(request, &mut arguments, |at, to| sums[flat(to)] += numbers.at(at).widen().to_f64());
        for at in positions(dims) {
            result.set(at, S::narrow(<S as Scalar>::Acc::from_f64(sums[flat(at)])));
        }
    });
}
