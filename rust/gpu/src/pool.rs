//! Pooling, the positions of extremes and the gradients of both, cuda/pool.cuh: what a thread takes.
//!
//! What it costs, worked out and not run on a device: a result of f32 with windows of 3 x 3 and stride 2 reads four
//! numbers and writes one, 20 bytes, or 4.7e-12 s of an H200 at 4.3 TB/s; its nine joins, two instructions each, are
//! 6e-13 s at 132 x 128 lanes and 1.75 GHz. With windows of k x k, stride 1 and r results to a thread a result is 8
//! bytes, 2 k joins and k (r + k - 1) / r loads from the caches, one a clock for each of 132 x 32 lanes: 1.9e-12 s of
//! memory are 14 loads, so memory bounds k = 5 and below, and loads what is larger. A gradient of extremes reads a
//! number and a position for every result and writes every input: 12 bytes, or 2.8e-12 s, where windows have stride 1.

use crate::depthwise::{Sweeps, axis_words, ceil_div, scalar};
use striate_core::pooling::{Mode, Pooling, is_channels_last};
use striate_core::recipe::{Unit, values};
use striate_core::{DType, DeviceOperation, Launch, Pass, Recipe, Request, Signature, Why, Word};

const fn row(name: &'static str, op: &'static str, note: &'static str) -> DeviceOperation {
    DeviceOperation { name, op, dtypes: &DType::ALL, supports, compile, note }
}

/// The row of numbers made of windows, and of its transpose where they are sums.
pub const POOL: DeviceOperation =
    row("cuda.pool", "pool", "neighbouring results of a thread share what is joined across their axis");
/// The row of positions.
pub const ARGMAX: DeviceOperation =
    row("cuda.pool_argmax", "pool_argmax", "as cuda.pool, with its position beside every number");
/// The row of the gradients of extremes.
pub const SCATTER: DeviceOperation = row(
    "cuda.pool_scatter",
    "pool_scatter",
    "every number looks up the windows that it is in; nothing is added atomically",
);
/// The row of their tangents.
pub const GATHER: DeviceOperation = DeviceOperation {
    supports: |request| Places::of(request).map(|_| ()),
    compile: gather,
    ..row("cuda.pool_gather", "pool_gather", "a thread for every position")
};

const THREADS: i64 = 128;
/// Threads that a multiprocessor holds at least, which leaves each so many registers that none is spilled.
const RESIDENT: u32 = 512;
/// Joins that a thread keeps at once, in registers of four bytes.
const KEPT: i64 = 48;
/// Taps that are joined at once along the axis of a thread's results.
const TAPS: i64 = 16;

/// Whether channels are innermost; the tensors have the same order.
fn order(tensors: &[&Signature]) -> Result<bool, Why> {
    // A tensor of one position is the same in both orders.
    let last = |t: &&Signature| is_channels_last(t) || t.sizes()[2..].iter().all(|&n| n == 1) && t.is_contiguous();
    match tensors.iter().all(|tensor| tensor.is_contiguous()) {
        true => Ok(false),
        false if tensors.iter().all(last) => Ok(true),
        false => Err("expected dense tensors in the same memory order".into()),
    }
}

fn small(tensors: &[&Signature]) -> Result<(), Why> {
    match tensors.iter().map(|t| t.sizes()[1..].iter().product()).find(|&sample: &usize| sample >= 1 << 31) {
        Some(sample) => Err(format!("takes samples of less than 2^31 elements, got {sample}")),
        None => Ok(()),
    }
}

fn is_place(dtype: DType) -> bool {
    [DType::I32, DType::I64].contains(&dtype)
}

fn supports(request: &Request<'_>) -> Result<(), Why> {
    Pooling::of(request)?;
    let (numbers, result) = (request.operand(0)?, request.result(0)?);
    let mut all = vec![numbers, result];
    match request.op {
        "pool_argmax" if !is_place(result.dtype) => return Err(format!("result: expected integers, got {result}")),
        "pool_scatter" => {
            let places = request.operand(1)?;
            if places.sizes() != numbers.sizes() || !is_place(places.dtype) {
                return Err(format!("indices: expected integers like {numbers}, got {places}"));
            }
            all.push(places);
        }
        _ => {}
    }
    if request.op != "pool_argmax" && result.dtype != numbers.dtype {
        return Err(format!("result: expected {}, got {result}", numbers.dtype.name()));
    }
    order(&all)?;
    small(&all)?;
    // A block has more than one item, so this bounds the blocks as well.
    match Plan::of(request)?.recipe(request).launches.iter().find_map(|launch| match launch.words[3] {
        Word::Value(items) if items >= 1 << 32 => Some(items),
        _ => None,
    }) {
        Some(items) => Err(format!("takes less than 2^32 threads, this needs {items}")),
        None => Ok(()),
    }
}

