//! Depthwise convolutions side by side: every branch by the row that a convolution of its own would get, on one stream,
//! cuda/branches.cuh for their sums, and cuda/statistics.cuh where means and variances of results are asked for.
//!
//! What it costs, worked out and not run on a device: 8 x 96 maps of 56 x 56 in bfloat16 are 4.8 MB. Strips of 5 x 51
//! and 51 x 5 and a square of 5 x 5 write three of them and read one, 19.3 MB or 4.5e-6 s of an H200 at 4.3 TB/s:
//! the first launch reads the maps from memory, the others from the L2 cache, which holds 50 MB. Maps beyond that are
//! read three times, half as much traffic again. The products are 1.3e9, as Toeplitz matrices some six times that or
//! 2e-5 s at 800 TFLOP/s, so the strips are bound by tensor cores either way. An input gradient writes one map for each
//! branch to workspace and adds them: another 2 x 3 + 1 maps, mostly in the cache.

use crate::depthwise::{ceil_div, scalar};
use crate::placed::Placed;
use crate::statistics;
use crate::table::{compile, rows};
use striate_core::branches::{Branches, Form};
use striate_core::recipe::{Unit, values};
use striate_core::{DType, Device, DeviceOperation, Kernel, Launch, Pass, Problem, Recipe, Request, Why, Word};

/// The row of all passes.
pub const ROW: DeviceOperation = DeviceOperation {
    name: "cuda.branches",
    op: "branches",
    dtypes: &DType::ALL,
    supports: |request| Plan::of(request).map(|_| ()),
    // `supports` has made the same.
    compile: |request| Plan::of(request).map_or_else(|_| Recipe::default(), |plan| plan.recipe(request)),
    note: "every branch by the row of its convolution, sums of them in one order; no block of zeros is left out",
};

const THREADS: u32 = 128;
/// Workspace is cut at multiples of so many bytes.
const CUT: usize = 256;

struct Plan {
    branches: Branches,
    /// The row of each.
    rows: Vec<&'static Kernel<Recipe>>,
    /// Elements of a map of all samples.
    count: usize,
}

fn row_of(problem: &Problem) -> Result<&'static Kernel<Recipe>, Why> {
    let mut why = Why::new();
    for row in rows() {
        match (row.supports)(problem) {
            Ok(()) => return Ok(row),
            Err(refusal) => why += &format!("{}: {refusal}; ", row.name),
        }
    }
    Err(why)
}

impl Plan {
    fn of(request: &Request<'_>) -> Result<Plan, Why> {
        let mut branches = Branches::of(request)?;
        let tf32 = request.settings.integer("tf32").unwrap_or(0) != 0;
        for branch in &mut branches.branches {
            branch.problem.device = Device::Cuda;
            branch.problem.tf32 = tf32 && branch.problem.dtype == DType::F32;
        }
        let rows = branches.branches.iter().map(|branch| row_of(&branch.problem)).collect::<Result<_, Why>>()?;
        let count = branches.batch * branches.channels * branches.plane;
        if ceil_div(count as i64, i64::from(THREADS)) >= 1 << 31 {
            return Err(format!("takes maps of less than 2^38 elements, got {count}"));
        }
        Ok(Plan { branches, rows, count })
    }

