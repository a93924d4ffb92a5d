//! Depthwise convolution by direct summation, cuda/depthwise.cuh: how a problem is cut into tiles.

use crate::placed::Placed;
use striate_core::recipe::{Unit, values};
use striate_core::{Axis, DType, Kernel, Launch, Layout, Pass, Problem, Recipe, Role, Sweep, Why, Word};

/// The row of the kernel table.
pub const ROW: Kernel<Recipe> = Kernel {
    name: "cuda.direct",
    op: "conv",
    passes: &[Pass::Fwd, Pass::Dx, Pass::Dw],
    layouts: &[Layout::Nchw, Layout::Nhwc],
    isa: "cuda",
    available: || true,
    supports,
    compile,
    note: "tiles of planes or channels in shared memory, results in registers; deterministic split of the weight gradient",
};

/// Shared memory a block may use without asking, less what the system keeps.
const SHARED: i64 = 47 * 1024;
/// Sweeps of an axis that one launch serves, see [`Axis::sweep`].
const SWEEPS: i64 = 4;
/// Threads that a multiprocessor holds at least, which leaves each so many registers that none is spilled.
fn resident(accumulator: DType, threads: u32) -> u32 {
    if accumulator == DType::F64 { threads / 2 } else { threads }
}
/// Blocks of a weight gradient that fill a device.
const BLOCKS: i64 = 1024;

fn supports(problem: &Problem) -> Result<(), Why> {
    let g = &problem.geometry;
    if !g.is_depthwise() {
        return Err(format!("takes one input channel per group, got {}", g.c_in()));
    }
    for role in [Role::Input, Role::Output] {
        let sample: usize = g.dims(role)[1..].iter().product();
        if sample >= 1 << 31 {
            return Err(format!("takes samples of less than 2^31 elements, got {sample}"));
        }
    }
    let blocks = compile(problem).launches.iter().map(|launch| u64::from(launch.grid)).max();
    match blocks {
        Some(0..=0x7fff_ffff) | None => Ok(()),
        Some(many) => Err(format!("takes at most 2^31 - 1 blocks, this needs {many}")),
    }
}

fn compile(problem: &Problem) -> Recipe {
    compile_placed(&Placed::whole(problem))
}

/// The recipe of a problem somewhere.
pub fn compile_placed(problem: &Placed<'_>) -> Recipe {
    match problem.pass {
        Pass::Fwd | Pass::Dx => produce(problem),
        Pass::Dw => weigh(problem),
    }
}

/// The C++ type of a storage type.
pub fn scalar(dtype: DType) -> &'static str {
    match dtype {
        DType::F32 => "float",
        DType::F64 => "double",
        DType::Bf16 => "Bfloat",
        DType::F16 => "Half",
        DType::I32 => "int",
        DType::I64 => "i64",
    }
}

/// Rounds up; the divisor is positive.
pub fn ceil_div(a: i64, b: i64) -> i64 {
    (a + b - 1) / b
}

/// The least power of two from `low` to `high` that reaches `size`, else `high`.
fn power(size: i64, low: i64, high: i64) -> i64 {
    low.max(1i64 << (64 - (size.max(1) - 1).leading_zeros())).min(high)
}

/// `Places` of the kernel text: steps of sample, channel and position, and spatial sizes.
fn places(problem: &Placed<'_>, role: Role) -> [i64; 6] {
    let (strides, dims) = (problem.strides(role).map(|s| s as i64), problem.geometry.dims(role).map(|d| d as i64));
    [strides[0], strides[2], strides[5], dims[3], dims[4], dims[5]]
}

/// `Sweep` of the kernel text.
pub fn sweep_words(sweep: &Sweep) -> [i64; 9] {
    let &Sweep { out0, out_step, outs, src0, src_step, reach_step, tap0, tap_step, taps } = sweep;
    [out0, out_step, outs, src0, src_step, reach_step, tap0, tap_step, taps]
}

/// `Axis` of the kernel text.
pub fn axis_words(axis: &Axis) -> [i64; 7] {
    let (lo, hi) = axis.pad();
    [axis.input(), axis.kernel(), axis.output(), axis.stride(), axis.dilation(), lo, hi]
}

