//! Filters of small real planes in the frequency domain, a plane per lane.
//!
//! Neighbouring planes are turned into lanes, so that every operation of a transform is one on whole vectors and any
//! length whose factors are small will do. Two rows are the real and the imaginary part of one complex row, columns go
//! there, through the filter and back while they are in the first cache, and nothing but planes touches memory.

use crate::butterfly::{Place, conjugate_product, product};
use crate::isa::Task;
use crate::stockham::{Line, Pass, Stage, stages};
use crate::wave::Wave;
use std::sync::Arc;
use striate_core::Accumulator;

/// Planes of one size.
pub struct Planes<A> {
    height: usize,
    width: usize,
    down: Arc<Vec<Stage<A>>>,
    across: Arc<Vec<Stage<A>>>,
}

impl<A: Accumulator> Planes<A> {
    /// Planes of a size that has transforms: 2 to 128 rows and columns without prime factors above 13.
    pub fn new(height: usize, width: usize) -> Option<Planes<A>> {
        Some(Planes { height, width, down: stages(height)?, across: stages(width)? })
    }

    /// Real numbers of half a spectrum.
    pub fn values(&self) -> usize {
        self.height * (self.width / 2 + 1) * 2
    }

    fn positions(&self) -> usize {
        self.height * self.width
    }

    /// Numbers of a spectrum with a plane per lane.
    pub fn spread<I: Wave<A>>(&self, _isa: I) -> usize {
        self.values().next_multiple_of(I::LANES) * I::LANES
    }

    /// Numbers of scratch memory for [`Planes::filter`] and [`Planes::correlate`].
    pub fn scratch<I: Wave<A>>(&self, isa: I) -> usize {
        let pixels = self.positions().next_multiple_of(I::LANES) * I::LANES;
        pixels + 2 * self.spread(isa) + 4 * 2 * self.height.max(self.width) * I::LANES
    }

    /// Spectra of at most `LANES` planes, one after the other, to lanes, times a factor, conjugated if asked.
    pub fn load<I: Wave<A>>(&self, isa: I, from: &[A], (factor, conjugate): (A, bool), to: &mut [A]) {
        assert!(from.len() <= self.values() * I::LANES && to.len() == self.spread(isa), "spectra of another size");
        isa.run(Turn { count: self.values(), from, to });
        let odd = if conjugate { A::default() - factor } else { factor };
        for (index, vector) in to.chunks_exact_mut(I::LANES).enumerate() {
            let factor = if index % 2 == 1 { odd } else { factor };
            vector.iter_mut().for_each(|value| *value = factor * *value);
        }
    }

    /// Spectra from lanes, times a factor and twice where half a spectrum stands for two; `from` is destroyed.
    pub fn store<I: Wave<A>>(&self, isa: I, from: &mut [A], factor: A, to: &mut [A]) {
        assert!(to.len() <= self.values() * I::LANES && from.len() == self.spread(isa), "spectra of another size");
        let half = self.width / 2 + 1;
        for (index, vector) in from.chunks_exact_mut(I::LANES).enumerate() {
            let column = index / 2 % half;
            let alone = column == 0 || 2 * column == self.width;
            let factor = if alone { factor } else { factor + factor };
            vector.iter_mut().for_each(|value| *value = factor * *value);
        }
        isa.run(TurnBack { count: self.values(), from, to });
    }

    /// At most `LANES` planes through the filter `by`, times `2 * height * width`.
    pub fn filter<I: Wave<A>>(&self, isa: I, from: &[A], by: &[A], to: &mut [A], scratch: &mut [A]) {
        let fits = from.len() == to.len() && from.len() <= self.positions() * I::LANES;
        assert!(fits && by.len() == self.spread(isa) && scratch.len() >= self.scratch(isa), "planes of another size");
        let (pixels, rest) = scratch.split_at_mut(self.positions().next_multiple_of(I::LANES) * I::LANES);
        isa.run(Turn { count: self.positions(), from, to: &mut *pixels });
        isa.run(Filter { planes: self, pixels: &mut *pixels, by, scratch: rest });
        isa.run(TurnBack { count: self.positions(), from: pixels, to });
    }

