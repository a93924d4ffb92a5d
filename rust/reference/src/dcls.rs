//! Kernels from elements at learned positions, over the whole grid and for one element after the other: with
//! f(t) the product of the profiles at grid point t, an element of weight W adds W f(t) / (sum of f + epsilon).

use crate::definition;
use striate_core::spacings::{EPSILON, Profile};
use striate_core::{Accumulator, Arguments, DType, Operation, Pool, Request, Scalar, Spacings, View, with_scalar};

/// The row that builds.
pub const KERNEL: Operation = Operation {
    dtypes: &[DType::F32, DType::F64],
    ..definition("dcls_kernel", "dcls_kernel.reference", |request| Spacings::of(request, 0).map(|_| ()), kernel)
};

/// The row of the gradients.
pub const GRADIENT: Operation = Operation {
    dtypes: &[DType::F32, DType::F64],
    ..definition("dcls_kernel_grad", "dcls_kernel_grad.reference", |r| Spacings::of(r, 1).map(|_| ()), gradient)
};

/// The profile and its derivatives with respect to the position and to SIG.
fn profile(spacings: &Spacings, distance: f64, sigma: f64, sign: f64) -> [f64; 3] {
    let side = if distance == 0.0 { 0.0 } else { distance.signum() };
    match spacings.profile {
        // Between two grid points the weight moves from the lower to the upper.
        Profile::Scatter if distance > -1.0 && distance <= 0.0 => [1.0 + distance, -1.0, 0.0],
        Profile::Scatter if distance > 0.0 && distance <= 1.0 => [1.0 - distance, 1.0, 0.0],
        Profile::Triangle if distance.abs() < sigma => [sigma - distance.abs(), side, sign],
        Profile::Gauss => {
            let z = distance / sigma;
            let value = (-z * z / 2.0).exp();
            [value, value * z / sigma, sign * value * z * z / sigma]
        }
        _ => [0.0; 3],
    }
}

/// At a grid point: the product of the profiles, then its derivatives by every P and every SIG.
fn product(spacings: &Spacings, at: usize, centres: &[f64], sigmas: &[(f64, f64)]) -> Vec<f64> {
    let [_, rows, columns] = spacings.size;
    let grid = [at / (rows * columns), at / columns % rows, at % columns];
    let each: Vec<[f64; 3]> = (0..spacings.rank)
        .map(|row| {
            let distance = grid[spacings.axes[row]] as f64 - centres[row];
            profile(spacings, distance, sigmas[row].0, sigmas[row].1)
        })
        .collect();
    let mut found = vec![each.iter().map(|f| f[0]).product()];
    for kind in 1..=2 {
        for row in 0..spacings.rank {
            found.push(each.iter().enumerate().map(|(other, f)| f[if other == row { kind } else { 0 }]).product());
        }
    }
    found.truncate(spacings.gradients());
    found
}

/// The derivatives of the kernel at every grid point, for one element: by weight, by each P and by each SIG.
fn derivatives<S: Scalar>(
    spacings: &Spacings,
    [weight, position, spread]: [Option<View<'_, S>>; 3],
    (filter, element): (usize, usize),
) -> Vec<Vec<f64>> {
    let of = |view: &View<'_, S>, row| view.at([0, 0, 0, row, filter, element]).widen().to_f64();
    let (weight, position) = (weight.expect("operands are complete"), position.expect("operands are complete"));
    let rows = 0..spacings.rank;
    let centres: Vec<f64> =
        rows.clone().map(|row| of(&position, row) + (spacings.size[spacings.axes[row]] / 2) as f64).collect();
    let sigmas: Vec<(f64, f64)> = rows
        .map(|row| match &spread {
            None => (spacings.base, 0.0),
            Some(spread) => {
                let value = of(spread, row);
                (value.abs() + spacings.base, if value == 0.0 { 0.0 } else { value.signum() })
            }
        })
        .collect();
    let grid: Vec<Vec<f64>> = (0..spacings.volume()).map(|at| product(spacings, at, &centres, &sigmas)).collect();
    let sums: Vec<f64> = (0..spacings.gradients()).map(|kind| grid.iter().map(|f| f[kind]).sum()).collect();
    let normalised = spacings.profile != Profile::Scatter;
    let (total, moving) = if normalised { (sums[0] + EPSILON, 1.0) } else { (1.0, 0.0) };
    let weight = weight.at([0, 0, 0, 0, filter, element]).widen().to_f64();
    grid.into_iter()
        .map(|mut f| {
            for kind in 1..f.len() {
                f[kind] = weight * (f[kind] / total - moving * f[0] * sums[kind] / (total * total));
            }
            f[0] /= total;
            f
        })
        .collect()
}

fn kernel(request: &Request<'_>, mut arguments: Arguments<'_>, _pool: &dyn Pool) {
    let spacings = Spacings::of(request, 0).expect("the request is supported");
    with_scalar!(spacings.dtype, S => {
        let operands = [0, 1, 2].map(|index| arguments.operands.get(index).and_then(|o| o.map(|o| o.typed::<S>())));
        let result = arguments.results.remove(0).typed::<S>().data;
        for (filter, grid) in result.chunks_mut(spacings.volume().max(1)).enumerate() {
            let mut sums = vec![0.0; grid.len()];
            for element in 0..spacings.elements {
                let weight = operands[0].map_or(0.0, |w| w.at([0, 0, 0, 0, filter, element]).widen().to_f64());
                let each = derivatives(&spacings, operands, (filter, element));
                sums.iter_mut().zip(each).for_each(|(sum, f)| *sum += weight * f[0]);
            }
            grid.iter_mut().zip(sums).for_each(|(to, sum)| *to = S::narrow(<S as Scalar>::Acc::from_f64(sum)));
        }
    });
}

fn gradient(request: &Request<'_>, mut arguments: Arguments<'_>, _pool: &dyn Pool) {
    let spacings = Spacings::of(request, 1).expect("the request is supported");
    with_scalar!(spacings.dtype, S => {
        let operands = [1, 2, 3].map(|index| arguments.operands.get(index).and_then(|o| o.map(|o| o.typed::<S>())));
        let upstream = arguments.operands[0].take().expect("a supported request has a gradient").typed::<S>().data;
        let result = arguments.results.remove(0).typed::<S>().data;
        let (each, elements, volume) = (spacings.gradients(), spacings.elements, spacings.volume());
        for filter in 0..spacings.filters {
            let upstream = &upstream[filter * volume..][..volume];
            for element in 0..elements {
                let mut sums = vec![0.0; each];
                for (g, f) in upstream.iter().zip(derivatives(&spacings, operands, (filter, element))) {
                    sums.iter_mut().zip(f).for_each(|(sum, f)| *sum += g.widen().to_f64() * f);
                }
                for (kind, sum) in sums.into_iter().enumerate() {
                    let at = (filter * each + kind) * elements + element;
                    result[at] = S::narrow(<S as Scalar>::Acc::from_f64(sum));
                }
            }
        }
    });
}
