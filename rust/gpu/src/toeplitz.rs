//! Depthwise convolution as products with Toeplitz matrices on tensor cores, cuda/toeplitz.cuh and
//! cuda/toeplitz_weigh.cuh: how a problem is cut into tiles.

use crate::depthwise::{ceil_div, scalar, sweep_words};
use crate::placed::Placed;
use crate::toeplitz_weigh::Share;
use striate_core::recipe::{Unit, values};
use striate_core::{Axis, DType, Kernel, Launch, Layout, Pass, Problem, Recipe, Role, Sweep, Why, Word};

/// The row of the kernel table.
pub const ROW: Kernel<Recipe> = Kernel {
    name: "cuda.toeplitz",
    op: "conv",
    passes: &[Pass::Fwd, Pass::Dx, Pass::Dw],
    layouts: &[Layout::Nchw],
    isa: "cuda",
    available: || true,
    supports,
    compile,
    note: "long or large kernels of half precision with stride 1 as Toeplitz matrices on tensor cores; a source that is not finite spreads over its tile",
};

/// The row of 32-bit floats, where the problem allows rounding them.
pub const TF32: Kernel<Recipe> = Kernel {
    name: "cuda.toeplitz_tf32",
    supports: supports_tf32,
    note: "the same with float32 rounded to tf32, 10 bits, where torch allows that for convolutions and the device can",
    ..ROW
};

/// Shared memory a block may use without asking, less what the system keeps.
pub const SHARED: i64 = 47 * 1024;
/// Rows of a block: sixteen for each of its warps.
const ROWS: i64 = 64;
/// Taps from which tensor cores are worth their padding, by arithmetic: of one axis, and of two.
const LEAST_TAPS: [i64; 2] = [16, 49];
/// The same where they cost accuracy: direct sums at half of their peak keep up with memory below 28 taps.
const LEAST_TAPS_TF32: [i64; 2] = [32, 81];
/// Threads that a multiprocessor holds at least, which leaves each so many registers that none is spilled.
pub const RESIDENT: u32 = 640;
const NO_ROOM: &str = "its tile needs more shared memory than a block has";
/// Products made, zeros included, for each that is asked for.
const MOST_WASTE: i64 = 10;

fn supports(problem: &Problem) -> Result<(), Why> {
    // Sums are carried in float, so that a weight gradient may be left there.
    let wide = problem.pass == Pass::Dw && problem.weight_dtype == DType::F32;
    if !matches!(problem.dtype, DType::Bf16 | DType::F16) || problem.weight_dtype != problem.dtype && !wide {
        return Err("takes activations and weights of one half type".into());
    }
    fits(problem, LEAST_TAPS)
}

fn supports_tf32(problem: &Problem) -> Result<(), Why> {
    if problem.dtype != DType::F32 {
        return Err(format!("takes f32, got {}", problem.dtype.name()));
    }
    if !problem.tf32 {
        return Err("tf32 is not allowed, or the device has none".into());
    }
    fits(problem, LEAST_TAPS_TF32)
}

/// Whether a problem whose types are right has a shape for the kernels.
fn fits(problem: &Problem, least: [i64; 2]) -> Result<(), Why> {
    let g = &problem.geometry;
    if !g.is_depthwise() {
        return Err(format!("takes one input channel per group, got {}", g.c_in()));
    }
    if problem.layout != Layout::Nchw {
        return Err("takes planes, got channels last".into());
    }
    let [a0, a1, a2] = g.axes();
    if !is_flat(a0) {
        return Err("takes one or two axes".into());
    }
    if let Some(axis) = [a1, a2].into_iter().find(|axis| axis.stride() != 1) {
        return Err(format!("takes stride 1, got {}", axis.stride()));
    }
    if problem.pass == Pass::Dx && g.c_out() != 1 {
        return Err(format!("takes one output channel per group backwards, got {}", g.c_out()));
    }
    for role in [Role::Input, Role::Output] {
        let sample: usize = g.dims(role)[1..].iter().product();
        if sample >= 1 << 31 {
            return Err(format!("takes samples of less than 2^31 elements, got {sample}"));
        }
    }
    let (taps, least) = (a1.kernel() * a2.kernel(), least[usize::from(!is_flat(a1))]);
    if taps < least {
        return Err(format!("takes at least {least} taps, got {taps}"));
    }
    let (products, blocks) = if problem.pass == Pass::Dw {
        let share = Share::new(problem).ok_or(NO_ROOM)?;
        (share.products(), share.blocks(problem))
    } else {
        let cut = Cut::new(problem).ok_or(NO_ROOM)?;
        (8 * cut.eighths * cut.across.taps, cut.blocks(problem))
    };
    if products > MOST_WASTE * taps {
        return Err(format!("would make {products} products for {taps} taps"));
    }
    match u32::try_from(blocks) {
        Ok(blocks) if blocks < 1 << 31 => Ok(()),
        _ => Err("takes at most 2^31 - 1 blocks".into()),
    }
}

