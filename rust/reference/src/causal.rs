//! The causal convolution by its definition, and one step of it.

use crate::definition;
use striate_core::causal::{Causal, integers};
use striate_core::view::positions;
use striate_core::{Accumulator, Arguments, Operation, Pool, Request, Scalar, Tensor, Why, with_scalar};

/// The causal convolution of whole sequences.
pub const CAUSAL: Operation = definition("causal", "causal.reference", |r| Causal::with_runs(r).map(|_| ()), causal);
/// The causal convolution of what arrives, after what a state remembers.
pub const UPDATE: Operation = definition("causal_update", "causal_update.reference", update_supports, update);

/// The numbers of a tensor in f64, in order.
fn numbers(tensor: Tensor<'_>) -> Vec<f64> {
    with_scalar!(tensor.dtype(), S => {
        let view = tensor.typed::<S>();
        positions(view.dims).map(|at| view.at(at).widen().to_f64()).collect()
    })
}

fn ended(sum: f64, silu: bool) -> f64 {
    if silu { sum / (1.0 + (-sum).exp()) } else { sum }
}

fn causal(request: &Request<'_>, mut arguments: Arguments<'_>, _pool: &dyn Pool) {
    let sizes = Causal::with_runs(request).expect("the request is supported");
    let Causal { channels, length, width, silu, .. } = sizes;
    let runs = sizes.runs(arguments.operands[4].take());
    let [x, weight, bias, states] = [0, 1, 2, 3].map(|n| arguments.operands[n].take().map(numbers));
    let (x, weight) = (x.expect("a supported request has x"), weight.expect("a supported request has a weight"));
    let result = arguments.results.remove(0);
    with_scalar!(result.dtype(), S => {
        let mut result = result.typed::<S>();
        for run in &runs.all {
            let input = |d: usize, back: usize, t: usize| match t.checked_sub(back) {
                Some(at) if at >= run.start || runs.resumes(run, at) => x[(run.sample * channels + d) * length + at],
                _ => match &states {
                    // `t - run.start < back`: so many steps before the run.
                    Some(states) => states[(run.state * channels + d) * (width - 1) + (width - 1) + (t - run.start) - back],
                    None => 0.0,
                },
            };
            for (d, t) in (0..channels).flat_map(|d| (run.start..run.end).map(move |t| (d, t))) {
                let taps = |w: usize| weight[d * width + w] * input(d, width - 1 - w, t);
                let sum = bias.as_ref().map_or(0.0, |bias| bias[d]) + (0..width).map(taps).sum::<f64>();
                let value = if run.silent { 0.0 } else { ended(sum, silu) };
                result.set([0, 0, 0, run.sample, d, t], S::narrow(<S as Scalar>::Acc::from_f64(value)));
            }
        }
    });
}

fn update_supports(request: &Request<'_>) -> Result<(), Why> {
    let (sizes, state) = (Causal::of(request)?, request.result(1)?);
    let &[_, channels, size] = state.sizes() else { return Err(format!("state: expected 3 dimensions, got {state}")) };
    if channels != sizes.channels || size + 1 < sizes.width || state.dtype != request.operand(0)?.dtype {
        return Err(format!(
            "state: expected {} channels and {} steps at least, got {state}",
            sizes.channels,
            sizes.width - 1
        ));
    }
    Ok(())
}

fn update(request: &Request<'_>, mut arguments: Arguments<'_>, _pool: &dyn Pool) {
    let Causal { batch, channels, length, width, silu, .. } = Causal::of(request).expect("the request is supported");
    let [at, rows] = [3, 4].map(|n| arguments.operands[n].take().map(integers));
    let [x, weight, bias] = [0, 1, 2].map(|n| arguments.operands[n].take().map(numbers));
    let (x, weight) = (x.expect("a supported request has x"), weight.expect("a supported request has a weight"));
    let (state, result) = (arguments.results.remove(1), arguments.results.remove(0));
    with_scalar!(result.dtype(), S => {
        let (mut state, mut result) = (state.typed::<S>(), result.typed::<S>());
        let size = state.dims[5];
        let (before, strides) = (state.data.to_vec(), state.strides);
        let old = |row: usize, d: usize, s: usize| {
            before[row * strides[3] + d * strides[4] + s * strides[5]].widen().to_f64()
        };
        for (b, d) in (0..batch).flat_map(|b| (0..channels).map(move |d| (b, d))) {
            let row = rows.as_ref().map_or(b as i64, |rows| rows[b]);
            let first = at.as_ref().map(|at| at[b].rem_euclid(size.max(1) as i64) as usize);
            let x = &x[(b * channels + d) * length..][..length];
            let Ok(row) = usize::try_from(row) else {
                (0..length).for_each(|t| result.set([0, 0, 0, b, d, t], S::default()));
                continue;
            };
            // What came `back` steps before position t.
            let input = |t: usize, back: usize| match (t.checked_sub(back), first) {
                (Some(at), _) => x[at],
                (None, Some(first)) => old(row, d, (first + t + size * back - back) % size),
                (None, None) => old(row, d, size + t - back),
            };
            for t in 0..length {
                let sum: f64 = (0..width).map(|w| weight[d * width + w] * input(t, width - 1 - w)).sum();
                let sum = sum + bias.as_ref().map_or(0.0, |bias| bias[d]);
                result.set([0, 0, 0, b, d, t], S::narrow(<S as Scalar>::Acc::from_f64(ended(sum, silu))));
            }
            let stored: Vec<(usize, f64)> = match first {
                Some(first) => (0..length).map(|t| ((first + t) % size.max(1), x[t])).collect(),
                None => (0..size).map(|s| (s, if s + length >= size { x[s + length - size] } else { old(row, d, s + length) })).collect(),
            };
            for (s, value) in stored.into_iter().filter(|_| size > 0) {
                state.set([0, 0, 0, row, d, s], S::narrow(<S as Scalar>::Acc::from_f64(value)));
            }
        }
    });
}