    /// Adds the conjugated spectra of some planes times those of others, each doubled, to `sum`.
    pub fn correlate<I: Wave<A>>(&self, isa: I, [x, y]: [&[A]; 2], sum: &mut [A], scratch: &mut [A]) {
        let fits = x.len() == y.len() && x.len() <= self.positions() * I::LANES;
        assert!(fits && sum.len() == self.spread(isa) && scratch.len() >= self.scratch(isa), "planes of another size");
        let (pixels, rest) = scratch.split_at_mut(self.positions().next_multiple_of(I::LANES) * I::LANES);
        let (first, rest) = rest.split_at_mut(self.spread(isa));
        let (second, lines) = rest.split_at_mut(self.spread(isa));
        for (from, spectrum) in [(x, &mut *first), (y, &mut *second)] {
            isa.run(Turn { count: self.positions(), from, to: &mut *pixels });
            isa.run(Across { planes: self, pixels: &mut *pixels, spectrum, lines: &mut *lines });
        }
        isa.run(Correlate { planes: self, first, second, sum, lines });
    }
}

/// Planes of `count` numbers each to lanes; lanes without a plane are zero.
struct Turn<'a, A> {
    count: usize,
    from: &'a [A],
    to: &'a mut [A],
}

impl<A: Accumulator, I: Wave<A>> Task<I> for Turn<'_, A> {
    type Out = ();
    #[inline(always)]
    fn call(self, isa: I) {
        let lanes = self.from.len() / self.count;
        for (index, square) in self.to.chunks_exact_mut(I::LANES * I::LANES).enumerate() {
            let (first, zero) = (index * I::LANES, isa.splat(A::default()));
            let mask = isa.mask(0, self.count - first);
            for (lane, row) in square.chunks_exact_mut(I::LANES).enumerate() {
                // SAFETY: the mask ends with the lane's plane, a row is a vector.
                unsafe {
                    let numbers = self.from.as_ptr().wrapping_add(lane * self.count + first);
                    isa.store(row.as_mut_ptr(), if lane < lanes { isa.load_masked(numbers, mask) } else { zero });
                }
            }
            // SAFETY: a square of lanes.
            unsafe { isa.transpose(square.as_mut_ptr()) };
        }
    }
}

/// Lanes to planes of `count` numbers each; `from` is destroyed.
struct TurnBack<'a, A> {
    count: usize,
    from: &'a mut [A],
    to: &'a mut [A],
}

impl<A: Accumulator, I: Wave<A>> Task<I> for TurnBack<'_, A> {
    type Out = ();
    #[inline(always)]
    fn call(self, isa: I) {
        let lanes = self.to.len() / self.count;
        for (index, square) in self.from.chunks_exact_mut(I::LANES * I::LANES).enumerate() {
            let first = index * I::LANES;
            let mask = isa.mask(0, self.count - first);
            // SAFETY: a square of lanes.
            unsafe { isa.transpose(square.as_mut_ptr()) };
            for (lane, row) in square.chunks_exact(I::LANES).take(lanes).enumerate() {
                // SAFETY: the mask ends with the lane's plane, a row is a vector.
                unsafe {
                    let to = self.to.as_mut_ptr().wrapping_add(lane * self.count + first);
                    isa.store_masked(to, isa.load(row.as_ptr()), mask);
                }
            }
        }
    }
}

/// Addresses inside slices whose lengths the safe functions of [`Planes`] have checked.
struct Memory<A> {
    pixels: *mut A,
    spectrum: *mut A,
    /// Four lines of complex vectors, as long as the longer side.
    lines: *mut A,
}

