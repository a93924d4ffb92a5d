//! Convolutions of any rank as products of long polynomials ([`Polynomials`]) on the CPU: how long a transform they get,
//! and the ways from tensors to coefficients and back.

use std::ops::Deref;
use striate_core::polynomials::{Polynomials, Signal};
use striate_core::{Request, Signature, View, Why};
use striate_simd::rows::{Block, narrow, widen};
use striate_simd::{Convert, Wave, fourier};

/// How the three tensors of a convolution become polynomials.
#[derive(Clone, Copy, Debug)]
pub struct Flat(Polynomials);

impl Deref for Flat {
    type Target = Polynomials;

    fn deref(&self) -> &Polynomials {
        &self.0
    }
}

/// Coefficients of the output that one transform yields.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    /// First coefficient in the buffer; it may lie before the input's first.
    pub lowest: isize,
    /// Coefficients that come out right.
    pub valid: (usize, usize),
}

/// Transforms of one length that together yield the whole output.
#[derive(Clone, Copy, Debug)]
pub struct Tiling {
    /// Real numbers in a transform.
    pub length: usize,
    /// Number of transforms per channel and sample.
    pub blocks: usize,
    /// Coefficients that each adds.
    pub each: usize,
}

impl Flat {
    /// The fewest operations: one transform of everything, or overlapping ones, none shorter than `shortest`. A few
    /// samples are taken to share a kernel's transform; how many do does not matter, lest bits depend on the batch.
    pub fn tiling(&self, shortest: usize) -> Tiling {
        let (kernel, (first, end)) = (self.end(&self.kernel), self.wanted());
        let whole = self.reach().next_power_of_two().max(shortest);
        let mut best = Tiling { length: whole, blocks: 1, each: end - first };
        let cost = |tiling: &Tiling| {
            let transforms = tiling.blocks as f64 + 0.5 / 4.0;
            // Beyond the second-level cache the top levels wait for memory.
            let waits = (tiling.length as f64 / 65536.0).log2().max(0.0);
            transforms * tiling.length as f64 * (6.0 + (tiling.length as f64).log2() + 2.0 * waits)
        };
        let mut length = (kernel + 1).next_power_of_two().max(shortest);
        while length < whole {
            let each = length - kernel + 1;
            let tiling = Tiling { length, blocks: (end - first).div_ceil(each), each };
            if cost(&tiling) < cost(&best) {
                best = tiling;
            }
            length *= 2;
        }
        best
    }

    /// The window of a block.
    pub fn window(&self, tiling: &Tiling, block: usize) -> Window {
        let (first, end) = self.wanted();
        if tiling.blocks == 1 && tiling.each == end - first {
            return Window { lowest: 0, valid: (first, end) };
        }
        let from = first + block * tiling.each;
        let lowest = from as isize + 1 - self.end(&self.kernel) as isize;
        Window { lowest, valid: (from, (from + tiling.each).min(end)) }
    }

    /// Output positions.
    pub fn outputs(&self) -> usize {
        self.output.extent.iter().product()
    }

    /// Output positions before a coefficient.
    pub fn outputs_before(&self, coefficient: usize) -> usize {
        let [_, rows, columns] = self.output.extent;
        let rest = coefficient - self.output.origin;
        let (plane, rest) = (rest / self.step[0], rest % self.step[0]);
        let (row, column) = (rest / self.step[1], rest % self.step[1]);
        // Between the last position of a row or plane and the next one's first there are coefficients of neither.
        let in_plane = if row >= rows { rows * columns } else { row * columns + column.min(columns) };
        (plane * rows * columns + in_plane).min(self.outputs())
    }

    /// Writes a signal's coefficients inside `clip` to a buffer that begins with `lowest`, zero elsewhere.
    pub fn gather<S: striate_core::Scalar, I: Convert<S>>(
        &self,
        isa: I,
        signal: &Signal,
        (from, strides): (&[S], [usize; 3]),
        (lowest, clip): (isize, (isize, isize)),
        into: &mut [S::Acc],
    ) {
        let end = clip.1.min(lowest + into.len() as isize);
        let begin = clip.0.max(lowest);
        let mut done = 0;
        let source = |a: usize, at: usize| (at + signal.start[a]) % signal.period[a];
        for (v0, v1) in rows(signal.extent) {
            let row = (signal.origin + v0 * self.step[0] + v1 * self.step[1]) as isize;
            let upto = (end - row).clamp(0, signal.extent[2] as isize) as usize;
            let mut at = (begin - row).max(0) as usize;
            let base = source(0, v0) * strides[0] + source(1, v1) * strides[1];
            while at < upto {
                let first = source(2, at);
                let count = (signal.period[2] - first).min(upto - at);
                let to = (row + at as isize - lowest) as usize;
                into[done..to].fill(S::Acc::default());
                widen(isa, &line(count), &from[base + first..], &mut into[to..]);
                at += count;
                done = to + count;
            }
        }
        into[done..].fill(S::Acc::default());
    }