/// Whether there is nothing but one position along an axis.
pub fn is_flat(axis: &Axis) -> bool {
    (axis.input(), axis.kernel(), axis.output()) == (1, 1, 1)
}

fn compile(problem: &Problem) -> Recipe {
    compile_placed(&Placed::whole(problem))
}

/// The recipe of a problem somewhere.
pub fn compile_placed(problem: &Placed<'_>) -> Recipe {
    // `supports` has made the same cut.
    if problem.pass == Pass::Dw {
        return Share::new(problem).map(|share| share.recipe(problem)).unwrap_or_default();
    }
    let Some(cut) = Cut::new(problem) else { return Recipe::default() };
    Recipe { launches: vec![cut.launch(problem)], workspace: problem.workspace(cut.slots(problem)) }
}

/// Steps of image, channel and row, and the size of a plane. In the output the channels of a group lie one after
/// another, so that the step of channels is the same throughout.
pub fn planes(problem: &Placed<'_>, role: Role) -> ([i64; 3], [i64; 2]) {
    let (strides, dims) = (problem.strides(role), problem.geometry.dims(role));
    ([strides[0], strides[2], strides[4]].map(|s| s as i64), [dims[4], dims[5]].map(|d| d as i64))
}

/// The largest power of two that divides a row and moves in one instruction, of elements of so many bytes.
pub fn piece(row: i64, size: i64) -> i64 {
    1 << ((16 / size) | row).trailing_zeros()
}

/// Elements between lines of `eighths` in shared memory: an odd number of 16 bytes, so that ldmatrix meets all banks.
pub fn pitch(eighths: i64, size: i64) -> i64 {
    let unit = 16 / size;
    unit * ((8 / unit * eighths) | 1)
}

/// How many eighths of a line of results a warp sums at once, so that the least is summed in vain.
fn tiles(eighths: i64, choices: impl Iterator<Item = i64>) -> i64 {
    choices.min_by_key(|tiles| (ceil_div(eighths, *tiles) * (tiles + 1), -tiles)).unwrap_or(1)
}

/// How a block of `toeplitz_produce` is cut; names as in the kernel text.
struct Cut {
    /// Bytes of an element.
    size: i64,
    mode: i64,
    across: Sweep,
    along: Sweep,
    group: i64,
    eighths: i64,
    tiles: i64,
    warps: i64,
    lines: i64,
    image_count: i64,
}

impl Cut {
    /// The cut of a problem, if there is one that fits into shared memory.
    fn new(problem: &Problem) -> Option<Cut> {
        let g = &problem.geometry;
        let [_, a1, a2] = g.axes();
        let [rows, columns] = [a1, a2].map(|axis| axis.sweep(problem.pass, 0));
        let [source, ..] = Role::of(problem.pass);
        let (width, size) = (g.dims(source)[5] as i64, problem.dtype.size() as i64);
        // A line of taps with what its first position lacks to a multiple of the piece.
        let eighths = |sweep: &Sweep, shift: i64| ceil_div((sweep.taps - 1) * sweep.reach_step + 8 + shift, 8);
        let level = eighths(&columns, columns.src0.rem_euclid(piece(width, size)));
        let flat = is_flat(a1);
        // Turning a tile costs about as much as a quarter of such kernels' products.
        let upright = !flat && 5 * columns.taps * eighths(&rows, 0) < 4 * rows.taps * level;
        let (mode, across, along, least) = match (flat, upright) {
            (true, _) => (2, rows, columns, level),
            (_, true) => (1, columns, rows, eighths(&rows, 0)),
            _ => (0, rows, columns, level),
        };
        let group = (2..=5).min_by_key(|group| (ceil_div(least, *group) * group, -group)).unwrap_or(2);
        let wanted = ceil_div(along.outs, 8);
        let mut cut = Cut {
            size,
            mode,
            across,
            along,
            group,
            eighths: ceil_div(least, group) * group,
            tiles: if flat { 7 } else { tiles(wanted, 1..=8) },
            warps: ROWS / 16,
            lines: across.outs,
            image_count: 1,
        };
        if flat {
            let sizes = [1, 3, 5, 7].into_iter().flat_map(|tiles| [1, 2, 4].map(|warps| (tiles, warps)));
            let work = |&(tiles, warps): &(i64, i64)| {
                let size = 16 * warps * tiles;
                (ceil_div(wanted, size) * size * (tiles + group) / tiles, -tiles, -warps)
            };
            (cut.tiles, cut.warps) = sizes.min_by_key(work).unwrap_or((7, 4));
        } else {
            cut.stack(g.batch());
        }
        while cut.shared() > SHARED {
            cut.shrink()?;
        }
        Some(cut)
    }

    /// Lines of several images, or a part of those of one.
    fn stack(&mut self, batch: i64) {
        let outs = self.across.outs;
        if outs <= ROWS {
            self.image_count = (ROWS / outs).min(batch).max(1);
        } else {
            self.lines = ceil_div(ceil_div(outs, ceil_div(outs, ROWS)), 16) * 16;
        }
        self.warps = ceil_div(self.lines * self.image_count, 16);
    }

