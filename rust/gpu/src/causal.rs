//! The causal convolution and its steps, cuda/causal.cuh: which positions and channels a thread takes.

use crate::depthwise::{ceil_div, scalar};
use striate_core::causal::Causal;
use striate_core::recipe::{Unit, values};
use striate_core::{DType, DeviceOperation, Launch, Recipe, Request, Signature, Why, Word};

/// The row of whole sequences.
pub const CAUSAL: DeviceOperation = DeviceOperation {
    name: "cuda.causal",
    op: "causal",
    dtypes: &DType::ALL,
    supports: |request| {
        let sizes = Causal::with_runs(request)?;
        if request.operands.get(4).is_some_and(Option::is_some) && sizes.length > 0 && sequences(request) == Some(0) {
            return Err("marks: expected the start of a sequence at least".into());
        }
        fits(&sizes, Shape::new(request, &sizes).items(&sizes))
    },
    compile: forward,
    note: "some neighbouring positions of a channel, or of several, to a thread; any strides, states, packed sequences",
};

/// The row of steps.
pub const UPDATE: DeviceOperation = DeviceOperation {
    name: "cuda.causal_update",
    op: "causal_update",
    dtypes: &DType::ALL,
    supports: |request| {
        let (sizes, state) = (Causal::of(request)?, request.result(1)?);
        let memory = *request.operand(0)?;
        if state.rank != 3 || state.sizes()[1] != sizes.channels || state.dtype != memory.dtype {
            return Err(format!("state: expected {} channels of {memory}, got {state}", sizes.channels));
        }
        if state.sizes()[2] + 1 < sizes.width {
            return Err(format!("state: expected {} steps at least, got {state}", sizes.width - 1));
        }
        fits(&sizes, (sizes.batch * sizes.channels) as i64)
    },
    compile: update,
    note: "a thread for each channel of each sample, which alone reads and writes its line of the state",
};

const THREADS: i64 = 128;
/// Threads that a multiprocessor holds at least, which leaves each so many registers that none is spilled.
const RESIDENT: u32 = 512;
/// What registers hold.
const MOST_TAPS: usize = 17;

fn fits(sizes: &Causal, items: i64) -> Result<(), Why> {
    if sizes.width > MOST_TAPS {
        return Err(format!("takes at most {MOST_TAPS} taps, got {}", sizes.width));
    }
    match ceil_div(items, THREADS) {
        blocks if blocks < 1 << 31 => Ok(()),
        blocks => Err(format!("takes at most 2^31 - 1 blocks, this needs {blocks}")),
    }
}

fn sequences(request: &Request<'_>) -> Option<i64> {
    let starts = request.settings.word("marks") == Ok("starts");
    let marks = request.operands.get(4)?.as_ref()?;
    starts.then(|| marks.elements() as i64 - 1)
}

/// What a thread takes; the names are those of the struct `K` in the kernel text.
struct Shape {
    steps: i64,
    lanes: i64,
}

impl Shape {
    fn new(request: &Request<'_>, sizes: &Causal) -> Shape {
        let x = request.operands[0].as_ref();
        let (bytes, last) = x.map_or((4, false), |x| (x.dtype.size() as i64, x.strides[4] == 1 && x.strides[5] != 1));
        if last && sizes.channels > 1 {
            return Shape { steps: 8, lanes: (8 / bytes).max(2) };
        }
        Shape { steps: 16 / bytes, lanes: 1 }
    }

    fn chunks(&self, sizes: &Causal) -> i64 {
        ceil_div(sizes.length as i64, self.steps)
    }

    fn groups(&self, sizes: &Causal) -> i64 {
        ceil_div(sizes.channels as i64, self.lanes)
    }

    fn items(&self, sizes: &Causal) -> i64 {
        sizes.batch as i64 * self.chunks(sizes) * self.groups(sizes)
    }
}

