//! Pooling, its transpose where it is a sum, and the positions of extremes; `window` tells how.

use crate::bands::{Ends, Program, Row};
use crate::operations::on_every_isa;
use std::ops::Range;
use striate_core::pool::{Part, for_each_part};
use striate_core::pooling::{Mode, Pooling, is_channels_last};
use striate_core::view::{carve, carved_bytes};
use striate_core::{
    Accumulator, Arguments, DType, Element, Operation, Pass, Pool, Request, Scalar, TensorMut, View, Why, with_scalar,
};
use striate_simd::rows::narrow;
use striate_simd::windows::{Extreme, Kind, Place, Sum, divide};
use striate_simd::{Convert, EveryMaths, Maths, Simd};

pub(crate) static ROWS: &[Operation] = on_every_isa!("pool", "windows joined axis by axis, long ones by doubling");
pub(crate) static ARGMAX_ROWS: &[Operation] =
    on_every_isa!("pool_argmax", "extremes joined axis by axis, with labels for where they stand");

const DTYPES: &[DType] = &DType::ALL;

fn supports(request: &Request<'_>) -> Result<(), Why> {
    let (pooling, input, result) = (Pooling::of(request)?, request.operand(0)?, request.result(0)?);
    let first = input.is_contiguous() && result.is_contiguous();
    let last = is_channels_last(input) && (is_channels_last(result) || result.is_contiguous() && flat(&pooling));
    if !first && !last {
        return Err("expected dense tensors in the same memory order".into());
    }
    if request.op == "pool_argmax" {
        let far: i64 =
            (0..3).map(|a| (pooling.axes[a].kernel() - 1) * pooling.axes[a].dilation() * pooling.plane()[a]).sum();
        if far >= 1 << 24 && input.dtype.accumulator() == DType::F32 {
            return Err(format!("windows reach over {far} positions, more than f32 counts"));
        }
    } else if input.dtype != result.dtype {
        return Err(format!("result: expected {}, got {}", input.dtype.name(), result.dtype.name()));
    }
    Ok(())
}

/// Whether a result is the same in both memory orders.
fn flat(pooling: &Pooling) -> bool {
    pooling.axes.iter().all(|axis| axis.extent(pooling.pass) == 1)
}

fn work(request: &Request<'_>) -> f64 {
    let numbers = |signature: Option<&striate_core::Signature>| signature.map_or(0, striate_core::Signature::elements);
    (numbers(request.operands[0].as_ref()) + numbers(request.results.first())) as f64 / 2000.0
}

/// The kind of a request's mode, as a type.
macro_rules! with_kind {
    ($request:expr, $mode:expr, $kind:ident => $body:expr) => {
        match ($request.op, $mode) {
            ("pool", Mode::Max) => {
                let $kind = Extreme::<false>;
                $body
            }
            ("pool", Mode::Min) => {
                let $kind = Extreme::<true>;
                $body
            }
            ("pool", _) => {
                let $kind = Sum;
                $body
            }
            (_, Mode::Min) => {
                let $kind = Place::<true>;
                $body
            }
            _ => {
                let $kind = Place::<false>;
                $body
            }
        }
    };
}

fn workspace<I: EveryMaths>(request: &Request<'_>, width: usize) -> usize {
    let (Ok(pooling), Ok(input)) = (Pooling::of(request), request.operand(0)) else { return 0 };
    with_scalar!(input.dtype, S => with_kind!(request, pooling.mode, kind => {
        let program = program::<S, I, _>(kind, &pooling, is_channels_last(input));
        carved_bytes::<<S as Scalar>::Acc>(width, slot::<S, I, _>(kind, &program))
    }))
}

fn program<S: Scalar, I: Simd<S::Acc>, K: Kind<S::Acc, I>>(_: K, pooling: &Pooling, last: bool) -> Program<S::Acc> {
    Program::new::<I, K>(pooling, last)
}