    /// Gives up images, then lines, then eighths.
    fn shrink(&mut self) -> Option<()> {
        if self.image_count > 1 {
            self.image_count = ceil_div(self.image_count, 2);
        } else if self.mode != 2 && self.lines > 16 {
            self.lines = (ceil_div(self.lines, 16) - 1) * 16;
        } else if self.mode == 2 && self.warps > 1 {
            self.warps /= 2;
            return Some(());
        } else if self.tiles > 2 {
            self.tiles -= 2;
        } else {
            return None;
        }
        if self.mode != 2 {
            self.warps = ceil_div(self.lines * self.image_count, 16);
        }
        Some(())
    }

    fn source_lines(&self) -> i64 {
        if self.mode == 2 { 1 } else { self.lines + (self.across.taps - 1) * self.across.reach_step }
    }

    /// Elements of a line that the products read.
    fn depth(&self) -> i64 {
        8 * (self.tiles + self.eighths - 1)
    }

    /// Elements between lines in shared memory.
    fn pitch(&self) -> i64 {
        if self.mode == 2 { 8 * self.tiles } else { pitch(self.tiles + self.eighths - 1, self.size) }
    }

    /// Words of a copy of a line of taps; the two copies are read at once and lie in different banks.
    fn copy(&self) -> i64 {
        let least = 4 * self.eighths + 4;
        (0..8).map(|more| least + 4 * more).find(|copy| (8..=24).contains(&(copy % 32))).unwrap_or(least)
    }

    fn along_size(&self) -> i64 {
        8 * self.tiles * if self.mode == 2 { 16 * self.warps } else { 1 }
    }

    fn shared(&self) -> i64 {
        let rows = 16 * self.warps;
        let elements = match self.mode {
            2 => self.along_size() - 8 * self.tiles + self.depth(),
            1 => self.image_count * ((self.source_lines() + 14) & !7) * self.pitch(),
            _ => self.image_count * self.source_lines() * self.pitch(),
        };
        let stage = if self.mode == 1 { 8 * self.tiles * (rows + 8) } else { rows * 8 * (self.tiles | 1) };
        (8 * self.across.taps * self.copy() + self.size * elements).max(self.size * stage)
    }

    /// Tiles along, across and of images.
    fn counts(&self, batch: i64) -> [i64; 3] {
        let lines = if self.mode == 2 { 1 } else { ceil_div(self.across.outs, self.lines) };
        [ceil_div(self.along.outs, self.along_size()), lines, ceil_div(batch, self.image_count)]
    }

    /// Blocks that a channel is cut into.
    fn slots(&self, problem: &Problem) -> i64 {
        self.counts(problem.geometry.batch()).iter().product()
    }

    fn blocks(&self, problem: &Problem) -> i64 {
        let g = &problem.geometry;
        self.slots(problem) * g.groups() * if problem.pass == Pass::Fwd { g.c_out() } else { 1 }
    }

    fn launch(&self, problem: &Placed<'_>) -> Launch {
        let g = &problem.geometry;
        let [source, _, out] = Role::of(problem.pass);
        let ((from, [height, width]), (to, [_, to_width])) = (planes(problem, source), planes(problem, out));
        let [_, _, a2] = g.axes();
        let (columns, kernel) = (a2.kernel(), g.axes().iter().map(Axis::kernel).product::<i64>());
        let turned = self.mode == 1;
        let [along_tiles, line_tiles, image_tiles] = self.counts(g.batch());

        let mut words = vec![Word::Operand(0), Word::Operand(1), Word::Operand(2), Word::Result(0)];
        words.extend(values(sweep_words(&self.across)));
        words.extend(values(sweep_words(&self.along)));
        words.extend(values(from));
        words.extend(values(if turned { [width, height] } else { [height, width] }));
        words.extend(values(to));
        words.extend(values([g.batch(), if problem.pass == Pass::Fwd { g.c_out() } else { 1 }, kernel]));
        words.extend(values(if turned { [1, columns] } else { [columns, 1] }));
        words.extend(values([self.lines, self.image_count, line_tiles, along_tiles, image_tiles, self.source_lines()]));
        words.extend(values([self.eighths, self.copy(), self.pitch()]));
        words.extend(values([width, to_width].map(|row| piece(row, self.size))));
        words.extend(problem.moment_words(self.slots(problem)));
        let unit = Unit {
            header: "toeplitz.cuh",
            arguments: &problem.arguments("ToeplitzArgs"),
            function: "toeplitz_produce<K>",
            types: &[("T", scalar(problem.dtype))],
            constants: &[("mode", self.mode), ("tiles", self.tiles), ("group", self.group)],
        };
        let block = (32 * self.warps) as u32;
        let source = unit.source(block, RESIDENT, words.len());
        let grid = u32::try_from(self.blocks(problem)).unwrap_or(u32::MAX);
        Launch { source, grid, block, shared: self.shared() as u32, words }
    }
}
