//! Long convolutions by transforms and the gradients of their kernels, cuda/fft.cuh: the passes, and which lines go
//! together.
//!
//! A forward call is three launches: the table of roots, the spectra of kernels, and one kernel that reads a line,
//! transforms it in registers and shared memory, multiplies, transforms back and writes. A transform of m complex
//! numbers, which serves 2m coefficients, so takes 2m <= 32768 in float32 and 16384 in float64, with 68 KiB of shared
//! memory, and half of that where a block has only 64 KiB. A longer one, where windows of that size do not serve
//! better, is cut into 16 parts by a pass before and put together by a pass after, or into 256 by two. What lies in
//! global memory between passes is as much as stays in the second-level cache; lines take turns.
//!
//! Arithmetic for an H200 (4.3 TB/s, 33.5e12 fused operations a second; not run on a device): a causal convolution with
//! L = K = m moves 4 bytes per output in bfloat16 and 8 in float32, besides 8 of a spectrum that samples share from the
//! cache. There and back are 16 log2(m) operations for every 2 of m complex numbers, 8 log2(m) per output: 80 at 1k, 96
//! at 4k, 112 at 16k, which is 2.4, 2.9 and 3.3 ps against 0.93 and 1.9 ps of memory. Exchanges through shared memory
//! move 16 bytes per number and pass, 2 * 3 passes at 4k: 96 bytes per output, 2.9 ps at 33 TB/s. Arithmetic and
//! exchanges overlap as far as several blocks share a multiprocessor. At 64k there are 3 launches for the lines and 36
//! bytes per output of cache or memory, 8 ps of the latter.

use crate::depthwise::{ceil_div, scalar};
use crate::fft_lines::{Cut, Lines, SHORTEST};
use striate_core::polynomials::Signal;
use striate_core::recipe::{Unit, values};
use striate_core::{DType, DeviceOperation, Launch, Recipe, Request, Signature, Why, Word};

/// The row of the convolution, which input gradients are as well.
pub const CONV: DeviceOperation = DeviceOperation {
    name: "cuda.fft_conv",
    op: "fft_conv",
    dtypes: &DType::ALL,
    supports: |request| fits(conv(request)?),
    compile: |request| conv(request).map_or_else(|_| Recipe::default(), |job| job.convolve()),
    note: "transforms modulo z^m - i in registers and shared memory, fused up to 32768 coefficients, \
           overlapping windows for short kernels",
};

/// The row of the kernel's gradient.
pub const GRAD_KERNEL: DeviceOperation = DeviceOperation {
    name: "cuda.fft_conv_grad_kernel",
    op: "fft_conv_grad_kernel",
    dtypes: &DType::ALL,
    supports: |request| fits(grad_kernel(request)?),
    compile: |request| grad_kernel(request).map_or_else(|_| Recipe::default(), |job| job.weigh()),
    note: "summed over samples and windows as values of transforms, in one order",
};

/// Threads of a block that holds several lines.
const THREADS: i64 = 128;
/// Bytes of numbers between passes, unless the settings say `between`: what second-level caches hold.
const BETWEEN: i64 = 32 << 20;
/// Bytes of shared memory above which real and imaginary parts take turns.
const SHARED: i64 = 48 << 10;
/// Threads that add up spectra at least.
const SUMMING: i64 = 1 << 16;

/// What becomes of numbers on their way in and out, besides the convolution: operands 2 to 4 and a setting.
#[derive(Clone, Copy, Default)]
struct Gates {
    pregate: bool,
    postgate: bool,
    bias: bool,
    /// As cuda/activation.cuh counts them.
    activation: i64,
}

const ACTIVATIONS: [&str; 4] = ["none", "relu", "silu", "gelu"];

