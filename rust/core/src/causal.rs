//! What a call asks of the causal convolution of `x [b, d, l]` with `weight [d, w]`: checked sizes, and the runs of
//! positions that see nothing of one another.
//!
//! Operands are x, weight, and where they are given bias `[d]`, states `[runs, d, w - 1]` (what came before each run,
//! oldest first) and marks. The setting `marks` says what those are: `each`, `[b, l]`, the number of the sequence that
//! every position belongs to, or `starts`, `[sequences + 1]`, where sequences begin in the one sample. A position with a
//! negative number belongs to none and is 0 in the result.

use crate::kernel::Why;
use crate::operation::{Request, Signature};
use crate::problem::DType;
use crate::view::{Tensor, positions};

/// Sizes of a checked request.
#[derive(Clone, Copy, Debug)]
pub struct Causal {
    /// Samples.
    pub batch: usize,
    /// Channels.
    pub channels: usize,
    /// Positions.
    pub length: usize,
    /// Taps.
    pub width: usize,
    /// Whether the result is z / (1 + exp(-z)) of the sums z.
    pub silu: bool,
    /// Whether marks are the starts of sequences.
    starts: bool,
}

/// Neighbouring positions of one sequence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// Sample.
    pub sample: usize,
    /// First position.
    pub start: usize,
    /// Position after the last.
    pub end: usize,
    /// Whether the result is 0 there.
    pub silent: bool,
    /// Row of the states that hold what came before, where there are states.
    pub state: usize,
}

/// The runs of all samples, in order; they cover all positions.
pub struct Runs {
    /// The runs.
    pub all: Vec<Run>,
    marks: Vec<i64>,
    length: usize,
}

fn expect(name: &str, tensor: &Signature, sizes: &[usize]) -> Result<(), Why> {
    match tensor.sizes() == sizes {
        true => Ok(()),
        false => Err(format!("{name}: expected sizes {sizes:?}, got {:?}", tensor.sizes())),
    }
}

impl Causal {
    /// Checks x, weight, bias and the result of a request.
    pub fn of(request: &Request<'_>) -> Result<Causal, Why> {
        let (x, weight, result) = (request.operand(0)?, request.operand(1)?, request.result(0)?);
        let (&[batch, channels, length], &[_, width]) = (x.sizes(), weight.sizes()) else {
            return Err(format!("expected x of 3 and weight of 2 dimensions, got {x} and {weight}"));
        };
        expect("weight", weight, &[channels, width])?;
        expect("result", result, &[batch, channels, length])?;
        if width == 0 || !DType::ALL.contains(&x.dtype) || result.dtype != x.dtype {
            return Err(format!("expected floating numbers and a tap at least, got {x}, {weight} -> {result}"));
        }
        if ![x.dtype, x.dtype.accumulator()].contains(&weight.dtype) {
            return Err(format!("weight: expected {} or its accumulator, got {weight}", x.dtype.name()));
        }
        if let Some(bias) = request.operands.get(2).and_then(Option::as_ref) {
            expect("bias", bias, &[channels])?;
            if bias.dtype != weight.dtype {
                return Err(format!("bias: expected {}, got {bias}", weight.dtype.name()));
            }
        }
        let (silu, starts) = (request.settings.integer("silu")? != 0, request.settings.word("marks")? == "starts");
        Ok(Causal { batch, channels, length, width, silu, starts })
    }

    /// Checks states and marks too.
    pub fn with_runs(request: &Request<'_>) -> Result<Causal, Why> {
        let made = Causal::of(request)?;
        let given = |index: usize| request.operands.get(index).and_then(Option::as_ref);
        let mut runs = made.batch;
        if let Some(marks) = given(4) {
            if ![DType::I32, DType::I64].contains(&marks.dtype) {
                return Err(format!("marks: expected integers, got {marks}"));
            }
            if made.starts {
                expect("marks", marks, &[marks.elements()])?;
                runs = marks.elements().max(1) - 1;
            } else if given(3).is_some() {
                return Err("states: expected none beside marks of every position".into());
            } else {
                expect("marks", marks, &[made.batch, made.length])?;
            }
        }
        if let Some(states) = given(3) {
            expect("states", states, &[runs, made.channels, made.width - 1])?;
            if states.dtype != request.operand(0)?.dtype {
                return Err(format!("states: expected the numbers of x, got {states}"));
            }
        }
        Ok(made)
    }

    /// The runs of a request with or without marks.
    pub fn runs(&self, marks: Option<Tensor<'_>>) -> Runs {
        let plain = |(state, (start, end))| Run { sample: 0, start, end, silent: false, state };
        let (all, marks) = match marks.map(integers) {
            None => ((0..self.batch).map(|b| Run { sample: b, ..plain((b, (0, self.length))) }).collect(), Vec::new()),
            Some(starts) if self.starts => {
                let pairs = starts.windows(2).map(|pair| (pair[0] as usize, pair[1] as usize));
                (pairs.enumerate().map(plain).collect(), Vec::new())
            }
            Some(marks) => {
                let samples = marks.chunks_exact(self.length.max(1)).enumerate();
                (samples.flat_map(|(sample, marks)| marked(sample, marks)).collect(), marks)
            }
        };
        Runs { all, marks, length: self.length }
    }
}

fn marked(sample: usize, marks: &[i64]) -> Vec<Run> {
    let mut start = 0;
    let run = |same: &[i64]| {
        let from = start;
        start += same.len();
        Run { sample, start: from, end: start, silent: same[0] < 0, state: 0 }
    };
    marks.chunk_by(|a, b| a == b || *a < 0 && *b < 0).map(run).collect()
}

impl Runs {
    /// Whether position `at`, before a run, belongs to the same sequence after all.
    pub fn resumes(&self, run: &Run, at: usize) -> bool {
        let mark = |at: usize| self.marks.get(run.sample * self.length + at);
        mark(at).is_some() && mark(at) == mark(run.start)
    }

    /// Whether any position can belong to a sequence that was interrupted.
    pub fn may_resume(&self) -> bool {
        !self.marks.is_empty()
    }
}

/// The numbers of a tensor of integers, in order.
pub fn integers(tensor: Tensor<'_>) -> Vec<i64> {
    if tensor.dtype() == DType::I32 {
        let view = tensor.typed::<i32>();
        return positions(view.dims).map(|at| i64::from(view.at(at))).collect();
    }
    let view = tensor.typed::<i64>();
    positions(view.dims).map(|at| view.at(at)).collect()
}
