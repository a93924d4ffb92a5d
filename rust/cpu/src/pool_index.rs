//! Numbers at given positions of their planes, and the transpose: numbers summed at given positions. Each plane (or,
//! channels last, each sample) is one part, whose sums run in the order of the positions; `pool_scatter` has a faster
//! way to the same sums where windows are short.

use crate::operations::{on_every_isa, on_isa};
use crate::pool_scatter::Scattered;
use striate_core::pool::{Part, for_each_part};
use striate_core::pooling::{Pooling, is_channels_last};
use striate_core::view::{carve, carved_bytes};
use striate_core::{
    Accumulator, Arguments, DType, Element, Operation, Pool, Request, Scalar, Signature, TensorMut, Why, with_scalar,
};
use striate_simd::EveryMaths;

pub(crate) static GATHER_ROWS: &[Operation] =
    &[on_isa!("pool_gather", "plane by plane", striate_simd::portable::Portable, "portable")];
pub(crate) static SCATTER_ROWS: &[Operation] =
    on_every_isa!("pool_scatter", "each position asks the windows it is in; long windows plane by plane");

const DTYPES: &[DType] = &DType::ALL;

/// Planes of the plane tensor and of the one paired with the indices.
struct Planes {
    last: bool,
    samples: usize,
    channels: usize,
    plane: usize,
    indices: usize,
}

impl Planes {
    fn of(request: &Request<'_>) -> Result<Planes, Why> {
        let (numbers, indices, result) = (request.operand(0)?, request.operand(1)?, request.result(0)?);
        let (plane, paired) = if request.op == "pool_gather" { (numbers, result) } else { (result, numbers) };
        if indices.sizes() != paired.sizes() || ![DType::I32, DType::I64].contains(&indices.dtype) {
            return Err(format!("indices: expected integers of size {:?}, got {indices}", paired.sizes()));
        }
        if numbers.dtype != result.dtype || !DTYPES.contains(&numbers.dtype) {
            return Err(format!("result: expected floating numbers like {numbers}, got {result}"));
        }
        if !(3..=5).contains(&plane.rank) || plane.rank != paired.rank || plane.sizes()[..2] != paired.sizes()[..2] {
            return Err(format!("result: expected the samples and channels of {numbers}, got {result}"));
        }
        let all = [numbers, indices, result];
        let spatial = |tensor: &Signature| tensor.sizes()[2..].iter().product();
        // A tensor of one position is the same in both memory orders.
        let last = all.iter().any(|tensor| is_channels_last(tensor));
        let fits = |t: &&Signature| {
            if last { is_channels_last(t) || spatial(t) == 1 && t.is_contiguous() } else { t.is_contiguous() }
        };
        if !all.iter().all(fits) {
            return Err("expected dense tensors in the same memory order".into());
        }
        let (samples, channels) = (plane.sizes()[0], plane.sizes()[1]);
        Ok(Planes { last, samples, channels, plane: spatial(plane), indices: spatial(paired) })
    }

    /// Channels that are neighbours, and how many planes (or samples) there are.
    fn cut(&self) -> (usize, usize) {
        if self.last { (self.channels, self.samples) } else { (1, self.samples * self.channels) }
    }

    /// Where parts of a tensor with so many positions begin, and planes in a part.
    fn bounds(&self, positions: usize) -> (Vec<usize>, usize) {
        let (unit, planes) = self.cut();
        let group = ((1 << 12) / ((self.plane + self.indices) * unit).max(1)).max(1);
        let starts = (0..planes).step_by(group).chain([planes]);
        (starts.map(|plane| plane * positions * unit).collect(), group)
    }
}

fn supports(request: &Request<'_>) -> Result<(), Why> {
    Planes::of(request).map(|_| ())
}

fn work(request: &Request<'_>) -> f64 {
    request.operands[1].as_ref().map_or(0, Signature::elements) as f64 / 800.0
}

#[allow(clippy::extra_unused_type_parameters)] // The table asks for it.
fn workspace<I>(request: &Request<'_>, width: usize) -> usize {
    if let Some(bytes) = request.operand(0).ok().and_then(|numbers| {
        with_scalar!(numbers.dtype, S => scattered::<<S as Scalar>::Acc>(request).map(|sums| sums.workspace(width)))
    }) {
        return bytes;
    }
    match (Planes::of(request), request.operand(0)) {
        // Sums of half precision are carried in f32.
        (Ok(planes), Ok(numbers)) if request.op == "pool_scatter" && numbers.dtype.size() == 2 => {
            carved_bytes::<f32>(width, planes.plane * planes.cut().0)
        }
        _ => 0,
    }
}

/// The faster way to scatter, if the windows are short.
fn scattered<A: Accumulator>(request: &Request<'_>) -> Option<Scattered<A>> {
    if request.op != "pool_scatter" {
        return None;
    }
    Scattered::new(&Pooling::of(request).ok()?, Planes::of(request).ok()?.last)
}