/// The sweeps of one axis that a launch serves.
pub struct Sweeps(Vec<Sweep>);

impl Sweeps {
    /// All sweeps of an axis, in portions.
    pub fn portions(axis: &Axis, pass: Pass) -> Vec<Sweeps> {
        let all: Vec<Sweep> = (0..axis.sweep_count(pass)).map(|index| axis.sweep(pass, index)).collect();
        all.chunks(SWEEPS as usize).map(|part| Sweeps(part.to_vec())).collect()
    }
    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }
    /// Results of the longest.
    pub fn outs(&self) -> i64 {
        self.0.iter().map(|sweep| sweep.outs).max().unwrap_or(0)
    }
    /// Taps of the longest, at least 1.
    pub fn taps(&self) -> i64 {
        self.0.iter().map(|sweep| sweep.taps).max().unwrap_or(0).max(1)
    }
    /// Distances in the source of neighbouring results and of neighbouring taps, which sweeps of an axis share. A
    /// sweep without taps has none to state.
    pub fn steps(&self) -> (i64, i64) {
        let sweep = self.0.iter().find(|sweep| sweep.taps > 0).unwrap_or(&self.0[0]);
        (sweep.src_step, sweep.reach_step)
    }
    /// `Sweep[most]` of the kernel text.
    pub fn words(&self, most: usize) -> impl Iterator<Item = i64> {
        let known = self.0.iter().flat_map(sweep_words);
        known.chain(std::iter::repeat(0)).take(9 * most)
    }
}

/// How a block of `produce` is cut; the names are those of the struct `K` in the kernel text.
struct Cut {
    reg: i64,
    planes: i64,
    n: [i64; 2],
    r: i64,
    c: [i64; 2],
    steps: [(i64, i64); 2],
}

impl Cut {
    fn new(last: bool, channels: i64, a1: &Sweeps, a2: &Sweeps) -> Cut {
        let steps = [a1.steps(), a2.steps()];
        let (outs1, outs2, taps1, taps2) = (a1.outs(), a2.outs(), a1.taps(), a2.taps());
        let mut cut = if last {
            let planes = power(channels, 1, 32);
            let n2 = power(ceil_div(outs2, 8), 1, 8);
            let n1 = power(outs1, ceil_div(32, planes * n2), (256 / (planes * n2)).max(1));
            Cut { reg: 2, planes, n: [n1, n2], r: outs2.clamp(1, 8), c: [taps1.min(16), taps2.min(16)], steps }
        } else if taps1 == 1 {
            let n2 = power(ceil_div(outs2, 15), 1, 32);
            // An odd number of neighbours for each lane: their loads meet different banks.
            let r = ceil_div(outs2, n2).clamp(1, 15) | 1;
            let n1 = power(outs1, 1, (128 / n2).min(16));
            let planes = power(channels, ceil_div(32, n1 * n2), 128 / (n1 * n2));
            Cut { reg: 2, planes, n: [n1, n2], r, c: [1, taps2.min(16)], steps }
        } else {
            let n2 = power(outs2, 1, 32);
            let n1 = power(ceil_div(outs1, 8), 1, (128 / n2).min(8));
            let planes = power(channels, ceil_div(32, n1 * n2), 128 / (n1 * n2));
            Cut { reg: 1, planes, n: [n1, n2], r: outs1.clamp(1, 8), c: [taps1.min(16), taps2.min(32)], steps }
        };
        while cut.shared(8) > SHARED {
            cut.shrink();
        }
        cut
    }

    fn threads(&self) -> i64 {
        self.planes * self.n[0] * self.n[1]
    }

    /// Results of a block along an axis.
    fn outs(&self, axis: usize) -> i64 {
        self.n[axis] * if self.reg == axis as i64 + 1 { self.r } else { 1 }
    }

    /// Source positions of a tile along an axis.
    fn extent(&self, axis: usize) -> i64 {
        let (s, d) = self.steps[axis];
        (self.outs(axis) - 1) * s + (self.c[axis] - 1) * d + 1
    }

