//! The sum over everything but the channels: what the gradient of a bias is.
//!
//! Samples are summed in blocks of a fixed size, one partial sum per block and channel, and the blocks in order, so
//! that the bits do not depend on the number of threads.

use crate::operations::on_every_isa;
use striate_core::pool::{Part, for_each_part};
use striate_core::view::{carve, carved_bytes};
use striate_core::{Accumulator, Arguments, DType, Operation, Pool, Request, Scalar, View, Why, with_scalar};
use striate_simd::{Convert, Every, sums};

pub(crate) static ROWS: &[Operation] =
    on_every_isa!("channel_sum", "vectors along a plane or, channels last, along the channels");

const DTYPES: &[DType] = &DType::ALL;

/// Bytes of a block's share of the input, at least: below this, handing it out costs more than it brings.
const BLOCK: usize = 1 << 16;

/// The operand as `[blocks of rows, samples, channels, positions]`.
struct Shape {
    samples: usize,
    channels: usize,
    positions: usize,
    last: bool,
}

impl Shape {
    fn of(request: &Request<'_>) -> Result<Shape, Why> {
        let input = request.operand(0)?;
        let (&[samples, channels, ..], rank) = (input.sizes(), input.rank) else {
            return Err(format!("input: expected at least 2 dimensions, got {}", input.rank));
        };
        let positions = input.sizes()[2..].iter().product();
        let strides = &input.strides[6 - rank..];
        let mut expected = channels;
        let last = !input.is_contiguous()
            && (channels == 1 || strides[1] == 1)
            && (2..rank).rev().chain([0]).all(|axis| {
                let fits = input.sizes()[axis] == 1 || strides[axis] == expected;
                expected *= input.sizes()[axis];
                fits
            });
        if !last && !input.is_contiguous() {
            return Err("input: expected a dense tensor, channels first or last".into());
        }
        Ok(Shape { samples, channels, positions, last })
    }

    /// Rows that are summed one after the other: samples, or positions of all samples.
    fn rows(&self) -> usize {
        if self.last { self.samples * self.positions } else { self.samples }
    }

    /// Rows in a block.
    fn block(&self, size: usize) -> usize {
        let row = size * self.channels * if self.last { 1 } else { self.positions };
        BLOCK.div_ceil(row.max(1)).max(self.rows().div_ceil(64)).max(1)
    }

    fn blocks(&self, size: usize) -> usize {
        self.rows().div_ceil(self.block(size)).max(1)
    }
}

fn supports(request: &Request<'_>) -> Result<(), Why> {
    let shape = Shape::of(request)?;
    let (input, result) = (request.operand(0)?, request.result(0)?);
    if ![input.dtype, input.dtype.accumulator()].contains(&result.dtype) || !DTYPES.contains(&input.dtype) {
        return Err(format!("result: expected {} or its accumulator, got {}", input.dtype.name(), result.dtype.name()));
    }
    if result.sizes() != [shape.channels] || !result.is_contiguous() {
        return Err(format!("result: expected a dense tensor of [{}], got {:?}", shape.channels, result.sizes()));
    }
    Ok(())
}

fn work(request: &Request<'_>) -> f64 {
    request.operand(0).map_or(0.0, |input| (input.elements() * input.dtype.size()) as f64 / 8000.0)
}

fn partial_sums(request: &Request<'_>) -> (usize, usize) {
    match (Shape::of(request), request.operand(0)) {
        (Ok(shape), Ok(input)) => (shape.blocks(input.dtype.size()), shape.channels),
        _ => (0, 0),
    }
}

#[allow(clippy::extra_unused_type_parameters)] // The table asks for it.
fn workspace<I>(request: &Request<'_>, _width: usize) -> usize {
    let (blocks, channels) = partial_sums(request);
    carved_bytes::<f64>(1, blocks * channels)
}

fn run<I: Every>(isa: I, request: &Request<'_>, mut arguments: Arguments<'_>, pool: &dyn Pool) {
    let input = arguments.operands[0].take().expect("a supported request has an input");
    with_scalar!(input.dtype(), S => {
        let total = sum::<S, I>(isa, request, input.typed(), arguments.workspace, pool);
        with_scalar!(arguments.results[0].dtype(), R => {
            let result = arguments.results.remove(0).typed::<R>();
            for (to, from) in result.data.iter_mut().zip(total) {
                *to = R::narrow(<R as Scalar>::Acc::from_f64(from.to_f64()));
            }
        });
    });
}

fn sum<'w, S: Scalar, I: Convert<S>>(
    isa: I,
    request: &Request<'_>,
    input: View<'_, S>,
    workspace: &'w mut [u8],
    pool: &dyn Pool,
) -> &'w [S::Acc] {
    let shape = Shape::of(request).expect("the request is supported");
    let (channels, block) = (shape.channels, shape.block(size_of::<S>()));
    let blocks = shape.blocks(size_of::<S>());
    let (partial, _) = carve::<S::Acc>(workspace, 1, blocks * channels);
    partial.fill(<S::Acc>::default());
    if input.data.is_empty() {
        return &partial[..channels];
    }
    let row = channels * if shape.last { 1 } else { shape.positions };
    let bounds: Vec<usize> = (0..=blocks).map(|index| index * channels).collect();
    for_each_part(pool, (&mut partial[..blocks * channels], &bounds), &mut [], &|part: Part<'_, S::Acc, u8>| {
        let rows = &input.data[part.index * block * row..input.data.len().min((part.index + 1) * block * row)];
        if shape.last {
            return sums::of_columns(isa, rows, part.out);
        }
        for sample in rows.chunks_exact(row) {
            for (to, plane) in part.out.iter_mut().zip(sample.chunks_exact(shape.positions)) {
                *to += sums::of_row(isa, plane);
            }
        }
    });
    let (total, rest) = partial.split_at_mut(channels);
    for block in rest[..(blocks - 1) * channels].chunks_exact(channels) {
        total.iter_mut().zip(block).for_each(|(to, from)| *to += *from);
    }
    total
}
