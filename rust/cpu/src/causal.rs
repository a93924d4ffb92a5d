//! The causal convolution: one pass over memory, bias and sigmoid included.
//!
//! Positions are taken in chunks that fit a cache. The numbers a chunk needs, what came before it included, are widened
//! into a line; windows of the line are filtered along positions, or along channels where those are innermost, and
//! rounded into the result. A number depends on its window alone, bit for bit, so neither chunks nor threads nor what
//! follows a position show in the result.

use crate::operations::on_every_isa;
use striate_core::causal::{Causal, Run, Runs};
use striate_core::pool::{Part, for_each_part};
use striate_core::view::{carve, carved_bytes};
use striate_core::{
    Accumulator, Arguments, DType, Operation, Pool, Request, Scalar, Signature, Tensor, View, Why, with_scalar,
};
use striate_simd::fir::{Fir, fir};
use striate_simd::rows::{Block, narrow, widen};
use striate_simd::{Convert, EveryMaths, Maths};

pub(crate) static ROWS: &[Operation] =
    on_every_isa!("causal", "history, filter, bias and sigmoid in one pass, along positions or channels");

const DTYPES: &[DType] = &DType::ALL;
/// Most numbers in a vector.
const SLACK: usize = 16;
/// Channels that are taken together where they are innermost.
pub(crate) const CHANNELS: usize = 64;

/// Whether the channels of a result `[b, d, l]` are innermost.
fn channels_last(result: &Signature) -> bool {
    let [batch, length, channels] = [3, 5, 4].map(|axis| result.strides[axis]);
    !result.is_contiguous()
        && channels == 1
        && length == result.dims[4]
        && (batch == length * result.dims[5] || result.dims[3] == 1)
}

fn supports(request: &Request<'_>) -> Result<(), Why> {
    Causal::with_runs(request)?;
    let result = request.result(0)?;
    match result.is_contiguous() || channels_last(result) {
        true => Ok(()),
        false => Err("result: expected a dense tensor, positions or channels innermost".into()),
    }
}

fn work(request: &Request<'_>) -> f64 {
    let taps = request.operand(1).map_or(0, |weight| weight.dims[5]);
    request.results.first().map_or(0.0, |result| (result.elements() * (taps + 8)) as f64 / 16000.0)
}

/// How positions are cut.
struct Shape {
    last: bool,
    /// Positions in a chunk, and chunks of a sample.
    chunk: usize,
    chunks: usize,
    /// Channels taken together, in buffers; 1 where positions are innermost.
    unit: usize,
}

impl Shape {
    fn of(sizes: &Causal, result: &Signature) -> Shape {
        let last = channels_last(result);
        let unit = if last { sizes.channels.next_multiple_of(SLACK).min(CHANNELS) } else { 1 };
        let chunk = sizes.width.max(if last { 64 } else { 4096 }).min(sizes.length.max(1));
        Shape { last, chunk, chunks: sizes.length.div_ceil(chunk), unit }
    }

    /// Accumulators of the line, the result, the weights and the bias.
    fn buffers(&self, width: usize) -> [usize; 4] {
        let line = (self.chunk + width - 1) * self.unit + SLACK;
        [line, self.chunk * self.unit + SLACK, width * self.unit, self.unit].map(|size| size.next_multiple_of(SLACK))
    }
}

#[allow(clippy::extra_unused_type_parameters)] // The table asks for it.
fn workspace<I>(request: &Request<'_>, width: usize) -> usize {
    let (Ok(sizes), Ok(result)) = (Causal::with_runs(request), request.result(0)) else { return 0 };
    let each: usize = Shape::of(&sizes, result).buffers(sizes.width).iter().sum();
    with_scalar!(result.dtype, S => carved_bytes::<<S as Scalar>::Acc>(width, each))
}

