//! Some steps of the causal convolution: what a state remembers is filtered together with what arrives, and the state
//! moves on. Channels are vectors, so that a single step is one vector operation a tap.
//!
//! Results come first and states after them, because both are cut by rows of their own.

use crate::causal::{CHANNELS, Piece, pack};
use crate::operations::on_every_isa;
use striate_core::causal::{Causal, integers};
use striate_core::pool::{Part, for_each_part};
use striate_core::view::{carve, carved_bytes};
use striate_core::{Arguments, DType, Operation, Pool, Request, Scalar, Tensor, View, ViewMut, Why, with_scalar};
use striate_simd::fir::{Fir, fir};
use striate_simd::rows::{Block, narrow, widen};
use striate_simd::{Convert, EveryMaths, Maths};

pub(crate) static ROWS: &[Operation] = on_every_isa!("causal_update", "vectors along channels; states move in place");

const DTYPES: &[DType] = &DType::ALL;

fn supports(request: &Request<'_>) -> Result<(), Why> {
    let (sizes, result, state) = (Causal::of(request)?, request.result(0)?, request.result(1)?);
    if !result.is_contiguous() {
        return Err("result: expected a dense tensor".into());
    }
    let &[_, channels, size] = state.sizes() else { return Err(format!("state: expected 3 dimensions, got {state}")) };
    if channels != sizes.channels || size + 1 < sizes.width || state.dtype != result.dtype {
        return Err(format!("state: expected {} of {} steps at least, got {state}", sizes.channels, sizes.width - 1));
    }
    let [row, channel, step] = [3, 4, 5].map(|axis| (state.strides[axis], state.dims[axis].max(1) - 1));
    match row.0 > channel.0 * channel.1 + step.0 * step.1 || row.1 == 0 {
        true => Ok(()),
        false => Err("state: expected rows that lie apart".into()),
    }
}

fn work(request: &Request<'_>) -> f64 {
    let elements = |index: usize| request.operands[index].as_ref().map_or(0, striate_core::Signature::elements);
    let width = request.operands[1].as_ref().map_or(0, |weight| weight.dims[5]);
    (elements(0) * (2 * width + 8)) as f64 / 4000.0
}

/// Accumulators of the line, the result, the weights and the bias of so many channels.
fn buffers(sizes: &Causal) -> [usize; 4] {
    let Causal { width, length, .. } = *sizes;
    [width - 1 + length, length, width, 1].map(|rows| rows * CHANNELS)
}

#[allow(clippy::extra_unused_type_parameters)] // The table asks for it.
fn workspace<I>(request: &Request<'_>, width: usize) -> usize {
    let (Ok(sizes), Ok(result)) = (Causal::of(request), request.result(0)) else { return 0 };
    let each: usize = buffers(&sizes).iter().sum();
    with_scalar!(result.dtype, S => carved_bytes::<<S as Scalar>::Acc>(width, each))
}

fn run<I: EveryMaths>(isa: I, request: &Request<'_>, mut arguments: Arguments<'_>, pool: &dyn Pool) {
    let sizes = Causal::of(request).expect("the request is supported");
    let [at, rows] = [3, 4].map(|n| arguments.operands[n].take().map(integers));
    let [x, weight, bias] = [0, 1, 2].map(|n| arguments.operands[n].take());
    let (x, weight) = (x.expect("a supported request has x"), weight.expect("a supported request has a weight"));
    let (state, result) = (arguments.results.remove(1), arguments.results.remove(0));
    with_scalar!(x.dtype(), S => {
        let rows = rows.unwrap_or_else(|| (0..sizes.batch as i64).collect());
        let job = Job { sizes, x: x.typed::<S>(), weight, bias, at, rows };
        let mut state = state.typed::<S>();
        job.filter(isa, &state, result.typed::<S>().data, (arguments.workspace, pool));
        job.remember(&mut state, pool);
    });
}

struct Job<'a, S> {
    sizes: Causal,
    x: View<'a, S>,
    weight: Tensor<'a>,
    bias: Option<Tensor<'a>>,
    /// Where the next step of each sample is written, in a circular state.
    at: Option<Vec<i64>>,
    /// The row of each sample's state; negative for none.
    rows: Vec<i64>,
}