fn slot<S: Scalar, I: Simd<S::Acc>, K: Kind<S::Acc, I>>(_: K, program: &Program<S::Acc>) -> usize {
    let (scratch, row) = program.scratch(K::LABELS);
    scratch + row
}

fn run<I: EveryMaths>(isa: I, request: &Request<'_>, mut arguments: Arguments<'_>, pool: &dyn Pool) {
    let pooling = Pooling::of(request).expect("the request is supported");
    let last = is_channels_last(request.operands[0].as_ref().expect("a supported request has an input"));
    let input = arguments.operands[0].take().expect("a supported request has an input");
    let job = Job { pooling: &pooling, last, pool };
    let (result, workspace) = (arguments.results.remove(0), arguments.workspace);
    with_scalar!(input.dtype(), S => with_kind!(request, pooling.mode, kind => {
        job.run::<S, I, _>((isa, kind), input.typed(), result, workspace);
    }));
}

struct Job<'a> {
    pooling: &'a Pooling,
    last: bool,
    pool: &'a dyn Pool,
}

impl Job<'_> {
    fn run<S: Scalar, I: Convert<S> + Maths<S::Acc>, K: Kind<S::Acc, I>>(
        &self,
        way: (I, K),
        input: View<'_, S>,
        result: TensorMut<'_>,
        workspace: &mut [u8],
    ) {
        let Job { pooling, last, .. } = *self;
        let program = program::<S, I, K>(way.1, pooling, last);
        let slot = slot::<S, I, K>(way.1, &program);
        let (scratch, _) = carve::<S::Acc>(workspace, self.pool.width(), slot);
        match result.dtype() {
            DType::I32 => {
                let places = Places::new(pooling, |index| index as i32);
                self.parts(way, &program, (input, result.typed::<i32>().data, scratch), &|out, _, go| {
                    go(&mut places.of(out));
                });
            }
            DType::I64 => {
                let places = Places::new(pooling, |index| index);
                self.parts(way, &program, (input, result.typed::<i64>().data, scratch), &|out, _, go| {
                    go(&mut places.of(out));
                });
            }
            _ => {
                let divisors = (pooling.mode == Mode::Avg).then(|| pooling.divisors());
                let forward = pooling.pass == Pass::Fwd;
                self.parts(way, &program, (input, result.typed::<S>().data, scratch), &|out, by, go| {
                    let divisors = divisors.as_ref().map(|factors| Divisors { factors, by, of: (0.0, 0..0) });
                    go(&mut Numbers { isa: way.0, out, divisors, forward });
                });
            }
        }
    }

    fn parts<S: Scalar, T: Element, I: Convert<S>, K: Kind<S::Acc, I>>(
        &self,
        way: (I, K),
        program: &Program<S::Acc>,
        (input, out, scratch): (View<'_, S>, &mut [T], &mut [S::Acc]),
        with_ends: &WithEnds<'_, T, S::Acc>,
    ) {
        let (buffers, _) = program.scratch(K::LABELS);
        for_each_part(self.pool, (out, &program.bounds), scratch, &|part: Part<'_, T, S::Acc>| {
            let (buffers, row) = part.scratch.split_at_mut(buffers);
            with_ends(part.out, row, &mut |ends| program.part(way, part.index, input.data, buffers, ends));
        });
    }
}

/// Makes the ends of a part from its output and a row of scratch memory, and goes on with them.
type WithEnds<'a, T, A> = dyn Fn(&mut [T], &mut [A], &mut dyn FnMut(&mut dyn Ends<A>)) + Sync + 'a;

/// Rows of numbers, divided where they are averages: after a forward pass, before its transpose.
struct Numbers<'a, S: Scalar, I> {
    isa: I,
    out: &'a mut [S],
    divisors: Option<Divisors<'a, S::Acc>>,
    forward: bool,
}

