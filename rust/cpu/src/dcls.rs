//! Kernels from elements at learned positions, and their gradients.
//!
//! Everything separates: the profile of an element on the grid is the outer product of one profile per axis, and the
//! sum over the grid that normalises it is the product of their sums. So an element costs one profile per axis and
//! one multiplication per grid point, and nothing of the size elements x grid exists. Sixteen filters are handled
//! side by side, one per lane: positions differ from filter to filter, so a grid row of one filter has nothing to
//! share, while the same grid point of sixteen filters is one vector operation.
//!
//! The gradients of an element are sums of upstream x products of profiles and their derivatives; they are
//! contracted axis by axis from the last, each row of the grid once per element.

pub(crate) mod gradient;
pub(crate) mod kernel;

use striate_core::spacings::{EPSILON, Profile};
use striate_core::{Request, Spacings};
use striate_simd::lanes::{Lane, Real, gather, map, zip};

/// The profile of one element of sixteen filters along the three axes, one after the other: values, derivatives by
/// position, derivatives by SIG.
struct Profiles<'a, A> {
    value: &'a mut [Lane<A>],
    position: &'a mut [Lane<A>],
    spread: &'a mut [Lane<A>],
    /// Of each axis the sums of the three.
    sums: [[Lane<A>; 3]; 3],
}

/// Lanes that the profiles of all axes need.
fn profile_lanes(spacings: &Spacings) -> usize {
    3 * spacings.size.iter().sum::<usize>()
}

impl<'a, A: Real> Profiles<'a, A> {
    fn new(spacings: &Spacings, scratch: &'a mut [Lane<A>]) -> Profiles<'a, A> {
        let (value, rest) = scratch.split_at_mut(profile_lanes(spacings) / 3);
        let (position, spread) = rest.split_at_mut(value.len());
        // An axis that is not there is one grid point, on which everything falls and nothing moves.
        value.fill([A::ONE; 16]);
        position.fill([A::ZERO; 16]);
        spread.fill([A::ZERO; 16]);
        let sums = [[[A::ONE; 16], [A::ZERO; 16], [A::ZERO; 16]]; 3];
        Profiles { value, position, spread, sums }
    }

    /// Fills in the profiles of one element of the filters from `first`; the derivatives only where `SLOPES`.
    #[inline(always)]
    fn fill<const SLOPES: bool>(
        &mut self,
        s: &Spacings,
        [p, sig]: [&[A]; 2],
        (first, live): (usize, usize),
        element: usize,
    ) {
        for row in 0..s.rank {
            let axis = s.axes[row];
            let from = (row * s.filters + first) * s.elements + element;
            let half = A::from_f64((s.size[axis] / 2) as f64);
            let centre = map(&gather(p, from, s.elements, live), |p| p + half);
            let sig = if s.spread { gather(sig, from, s.elements, live) } else { [A::ZERO; 16] };
            let base = A::from_f64(s.base);
            let sigma = map(&sig, |sig| sig.magnitude() + base);
            let sign = map(&sig, A::sign);
            let inverse = map(&sigma, |sigma| A::ONE / sigma);
            let start: usize = s.size[..axis].iter().sum();
            let mut sums = [[A::ZERO; 16]; 3];
            for t in 0..s.size[axis] {
                let at = A::from_f64(t as f64);
                let found = match s.profile {
                    Profile::Scatter => scatter(at, &centre),
                    Profile::Triangle => triangle(at, &centre, &sigma, &sign),
                    Profile::Gauss => gauss(at, &centre, &inverse, &sign),
                };
                sums[0] = zip(&sums[0], &found[0], |a, b| a + b);
                self.value[start + t] = found[0];
                if SLOPES {
                    sums[1] = zip(&sums[1], &found[1], |a, b| a + b);
                    sums[2] = zip(&sums[2], &found[2], |a, b| a + b);
                    [self.position[start + t], self.spread[start + t]] = [found[1], found[2]];
                }
            }
            self.sums[axis] = sums;
        }
    }

    /// What divides the weight: the sum over the grid, or one.
    #[inline(always)]
    fn total(&self, spacings: &Spacings) -> Lane<A> {
        if spacings.profile == Profile::Scatter {
            return [A::ONE; 16];
        }
        let epsilon = A::from_f64(EPSILON);
        let [a, b, c] = [0, 1, 2].map(|axis| &self.sums[axis][0]);
        map(&zip(&zip(a, b, |a, b| a * b), c, |a, b| a * b), |sum| sum + epsilon)
    }
}

#[inline(always)]
fn scatter<A: Real>(t: A, centre: &Lane<A>) -> [Lane<A>; 3] {
    let distance = map(centre, |c| t - c);
    // Between two grid points, the upper included, the weight moves from the lower to the upper.
    let above = map(&distance, |d| d.step() * (A::ONE - (d - A::ONE).step()));
    let below = map(&distance, |d| (d + A::ONE).step() * (A::ONE - d.step()));
    let near = zip(&above, &below, |a, b| a + b);
    let value = zip(&distance, &near, |d, near| near * (A::ONE - d.magnitude()));
    [value, zip(&above, &below, |a, b| a - b), [A::ZERO; 16]]
}

#[inline(always)]
fn triangle<A: Real>(t: A, centre: &Lane<A>, sigma: &Lane<A>, sign: &Lane<A>) -> [Lane<A>; 3] {
    let distance = map(centre, |c| t - c);
    let height = zip(&distance, sigma, |d, sigma| sigma - d.magnitude());
    let near = map(&height, A::step);
    let value = zip(&height, &near, |h, near| h * near);
    let position = zip(&distance, &near, |d, near| d.sign() * near);
    [value, position, zip(&near, sign, |near, sign| near * sign)]
}

#[inline(always)]
fn gauss<A: Real>(t: A, centre: &Lane<A>, inverse: &Lane<A>, sign: &Lane<A>) -> [Lane<A>; 3] {
    let half = A::from_f64(-0.5);
    let z = zip(centre, inverse, |c, inverse| (t - c) * inverse);
    let value = map(&z, |z| (half * z * z).exp());
    let scaled = zip(&zip(&value, inverse, |f, inverse| f * inverse), &z, |f, z| f * z);
    let spread = zip(&zip(&scaled, &z, |f, z| f * z), sign, |f, sign| f * sign);
    [value, scaled, spread]
}

/// Microseconds, from the number of multiplications per grid point.
fn work(request: &Request<'_>, first: usize, each: f64) -> f64 {
    Spacings::of(request, first).map_or(0.0, |s| {
        let element = s.volume() as f64 * each + 8.0 * profile_lanes(&s) as f64;
        s.filters as f64 * s.elements as f64 * element / 1e4
    })
}

/// Cuts an output of so many numbers per filter into blocks of sixteen filters.
fn bounds(filters: usize, each: usize) -> Vec<usize> {
    (0..=filters.div_ceil(16)).map(|block| (block * 16).min(filters) * each).collect()
}