fn run<I: EveryMaths>(isa: I, request: &Request<'_>, mut arguments: Arguments<'_>, pool: &dyn Pool) {
    let sizes = Causal::with_runs(request).expect("the request is supported");
    let runs = sizes.runs(arguments.operands[4].take());
    let shape = Shape::of(&sizes, &request.results[0]);
    let [x, weight, bias, states] = [0, 1, 2, 3].map(|n| arguments.operands[n].take());
    let (x, weight) = (x.expect("a supported request has x"), weight.expect("a supported request has a weight"));
    with_scalar!(x.dtype(), S => {
        let job = Job { sizes, shape, runs, x: x.typed::<S>(), weight, bias, states: states.map(Tensor::typed::<S>) };
        job.run(isa, arguments.results.remove(0).typed::<S>().data, arguments.workspace, pool);
    });
}

struct Job<'a, S> {
    sizes: Causal,
    shape: Shape,
    runs: Runs,
    x: View<'a, S>,
    weight: Tensor<'a>,
    bias: Option<Tensor<'a>>,
    states: Option<View<'a, S>>,
}

/// Some channels of a chunk: the first channel and how many, the first position and how many.
#[derive(Clone, Copy)]
pub(crate) struct Piece {
    pub(crate) channel: usize,
    pub(crate) channels: usize,
    pub(crate) start: usize,
    pub(crate) outs: usize,
}

/// What a piece is computed in: what it sees, what it becomes, and its channels' taps and bias.
struct Buffers<'a, A> {
    line: &'a mut [A],
    made: &'a mut [A],
    weights: &'a [A],
    bias: &'a [A],
}