impl<S: Scalar, I: Convert<S> + Maths<S::Acc>> Ends<S::Acc> for Numbers<'_, S, I> {
    fn loaded(&mut self, at: [usize; 2], columns: Range<usize>, unit: usize, line: &mut [S::Acc]) {
        if let Some(divisors) = self.divisors.as_mut().filter(|_| !self.forward) {
            let numbers = columns.len() * unit;
            divide(self.isa, &mut line[..numbers], divisors.row(at, columns, unit));
        }
    }

    fn emit(&mut self, row: Row<'_, S::Acc>) {
        if let Some(divisors) = self.divisors.as_mut().filter(|_| self.forward) {
            divide(self.isa, row.numbers, divisors.row(row.at, row.columns.clone(), row.unit));
        }
        narrow(self.isa, &row.block(), row.numbers, &mut self.out[row.to..]);
    }
}

/// What averages are divided by, for a row at a time; most rows have the same as the one before.
struct Divisors<'a, A> {
    factors: &'a [Vec<f64>; 3],
    by: &'a mut [A],
    of: (f64, Range<usize>),
}

impl<A: Accumulator> Divisors<'_, A> {
    fn row(&mut self, at: [usize; 2], columns: Range<usize>, unit: usize) -> &[A] {
        let of = (self.factors[0][at[0]] * self.factors[1][at[1]], columns.clone());
        let numbers = columns.len() * unit;
        if self.of != of {
            for (by, factor) in self.by.chunks_exact_mut(unit).zip(&self.factors[2][columns]) {
                by.fill(A::from_f64(of.0 * factor));
            }
            self.of = of;
        }
        &self.by[..numbers]
    }
}

/// Positions of extremes: labels count from the start of a window, results from that of the plane.
struct Places<T> {
    nothing: f64,
    /// Position that the first tap of every window has along every axis, inside the plane or not.
    start: [Vec<i64>; 3],
    /// Position of its first tap inside: the answer where no number is better than nothing.
    inside: [Vec<i64>; 3],
    store: fn(i64) -> T,
}

impl<T: Element> Places<T> {
    fn new(pooling: &Pooling, store: fn(i64) -> T) -> Places<T> {
        let plane = pooling.plane();
        let positions =
            |a: usize, of: &dyn Fn(i64) -> i64| (0..pooling.axes[a].output()).map(|o| of(o) * plane[a]).collect();
        let start = [0, 1, 2].map(|a| {
            let sweep = pooling.axes[a].sweep(Pass::Fwd, 0);
            positions(a, &|o| sweep.src0 + o * sweep.src_step)
        });
        let inside = [0, 1, 2].map(|a| positions(a, &|o| pooling.axes[a].walk(Pass::Fwd, o).a0));
        let nothing = if pooling.mode == Mode::Min { f64::INFINITY } else { f64::NEG_INFINITY };
        Places { nothing, start, inside, store }
    }

    fn of<'a>(&'a self, out: &'a mut [T]) -> PlacesInto<'a, T> {
        PlacesInto { places: self, out }
    }
}

struct PlacesInto<'a, T> {
    places: &'a Places<T>,
    out: &'a mut [T],
}

impl<A: Accumulator, T: Element> Ends<A> for PlacesInto<'_, T> {
    fn emit(&mut self, row: Row<'_, A>) {
        let Places { nothing, start, inside, store } = self.places;
        let [start_row, inside_row] = [start, inside].map(|of| of[0][row.at[0]] + of[1][row.at[1]]);
        for (j, column) in row.columns.clone().enumerate() {
            let (start, inside) = (start_row + start[2][column], inside_row + inside[2][column]);
            let to = &mut self.out[row.to + j * row.to_pitch..][..row.channels];
            let (numbers, labels) = (&row.numbers[j * row.unit..], &row.labels[j * row.unit..]);
            for ((to, number), label) in to.iter_mut().zip(numbers).zip(labels) {
                let found = number.to_f64() != *nothing;
                *to = store(if found { start + label.to_f64() as i64 } else { inside });
            }
        }
    }
}