fn run<I: EveryMaths>(isa: I, request: &Request<'_>, mut arguments: Arguments<'_>, pool: &dyn Pool) {
    let planes = Planes::of(request).expect("the request is supported");
    let [numbers, indices] = [0, 1].map(|n| arguments.operands[n].take().expect("a supported request has both"));
    let (result, workspace) = (arguments.results.remove(0), arguments.workspace);
    with_scalar!(numbers.dtype(), S => {
        let data = numbers.typed::<S>().data;
        if let Some(sums) = scattered::<<S as Scalar>::Acc>(request) {
            let (out, room) = (result.typed::<S>().data, (workspace, pool));
            return match indices.dtype() {
                DType::I32 => sums.run(isa, (data, indices.typed::<i32>().data), out, room),
                _ => sums.run(isa, (data, indices.typed::<i64>().data), out, room),
            };
        }
        let gathers = request.op == "pool_gather";
        match indices.dtype() {
            DType::I32 => planes.run(gathers, (data, indices.typed::<i32>().data, i64::from), result, (workspace, pool)),
            _ => planes.run(gathers, (data, indices.typed::<i64>().data, |index| index), result, (workspace, pool)),
        }
    });
}

type Indexed<'a, S, T> = (&'a [S], &'a [T], fn(T) -> i64);

impl Planes {
    fn run<S: Scalar, T: Element>(
        &self,
        gathers: bool,
        indexed: Indexed<'_, S, T>,
        result: TensorMut<'_>,
        (workspace, pool): (&mut [u8], &dyn Pool),
    ) {
        let out = result.typed::<S>().data;
        match gathers {
            true => self.gather(indexed, out, pool),
            false => self.scatter(indexed, out, (workspace, pool)),
        }
    }

    fn gather<S: Scalar, T: Element>(&self, (data, indices, wide): Indexed<'_, S, T>, out: &mut [S], pool: &dyn Pool) {
        let (unit, _) = self.cut();
        let (bounds, group) = self.bounds(self.indices);
        for_each_part(pool, (out, &bounds), &mut [], &|part: Part<'_, S, u8>| {
            let indices = &indices[bounds[part.index]..][..part.out.len()];
            for (n, (out, indices)) in chunks(part.out, indices, self.indices * unit).enumerate() {
                let plane = &data[(part.index * group + n) * self.plane * unit..][..self.plane * unit];
                for (at, (to, &index)) in out.iter_mut().zip(indices).enumerate() {
                    // A window without a tap has no position; what it gathers is nothing.
                    *to = self.place(wide(index), at, unit).map_or(S::default(), |from| plane[from]);
                }
            }
        });
    }

    fn scatter<S: Scalar, T: Element>(
        &self,
        (data, indices, wide): Indexed<'_, S, T>,
        out: &mut [S],
        (workspace, pool): (&mut [u8], &dyn Pool),
    ) {
        let (unit, _) = self.cut();
        let (bounds, group) = self.bounds(self.plane);
        let needed = if workspace.is_empty() { 0 } else { self.plane * unit };
        let scratch = if needed == 0 { &mut [] } else { carve::<S::Acc>(workspace, pool.width(), needed).0 };
        for_each_part(pool, (out, &bounds), scratch, &|part: Part<'_, S, S::Acc>| {
            for (n, out) in part.out.chunks_exact_mut((self.plane * unit).max(1)).enumerate() {
                let first = (part.index * group + n) * self.indices * unit;
                let (data, indices) = (&data[first..], &indices[first..][..self.indices * unit]);
                let sums = match S::as_accumulators_mut(out) {
                    Some(sums) => sums,
                    None => &mut part.scratch[..needed],
                };
                sums.fill(S::Acc::default());
                for (at, (number, &index)) in data.iter().zip(indices).enumerate() {
                    if let Some(to) = self.place(wide(index), at, unit) {
                        sums[to] += number.widen();
                    }
                }
                if needed > 0 {
                    out.iter_mut().zip(&part.scratch[..]).for_each(|(to, &sum)| *to = S::narrow(sum));
                }
            }
        });
    }

    /// Where in a plane (or sample) the position lies that stands at `at` among the indices, if the plane has it.
    fn place(&self, index: i64, at: usize, unit: usize) -> Option<usize> {
        let channel = if unit == 1 { 0 } else { at % unit };
        usize::try_from(index).ok().filter(|&index| index < self.plane).map(|index| index * unit + channel)
    }
}

/// Neighbouring pieces of two slices.
fn chunks<'a, S, T>(a: &'a mut [S], b: &'a [T], each: usize) -> impl Iterator<Item = (&'a mut [S], &'a [T])> {
    a.chunks_exact_mut(each.max(1)).zip(b.chunks_exact(each.max(1)))
}
