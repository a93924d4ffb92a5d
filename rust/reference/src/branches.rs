//! Depthwise convolutions side by side, straight from their sums.

use crate::definition;
use striate_core::branches::{Branches, Form};
use striate_core::view::positions;
use striate_core::{Accumulator, Arguments, Operation, Pass, Pool, Problem, Request, Scalar, with_scalar};

/// The row of the table of operations.
pub const ROW: Operation =
    definition("branches", "branches.reference", |request| Branches::of(request).map(|_| ()), run);

/// Adds all products of a channel of a sample: `(produced, first operand, second operand)` are positions in planes or
/// kernels, numbered in order.
fn contract(problem: &Problem, mut add: impl FnMut(usize, usize, usize)) {
    let (pass, axes) = (problem.pass, problem.geometry.axes());
    let sizes = |pass| [0, 1, 2].map(|a: usize| axes[a].extent(pass) as usize);
    let flat =
        |sizes: [usize; 3], at: [i64; 3]| at.iter().zip(sizes).fold(0, |all, (&at, size)| all * size + at as usize);
    let others = match pass {
        Pass::Fwd | Pass::Dx => [sizes(Pass::Dx), sizes(Pass::Dw)],
        Pass::Dw => [sizes(Pass::Fwd), sizes(Pass::Dx)],
    };
    for at in positions([1, 1, 1, sizes(pass)[0], sizes(pass)[1], sizes(pass)[2]]) {
        let produced = [at[3] as i64, at[4] as i64, at[5] as i64];
        let walks = [0, 1, 2].map(|a| axes[a].walk(pass, produced[a]));
        for step in positions([1, 1, 1, walks[0].len as usize, walks[1].len as usize, walks[2].len as usize]) {
            let n = [step[3] as i64, step[4] as i64, step[5] as i64];
            let first = [0, 1, 2].map(|a| walks[a].a0 + n[a] * walks[a].a_step);
            let second = [0, 1, 2].map(|a| walks[a].b0 + n[a] * walks[a].b_step);
            add(flat(sizes(pass), produced), flat(others[0], first), flat(others[1], second));
        }
    }
}

fn run(request: &Request<'_>, arguments: Arguments<'_>, _pool: &dyn Pool) {
    let of = Branches::of(request).expect("the request is supported");
    let Arguments { operands, results, .. } = arguments;
    let given: Vec<Vec<f64>> = operands
        .into_iter()
        .map(|operand| {
            let numbers = |tensor: striate_core::Tensor<'_>| {
                with_scalar!(tensor.dtype(), S => {
                    tensor.typed::<S>().data.iter().map(|value| value.widen().to_f64()).collect()
                })
            };
            operand.map_or_else(Vec::new, numbers)
        })
        .collect();
    let mut made = sums(&of, &given, &request.results.iter().map(|result| result.elements()).collect::<Vec<_>>());
    if of.statistics {
        statistics(&of, &mut made);
    }
    for (result, numbers) in results.into_iter().zip(made) {
        with_scalar!(result.dtype(), S => {
            for (to, from) in result.typed::<S>().data.iter_mut().zip(numbers) {
                *to = S::narrow(<S as Scalar>::Acc::from_f64(from));
            }
        });
    }
}

/// Means, then biased variances of every channel of the results, as they are rounded; they are the last of `made`.
fn statistics(of: &Branches, made: &mut [Vec<f64>]) {
    let Some((found, maps)) = made.split_last_mut() else { return };
    let count = (of.batch * of.plane) as f64;
    for (b, map) in maps.iter().enumerate() {
        for c in 0..of.channels {
            let places = (0..of.batch).flat_map(|n| (0..of.plane).map(move |at| (n * of.channels + c) * of.plane + at));
            let numbers: Vec<f64> = with_scalar!(of.dtype, S => {
                places.map(|at| S::narrow(<S as Scalar>::Acc::from_f64(map[at])).widen().to_f64()).collect()
            });
            let mean = numbers.iter().sum::<f64>() / count;
            let squares: f64 = numbers.iter().map(|number| (number - mean).powi(2)).sum();
            found[b * of.channels + c] = mean;
            found[(maps.len() + b) * of.channels + c] = squares / count;
        }
    }
}

/// Every result in f64.
fn sums(of: &Branches, given: &[Vec<f64>], sizes: &[usize]) -> Vec<Vec<f64>> {
    let (count, ends) = (of.branches.len(), of.ends(of.branches.len()));
    let mut made: Vec<Vec<f64>> = sizes.iter().map(|&size| vec![0.0; size]).collect();
    if of.form == Form::Split && of.pass != Pass::Dw {
        for at in positions([1, 1, 1, of.batch, of.branches[0].first, of.plane]) {
            let at = (at[3] * of.channels + at[4]) * of.plane + at[5];
            made[0][at] = given[0][at];
        }
    }
    for (b, branch) in of.branches.iter().enumerate() {
        let end = if ends == 1 { 0 } else { b };
        let groups = branch.problem.geometry.groups() as usize;
        let taps = branch.problem.geometry.axes().iter().map(|axis| axis.kernel() as usize).product::<usize>();
        for (n, c) in (0..of.batch).flat_map(|n| (0..groups).map(move |c| (n, c))) {
            let (map, weight) = ((n * of.channels + branch.first + c) * of.plane, c * taps);
            let (source, by, result, from, to) = match of.pass {
                Pass::Fwd => (0, 1 + b, end, [map, weight], map),
                Pass::Dx => (end, ends + b, 0, [map, weight], map),
                Pass::Dw => (end, ends, b, [map, map], weight),
            };
            contract(&branch.problem, |produced, first, second| {
                made[result][to + produced] += given[source][from[0] + first] * given[by][from[1] + second];
            });
            let bias = given.get(1 + count + b).filter(|bias| of.pass == Pass::Fwd && !bias.is_empty());
            for at in map..map + of.plane {
                if let Some(bias) = bias {
                    made[end][at] += bias[c];
                }
                if of.biases {
                    made[count + b][c] += given[end][at];
                }
            }
        }
    }
    made
}
