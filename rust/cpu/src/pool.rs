//! Pooling, its transpose where it is a sum, and the positions of extremes; `window` tells how.

use crate::bands::{Ends, Program, Slice};
use crate::operations::on_every_isa;
use crate::sheets::Sheets;
use std::ops::Range;
use striate_core::pool::{Part, for_each_part};
use striate_core::pooling::{Mode, Pooling, is_channels_last};
use striate_core::view::{carve, carved_bytes};
use striate_core::{
    Accumulator, Arguments, DType, Element, Operation, Pass, Pool, Request, Scalar, TensorMut, View, Why, with_scalar,
};
use striate_simd::rows::{Block, narrow};
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
            ("pool", mode) => with_numbers!(mode, $kind => $body),
            (_, mode) => with_places!(mode, $kind => $body),
        }
    };
}

/// The kind of a mode that yields positions, as a type.
macro_rules! with_places {
    ($mode:expr, $kind:ident => $body:expr) => {
        match $mode {
            Mode::Min => {
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

/// The kind of a mode that yields numbers, as a type.
macro_rules! with_numbers {
    ($mode:expr, $kind:ident => $body:expr) => {
        match $mode {
            Mode::Max => {
                let $kind = Extreme::<false>;
                $body
            }
            Mode::Min => {
                let $kind = Extreme::<true>;
                $body
            }
            _ => {
                let $kind = Sum;
                $body
            }
        }
    };
}

/// The cut into sheets, if the windows are short.
fn sheets<S: Scalar>(request: &Request<'_>, pooling: &Pooling) -> Option<Sheets<S::Acc>> {
    let last = request.operand(0).is_ok_and(is_channels_last);
    Sheets::new(pooling, (last, S::DTYPE == S::DTYPE.accumulator(), request.op == "pool_argmax"))
}

fn workspace<I: EveryMaths>(request: &Request<'_>, width: usize) -> usize {
    let (Ok(pooling), Ok(input)) = (Pooling::of(request), request.operand(0)) else { return 0 };
    with_scalar!(input.dtype, S => {
        if let Some(sheets) = sheets::<S>(request, &pooling) {
            return carved_bytes::<<S as Scalar>::Acc>(width, sheets.scratch());
        }
    });
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
    with_scalar!(input.dtype(), S => {
        if let Some(sheets) = sheets::<S>(request, &pooling) {
            let (data, room) = (input.typed::<S>().data, (workspace, pool));
            return match result.dtype() {
                DType::I32 => with_places!(pooling.mode, kind => sheets.places((isa, kind), (data, result.typed::<i32>().data), room)),
                DType::I64 => with_places!(pooling.mode, kind => sheets.places((isa, kind), (data, result.typed::<i64>().data), room)),
                _ => with_numbers!(pooling.mode, kind => sheets.run((isa, kind), (data, result.typed::<S>().data), room)),
            };
        }
    });
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
        let parts = Parts { program: &program, input: input.data, pool: self.pool };
        match result.dtype() {
            DType::I32 => {
                parts.run(way, result.typed::<i32>().data, scratch, &Places::new(pooling, |index| index as i32));
            }
            DType::I64 => parts.run(way, result.typed::<i64>().data, scratch, &Places::new(pooling, |index| index)),
            _ => {
                let factors = (pooling.mode == Mode::Avg).then(|| pooling.divisors());
                let numbers = Numbers { isa: way.0, factors, forward: pooling.pass == Pass::Fwd };
                parts.run(way, result.typed::<S>().data, scratch, &numbers);
            }
        }
    }
}

/// How parts of a result end.
trait Finish<T, A>: Sync {
    type Ends<'a>: Ends<A>
    where
        Self: 'a,
        T: 'a,
        A: 'a;
    /// The ends of a part, from its output and a row of scratch memory.
    fn ends<'a>(&'a self, out: &'a mut [T], row: &'a mut [A]) -> Self::Ends<'a>;
}

struct Parts<'a, S: Scalar> {
    program: &'a Program<S::Acc>,
    input: &'a [S],
    pool: &'a dyn Pool,
}

impl<S: Scalar> Parts<'_, S> {
    fn run<T: Element, I: Convert<S>, K: Kind<S::Acc, I>>(
        &self,
        way: (I, K),
        out: &mut [T],
        scratch: &mut [S::Acc],
        finish: &impl Finish<T, S::Acc>,
    ) {
        let Parts { program, input, pool } = *self;
        let (buffers, _) = program.scratch(K::LABELS);
        for_each_part(pool, (out, &program.bounds), scratch, &|part: Part<'_, T, S::Acc>| {
            let (buffers, row) = part.scratch.split_at_mut(buffers);
            program.part(way, part.index, input, buffers, &mut finish.ends(part.out, row));
        });
    }
}