impl Gates {
    fn of(request: &Request<'_>) -> Result<Gates, Why> {
        let given = |place: usize| request.operands.get(place).and_then(Option::as_ref);
        for (name, place, like) in [("pregate", 2, request.operand(0)?), ("postgate", 3, request.result(0)?)] {
            match given(place) {
                Some(gate) if gate != like => return Err(format!("{name}: expected {like}, got {gate}")),
                _ => {}
            }
        }
        let input = request.operand(0)?;
        match given(4) {
            Some(bias) if bias.sizes() != &input.sizes()[1..2] || bias.dtype != input.dtype.accumulator() => {
                return Err(format!("bias: expected a wide number for each channel of {input}, got {bias}"));
            }
            _ => {}
        }
        let word = request.settings.word("activation").unwrap_or(ACTIVATIONS[0]);
        let activation = ACTIVATIONS.iter().position(|known| *known == word);
        let activation =
            activation.ok_or_else(|| format!("activation: expected one of {ACTIVATIONS:?}, got {word:?}"))?;
        let [pregate, postgate, bias] = [2, 3, 4].map(|place| given(place).is_some());
        Ok(Gates { pregate, postgate, bias, activation: activation as i64 })
    }
}

/// What a request asks for.
struct Job {
    lines: Lines,
    cut: Cut,
    dtype: DType,
    /// Bytes of an accumulator.
    size: i64,
    /// Sizes and strides of input, kernel and output.
    tensors: [Signature; 3],
    /// Bytes of numbers between passes.
    between: i64,
    gates: Gates,
}

fn conv(request: &Request<'_>) -> Result<Job, Why> {
    let job = Job::new(request, [request.operand(0)?, request.operand(1)?, request.result(0)?])?;
    Ok(Job { gates: Gates::of(request)?, ..job })
}

fn grad_kernel(request: &Request<'_>) -> Result<Job, Why> {
    Job::new(request, [request.operand(1)?, request.result(0)?, request.operand(0)?])
}

fn fits(job: Job) -> Result<(), Why> {
    match job.total().checked_mul(1 << (4 * job.cut.tops)) {
        Some(blocks) if blocks < 1 << 31 => Ok(()),
        _ => Err(format!("takes at most 2^31 - 1 lines, this has {}", job.total())),
    }
}

/// A tensor as a signal.
struct Described {
    dtype: DType,
    at: Word,
    /// `FftSignal` of the kernel text.
    numbers: [i64; 15],
}

/// Lines of a launch and where their numbers and spectra lie.
#[derive(Clone, Copy)]
struct Run {
    first: i64,
    count: i64,
    /// Bytes into the workspace.
    space: i64,
    values: i64,
    /// The first spectrum there.
    kernel: i64,
    sums: i64,
}

/// What becomes of lines; the names are those of the struct `K` in the kernel text.
struct Act {
    forward: bool,
    multiply: bool,
    inverse: bool,
    /// Whether the source is sums, and not coefficients.
    summed: bool,
    clip: i64,
    scale: i64,
    source: Option<Described>,
    target: Option<Described>,
    /// Whether the lines are kernels.
    kernels: bool,
    gates: Gates,
}

impl Job {
    fn new(request: &Request<'_>, tensors: [&Signature; 3]) -> Result<Job, Why> {
        let (lines, dtype) = (Lines::of(request, tensors)?, tensors[0].dtype);
        if !DType::ALL.contains(&dtype) {
            return Err(format!("input: expected floating numbers, got {}", tensors[0]));
        }
        let size = dtype.accumulator().size() as i64;
        let most = if size == 8 { 13 } else { 14 };
        // Bytes that a block may ask for.
        let shared = request.settings.integer("shared").unwrap_or(i64::MAX);
        let held = (SHORTEST..=most).rev().find(|&bits| padded(size, bits) <= shared).unwrap_or(SHORTEST);
        let cut = lines.cut(held);
        let between = request.settings.integer("between").unwrap_or(BETWEEN);
        Ok(Job { lines, cut, dtype, size, tensors: tensors.map(|tensor| *tensor), between, gates: Gates::default() })
    }

    /// Lines of inputs.
    fn total(&self) -> i64 {
        self.lines.samples * self.lines.channels * self.cut.windows
    }

    /// Lines that share a kernel.
    fn sharing(&self) -> i64 {
        self.total() / self.lines.kernels
    }

    /// Bytes of the numbers of a line.
    fn line(&self) -> i64 {
        (2 * self.size) << self.cut.bits
    }