impl<A: Accumulator> Planes<A> {
    /// Two rows of pixels as one complex row; a row that is missing is the same row once more, to be ignored.
    #[inline(always)]
    fn rows<I: Wave<A>>(&self, memory: &Memory<A>, row: usize) -> Line<A> {
        let at = |row: usize| memory.pixels.wrapping_add(row.min(self.height - 1) * self.width * I::LANES);
        Line { at: Place { re: at(row), im: at(row + 1) }, step: I::LANES }
    }

    #[inline(always)]
    fn complex<I: Wave<A>>(at: *mut A, step: usize) -> Line<A> {
        Line { at: Place { re: at, im: at.wrapping_add(I::LANES) }, step: step * 2 * I::LANES }
    }

    #[inline(always)]
    fn line<I: Wave<A>>(&self, memory: &Memory<A>, which: usize) -> Line<A> {
        let each = self.height.max(self.width) * 2 * I::LANES;
        Self::complex::<I>(memory.lines.wrapping_add(which * each), 1)
    }

    /// A column of a spectrum.
    #[inline(always)]
    fn column<I: Wave<A>>(&self, spectrum: *mut A, column: usize) -> Line<A> {
        Self::complex::<I>(spectrum.wrapping_add(column * 2 * I::LANES), self.width / 2 + 1)
    }

    /// Rows to twice half their spectra.
    ///
    /// # Safety
    /// `memory` must hold what its fields say.
    #[inline(always)]
    unsafe fn there<I: Wave<A>>(&self, isa: I, memory: &Memory<A>) {
        let (half, whole) = (self.width / 2 + 1, self.line::<I>(memory, 2));
        for row in (0..self.height).step_by(2) {
            // SAFETY: rows of pixels and of the spectrum, and lines of the width, for which the caller vouches.
            unsafe {
                self.transform(isa, &self.across, self.rows::<I>(memory, row), whole, memory);
                let to = |row: usize| Self::complex::<I>(memory.spectrum.wrapping_add(row * half * 2 * I::LANES), 1);
                for k in 0..half {
                    let [z, y] = [k, (self.width - k) % self.width].map(|k| whole.place(k).load(isa));
                    to(row).place(k).store(isa, [isa.add(z[0], y[0]), isa.sub(z[1], y[1])]);
                    if row + 1 < self.height {
                        to(row + 1).place(k).store(isa, [isa.add(z[1], y[1]), isa.sub(y[0], z[0])]);
                    }
                }
            }
        }
    }

    /// Half spectra to rows.
    ///
    /// # Safety
    /// As for `there`.
    #[inline(always)]
    unsafe fn back<I: Wave<A>>(&self, isa: I, memory: &Memory<A>) {
        let (half, whole) = (self.width / 2 + 1, self.line::<I>(memory, 2));
        for row in (0..self.height).step_by(2) {
            // SAFETY: as above.
            unsafe {
                let of = |row: usize| {
                    let row = row.min(self.height - 1);
                    Self::complex::<I>(memory.spectrum.wrapping_add(row * half * 2 * I::LANES), 1)
                };
                for k in 0..half {
                    let [a, b] = [of(row), of(row + 1)].map(|line| line.place(k).load(isa));
                    if k == 0 || 2 * k == self.width {
                        whole.place(k).store(isa, [a[0], b[0]]);
                    } else {
                        whole.place(k).store(isa, [isa.sub(a[0], b[1]), isa.add(a[1], b[0])]);
                        whole.place(self.width - k).store(isa, [isa.add(a[0], b[1]), isa.sub(b[0], a[1])]);
                    }
                }
                let to = self.rows::<I>(memory, row).exchanged();
                self.transform(isa, &self.across, whole.exchanged(), to, memory);
            }
        }
    }