/// Numbers, divided where they are averages: after a forward pass, before its transpose.
struct Numbers<I> {
    isa: I,
    factors: Option<[Vec<f64>; 3]>,
    forward: bool,
}

struct NumbersInto<'a, S: Scalar, I> {
    isa: I,
    out: &'a mut [S],
    divisors: Option<Divisors<'a, S::Acc>>,
    forward: bool,
}

impl<S: Scalar, I: Convert<S> + Maths<S::Acc>> Finish<S, S::Acc> for Numbers<I> {
    type Ends<'a> = NumbersInto<'a, S, I>;
    fn ends<'a>(&'a self, out: &'a mut [S], by: &'a mut [S::Acc]) -> NumbersInto<'a, S, I> {
        let divisors = self.factors.as_ref().map(|factors| Divisors { factors, by, of: (0.0, 0..0) });
        NumbersInto { isa: self.isa, out, divisors, forward: self.forward }
    }
}

impl<S: Scalar, I: Convert<S> + Maths<S::Acc>> Ends<S::Acc> for NumbersInto<'_, S, I> {
    fn watches(&self) -> bool {
        self.divisors.is_some() && !self.forward
    }

    fn loaded(&mut self, at: [usize; 2], columns: Range<usize>, unit: usize, line: &mut [S::Acc]) {
        if let Some(divisors) = &mut self.divisors {
            let numbers = columns.len() * unit;
            divide(self.isa, &mut line[..numbers], divisors.row(at, columns, unit));
        }
    }

    fn emit(&mut self, slice: Slice<'_, S::Acc>) {
        let (count, unit) = (slice.columns.len(), slice.unit);
        if let Some(divisors) = self.divisors.as_mut().filter(|_| self.forward) {
            for (row, numbers) in slice.rows.clone().zip(slice.numbers.chunks_exact_mut(slice.pitch)) {
                let by = divisors.row([slice.deep, row], slice.columns.clone(), unit);
                divide(self.isa, &mut numbers[..count * unit], by);
            }
        }
        let (pitch, to_pitch) = (slice.pitch, slice.to_pitch());
        if slice.channels == slice.to_unit && slice.channels == unit {
            let (rows, cols) = (slice.rows.len(), count * unit);
            let block = Block { rows, cols, from_pitch: pitch, from_step: 1, to_pitch, to_step: 1 };
            return narrow(self.isa, &block, slice.numbers, &mut self.out[slice.to..]);
        }
        let (cols, to_unit) = (slice.channels, slice.to_unit);
        let block = Block { rows: count, cols, from_pitch: unit, from_step: 1, to_pitch: to_unit, to_step: 1 };
        for (row, numbers) in slice.numbers.chunks_exact(pitch).enumerate() {
            narrow(self.isa, &block, numbers, &mut self.out[slice.to + row * to_pitch..]);
        }
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
}

struct PlacesInto<'a, T> {
    places: &'a Places<T>,
    out: &'a mut [T],
}

impl<A: Accumulator, T: Element> Finish<T, A> for Places<T> {
    type Ends<'a> = PlacesInto<'a, T>;
    fn ends<'a>(&'a self, out: &'a mut [T], _: &'a mut [A]) -> PlacesInto<'a, T> {
        PlacesInto { places: self, out }
    }
}

impl<A: Accumulator, T: Element> Ends<A> for PlacesInto<'_, T> {
    fn emit(&mut self, slice: Slice<'_, A>) {
        let Places { nothing, start, inside, store } = self.places;
        for (r, row) in slice.rows.clone().enumerate() {
            let [start_row, inside_row] = [start, inside].map(|of| of[0][slice.deep] + of[1][row]);
            for (j, column) in slice.columns.clone().enumerate() {
                let (start, inside) = (start_row + start[2][column], inside_row + inside[2][column]);
                let from = r * slice.pitch + j * slice.unit;
                let to = slice.to + r * slice.to_pitch() + j * slice.to_unit;
                let cells = slice.numbers[from..].iter().zip(&slice.labels[from..]);
                for (to, (number, label)) in self.out[to..][..slice.channels].iter_mut().zip(cells) {
                    let found = number.to_f64() != *nothing;
                    *to = store(if found { start + label.to_f64() as i64 } else { inside });
                }
            }
        }
    }
}
