//! Profiles that reach no farther than the two grid points beside an element, of which only the corners around it are
//! touched: 2^d grid points per element instead of the whole grid. Sixteen elements of one filter are handled side by
//! side, because their parameters are neighbours in memory.

use super::{Block, Given};
use striate_core::Spacings;
use striate_core::spacings::{EPSILON, Profile};
use striate_simd::lanes::{LANES, Lane, Real, map, zip};
use striate_simd::{Maths, Task};

/// Whether the profiles of a request reach no farther.
pub fn suffice(s: &Spacings) -> bool {
    s.profile == Profile::Scatter || s.profile == Profile::Triangle && !s.spread && s.base == 1.0
}

/// Two neighbouring grid points of one axis: their numbers, profiles and slopes, zero where they lie off the grid.
#[derive(Clone, Copy)]
struct Pair<A> {
    at: [[usize; LANES]; 2],
    value: [Lane<A>; 2],
    slope: [Lane<A>; 2],
}

impl<A: Real> Pair<A> {
    /// An axis that is not there: one grid point.
    const WHOLE: Pair<A> =
        Pair { at: [[0; LANES]; 2], value: [[A::ONE; LANES], [A::ZERO; LANES]], slope: [[A::ZERO; LANES]; 2] };

    #[inline(always)]
    fn around(centre: &Lane<A>, size: usize, scatter: bool) -> Pair<A> {
        let mut made = Pair::<A>::WHOLE;
        for (lane, &centre) in centre.iter().enumerate() {
            let low = centre.to_f64().floor();
            for side in 0..2 {
                let point = low + side as f64;
                let on_grid = point >= 0.0 && point < size as f64;
                let inside = if on_grid { A::ONE } else { A::ZERO };
                let distance = A::from_f64(point) - centre;
                let kink = if scatter { A::ONE } else { (A::ONE - distance.magnitude()).step() };
                let away = match (scatter, side) {
                    (true, 0) => -A::ONE,
                    (true, _) => A::ONE,
                    _ => distance.sign() * kink,
                };
                made.at[side][lane] = if on_grid { point as usize } else { 0 };
                made.value[side][lane] = (A::ONE - distance.magnitude()) * inside;
                made.slope[side][lane] = away * inside;
            }
        }
        made
    }

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
            let mut lanes = [A::ZERO; LANES];
            lanes[..live].copy_from_slice(&from[(row * s.filters + filter) * s.elements + first..][..live]);
            lanes
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
    fn points(&self, s: &Spacings, sides: [usize; 3]) -> [usize; LANES] {
        let mut points = [0; LANES];
        for (lane, point) in points.iter_mut().enumerate() {
            let [a, b, c] = [0, 1, 2].map(|axis: usize| self.axes[axis].at[sides[axis]][lane]);
            *point = (a * s.size[1] + b) * s.size[2] + c;
        }
        points
    }
}

/// Builds a block.
pub struct Build<'a, A>(pub Block<'a, A>);

impl<A: Real, I: Maths<A>> Task<I> for Build<'_, A> {
    type Out = ();
    #[inline(always)]
    fn call(self, _isa: I) {
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
                        share = zip(&share, &pair.value[side], |a, b| a * b);
                    }
                    for (point, share) in elements.points(s, sides).into_iter().zip(share).take(elements.live) {
                        grid[point] += share;
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
    fn call(self, _isa: I) {
        let Block { spacings: s, given, first, out, .. } = self.0;
        for (filter, out) in out.chunks_exact_mut(s.gradients() * s.elements).enumerate() {
            let grid = &given.upstream[(first + filter) * s.volume()..][..s.volume()];
            for element in (0..s.elements).step_by(LANES) {
                let elements = Elements::new(s, &given, first + filter, element);
                let (mean, by) = elements.slopes(s, grid);
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
    fn slopes(&self, s: &Spacings, grid: &[A]) -> (Lane<A>, [Lane<A>; 3]) {
        let mut sum = [A::ZERO; LANES];
        let mut by = [[A::ZERO; LANES]; 3];
        for corner in 0..8 {
            let Some(sides) = self.sides(corner) else { continue };
            let mut upstream = [A::ZERO; LANES];
            for (g, point) in upstream.iter_mut().zip(self.points(s, sides)) {
                *g = grid[point];
            }
            let value = [0, 1, 2].map(|axis: usize| &self.axes[axis].value[sides[axis]]);
            let slope = [0, 1, 2].map(|axis: usize| &self.axes[axis].slope[sides[axis]]);
            for lane in 0..LANES {
                let [g, a, b, c] = [upstream[lane], value[0][lane], value[1][lane], value[2][lane]];
                sum[lane] += g * a * b * c;
                by[0][lane] += g * slope[0][lane] * b * c;
                by[1][lane] += g * a * slope[1][lane] * c;
                by[2][lane] += g * a * b * slope[2][lane];
            }
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
