//! Profiles that reach no farther than the two grid points beside an element, of which only the corners around it are
//! touched: 2^d grid points per element instead of the whole grid. Sixteen elements of one filter are handled side by
//! side, because their parameters are neighbours in memory.

use super::{Block, Given};
use striate_core::Spacings;
use striate_core::spacings::{EPSILON, Profile};
use striate_simd::lanes::{LANES, Lane, Real, add_product, map, product, zip};
use striate_simd::{Maths, Simd, Task};

/// Whether the profiles of a request reach no farther.
pub fn suffice(s: &Spacings) -> bool {
    let near = s.profile == Profile::Scatter || s.profile == Profile::Triangle && !s.spread && s.base == 1.0;
    near && s.volume() < 1 << 23
}

/// Numbers of grid points.
type Points = [i32; LANES];

/// Two neighbouring grid points of one axis: their numbers, profiles and slopes, zero where they lie off the grid.
#[derive(Clone, Copy)]
struct Pair<A> {
    at: [Points; 2],
    value: [Lane<A>; 2],
    slope: [Lane<A>; 2],
}

impl<A: Real> Pair<A> {
    /// An axis that is not there: one grid point.
    const WHOLE: Pair<A> =
        Pair { at: [[0; LANES]; 2], value: [[A::ONE; LANES], [A::ZERO; LANES]], slope: [[A::ZERO; LANES]; 2] };

    /// Without a branch, so that sixteen elements are one vector.
    #[inline(always)]
    fn around(centre: &Lane<A>, size: usize, scatter: bool) -> Pair<A> {
        let mut made = Pair::<A>::WHOLE;
        let end = A::from_f64(size as f64);
        let low = map(centre, A::floor);
        for side in 0..2 {
            let point = map(&low, |low| if side == 0 { low } else { low + A::ONE });
            let inside = map(&point, |point| (point + A::ONE).step() * (end - point).step());
            let distance = zip(&point, centre, |point, centre| point - centre);
            for (at, (point, inside)) in made.at[side].iter_mut().zip(point.into_iter().zip(inside)) {
                *at = if inside > A::ZERO { point.index() } else { 0 };
            }
            let away = match (scatter, side) {
                (true, 0) => [-A::ONE; LANES],
                (true, _) => [A::ONE; LANES],
                _ => map(&distance, |d| d.sign() * (A::ONE - d.magnitude()).step()),
            };
            made.value[side] = zip(&distance, &inside, |d, inside| (A::ONE - d.magnitude()) * inside);
            made.slope[side] = zip(&away, &inside, |away, inside| away * inside);
        }
        made
    }

    #[inline(always)]
    fn sum(of: &[Lane<A>; 2]) -> Lane<A> {
        zip(&of[0], &of[1], |a, b| a + b)
    }
}

/// Up to sixteen neighbouring elements of one filter.
struct Elements<A> {
    axes: [Pair<A>; 3],
    /// Grid points touched along each axis: two where positions move, else one.
    reach: [usize; 3],
    /// What divides the weight.
    total: Lane<A>,
    weight: Lane<A>,
    live: usize,
}

impl<A: Real> Elements<A> {
    #[inline(always)]
    fn new(s: &Spacings, given: &Given<'_, A>, filter: usize, first: usize) -> Elements<A> {
        let live = (s.elements - first).min(LANES);
        let load = |from: &[A], row: usize| {
            let from = &from[(row * s.filters + filter) * s.elements + first..][..live];
            // A whole vector where there is one: a copy of some numbers is a call.
            from.first_chunk().copied().unwrap_or_else(|| {
                let mut lanes = [A::ZERO; LANES];
                lanes[..live].copy_from_slice(from);
                lanes
            })
        };
        let scatter = s.profile == Profile::Scatter;
        let (mut axes, mut reach) = ([Pair::WHOLE; 3], [1; 3]);
        for row in 0..s.rank {
            let (axis, size) = (s.axes[row], s.size[s.axes[row]]);
            let half = A::from_f64((size / 2) as f64);
            reach[axis] = 2;
            axes[axis] = Pair::around(&map(&load(given.moving[0], row), |p| p + half), size, scatter);
        }
        let mut total = [A::ONE; LANES];
        if !scatter {
            let [a, b, c] = [0, 1, 2].map(|axis| Pair::sum(&axes[axis].value));
            total = map(&zip(&zip(&a, &b, |a, b| a * b), &c, |a, b| a * b), |sum| sum + A::from_f64(EPSILON));
        }
        Elements { axes, reach, total, weight: load(given.weight, 0), live }
    }

    /// The sides of corner number `corner` below 8, if there is one.
    #[inline(always)]
    fn sides(&self, corner: usize) -> Option<[usize; 3]> {
        let sides = [corner >> 2 & 1, corner >> 1 & 1, corner & 1];
        (0..3).all(|axis| sides[axis] < self.reach[axis]).then_some(sides)
    }