    fn shared(&self, bytes: i64) -> i64 {
        self.planes * (self.extent(0) * self.extent(1) + self.c[0] * self.c[1]) * bytes
    }

    /// Gives up what costs the most memory: taps of the wider reach, then planes, then threads, but for a warp's.
    fn shrink(&mut self) {
        let reach = |axis: usize| (self.c[axis] - 1) * self.steps[axis].1;
        let wide = usize::from(reach(1) > reach(0));
        if reach(wide) > self.outs(wide) * self.steps[wide].0 {
            self.c[wide] = ceil_div(self.c[wide], 2);
        } else if self.planes > 1 && self.threads() > 32 {
            self.planes /= 2;
        } else if self.n[0] * self.n[1] > 1 {
            let more = usize::from(self.n[1] > self.n[0]);
            self.n[more] /= 2;
            self.planes *= if self.threads() < 32 { 2 } else { 1 };
        } else if self.c[wide] > 1 {
            self.c[wide] = ceil_div(self.c[wide], 2);
        } else {
            self.r = (self.r / 2).max(1);
        }
    }
}

fn produce(problem: &Placed<'_>) -> Recipe {
    let (g, last) = (&problem.geometry, problem.layout == Layout::Nhwc);
    let (channels, spread, joins) = match problem.pass {
        Pass::Fwd => (g.groups() * g.c_out(), g.c_out(), 1),
        _ => (g.groups(), 1, g.c_out()),
    };
    let portions = g.axes().each_ref().map(|axis| Sweeps::portions(axis, problem.pass));
    let mut made = Recipe::default();
    for a0 in &portions[0] {
        for a1 in &portions[1] {
            for a2 in &portions[2] {
                let part = produce_portion(problem, (channels, spread, joins), [a0, a1, a2], last);
                made.launches.extend(part.launches);
                // Of the moments of a forward pass, which is one portion.
                made.workspace = part.workspace;
            }
        }
    }
    made
}

fn produce_portion(
    problem: &Placed<'_>,
    (channels, spread, joins): (i64, i64, i64),
    sweeps: [&Sweeps; 3],
    last: bool,
) -> Recipe {
    let [a0, a1, a2] = sweeps;
    let cut = Cut::new(last, channels, a1, a2);
    let g = &problem.geometry;
    let [first, _, out] = Role::of(problem.pass);
    let blocks = ceil_div(channels, cut.planes);
    let tiles = [a0.outs(), ceil_div(a1.outs(), cut.outs(0)), ceil_div(a2.outs(), cut.outs(1))];
    let most = sweeps.map(Sweeps::len).into_iter().max().unwrap_or(1);
    let mut words = vec![Word::Operand(0), Word::Operand(1), Word::Operand(2), Word::Result(0)];
    words.extend(values(places(problem, first)));
    words.extend(values(places(problem, out)));
    words.extend(values([channels, blocks, spread, joins]));
    words.extend(values(g.axes().each_ref().map(Axis::kernel)));
    words.extend(values(sweeps.map(|sweeps| sweeps.len() as i64)));
    words.extend(values(tiles));
    for sweeps in sweeps {
        words.extend(values(sweeps.words(most)));
    }
    let slots = g.batch() * tiles.iter().product::<i64>();
    words.extend(problem.moment_words(slots));
    let [(s1, d1), (s2, d2)] = cut.steps;
    let unit = Unit {
        header: "depthwise.cuh",
        arguments: &problem.arguments(&format!("ProduceArgs<{most}>")),
        function: "depthwise_produce<K>",
        types: &[("T", scalar(problem.dtype)), ("W", scalar(problem.weight_dtype))],
        constants: &[
            ("last", i64::from(last)),
            ("reg", cut.reg),
            ("planes", cut.planes),
            ("n1", cut.n[0]),
            ("n2", cut.n[1]),
            ("r", cut.r),
            ("s1", s1),
            ("d1", d1),
            ("s2", s2),
            ("d2", d2),
            ("c1", cut.c[0]),
            ("c2", cut.c[1]),
        ],
    };
    let block = cut.threads() as u32;
    let sweeps: i64 = sweeps.iter().map(|sweeps| sweeps.len() as i64).product();
    let grid = (sweeps * tiles.iter().product::<i64>() * blocks).saturating_mul(g.batch());
    let launch = Launch {
        source: unit.source(block, resident(problem.dtype.accumulator(), 768), words.len()),
        grid: u32::try_from(grid).unwrap_or(u32::MAX),
        block,
        shared: cut.shared(problem.dtype.accumulator().size() as i64) as u32,
        words,
    };
    Recipe { launches: vec![launch], workspace: problem.workspace(slots) }
}