impl<S: Scalar> Job<'_, S> {
    fn run<I: Convert<S> + Maths<S::Acc>>(&self, isa: I, out: &mut [S], workspace: &mut [u8], pool: &dyn Pool) {
        let (Causal { batch, channels, length, width, .. }, shape) = (self.sizes, &self.shape);
        let buffers = shape.buffers(width);
        let (scratch, _) = carve::<S::Acc>(workspace, pool.width(), buffers.iter().sum());
        let rows = if shape.last { batch } else { batch * channels };
        let (step, row) = if shape.last { (channels, channels * length) } else { (1, length) };
        let starts = (0..rows).flat_map(|r| (0..shape.chunks).map(move |c| r * row + c * shape.chunk * step));
        let bounds: Vec<usize> = starts.chain([rows * row]).collect();
        for_each_part(pool, (out, &bounds), scratch, &|part: Part<'_, S, S::Acc>| {
            let (r, start) = (part.index / shape.chunks, part.index % shape.chunks * shape.chunk);
            let (sample, first, each) = if shape.last { (r, 0, channels) } else { (r / channels, r % channels, 1) };
            let mut rest = part.scratch;
            let [line, made, weights, bias] = buffers.map(|size| rest.split_off_mut(..size).expect("sized above"));
            let outs = part.out.len() / step;
            for channel in (first..first + each).step_by(shape.unit) {
                let piece = Piece { channel, channels: shape.unit.min(first + each - channel), start, outs };
                pack(&self.weight, &piece, weights, shape.unit, false);
                bias.fill(S::Acc::default());
                if let Some(tensor) = &self.bias {
                    pack(tensor, &piece, bias, shape.unit, true);
                }
                let buffers = Buffers { line, made, weights, bias };
                self.piece(isa, (sample, &piece), buffers, &mut part.out[channel - first..]);
            }
        });
    }

    /// Produces the runs of a piece.
    fn piece<I: Convert<S> + Maths<S::Acc>>(
        &self,
        isa: I,
        (sample, piece): (usize, &Piece),
        buffers: Buffers<'_, S::Acc>,
        out: &mut [S],
    ) {
        let (Causal { channels, width, silu, .. }, unit, last) = (self.sizes, self.shape.unit, self.shape.last);
        let Buffers { line, made, weights, bias } = buffers;
        let (end, step) = (piece.start + piece.outs, if last { channels } else { 1 });
        let first = self.runs.all.partition_point(|run| (run.sample, run.end) <= (sample, piece.start));
        for run in self.runs.all[first..].iter().take_while(|run| run.sample == sample && run.start < end) {
            let (from, to) = (run.start.max(piece.start), run.end.min(end));
            if from >= to {
                continue;
            }
            let outs = to - from;
            let filter = Fir { outs, taps: width, cols: if last { unit } else { 0 }, silu };
            if run.silent {
                made[..outs * unit].fill(S::Acc::default());
            } else {
                self.load(isa, run, piece, (from, to), line);
                fir(isa, &filter, (line, weights, bias), made);
            }
            let block = match last {
                true => Block {
                    rows: outs,
                    cols: piece.channels,
                    from_pitch: unit,
                    from_step: 1,
                    to_pitch: step,
                    to_step: 1,
                },
                false => Block { rows: 1, cols: outs, from_pitch: 0, from_step: 1, to_pitch: 0, to_step: 1 },
            };
            narrow(isa, &block, made, &mut out[(from - piece.start) * step..]);
        }
    }

    /// Widens what positions `from..to` of a run see into the line.
    fn load<I: Convert<S>>(&self, isa: I, run: &Run, piece: &Piece, (from, to): (usize, usize), line: &mut [S::Acc]) {
        let (unit, history) = (self.shape.unit, self.sizes.width - 1);
        // Position `at` of the input, `history - from + at` of the line.
        let seen = from.saturating_sub(history).max(run.start);
        let missing = history - (from - seen);
        if missing > 0 {
            let past = &mut line[..missing * unit];
            past.fill(S::Acc::default());
            if let Some(states) = &self.states {
                self.copy(isa, states, (run.state, from - run.start), (piece, missing), past);
            } else if self.runs.may_resume() {
                for k in (0..missing).filter(|k| k + from >= history && self.runs.resumes(run, k + from - history)) {
                    self.copy(isa, &self.x, (run.sample, k + from - history), (piece, 1), &mut past[k * unit..]);
                }
            }
        }
        self.copy(isa, &self.x, (run.sample, seen), (piece, to - seen), &mut line[missing * unit..]);
    }

    /// Widens neighbouring positions of a tensor `[row, channel, position]`.
    fn copy<I: Convert<S>>(
        &self,
        isa: I,
        tensor: &View<'_, S>,
        (row, position): (usize, usize),
        (piece, count): (&Piece, usize),
        to: &mut [S::Acc],
    ) {
        let [_, _, _, by_row, by_channel, by_position] = tensor.strides;
        let from = &tensor.data[row * by_row + piece.channel * by_channel + position * by_position..];
        let block = match self.shape.last {
            true => Block {
                rows: count,
                cols: piece.channels,
                from_pitch: by_position,
                from_step: by_channel,
                to_pitch: self.shape.unit,
                to_step: 1,
            },
            false => Block { rows: 1, cols: count, from_pitch: 0, from_step: by_position, to_pitch: 0, to_step: 1 },
        };
        widen(isa, &block, from, to);
    }
}

/// Packs the channels of a piece: `[taps, unit]` from a weight `[d, taps]`, `[unit]` from a bias `[d]`.
pub(crate) fn pack<A: Accumulator>(tensor: &Tensor<'_>, piece: &Piece, packed: &mut [A], unit: usize, bias: bool) {
    with_scalar!(tensor.dtype(), W => {
        let view = tensor.typed::<W>();
        let [.., row, col] = view.strides;
        let (taps, by_channel, by_tap) = if bias { (1, col, 0) } else { (view.dims[5], row, col) };
        for tap in 0..taps {
            for lane in 0..piece.channels {
                let number = view.data[(piece.channel + lane) * by_channel + tap * by_tap];
                packed[tap * unit + lane] = A::from_f64(number.widen().to_f64());
            }
        }
    });
}