    /// The grid points of a corner.
    #[inline(always)]
    fn points(&self, s: &Spacings, sides: [usize; 3]) -> Points {
        let [_, rows, columns] = s.size.map(|size| size as i32);
        let [a, b, c] = [0, 1, 2].map(|axis: usize| &self.axes[axis].at[sides[axis]]);
        let mut points = [0; LANES];
        for (lane, point) in points.iter_mut().enumerate() {
            *point = (a[lane] * rows + b[lane]) * columns + c[lane];
        }
        points
    }
}

/// Builds a block.
pub struct Build<'a, A>(pub Block<'a, A>);

impl<A: Real, I: Maths<A>> Task<I> for Build<'_, A> {
    type Out = ();
    #[inline(always)]
    fn call(self, isa: I) {
        let Block { spacings: s, given, first, out, .. } = self.0;
        out.fill(A::ZERO);
        for (filter, grid) in out.chunks_exact_mut(s.volume()).enumerate() {
            for element in (0..s.elements).step_by(LANES) {
                let elements = Elements::new(s, &given, first + filter, element);
                let scaled = zip(&elements.weight, &elements.total, |w, total| w / total);
                for corner in 0..8 {
                    let Some(sides) = elements.sides(corner) else { continue };
                    let mut share = scaled;
                    for (pair, side) in elements.axes.iter().zip(sides) {
                        share = product(isa, &share, &pair.value[side]);
                    }
                    for (point, share) in elements.points(s, sides).into_iter().zip(share).take(elements.live) {
                        grid[point as usize] += share;
                    }
                }
            }
        }
    }
}

/// Differentiates a block.
pub struct Differentiate<'a, A>(pub Block<'a, A>);

impl<A: Real, I: Maths<A>> Task<I> for Differentiate<'_, A> {
    type Out = ();
    #[inline(always)]
    fn call(self, isa: I) {
        let Block { spacings: s, given, first, out, .. } = self.0;
        for (filter, out) in out.chunks_exact_mut(s.gradients() * s.elements).enumerate() {
            let grid = &given.upstream[(first + filter) * s.volume()..][..s.volume()];
            for element in (0..s.elements).step_by(LANES) {
                let elements = Elements::new(s, &given, first + filter, element);
                let (mean, by) = elements.slopes(isa, s, grid);
                let mut write = |kind: usize, lanes: &Lane<A>| {
                    let to = &mut out[kind * s.elements + element..][..elements.live];
                    to.copy_from_slice(&lanes[..elements.live]);
                };
                write(0, &mean);
                for row in 0..s.rank {
                    let moved = zip(&elements.weight, &by[s.axes[row]], |w, t| w * t);
                    write(1 + row, &zip(&moved, &elements.total, |a, b| a / b));
                }
            }
        }
    }
}

impl<A: Real> Elements<A> {
    /// A / Z, and T - A / Z x the derivative of Z along every axis, with the names of `gradient`.
    #[inline(always)]
    fn slopes<I: Simd<A>>(&self, isa: I, s: &Spacings, grid: &[A]) -> (Lane<A>, [Lane<A>; 3]) {
        let mut sum = [A::ZERO; LANES];
        let mut by = [[A::ZERO; LANES]; 3];
        for corner in 0..8 {
            let Some(sides) = self.sides(corner) else { continue };
            let mut upstream = [A::ZERO; LANES];
            for (g, point) in upstream.iter_mut().zip(self.points(s, sides)) {
                *g = grid[point as usize];
            }
            let [a, b, c] = [0, 1, 2].map(|axis: usize| &self.axes[axis].value[sides[axis]]);
            let slope = [0, 1, 2].map(|axis: usize| &self.axes[axis].slope[sides[axis]]);
            let (last, plane) = (product(isa, &upstream, c), product(isa, a, b));
            let row = product(isa, &last, b);
            add_product(isa, &mut sum, &row, a);
            add_product(isa, &mut by[0], &row, slope[0]);
            add_product(isa, &mut by[1], &product(isa, &last, a), slope[1]);
            add_product(isa, &mut by[2], &product(isa, &upstream, &plane), slope[2]);
        }
        let mean = zip(&sum, &self.total, |a, b| a / b);
        if s.profile != Profile::Scatter {
            let value = [0, 1, 2].map(|axis: usize| Pair::sum(&self.axes[axis].value));
            for (axis, by) in by.iter_mut().enumerate() {
                let mut drift = zip(&mean, &Pair::sum(&self.axes[axis].slope), |a, b| a * b);
                for other in (0..3).filter(|&other| other != axis) {
                    drift = zip(&drift, &value[other], |a, b| a * b);
                }
                *by = zip(by, &drift, |a, b| a - b);
            }
        }
        (mean, by)
    }
}