fn compile(request: &Request<'_>) -> Recipe {
    // `supports` has made the same.
    Plan::of(request).map_or_else(|_| Recipe::default(), |plan| plan.recipe(request))
}

/// A request in the terms of the kernel text.
struct Plan {
    pooling: Pooling,
    last: bool,
    task: i64,
    numbers: DType,
    places: DType,
    divide: i64,
    divisor: i64,
}

impl Plan {
    fn of(request: &Request<'_>) -> Result<Plan, Why> {
        let pooling = Pooling::of(request)?;
        let (numbers, result) = (request.operand(0)?, request.result(0)?);
        let last = order(&[numbers, result])?;
        let (task, places) = match request.op {
            "pool_argmax" => (1, result.dtype),
            "pool_scatter" => (2, request.operand(1)?.dtype),
            _ => (0, DType::I32),
        };
        let (divide, divisor) = match pooling.mode {
            Mode::Avg => {
                let by = pooling.divisors();
                let first = by.each_ref().map(|axis| axis.first().copied().unwrap_or(1.0));
                let same = by.iter().zip(first).all(|(axis, first)| axis.iter().all(|&one| one == first));
                if same { (1, first.iter().product::<f64>() as i64) } else { (2, 1) }
            }
            _ => (0, 1),
        };
        Ok(Plan { pooling, last, task, numbers: numbers.dtype, places, divide, divisor })
    }

    fn recipe(&self, request: &Request<'_>) -> Recipe {
        let portions = self.pooling.axes.each_ref().map(|axis| Sweeps::portions(axis, self.pooling.pass));
        let mut launches = Vec::new();
        for a0 in &portions[0] {
            for a1 in &portions[1] {
                for a2 in &portions[2] {
                    launches.push(self.launch(request, [a0, a1, a2]));
                }
            }
        }
        Recipe { launches, workspace: 0 }
    }

    /// Sizes of the tensor that is read, or of the one that is written.
    fn sizes(&self, produced: bool) -> [i64; 3] {
        let Pooling { axes, pass, .. } = &self.pooling;
        axes.each_ref().map(|axis| if produced { axis.extent(*pass) } else { axis.source(*pass) })
    }

    /// `Planes` of the kernel text.
    fn planes(&self, produced: bool) -> [i64; 5] {
        let sizes @ [a, b, c] = self.sizes(produced);
        let step = if self.last { self.pooling.channels as i64 } else { 1 };
        [sizes.iter().product::<i64>() * step, step, a, b, c]
    }

    fn launch(&self, request: &Request<'_>, sweeps: [&Sweeps; 3]) -> Launch {
        let share = Share::new(self, sweeps);
        let Pooling { batch, channels, mode, pass, .. } = self.pooling;
        let (packs, outer) = match self.last {
            true => (channels as i64 / share.vec, batch as i64),
            false => (1, (batch * channels) as i64),
        };
        let along = |axis: usize| if (axis == 1) == share.rows { share.r } else { 1 };
        let tiles = [sweeps[0].outs(), ceil_div(sweeps[1].outs(), along(1)), ceil_div(sweeps[2].outs(), along(2))];
        let counts = sweeps.map(|sweeps| sweeps.len() as i64);
        let items = packs * outer * tiles.iter().chain(&counts).product::<i64>();
        let places = if request.operands.len() > 1 { Word::Operand(1) } else { Word::Value(0) };
        let mut words = vec![Word::Operand(0), places, Word::Result(0)];
        words.extend(values([items, packs].into_iter().chain(tiles)));
        words.extend(values(self.planes(false).into_iter().chain(self.planes(true))));
        words.extend(values([self.divisor]));
        words.extend(values(self.pooling.counted().iter().flat_map(axis_words)));
        let most = counts.into_iter().max().unwrap_or(1) as usize;
        for sweeps in sweeps {
            words.extend(values(sweeps.words(most)));
        }
        let join = match mode {
            Mode::Max => 1,
            Mode::Min => 2,
            Mode::Sum | Mode::Avg => 0,
        };
        let unit = Unit {
            header: "pool.cuh",
            arguments: &format!("PoolArgs<{most}>"),
            function: "pool<K>",
            types: &[("T", scalar(self.numbers)), ("I", scalar(self.places))],
            constants: &[
                ("task", self.task),
                ("join", join),
                ("divide", self.divide),
                ("transposed", i64::from(pass == Pass::Dx)),
                ("last", i64::from(self.last)),
                ("vec", share.vec),
                ("rows", i64::from(share.rows)),
                ("r", share.r),
                ("c", share.c),
                ("kept", share.kept()),
                ("unit", share.unit),
                ("s", share.s),
                ("d", share.d),
                ("w0", counts[0]),
                ("w1", counts[1]),
                ("w2", counts[2]),
            ],
        };
        launch(&unit, items, words)
    }
}

