//! Filters in the frequency domain, from the definition of the transform, and the gradient of the filters:
//! `X[u, v] = sum x[h, w] exp(-i (u h / H + v w / W))`, `y = Re sum c_v W[u, v] X[u, v] exp(+i ...) / (H W)` over half
//! of all `v`, where `c_v` is 2 for those that stand for two.

use crate::definition;
use std::f64::consts::TAU;
use striate_core::{Accumulator, Arguments, Operation, Scalar, Signature, Why, with_scalar};

/// The row of the filter.
pub const FILTER: Operation = definition(
    "filter_planes",
    "filter_planes.reference",
    |request| fits([request.operand(0)?, request.result(0)?, request.operand(1)?]),
    |request, arguments, _| run(arguments, Some(request.settings.integer("conjugate").is_ok_and(|set| set != 0))),
);

/// The row of the filters' gradient.
pub const GRAD: Operation = definition(
    "filter_planes_grad",
    "filter_planes_grad.reference",
    |request| fits([request.operand(0)?, request.operand(1)?, request.result(0)?]),
    |_, arguments, _| run(arguments, None),
);

fn fits([first, second, spectra]: [&Signature; 3]) -> Result<(), Why> {
    let matches = |&[_, channels, height, width]: &[usize; 4]| spectra.sizes() == [channels, height, width / 2 + 1, 2];
    let known = first.sizes().try_into().is_ok_and(matches);
    let dense = [first, second, spectra].into_iter().all(|one| one.is_contiguous() && one.dtype == first.dtype);
    if known && dense && first.sizes() == second.sizes() {
        return Ok(());
    }
    Err(format!("expected dense planes [N, C, H, W] and half spectra [C, H, W / 2 + 1, 2], got {first} and {spectra}"))
}

/// Both parts of a value of half a spectrum of a plane.
fn value(plane: &[f64], [height, width]: [usize; 2], (u, v): (usize, usize)) -> [f64; 2] {
    plane.iter().enumerate().fold([0.0; 2], |[re, im], (at, x)| {
        let [cos, sin] = turn([height, width], (u, v), at);
        [re + x * cos, im - x * sin]
    })
}

fn turn([height, width]: [usize; 2], (u, v): (usize, usize), at: usize) -> [f64; 2] {
    let parts = (u * (at / width) % height) as f64 / height as f64 + (v * (at % width) % width) as f64 / width as f64;
    let (sin, cos) = (TAU * parts).sin_cos();
    [cos, sin]
}

/// The filter, conjugated or not, or without one the gradient of filters.
fn run(mut arguments: Arguments<'_>, conjugate: Option<bool>) {
    let [first, second] = [0, 1].map(|index| arguments.operands[index].take().expect("supported requests have both"));
    with_scalar!(first.dtype(), S => {
        let (first, second) = (first.typed::<S>(), second.typed::<S>());
        let result = arguments.results.remove(0).typed::<S>().data;
        let wide = |data: &[S]| -> Vec<f64> { data.iter().map(|value| value.widen().to_f64()).collect() };
        let [_, channels, height, width] = [2, 3, 4, 5].map(|axis| first.dims[axis]);
        let (size, half, positions) = ([height, width], width / 2 + 1, height * width);
        let (a, b) = (wide(first.data), wide(second.data));
        let mut sums = vec![0.0; result.len()];
        for (row, plane) in a.chunks_exact(positions).enumerate() {
            for bin in 0..height * half {
                let (place, at) = ((bin / half, bin % half), (row % channels * height * half + bin) * 2);
                let twice = if place.1 == 0 || 2 * place.1 == width { 1.0 } else { 2.0 };
                let [re, im] = value(plane, size, place).map(|part| part * twice / positions as f64);
                if let Some(conjugate) = conjugate {
                    let [p, q] = [b[at], if conjugate { -b[at + 1] } else { b[at + 1] }];
                    for (pixel, sum) in sums[row * positions..(row + 1) * positions].iter_mut().enumerate() {
                        let [cos, sin] = turn(size, place, pixel);
                        *sum += (p * re - q * im) * cos - (p * im + q * re) * sin;
                    }
                } else {
                    let [x, y] = value(&b[row * positions..(row + 1) * positions], size, place);
                    sums[at] += x * re + y * im;
                    sums[at + 1] += x * im - y * re;
                }
            }
        }
        for (to, sum) in result.iter_mut().zip(sums) {
            *to = S::narrow(<S as Scalar>::Acc::from_f64(sum));
        }
    });
}