/// How a block of `weigh` is cut; the names are those of the struct `K` in the kernel text.
struct Share {
    reg: i64,
    planes: i64,
    lanes2: i64,
    r: i64,
    t: i64,
    units: i64,
    warps: i64,
    c: [i64; 2],
    o: [i64; 2],
    steps: [(i64, i64); 2],
}

impl Share {
    fn new(last: bool, axes: [&Axis; 2]) -> Share {
        let steps = axes.map(|axis| (axis.stride(), axis.dilation()));
        let [(k1, outs1), (k2, outs2)] = axes.map(|axis| (axis.kernel(), axis.output()));
        let warps = 4;
        let mut share = if !last && k1 > 1 {
            let r = ceil_div(k1, ceil_div(k1, 12));
            let units = ceil_div(k2, warps).min((48 / r).max(1));
            let (lanes2, t) = (power(outs2, 4, 32), power(outs1, 4, 16));
            let c = [r, k2.min(units * warps)];
            Share { reg: 1, planes: 32 / lanes2, lanes2, r, t, units, warps, c, o: [t, lanes2], steps }
        } else {
            let r = ceil_div(k2, ceil_div(k2, if last { 8 } else { 16 }));
            let groups = if k1 > 1 { 1 } else { ceil_div(k2, r).min(8) };
            let units = ceil_div(groups * k1, warps).min(if last { 6 } else { 3 });
            let c = [if k1 > 1 { k1.min(units * warps) } else { 1 }, r * groups];
            if last {
                let t = outs2.clamp(1, 8);
                let o = [outs1.min(4), t];
                Share { reg: 2, planes: 32, lanes2: 1, r, t, units, warps, c, o, steps }
            } else {
                let lanes2 = power(ceil_div(outs2, 15), 1, 32);
                let t = ceil_div(outs2, lanes2).clamp(1, 15) | 1;
                let o = [outs1.min(4), lanes2 * t];
                Share { reg: 2, planes: 32 / lanes2, lanes2, r, t, units, warps, c, o, steps }
            }
        };
        while share.shared(8) > SHARED {
            share.shrink(last);
        }
        share
    }

    fn extent(&self, axis: usize) -> i64 {
        let (s, d) = self.steps[axis];
        (self.o[axis] - 1) * s + (self.c[axis] - 1) * d + 1
    }

    fn shared(&self, bytes: i64) -> i64 {
        self.planes * (self.extent(0) * self.extent(1) + self.o[0] * self.o[1]) * bytes
    }

    /// Gives up taps across, groups of taps, rows, neighbours, and last lanes along
    /// the columns for lanes along samples: in each step the first of them that is left.
    fn shrink(&mut self, last: bool) {
        let (along, across) = (self.reg as usize - 1, 2 - self.reg as usize);
        if self.c[across] > 1 {
            self.c[across] = ceil_div(self.c[across], 2);
        } else if self.c[along] > self.r {
            self.c[along] = ceil_div(self.c[along] / self.r, 2) * self.r;
        } else if self.r > 1 {
            self.r = ceil_div(self.r, 2);
            self.c[along] = self.r;
        } else if self.reg == 2 && self.o[0] > 1 {
            self.o[0] = ceil_div(self.o[0], 2);
        } else if self.t > 1 {
            self.t = if last || self.reg == 1 { self.t / 2 } else { (self.t / 2) | 1 };
            self.o[along] = self.t * if self.reg == 2 { self.lanes2 } else { 1 };
        } else {
            self.lanes2 /= 2;
            self.planes *= 2;
            self.o[1] = self.lanes2 * if self.reg == 2 { self.t } else { 1 };
        }
        let groups = self.c[along] / self.r;
        self.units = ceil_div(groups * self.c[across], self.warps);
    }
}

