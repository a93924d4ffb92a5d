//! Weight gradients of [`crate::toeplitz`], cuda/toeplitz_weigh.cuh: how a problem is cut into tiles and splits.

use crate::depthwise::{axis_words, ceil_div, scalar, sum};
use crate::placed::Placed;
use crate::toeplitz::{RESIDENT, SHARED, is_flat, piece, pitch, planes};
use striate_core::recipe::{Unit, values};
use striate_core::{DType, Launch, Problem, Recipe, Role, Word};

/// Blocks that fill a device.
const BLOCKS: i64 = 1024;
/// Warps of a block.
const WARPS: i64 = 4;
/// Sums of 16 x 8 that a warp holds at most.
const SUMS: i64 = 12;

/// How a block of `toeplitz_weigh` is cut; names as in the kernel text.
pub struct Share {
    /// Bytes of an element.
    size: i64,
    taps: i64,
    reach: i64,
    rows: i64,
    columns: i64,
    warps_m: i64,
    parts: i64,
    lines: i64,
    width: i64,
    tiles: [i64; 2],
    pitch: i64,
}

impl Share {
    /// The cut of a problem, if there is one that fits into shared memory and registers.
    pub fn new(problem: &Problem) -> Option<Share> {
        let [_, a1, a2] = problem.geometry.axes();
        let (flat, span) = (is_flat(a1), (a2.kernel() - 1) * a2.dilation() + 1);
        // Reading, per sixteen positions: 4 for the matrices of the gradient and 4 for each sixteen rows; and a product
        // takes somewhat longer than one of these.
        let rows = |columns: i64| ceil_div(a1.kernel() * ceil_div(ceil_div(span, 8), columns), 16);
        let work = |columns: &i64| (40 + 40 * rows(*columns)).max(16 * rows(*columns) * columns);
        // In one line an odd number of columns lets ldmatrix meet all banks.
        let columns = (1..=4).filter(|columns| !flat || columns % 2 == 1).min_by_key(work)?;
        let (all, most) = (rows(columns), SUMS / columns);
        let warps_m = [1, 2, 4].into_iter().find(|warps| ceil_div(all, *warps) <= most)?;
        let (outs, widest) = (a2.output(), if flat { 4096 } else { 128 });
        let width = if outs <= widest { outs } else { ceil_div(ceil_div(outs, ceil_div(outs, widest)), 8) * 8 };
        let eighths = ceil_div(width + span - 1 + 7, 8);
        let size = problem.dtype.size() as i64;
        let mut share = Share {
            size,
            taps: a1.kernel(),
            reach: a1.dilation(),
            rows: ceil_div(all, warps_m),
            columns,
            warps_m,
            parts: ceil_div(ceil_div(span, 8), columns),
            lines: a1.output(),
            width,
            tiles: [1, ceil_div(outs, width)],
            pitch: pitch(eighths, size),
        };
        while share.shared() > SHARED {
            if share.lines == 1 {
                return None;
            }
            share.tiles[0] += 1;
            share.lines = ceil_div(a1.output(), share.tiles[0]);
        }
        share.tiles[0] = ceil_div(a1.output(), share.lines);
        Some(share)
    }

    /// Products per position.
    pub fn products(&self) -> i64 {
        16 * self.rows * self.warps_m * 8 * self.columns
    }

    /// Eighths of the gradient's signal, an even number: up to its last element, and what columns lie behind.
    fn eighths(&self) -> i64 {
        let last = (self.lines - 1) * self.pitch + self.width;
        ceil_div(ceil_div(last + 14, 8) + self.columns - 1, 2) * 2
    }

    fn shared(&self) -> i64 {
        let grads = 16 + (self.lines * self.pitch).max(8 * self.eighths()) + 16;
        let sources =
            (self.lines + (self.taps - 1) * self.reach) * self.pitch + 8 * (self.parts * self.columns + 2) + 16;
        (self.size * (grads + sources)).max(4 * self.products())
    }

    fn splits(&self, problem: &Problem) -> i64 {
        let items = problem.geometry.batch() * self.tiles[0] * self.tiles[1];
        ceil_div(BLOCKS, channels(problem).max(1)).clamp(1, items.clamp(1, 256))
    }

    /// Blocks of the first launch.
    pub fn blocks(&self, problem: &Problem) -> i64 {
        self.splits(problem) * channels(problem)
    }

    /// Partial sums, then their sum.
    pub fn recipe(&self, problem: &Placed<'_>) -> Recipe {
        let g = &problem.geometry;
        let [_, a1, a2] = g.axes();
        let ((grad, [_, grad_width]), (source, [_, source_width])) =
            (planes(problem, Role::Output), planes(problem, Role::Input));
        let splits = self.splits(problem);
        let mut words = vec![Word::Operand(0), Word::Operand(1), Word::Workspace(0)];
        words.extend(values(axis_words(a1)));
        words.extend(values(axis_words(a2)));
        words.extend(values(grad));
        words.extend(values(source));
        words.extend(values([g.batch(), channels(problem), g.c_out()]));
        words.extend(values([self.lines, self.width, self.tiles[0], self.tiles[1], splits, self.pitch]));
        words.extend(values([self.parts, self.eighths()]));
        words.extend(values([grad_width, source_width].map(|row| piece(row, self.size))));
        let unit = Unit {
            header: "toeplitz_weigh.cuh",
            arguments: "ToeplitzWeighArgs",
            function: "toeplitz_weigh<K>",
            types: &[("T", scalar(problem.dtype))],
            constants: &[("rows", self.rows), ("columns", self.columns), ("warps_m", self.warps_m)],
        };
        let block = (32 * WARPS) as u32;
        let source = unit.source(block, RESIDENT, words.len());
        let grid = u32::try_from(self.blocks(problem)).unwrap_or(u32::MAX);
        let partial = Launch { source, grid, block, shared: self.shared() as u32, words };
        let count = channels(problem) * a1.kernel() * a2.kernel();
        let total = sum(DType::F32, problem.weight_dtype, count, splits);
        Recipe { launches: vec![partial, total], workspace: (4 * splits * count) as usize }
    }
}

fn channels(problem: &Problem) -> i64 {
    problem.geometry.groups() * problem.geometry.c_out()
}