    /// A complex transform from one line to another.
    ///
    /// # Safety
    /// Both must hold as many numbers as the stages transform and lie apart, and `memory` its lines.
    #[inline(always)]
    unsafe fn transform<I: Wave<A>>(
        &self,
        isa: I,
        stages: &[Stage<A>],
        from: Line<A>,
        to: Line<A>,
        memory: &Memory<A>,
    ) {
        let mut from = from;
        for (index, stage) in stages.iter().enumerate() {
            let into = if index + 1 == stages.len() { to } else { self.line::<I>(memory, index % 2) };
            isa.run(Pass { stage, from, to: into });
            from = into;
        }
    }
}

struct Filter<'a, A> {
    planes: &'a Planes<A>,
    pixels: &'a mut [A],
    by: &'a [A],
    scratch: &'a mut [A],
}

impl<A: Accumulator, I: Wave<A>> Task<I> for Filter<'_, A> {
    type Out = ();
    #[inline(always)]
    fn call(self, isa: I) {
        let planes = self.planes;
        let (spectrum, lines) = self.scratch.split_at_mut(planes.spread(isa));
        let by = self.by.as_ptr().cast_mut(); // Only read.
        let memory =
            Memory { pixels: self.pixels.as_mut_ptr(), spectrum: spectrum.as_mut_ptr(), lines: lines.as_mut_ptr() };
        // SAFETY: `Planes::filter` has checked the lengths of all slices; columns lie inside spectra.
        unsafe {
            planes.there(isa, &memory);
            let line = planes.line::<I>(&memory, 2);
            for k in 0..planes.width / 2 + 1 {
                let (column, by) = (planes.column::<I>(memory.spectrum, k), planes.column::<I>(by, k));
                planes.transform(isa, &planes.down, column, line, &memory);
                for row in 0..planes.height {
                    let value = product(isa, by.place(row).load(isa), line.place(row).load(isa));
                    line.place(row).store(isa, value);
                }
                planes.transform(isa, &planes.down, line.exchanged(), column.exchanged(), &memory);
            }
            planes.back(isa, &memory);
        }
    }
}

/// Rows to half spectra alone.
struct Across<'a, A> {
    planes: &'a Planes<A>,
    pixels: &'a mut [A],
    spectrum: &'a mut [A],
    lines: &'a mut [A],
}

impl<A: Accumulator, I: Wave<A>> Task<I> for Across<'_, A> {
    type Out = ();
    #[inline(always)]
    fn call(self, isa: I) {
        let [pixels, spectrum, lines] = [self.pixels, self.spectrum, self.lines].map(|slice| slice.as_mut_ptr());
        // SAFETY: `Planes::correlate` has checked the lengths of all slices.
        unsafe { self.planes.there(isa, &Memory { pixels, spectrum, lines }) };
    }
}

struct Correlate<'a, A> {
    planes: &'a Planes<A>,
    first: &'a mut [A],
    second: &'a mut [A],
    sum: &'a mut [A],
    lines: &'a mut [A],
}

impl<A: Accumulator, I: Wave<A>> Task<I> for Correlate<'_, A> {
    type Out = ();
    #[inline(always)]
    fn call(self, isa: I) {
        let (planes, nowhere) = (self.planes, std::ptr::null_mut());
        let memory = Memory { pixels: nowhere, spectrum: nowhere, lines: self.lines.as_mut_ptr() };
        let [first, second, sum] = [self.first, self.second, self.sum].map(|slice| slice.as_mut_ptr());
        let [x, y] = [2, 3].map(|which| planes.line::<I>(&memory, which));
        // SAFETY: as above; lines are used, and pixels are not.
        unsafe {
            for k in 0..planes.width / 2 + 1 {
                planes.transform(isa, &planes.down, planes.column::<I>(first, k), x, &memory);
                planes.transform(isa, &planes.down, planes.column::<I>(second, k), y, &memory);
                let sum = planes.column::<I>(sum, k);
                for row in 0..planes.height {
                    let value = conjugate_product(isa, x.place(row).load(isa), y.place(row).load(isa));
                    let before = sum.place(row).load(isa);
                    sum.place(row).store(isa, [isa.add(before[0], value[0]), isa.add(before[1], value[1])]);
                }
            }
        }
    }
}