fn weigh(problem: &Placed<'_>) -> Recipe {
    let (g, last) = (&problem.geometry, problem.layout == Layout::Nhwc);
    let [a0, a1, a2] = g.axes();
    let share = Share::new(last, [a1, a2]);
    let channels = g.groups() * g.c_out();
    let blocks = if last { ceil_div(channels, share.planes) } else { channels };
    let chunks = [ceil_div(a1.kernel(), share.c[0]), ceil_div(a2.kernel(), share.c[1])];
    let tiles = [ceil_div(a1.output(), share.o[0]), ceil_div(a2.output(), share.o[1])];
    let samples = if last { g.batch() } else { ceil_div(g.batch(), share.planes) };
    let items = samples * a0.output() * tiles[0] * tiles[1];
    let together = chunks[0] * chunks[1] * a0.kernel() * blocks;
    let splits = ceil_div(BLOCKS, together).clamp(1, items.clamp(1, 256));
    let kernel: i64 = g.axes().iter().map(Axis::kernel).product();
    let accumulator = problem.dtype.accumulator();

    let mut words = vec![Word::Operand(0), Word::Operand(1), Word::Workspace(0)];
    words.extend(values(places(problem, Role::Output)));
    words.extend(values(places(problem, Role::Input)));
    words.extend(values([channels, blocks, g.c_out(), g.batch()]));
    words.extend(values([chunks[0], chunks[1], tiles[0], tiles[1], splits]));
    words.extend(values(g.axes().iter().flat_map(axis_words)));
    words.extend(values([a1, a2].iter().flat_map(|axis| sweep_words(&axis.sweep(Pass::Fwd, 0)))));
    let [(s1, d1), (s2, d2)] = share.steps;
    let unit = Unit {
        header: "depthwise.cuh",
        arguments: "WeighArgs",
        function: "depthwise_weigh<K>",
        types: &[("T", scalar(problem.dtype))],
        constants: &[
            ("last", i64::from(last)),
            ("reg", share.reg),
            ("planes", share.planes),
            ("lanes2", share.lanes2),
            ("warps", share.warps),
            ("units", share.units),
            ("r", share.r),
            ("t", share.t),
            ("s1", s1),
            ("d1", d1),
            ("s2", s2),
            ("d2", d2),
            ("c1", share.c[0]),
            ("c2", share.c[1]),
            ("o1", share.o[0]),
            ("o2", share.o[1]),
        ],
    };
    let block = (32 * share.warps) as u32;
    let grid = (together * splits) as u64;
    let partial = Launch {
        source: unit.source(block, resident(accumulator, 512), words.len()),
        grid: u32::try_from(grid).unwrap_or(u32::MAX),
        block,
        shared: share.shared(accumulator.size() as i64) as u32,
        words,
    };
    let count = channels * kernel;
    let bytes = (splits * count) as usize * accumulator.size();
    Recipe { launches: vec![partial, sum(accumulator, problem.weight_dtype, count, splits)], workspace: bytes }
}

/// Adds the partial results that begin the workspace into the first result.
pub fn sum(accumulator: DType, result: DType, count: i64, splits: i64) -> Launch {
    let mut words = vec![Word::Workspace(0), Word::Result(0)];
    words.extend(values([count, splits]));
    let unit = Unit {
        header: "depthwise.cuh",
        arguments: "SumArgs",
        function: &format!("sum_partials<{}, {}>", scalar(accumulator), scalar(result)),
        types: &[],
        constants: &[],
    };
    let block = 128;
    let source = unit.source(block, 1024, words.len());
    Launch { source, grid: ceil_div(count, i64::from(block)) as u32, block, shared: 0, words }
}