/// `Steps` of the kernel text: the strides of the last three dimensions, those that are missing 0.
fn steps(tensor: Option<&Signature>) -> [i64; 3] {
    tensor.map_or([0; 3], |t| [t.strides[3], t.strides[4], t.strides[5]].map(|stride| stride as i64))
}

fn operand<'a>(request: &'a Request<'_>, index: usize) -> Option<&'a Signature> {
    request.operands.get(index).and_then(Option::as_ref)
}

fn kind(tensor: Option<&Signature>, absent: DType) -> &'static str {
    scalar(tensor.map_or(absent, |tensor| tensor.dtype))
}

fn launch(unit: &Unit<'_>, items: i64, words: Vec<Word>) -> Recipe {
    let block = THREADS as u32;
    let source = unit.source(block, RESIDENT, words.len());
    let grid = u32::try_from(ceil_div(items, THREADS)).unwrap_or(u32::MAX);
    Recipe { launches: vec![Launch { source, grid, block, shared: 0, words }], workspace: 0 }
}

fn forward(request: &Request<'_>) -> Recipe {
    // `supports` has made the same.
    let Ok(sizes) = Causal::with_runs(request) else { return Recipe::default() };
    let shape = Shape::new(request, &sizes);
    let [x, weight, bias, states, marks] = [0, 1, 2, 3, 4].map(|index| operand(request, index));
    let mut words: Vec<Word> = (0..5).map(Word::Operand).collect();
    words.push(Word::Result(0));
    words.extend(values([sizes.batch as i64, sizes.channels as i64, sizes.length as i64]));
    words.extend(values([sequences(request).unwrap_or(0), shape.chunks(&sizes), shape.groups(&sizes)]));
    let [_, by_sample, by_position] = steps(marks);
    words.extend(values(
        [steps(x), steps(request.results.first()), steps(weight), steps(states), [by_sample, 0, by_position]].concat(),
    ));
    words.extend(values([steps(bias)[2]]));
    let unit = Unit {
        header: "causal.cuh",
        arguments: "CausalArgs",
        function: "causal_forward<K>",
        types: &[("T", kind(x, DType::F32)), ("W", kind(weight, DType::F32)), ("I", kind(marks, DType::I64))],
        constants: &[
            ("width", sizes.width as i64),
            ("steps", shape.steps),
            ("lanes", shape.lanes),
            ("marks", marks.map_or(0, |_| if sequences(request).is_some() { 1 } else { 2 })),
            ("silu", i64::from(sizes.silu)),
        ],
    };
    launch(&unit, shape.items(&sizes), words)
}

fn update(request: &Request<'_>) -> Recipe {
    let Ok(sizes) = Causal::of(request) else { return Recipe::default() };
    let [x, weight, bias, at, rows] = [0, 1, 2, 3, 4].map(|index| operand(request, index));
    let state = request.results.get(1);
    let mut words: Vec<Word> = (0..5).map(Word::Operand).collect();
    words.extend([Word::Result(0), Word::Result(1)]);
    words.extend(values([sizes.batch as i64, sizes.channels as i64, sizes.length as i64]));
    words.extend(values([state.map_or(0, |state| state.dims[5] as i64)]));
    words.extend(values([steps(x), steps(request.results.first()), steps(weight), steps(state)].concat()));
    words.extend(values([steps(bias)[2], steps(at)[2], steps(rows)[2]]));
    let unit = Unit {
        header: "causal.cuh",
        arguments: "UpdateArgs",
        function: "causal_update<K>",
        types: &[
            ("T", kind(x, DType::F32)),
            ("W", kind(weight, DType::F32)),
            ("I", kind(at, DType::I64)),
            ("R", kind(rows, DType::I64)),
        ],
        constants: &[
            ("width", sizes.width as i64),
            ("marks", i64::from(at.is_some())),
            ("silu", i64::from(sizes.silu)),
        ],
    };
    launch(&unit, (sizes.batch * sizes.channels) as i64, words)
}