    /// Copies the output's coefficients of a window from a buffer to the neighbouring positions `to`.
    pub fn scatter<S: striate_core::Scalar, I: Convert<S>>(
        &self,
        isa: I,
        window: &Window,
        from: &[S::Acc],
        to: &mut [S],
    ) {
        let (mut done, (begin, end)) = (0, window.valid);
        for (t0, t1) in rows(self.output.extent) {
            let row = self.output.origin + t0 * self.step[0] + t1 * self.step[1];
            let (first, last) = (row.max(begin), (row + self.output.extent[2]).min(end));
            if first < last {
                let at = (first as isize - window.lowest) as usize;
                narrow(isa, &line(last - first), &from[at..], &mut to[done..]);
                done += last - first;
            }
        }
        debug_assert_eq!(done, to.len());
    }

    /// All that a kernel's coefficients depend on: sizes, steps, and whether it is reversed.
    pub fn kernel_layout(&self) -> ([usize; 3], [usize; 3], bool) {
        (self.kernel.extent, self.step, self.flip)
    }

    /// Reverses a kernel that is stored in reverse.
    pub fn turn<A>(&self, kernel: &mut [A]) {
        if self.flip {
            kernel[..self.end(&self.kernel)].reverse();
        }
    }

    /// Copies a kernel's coefficients from a buffer, times a factor.
    pub fn take_kernel<A: striate_core::Accumulator>(&self, from: &[A], factor: A, to: &mut [A]) {
        let size = self.kernel.extent;
        for ((k0, k1), row) in rows(size).zip(to.chunks_exact_mut(size[2])) {
            let at = k0 * self.step[0] + k1 * self.step[1];
            row.iter_mut().zip(&from[at..]).for_each(|(to, from)| *to = factor * *from);
        }
    }

    /// Real numbers in the shortest transform.
    pub fn shortest<A: striate_core::Accumulator, I: Wave<A>>(_isa: I) -> usize {
        2 * fourier::shortest::<A, I>()
    }
}

fn rows(extent: [usize; 3]) -> impl Iterator<Item = (usize, usize)> {
    (0..extent[0]).flat_map(move |a| (0..extent[1]).map(move |b| (a, b)))
}

fn line(cols: usize) -> Block {
    Block { rows: 1, cols, from_pitch: 0, from_step: 1, to_pitch: 0, to_step: 1 }
}

/// Samples, channels and, per axis, the sizes of a `[samples, channels, ...]` operand whose rows are neighbouring numbers.
pub fn planes(tensor: &Signature, name: &str) -> Result<(usize, usize), Why> {
    let (&[samples, channels, ..], 3..=5) = (tensor.sizes(), tensor.rank) else {
        return Err(format!("{name}: expected 3 to 5 dimensions, got {}", tensor.rank));
    };
    if tensor.dims[5] > 1 && tensor.strides[5] != 1 {
        return Err(format!("{name}: expected rows of neighbouring numbers, got stride {}", tensor.strides[5]));
    }
    Ok((samples, channels))
}

/// One channel of one sample: memory from its first element on, and the strides of its axes.
pub fn plane<'a, S: Copy>(view: &View<'a, S>, rank: usize, sample: usize, channel: usize) -> (&'a [S], [usize; 3]) {
    let axis = |from_first: usize| 6 - rank + from_first;
    let offset = sample * view.strides[axis(0)] + channel * view.strides[axis(1)];
    let mut strides = [0, 0, 1];
    // Axes that do not exist have one position, whatever stands in their place.
    let first = 5 - rank;
    strides[first..2].copy_from_slice(&view.strides[3 + first..5]);
    (&view.data[offset..], strides)
}

/// The geometry of a request whose tensors stand in the order input, kernel, output.
pub fn of(request: &Request<'_>, [input, kernel, output]: [&Signature; 3]) -> Result<Flat, Why> {
    if kernel.rank + 1 != input.rank || output.rank != input.rank {
        return Err(format!("kernel: expected one dimension fewer than {input}, got {kernel}"));
    }
    let sizes = [&input.sizes()[2..], &kernel.sizes()[1..], &output.sizes()[2..]];
    Polynomials::new(&request.settings, sizes).map(Flat)
}