impl<S: Scalar> Job<'_, S> {
    fn filter<I: Convert<S> + Maths<S::Acc>>(
        &self,
        isa: I,
        state: &ViewMut<'_, S>,
        out: &mut [S],
        (workspace, pool): (&mut [u8], &dyn Pool),
    ) {
        let Causal { batch, channels, length, width, silu, .. } = self.sizes;
        let buffers = buffers(&self.sizes);
        let (scratch, _) = carve::<S::Acc>(workspace, pool.width(), buffers.iter().sum());
        let bounds: Vec<usize> = (0..=batch).map(|b| b * channels * length).collect();
        for_each_part(pool, (out, &bounds), scratch, &|part: Part<'_, S, S::Acc>| {
            let b = part.index;
            let Ok(row) = usize::try_from(self.rows[b]) else { return part.out.fill(S::default()) };
            let mut rest = part.scratch;
            let [line, made, weights, bias] = buffers.map(|size| rest.split_off_mut(..size).expect("sized above"));
            for channel in (0..channels).step_by(CHANNELS) {
                let piece = Piece { channel, channels: CHANNELS.min(channels - channel), start: 0, outs: length };
                pack(&self.weight, &piece, weights, CHANNELS, false);
                bias.fill(S::Acc::default());
                if let Some(tensor) = &self.bias {
                    pack(tensor, &piece, bias, CHANNELS, true);
                }
                self.load(isa, state, (b, row), &piece, line);
                fir(isa, &Fir { outs: length, taps: width, cols: CHANNELS, silu }, (line, weights, bias), made);
                let (from_pitch, to_step) = (CHANNELS, length);
                let block =
                    Block { rows: length, cols: piece.channels, from_pitch, from_step: 1, to_pitch: 1, to_step };
                narrow(isa, &block, made, &mut part.out[channel * length..]);
            }
        });
    }

    /// Widens what the state remembers and what arrives into the line.
    fn load<I: Convert<S>>(
        &self,
        isa: I,
        state: &ViewMut<'_, S>,
        (b, row): (usize, usize),
        piece: &Piece,
        line: &mut [S::Acc],
    ) {
        let (history, [.., rows, channels, steps]) = (self.sizes.width - 1, state.strides);
        let size = state.dims[5];
        let block = Block {
            rows: 1,
            cols: piece.channels,
            from_pitch: steps,
            from_step: channels,
            to_pitch: CHANNELS,
            to_step: 1,
        };
        let base = row * rows + piece.channel * channels;
        match self.at.as_ref().map(|at| at[b].rem_euclid(size.max(1) as i64) as usize) {
            _ if history == 0 => {}
            None => widen(isa, &Block { rows: history, ..block }, &state.data[base + (size - history) * steps..], line),
            Some(at) => {
                for k in 0..history {
                    let step = (at + size - history + k) % size;
                    widen(isa, &block, &state.data[base + step * steps..], &mut line[k * CHANNELS..]);
                }
            }
        }
        let [.., rows, channels, steps] = self.x.strides;
        let block = Block { rows: self.sizes.length, from_pitch: steps, from_step: channels, ..block };
        widen(isa, &block, &self.x.data[b * rows + piece.channel * channels..], &mut line[history * CHANNELS..]);
    }

    /// Moves the states on. Where samples share a row, the later one has the last word.
    fn remember(&self, state: &mut ViewMut<'_, S>, pool: &dyn Pool) {
        let mut pairs: Vec<(usize, usize)> =
            self.rows.iter().enumerate().filter_map(|(b, &row)| Some((usize::try_from(row).ok()?, b))).collect();
        pairs.sort_unstable();
        let ([.., size], [_, _, _, row, channel, step]) = (state.dims, state.strides);
        if pairs.is_empty() || size == 0 || self.sizes.channels == 0 {
            return;
        }
        let mut firsts: Vec<usize> = pairs.iter().map(|pair| pair.0).collect();
        firsts.dedup();
        let bounds: Vec<usize> = firsts.iter().map(|first| first * row).chain([state.data.len()]).collect();
        for_each_part(pool, (state.data, &bounds), &mut [], &|part: Part<'_, S, u8>| {
            for &(_, b) in pairs.iter().filter(|pair| pair.0 == firsts[part.index]) {
                for d in 0..self.sizes.channels {
                    self.remember_channel((b, d), size, &mut part.out[d * channel..], step);
                }
            }
        });
    }

    fn remember_channel(&self, (b, d): (usize, usize), size: usize, steps: &mut [S], step: usize) {
        let length = self.sizes.length;
        let arrived = |t: usize| self.x.at([0, 0, 0, b, d, t]);
        if let Some(at) = &self.at {
            let at = at[b].rem_euclid(size as i64) as usize;
            return (0..length).for_each(|t| steps[(at + t) % size * step] = arrived(t));
        }
        let kept = size.saturating_sub(length);
        (0..kept).for_each(|s| steps[s * step] = steps[(s + length) * step]);
        (kept..size).for_each(|s| steps[s * step] = arrived(s + length - size));
    }
}