    fn recipe(&self, request: &Request<'_>) -> Recipe {
        let &Plan { ref branches, count, .. } = self;
        let branched = branches.branches.len();
        let ends = branches.ends(branched);
        // Where every branch writes a map, if their sum is asked for.
        let adds =
            branches.form != Form::Split && (branches.pass == Pass::Dx || branches.pass == Pass::Fwd && ends == 1);
        let summed = branched > 1 && adds;
        let step = (count * branches.dtype.size()).next_multiple_of(CUT);
        let mut made = Recipe { launches: Vec::new(), workspace: if summed { branched * step } else { 0 } };
        let mut moments = Vec::new();
        for (index, (branch, row)) in branches.branches.iter().zip(&self.rows).enumerate() {
            let from = if ends == 1 { 0 } else { index };
            let operand = |number: usize| match (branches.pass, number) {
                (Pass::Fwd, 0) => Some(0),
                (Pass::Fwd, 1) => Some(1 + index),
                (Pass::Fwd, _) => Some(1 + branched + index),
                (_, 0) => Some(from),
                (Pass::Dx, 1) => Some(ends + index),
                (Pass::Dw, 1) => Some(ends),
                _ => None,
            };
            // Of a map that branches share out, its channels.
            let first = branch.first * branches.plane * branches.dtype.size();
            let result = match branches.pass {
                _ if summed => Word::Workspace(index * step),
                Pass::Fwd | Pass::Dx if ends == 1 => Word::ResultAt(0, first),
                _ => Word::Result(index),
            };
            let maps = if branches.pass == Pass::Dw { 2 } else { 1 };
            let mut placed = Placed::among(&branch.problem, branches.channels);
            placed.moments = branches.statistics;
            let compiled = compile(row, &placed);
            moments.push((made.workspace, compiled.workspace));
            append(&mut made, compiled, &|word| match word {
                Word::Operand(number) => match operand(number) {
                    Some(place) if number < maps => Word::OperandAt(place, first),
                    Some(place) if request.operands.get(place).is_some_and(Option::is_some) => Word::Operand(place),
                    _ => Word::Value(0),
                },
                Word::Result(_) => result,
                other => other,
            });
            if branches.biases {
                let to = Word::Result(branched + index);
                made.launches.push(self.sum_channels(Word::OperandAt(from, first), to, &branch.problem));
            }
        }
        let kept = branches.branches.first().map_or(0, |branch| branch.first);
        if kept > 0 && branches.pass != Pass::Dw {
            made.launches.push(self.copy_channels(kept));
        }
        if summed {
            made.launches.push(self.sum_maps(step));
        }
        if branches.statistics {
            let to = Word::Result(ends);
            made.launches.push(statistics::merge(branches.dtype.accumulator(), branches.channels, &moments, to));
        }
        made
    }

    fn sum_maps(&self, step: usize) -> Launch {
        let &Plan { ref branches, count, .. } = self;
        let size = branches.dtype.size();
        let vec = if (count * size).is_multiple_of(16) { 16 / size } else { 1 };
        let mut words = vec![Word::Workspace(0), Word::Result(0)];
        words.extend(values([count, step / size, branches.branches.len()].map(|number| number as i64)));
        let constants = [("vec", vec as i64)];
        let types = [("T", scalar(branches.dtype))];
        let unit = unit("SumMapsArgs", "sum_maps<K>", &types, &constants);
        launch(&unit, ceil_div((count / vec) as i64, i64::from(THREADS)), words)
    }

    /// Channels that no branch takes, as they are.
    fn copy_channels(&self, kept: usize) -> Launch {
        let branches = &self.branches;
        let (size, each, step) = (branches.dtype.size(), kept * branches.plane, branches.channels * branches.plane);
        let whole = |vec: &usize| each.is_multiple_of(*vec) && step.is_multiple_of(*vec);
        let vec = [16 / size, 1].into_iter().find(whole).unwrap_or(1);
        let total = branches.batch * each;
        let mut words = vec![Word::Operand(0), Word::Result(0)];
        words.extend(values([total, each, step].map(|number| number as i64)));
        let constants = [("vec", vec as i64)];
        let types = [("T", scalar(branches.dtype))];
        let unit = unit("CopyChannelsArgs", "copy_channels<K>", &types, &constants);
        launch(&unit, ceil_div((total / vec) as i64, i64::from(THREADS)), words)
    }

    fn sum_channels(&self, from: Word, to: Word, branch: &Problem) -> Launch {
        let branches = &self.branches;
        let mut words = vec![from, to];
        words.extend(values([branches.batch, branches.channels, branches.plane].map(|number| number as i64)));
        let types = [("T", scalar(branches.dtype)), ("W", scalar(branch.weight_dtype))];
        launch(&unit("SumChannelsArgs", "sum_channels<K>", &types, &[]), branch.geometry.groups(), words)
    }
}

fn unit<'a>(
    arguments: &'a str,
    function: &'a str,
    types: &'a [(&'a str, &'a str)],
    constants: &'a [(&'a str, i64)],
) -> Unit<'a> {
    Unit { header: "branches.cuh", arguments, function, types, constants }
}

fn launch(unit: &Unit<'_>, blocks: i64, words: Vec<Word>) -> Launch {
    let source = unit.source(THREADS, 1024, words.len());
    Launch { source, grid: blocks as u32, block: THREADS, shared: 0, words }
}

/// Appends the launches of another recipe, its workspace behind what is there, its other addresses changed.
fn append(made: &mut Recipe, other: Recipe, word: &dyn Fn(Word) -> Word) {
    let begin = made.workspace;
    made.workspace += other.workspace.next_multiple_of(CUT);
    for mut launch in other.launches {
        for entry in &mut launch.words {
            *entry = match *entry {
                Word::Workspace(at) => Word::Workspace(begin + at),
                given => word(given),
            };
        }
        made.launches.push(launch);
    }
}