fn launch(unit: &Unit<'_>, items: i64, words: Vec<Word>) -> Launch {
    let block = THREADS as u32;
    let source = unit.source(block, RESIDENT, words.len());
    let grid = u32::try_from(ceil_div(items, THREADS)).unwrap_or(u32::MAX);
    Launch { source, grid, block, shared: 0, words }
}

/// What a thread takes; the names are those of the struct `K` in the kernel text.
struct Share {
    rows: bool,
    vec: i64,
    r: i64,
    c: i64,
    unit: i64,
    s: i64,
    d: i64,
}

impl Share {
    fn new(plan: &Plan, [_, a1, a2]: [&Sweeps; 3]) -> Share {
        let rows = !plan.last && (a1.outs() > 1 || a1.taps() > 1);
        let along = if rows { a1 } else { a2 };
        let bytes = plan.numbers.size().max(if plan.task == 0 { 1 } else { plan.places.size() }) as i64;
        let power = |n: i64| 1 << n.trailing_zeros().min(3);
        let most = if plan.last { power(plan.pooling.channels as i64).min(16 / bytes) } else { 1 };
        let taps = along.taps();
        let mut share = Share { rows, vec: most, r: 1, c: ceil_div(taps, ceil_div(taps, TAPS)), unit: 1, s: 0, d: 1 };
        // Registers of a number that is kept.
        let each = plan.numbers.accumulator().size() as i64 / 4 + i64::from(plan.task != 0);
        while share.c * share.vec * each > KEPT && share.vec > 1 {
            share.vec /= 2;
        }
        while share.c * share.vec * each > KEPT {
            share.c = ceil_div(share.c, 2);
        }
        // Neighbours along columns do not share a warp's loads: threads lie there already.
        // Divisors of their own take registers too.
        let bytes = if plan.divide == 2 { 16 } else { 32 };
        let most = if rows || plan.last { bytes / plan.numbers.accumulator().size() as i64 } else { 1 };
        for r in [2, 4, 8] {
            let wider = share.holding(r, along.steps());
            let fits = wider.kept() <= r * share.c && wider.kept() * share.vec * each <= KEPT;
            if r <= most && r < 2 * along.outs() && fits && r * share.vec * each <= KEPT {
                share.r = r;
            }
        }
        share.holding(share.r, along.steps())
    }

    /// With so many results, of windows whose sources and taps lie so far apart.
    fn holding(&self, r: i64, (step, reach): (i64, i64)) -> Share {
        let (s, d) = (if r > 1 { step } else { 0 }, if self.c > 1 { reach } else { 0 });
        let unit = gcd(s, d).max(1);
        Share { r, unit, s: s / unit, d: d / unit, ..*self }
    }

    fn kept(&self) -> i64 {
        (self.r - 1) * self.s + (self.c - 1) * self.d + 1
    }
}

fn gcd(a: i64, b: i64) -> i64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// A request to gather, in the terms of the kernel text.
struct Places {
    channels: i64,
    positions: i64,
    size: i64,
    items: i64,
}

impl Places {
    fn of(request: &Request<'_>) -> Result<Places, Why> {
        let (numbers, places, result) = (request.operand(0)?, request.operand(1)?, request.result(0)?);
        if places.sizes() != result.sizes() || !is_place(places.dtype) {
            return Err(format!("indices: expected integers of size {:?}, got {places}", result.sizes()));
        }
        if numbers.dtype != result.dtype || !DType::ALL.contains(&numbers.dtype) {
            return Err(format!("result: expected floating numbers like {numbers}, got {result}"));
        }
        if numbers.rank < 3 || numbers.rank != result.rank || numbers.sizes()[..2] != result.sizes()[..2] {
            return Err(format!("result: expected the samples and channels of {numbers}, got {result}"));
        }
        let last = order(&[numbers, places, result])?;
        let spatial = |t: &Signature| t.sizes()[2..].iter().product::<usize>() as i64;
        let channels = if last { numbers.sizes()[1] as i64 } else { 1 };
        let items = result.elements() as i64;
        if items >= 1 << 32 {
            return Err(format!("takes less than 2^32 positions, got {items}"));
        }
        Ok(Places { channels, positions: spatial(result), size: spatial(numbers), items })
    }
}

fn gather(request: &Request<'_>) -> Recipe {
    let (Ok(of), Some(numbers), Some(places)) = (Places::of(request), &request.operands[0], &request.operands[1])
    else {
        return Recipe::default();
    };
    let mut words = vec![Word::Operand(0), Word::Operand(1), Word::Result(0)];
    words.extend(values([of.items, of.channels, of.positions, of.size]));
    let unit = Unit {
        header: "pool.cuh",
        arguments: "GatherArgs",
        function: "pool_gather<K>",
        types: &[("T", scalar(numbers.dtype)), ("I", scalar(places.dtype))],
        constants: &[],
    };
    Recipe { launches: vec![launch(&unit, of.items, words)], workspace: 0 }
}