    /// Logarithm of the numbers that a block holds of a line.
    fn inner(&self) -> u32 {
        self.cut.bits - 4 * self.cut.tops
    }

    /// Lines between passes at a time.
    fn together(&self) -> i64 {
        (self.between / self.line()).max(1)
    }

    fn accumulator(&self) -> &'static str {
        scalar(self.dtype.accumulator())
    }

    fn described(&self, which: usize, at: Word) -> Option<Described> {
        let signal: Signal = [self.lines.input, self.lines.kernel, self.lines.output][which];
        let (tensor, rank) = (&self.tensors[which], self.lines.rank);
        let strides = tensor.strides.map(|stride| stride as i64);
        let sample = if tensor.rank == rank + 2 { strides[4 - rank] } else { 0 };
        let axes = [strides[3], strides[4], strides[5]];
        let places = [signal.extent, signal.period, signal.start].map(|axes| axes.map(|number| number as i64));
        let mut numbers = [0; 15];
        numbers[..9].copy_from_slice(places.as_flattened());
        numbers[9..].copy_from_slice(&[axes[0], axes[1], axes[2], sample, strides[5 - rank], signal.origin as i64]);
        Some(Described { dtype: tensor.dtype, at, numbers })
    }

    /// Blocks of all passes, each with four roots.
    fn blocks(&self) -> i64 {
        let mut level = 0;
        let mut sum = 0;
        for pass in 0.. {
            if level >= self.cut.bits {
                break;
            }
            sum += 1i64 << level;
            level += if pass == self.cut.tops { (self.inner() - 1) % 4 + 1 } else { 4 };
        }
        sum
    }

    fn roots(&self) -> Launch {
        let unit = Unit {
            header: "fft.cuh",
            arguments: "FftRootArgs",
            function: "fft_roots<K>",
            types: &[("A", self.accumulator())],
            constants: &[("bits", i64::from(self.inner())), ("tops", i64::from(self.cut.tops))],
        };
        launch(&unit, (THREADS, 512), self.blocks(), (0, vec![Word::Workspace(0), Word::Value(self.blocks())]))
    }

    /// The launches of an act on some lines.
    fn run(&self, act: &Act, run: Run) -> Vec<Launch> {
        let tops = self.cut.tops;
        let mut launches = Vec::new();
        if act.forward && !act.summed {
            launches.extend((0..tops).map(|level| self.top(act, run, level, false)));
        }
        launches.push(self.inner_pass(act, run));
        if act.inverse {
            launches.extend((0..tops).rev().map(|level| self.top(act, run, level, true)));
        }
        launches
    }

    fn inner_pass(&self, act: &Act, run: Run) -> Launch {
        let (bits, tops) = (self.inner(), self.cut.tops);
        let threads = 1i64 << (bits - 4);
        let lines = (THREADS / threads).max(1);
        let bytes = lines * padded(2 * self.size, bits);
        let split = bytes > SHARED;
        let source = if act.summed { 2 } else { i64::from(tops > 0) };
        let mut constants = vec![
            ("bits", i64::from(bits)),
            ("tops", i64::from(tops)),
            ("lines", lines),
            ("split", i64::from(split)),
            ("source", source),
            ("forward", i64::from(act.forward)),
            ("multiply", i64::from(act.multiply)),
            ("inverse", i64::from(act.inverse)),
            ("target", i64::from(act.inverse && tops == 0)),
        ];
        constants.extend(self.signals(act));
        let unit = Unit {
            header: "fft.cuh",
            arguments: "FftArgs",
            function: "fft_lines<K>",
            types: &self.types(act),
            constants: &constants,
        };
        let (block, shared) = (threads * lines, if split { bytes / 2 } else { bytes });
        let resident = if self.size == 8 || bits > 12 { 512 } else { 1024 };
        launch(&unit, (block, resident), (run.count << (4 * tops)) * threads, (shared, self.words(act, run)))
    }

    fn top(&self, act: &Act, run: Run, level: u32, back: bool) -> Launch {
        let mut constants = vec![
            ("total", i64::from(self.cut.bits)),
            ("level", i64::from(level)),
            ("outer", i64::from(level == 0)),
            ("back", i64::from(back)),
        ];
        constants.extend(self.signals(act));
        let unit = Unit {
            header: "fft.cuh",
            arguments: "FftArgs",
            function: "fft_top<K>",
            types: &self.types(act),
            constants: &constants,
        };
        launch(&unit, (THREADS, 512), run.count << (self.cut.bits - 4), (0, self.words(act, run)))
    }

    fn types(&self, act: &Act) -> [(&'static str, &'static str); 3] {
        let kind = |signal: &Option<Described>| scalar(signal.as_ref().map_or(self.dtype, |s| s.dtype));
        [("A", self.accumulator()), ("S", kind(&act.source)), ("D", kind(&act.target))]
    }

    fn signals(&self, act: &Act) -> [(&'static str, i64); 6] {
        let (periodic, gates) = (self.lines.periodic && !act.kernels, &act.gates);
        [
            ("rank", self.lines.rank as i64),
            ("periodic", i64::from(periodic)),
            ("pregate", i64::from(gates.pregate)),
            ("postgate", i64::from(gates.postgate)),
            ("bias", i64::from(gates.bias)),
            ("activation", gates.activation),
        ]
    }

    fn words(&self, act: &Act, run: Run) -> Vec<Word> {
        let (lines, cut) = (&self.lines, &self.cut);
        let at = |signal: &Option<Described>| signal.as_ref().map_or(Word::Value(0), |signal| signal.at);
        let [space, spectra] = [run.space, run.values].map(|bytes| Word::Workspace(bytes as usize));
        let mut words = vec![at(&act.source), at(&act.target), space, spectra, Word::Workspace(0)];
        let gates = [act.gates.pregate, act.gates.postgate, act.gates.bias];
        words.extend(gates.iter().zip(2..).map(|(&there, at)| if there { Word::Operand(at) } else { Word::Value(0) }));
        let taps = lines.end(&lines.kernel) as i64;
        let (samples, windows, sharing) =
            if act.kernels { (1, 1, 1) } else { (lines.samples, cut.windows, self.sharing()) };
        let (lowest, each, begin, end) =
            if act.kernels { (0, taps, 0, taps) } else { (cut.lowest, cut.each, cut.valid.0, cut.valid.1) };
        let turn = if act.kernels && lines.flip { taps - 1 } else { -1 };
        words.extend(values([run.count, run.first, samples, windows, sharing, run.kernel]));
        words.extend(values([run.sums, lines.kernels << cut.bits, lowest, each, begin, end]));
        words.extend(values([lines.step[0] as i64, lines.step[1] as i64, turn, act.clip, act.scale]));
        for signal in [&act.source, &act.target] {
            words.extend(values(signal.as_ref().map_or([0; 15], |signal| signal.numbers)));
        }
        words
    }

    /// The spectra of some kernels.
    fn spectra(&self, first: i64, count: i64, at: i64) -> Vec<Launch> {
        let act = Act {
            scale: i64::from(self.cut.bits),
            kernels: true,
            ..Act::forward(self.described(1, Word::Operand(1)), 0)
        };
        self.run(&act, Run { first, count, space: at, values: at, kernel: 0, sums: 0 })
    }

    fn convolve(&self) -> Recipe {
        let (tables, tops) = (self.table(), self.cut.tops);
        let group = self.together().min(self.lines.kernels);
        let spectra = group * self.line();
        let sharing = self.sharing();
        let act = Act {
            multiply: true,
            inverse: true,
            target: self.described(2, Word::Result(0)),
            gates: self.gates,
            ..Act::forward(self.described(0, Word::Operand(0)), 0)
        };
        let most = group * sharing;
        let chunk = if tops == 0 { most } else { self.together().min(most) };
        let mut launches = vec![self.roots()];
        for kernel in (0..self.lines.kernels).step_by(group as usize) {
            let some = group.min(self.lines.kernels - kernel);
            launches.extend(self.spectra(kernel, some, tables));
            let (begin, end) = (kernel * sharing, (kernel + some) * sharing);
            for first in (begin..end).step_by(chunk as usize) {
                let count = chunk.min(end - first);
                let run = Run { first, count, space: tables + spectra, values: tables, kernel, sums: 0 };
                launches.extend(self.run(&act, run));
            }
        }
        let between = if tops == 0 { 0 } else { chunk * self.line() };
        Recipe { launches, workspace: (tables + spectra + between) as usize }
    }

    /// Bytes of the table of roots, rounded up to what any number is aligned to.
    fn table(&self) -> i64 {
        ceil_div(self.blocks() * 8 * self.size, 256) * 256
    }

    fn weigh(&self) -> Recipe {
        let (lines, sharing) = (&self.lines, self.sharing());
        let chunk = self.together().min(self.total());
        let shares = (SUMMING / (lines.kernels << self.cut.bits)).clamp(1, chunk.min(sharing));
        let gradients = self.table() + chunk * self.line();
        let sums = gradients + chunk * self.line();
        let mut launches = vec![self.roots()];
        for first in (0..self.total()).step_by(chunk as usize) {
            let count = chunk.min(self.total() - first);
            for (space, which, clip) in [(self.table(), 0, 1), (gradients, 2, 2)] {
                let at = Word::Operand(if which == 0 { 1 } else { 0 });
                let scale = if which == 2 { i64::from(self.cut.bits) } else { 0 };
                let act = Act { scale, ..Act::forward(self.described(which, at), clip) };
                launches.extend(self.run(&act, Run { first, count, space, values: 0, kernel: 0, sums: 0 }));
            }
            launches.push(self.sum((first, count), [gradients, self.table(), sums], shares));
        }
        let act = Act {
            forward: false,
            inverse: true,
            summed: true,
            kernels: true,
            target: self.described(1, Word::Result(0)),
            ..Act::forward(None, 0)
        };
        let finish = Run { first: 0, count: lines.kernels, space: sums, values: sums, kernel: 0, sums: shares };
        launches.extend(self.run(&act, finish));
        Recipe { launches, workspace: (sums + shares * lines.kernels * self.line()) as usize }
    }

    /// Adds the products of some lines to the sums of their kernels.
    fn sum(&self, (first, count): (i64, i64), at: [i64; 3], shares: i64) -> Launch {
        let (sharing, kernels) = (self.sharing(), self.lines.kernels);
        let kernel = first / sharing;
        let some = (first + count - 1) / sharing + 1 - kernel;
        let mut words: Vec<Word> = at.iter().map(|&bytes| Word::Workspace(bytes as usize)).collect();
        words.extend(values([count, first, sharing, shares, kernel, some, kernels]));
        let unit = Unit {
            header: "fft.cuh",
            arguments: "FftSumArgs",
            function: "fft_sum<K>",
            types: &[("A", self.accumulator())],
            constants: &[("total", i64::from(self.cut.bits))],
        };
        launch(&unit, (THREADS, 1024), (some * shares) << self.cut.bits, (0, words))
    }
}

impl Act {
    /// From coefficients to values.
    fn forward(source: Option<Described>, clip: i64) -> Act {
        Act {
            forward: true,
            multiply: false,
            inverse: false,
            summed: false,
            clip,
            scale: 0,
            source,
            target: None,
            kernels: false,
            gates: Gates::default(),
        }
    }
}

/// Bytes of shared memory for 2^bits numbers, of which every sixteenth is followed by a gap.
fn padded(size: i64, bits: u32) -> i64 {
    (size << bits) + (size << (bits - 4))
}

/// A launch of so many threads in all, by blocks of `block` threads, of which a multiprocessor holds `resident`.
fn launch(unit: &Unit<'_>, (block, resident): (i64, u32), threads: i64, (shared, words): (i64, Vec<Word>)) -> Launch {
    let source = unit.source(block as u32, resident, words.len());
    let grid = u32::try_from(ceil_div(threads, block)).unwrap_or(u32::MAX);
    Launch { source, grid, block: block as u32, shared: shared as u32, words }
}
